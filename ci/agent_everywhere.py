#!/usr/bin/env python3
"""Run the agent of a bundle on amd64 and, by emulation, on arm64, as its one file and as its container image, until
each has polled every emulated router of the demo several times.

The one file runs in the root of the bundle's own image, so Python is Debian 13's and no package is fetched; the image
runs as it is, under podman. Routers listen on the loopback of a network namespace without any other interface, so what
was polled stays in the agent's spool, which is where it is counted.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import images
import msgspec
import testhost
import zstandard
from ispvm_contract import ingest

ROOT = Path(__file__).resolve().parent.parent
EMULATOR = "/usr/bin/qemu-aarch64-static"
NAME = "ispvm-agent-everywhere"
PORTS = 18000
POLLS, SECONDS = 3, 600  # emulation takes its time, on a loaded machine more of it
# what an agent has on a host, below a directory of ours and inside of its root
PLACES = {"etc": "etc/ispvm-agent", "credentials": "run/credentials", "state": "var/lib/ispvm-agent"}


def settings(home: Path, lab: Path, devices: list[dict[str, str]]) -> None:
    """An agent's configuration for these routers, its passwords as systemd would hand them over, an empty spool."""
    for name in PLACES:
        (home / name).mkdir(parents=True)
    shutil.copyfile(lab / "router-password", home / "credentials/ispvm-agent.router.routers")
    (home / "credentials/ispvm-agent.server-token").write_text("0" * 64)
    text = """schema_version = 1
[agent]
name = "anywhere"
tenant = "demo"
[server]
url = "https://127.0.0.1"
[polling]
fast_seconds = 2
medium_seconds = 4
slow_seconds = 10
"""
    for number, device in enumerate(devices):
        text += f"""[[router]]
name = "{device["name"]}"
site = "{device["site"]}"
address = "127.0.0.1"
port = {PORTS + 2 * number}
user = "ispvm"
tls = "off"
credential = "routers"
"""
    (home / "etc/agent.toml").write_text(text)
    for path in (home, *home.rglob("*")):
        os.chown(path, images.USER, images.USER)


@contextmanager
def one_file(bundle: Path, architecture: str, home: Path) -> Iterator[Callable[[], str]]:
    """The agent's one file runs, in a root of Debian 13 for this processor; yields what tells its log."""
    root = home / "root"
    root.mkdir()
    (system, _) = images.read(bundle / f"agent/ispvm-agent-{architecture}.oci.tar")[1]  # without our wheels
    subprocess.run(["tar", "-C", root, "-x"], input=system, check=True)
    shutil.copyfile(bundle / "agent/ispvm-agent.pex", root / "ispvm-agent.pex")
    for name, inside in PLACES.items():
        (root / inside).mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "--bind", home / name, root / inside], check=True)
    environment = {"CREDENTIALS_DIRECTORY": "/run/credentials", "PEX_ROOT": "/var/lib/ispvm-agent/pex"}
    chroot = ["/usr/sbin/chroot", f"--userspec={images.USER}:{images.USER}", str(root)]
    command = [*chroot, "/usr/bin/python3", "/ispvm-agent.pex", "run"]
    try:
        log = home / "log"
        with log.open("w") as said, subprocess.Popen(command, env=environment, stderr=said) as agent:
            try:
                yield log.read_text
            finally:
                agent.terminate()
    finally:
        for inside in PLACES.values():
            subprocess.run(["umount", root / inside], check=True)


@contextmanager
def image(bundle: Path, architecture: str, home: Path) -> Iterator[Callable[[], str]]:
    """The agent's image runs; yields what tells its log."""
    loaded = images.load(bundle, "agent", architecture)
    volumes = [f"--volume={home / name}:/{inside}" for name, inside in PLACES.items()]
    options = ["--network=host", "--read-only", "--cap-drop=all", "--env=CREDENTIALS_DIRECTORY=/run/credentials"]
    try:
        testhost.podman("run", "--detach", f"--name={NAME}", *testhost.limits(), *options, *volumes, loaded, "run")
        yield lambda: testhost.podman("logs", NAME)
    finally:
        testhost.podman("rm", "--force", "--time=10", NAME)
        testhost.podman("rmi", loaded)


def polled(state: Path) -> Counter[str]:
    """How often each router was polled, by what lies in an agent's spool."""
    seen = set()
    with suppress(sqlite3.OperationalError):  # the agent has not made it yet
        with closing(sqlite3.connect(f"file:{state}/spool.sqlite3?mode=ro", uri=True, timeout=5)) as spool:
            bodies = spool.execute("select body from batch").fetchall()
        for (body,) in bodies:
            batch = msgspec.msgpack.decode(zstandard.decompress(body), type=ingest.Batch)
            seen |= {(str(poll.device), poll.ts) for poll in batch.polls if poll.entity_type == "interface"}
    return Counter(device for device, _ in seen)


def emulate(register: bool) -> None:
    """Let the kernel hand arm64 programs to the emulator, or no longer."""
    directory = Path("/proc/sys/fs/binfmt_misc")
    if not (directory / "register").exists():
        subprocess.run(["mount", "-t", "binfmt_misc", "none", directory], check=True)
    entry = directory / "ispvm-arm64"
    if entry.exists():
        entry.write_text("-1")
    if register:
        magic = r"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"
        mask = r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff"
        (directory / "register").write_text(f":ispvm-arm64:M::{magic}:{mask}:{EMULATOR}:F")


def listening() -> bool:
    """Whether the emulated routers have come up."""
    last = f"sport = :{PORTS}"
    return subprocess.run(["ss", "-Hltn", last], capture_output=True, check=True).stdout != b""


def main() -> None:
    """Emulate the routers, let the agent poll them in each form on each processor, say what was read."""
    parser = argparse.ArgumentParser(prog="agent_everywhere.py", description="Run the agent in every form it has.")
    parser.add_argument("bundle", type=Path, help="an unpacked bundle")
    bundle = parser.parse_args().bundle.resolve()
    if not Path(EMULATOR).exists():
        raise testhost.TesthostError("needs the package qemu-user-static")
    if os.environ.get("ISPVM_ALONE") != "yes":  # again, in namespaces: a loopback and nothing else, mounts of its own
        testhost.holder()
        alone = ["unshare", "--net", "--mount", "sh", "-euc", 'ip link set lo up; exec "$@"', "sh"]
        command = [*alone, sys.executable, *sys.argv]
        sys.exit(subprocess.run(command, env={**os.environ, "ISPVM_ALONE": "yes"}, check=False).returncode)
    seed = ROOT / "seeds/demo_small.json"
    devices = json.loads(seed.read_text())["devices"]
    with tempfile.TemporaryDirectory() as scratch:
        Path(scratch).chmod(0o755)
        lab = Path(scratch) / "lab"
        environment = {**os.environ, "PYTHONPATH": f"{ROOT}/contract:{ROOT}/lab"}
        serve: list[str | Path] = [sys.executable, "-m", "ispvm_lab", "serve", "--seed", seed, "--state", lab,
                   "--listen-override", f"127.0.0.1:{PORTS}"]  # fmt: skip
        with subprocess.Popen(serve, env=environment) as routers:
            try:
                testhost.wait_for(listening, 60, "the emulated routers did not come up")
                emulate(register=True)
                for architecture in ("amd64", "arm64"):
                    for form in (one_file, image):
                        home = Path(scratch) / f"{architecture}-{form.__name__}"
                        settings(home, lab, devices)
                        started = time.monotonic()

                        def enough(state: Path = home / "state") -> bool:
                            counted = polled(state)
                            return len(counted) == len(devices) and min(counted.values()) >= POLLS

                        what = f"{architecture}, {form.__name__}"
                        with form(bundle, architecture, home) as log:
                            try:
                                testhost.wait_for(enough, SECONDS, f"{what}: not {POLLS} polls of every router")
                            except testhost.TesthostError as error:
                                raise testhost.TesthostError(f"{error}\n{log()[-2000:]}") from None
                        counted = polled(home / "state")
                        print(
                            f"{what}: {len(counted)} routers, {counted.total()} polls, at least {min(counted.values())}"
                            f" of each, in {time.monotonic() - started:.0f} s",
                            flush=True,
                        )
            finally:
                emulate(register=False)
                routers.terminate()


if __name__ == "__main__":
    try:
        main()
    except testhost.TesthostError as error:
        sys.exit(f"agent_everywhere: {error}")
