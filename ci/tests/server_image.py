"""The server's image of a bundle (ISPVM_BUNDLE) against the database that the roles install: `make server-image`.

Every container runs without a network, as nobody's user, read-only and without capabilities: the database is reached
over its sockets, the server over its own.
"""

from __future__ import annotations

import os
import re
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

import images
import testhost

pytestmark = pytest.mark.integration
NAME = "ispvm-server-image"
BUNDLE = Path(os.environ["ISPVM_BUNDLE"]).resolve()
CONFINED = ["--network=none", "--read-only", "--cap-drop=all", "--security-opt=no-new-privileges"]


@pytest.fixture(scope="module")
def image() -> Iterator[str]:
    """The image as podman has loaded it."""
    name = images.load(BUNDLE, "server", "amd64")
    yield name
    testhost.podman("rm", "--force", "--time=10", "--ignore", NAME)
    testhost.podman("rmi", name)


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Settings, a place for the server's socket, and the database's sockets, open to the user of the image."""
    home = tmp_path_factory.mktemp("image")
    home.chmod(0o755)
    run = home / "run"
    run.mkdir(mode=0o755)
    os.chown(run, images.USER, images.USER)
    ends = {role: os.environ[f"ISPVM_TEST_DSN_{role}"] for role in ("SERVER", "WORKER", "OWNER")}
    sockets = Path(re.search(r"host=(\S+)", ends["SERVER"])[1])  # type: ignore[index]
    sockets.chmod(0o755)
    for end in sockets.iterdir():
        end.chmod(0o666)
    inside = {role: dsn.replace(str(sockets), "/run/database") for role, dsn in ends.items()}
    (home / "server.toml").write_text(f"""schema_version = 1
environment = "demo"
public_url = "https://monitor.example.net"
[database]
dsn = "{inside["SERVER"]}"
worker_dsn = "{inside["WORKER"]}"
owner_dsn = "{inside["OWNER"]}"
pool_size = 2
""")
    (home / "bad.toml").write_text("schema_version = 1\nenvironment = 'somewhere'\n")
    return [f"--volume={home}:/etc/ispvm:ro", f"--volume={run}:/run/ispvm", f"--volume={sockets}:/run/database"]


def run(image: str, volumes: list[str], *command: str, detach: bool = False) -> str:
    """Run the image; what it printed."""
    how = ["--detach", f"--name={NAME}"] if detach else ["--rm"]
    return testhost.podman("run", *how, *CONFINED, *testhost.limits(), *volumes, image, *command)


def test_it_judges_a_configuration(image: str, volumes: list[str]) -> None:
    run(image, volumes, "check-config", "/etc/ispvm/server.toml")
    with pytest.raises(testhost.TesthostError, match="environment"):
        run(image, volumes, "check-config", "/etc/ispvm/bad.toml")


def test_it_migrates_the_database_and_serves(image: str, volumes: list[str]) -> None:
    assert run(image, volumes, "migrate").splitlines()[-1] in ("changed", "unchanged")
    assert run(image, volumes, "migrate").splitlines()[-1] == "unchanged"
    run(image, volumes, "serve", detach=True)
    address = Path(volumes[1].removeprefix("--volume=").partition(":")[0]) / "server.sock"

    def accepts() -> bool:
        with socket.socket(socket.AF_UNIX) as end:
            return end.connect_ex(str(address)) == 0

    try:
        testhost.wait_for(accepts, 60, "the server did not come up")
    except testhost.TesthostError as error:
        pytest.fail(f"{error}: {testhost.podman('logs', NAME)}")
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(address)), base_url="http://server") as browser:
        assert browser.get("/healthz").status_code == 200
        ready = browser.get("/readyz")
        assert ready.status_code == 200, ready.text
        assert browser.get("/api/v1/devices").status_code == 401
    assert testhost.podman("exec", NAME, "/usr/bin/python3", "-c", "import os; print(os.getuid())").strip() == "65532"
