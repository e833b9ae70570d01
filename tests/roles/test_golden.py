"""The tuned files of hosts of four sizes, rendered by the roles' own templates, against the golden ones.

After a wanted change: `ansible-playbook -i tests/roles/hosts.yml tests/roles/render.yml`, then read the diff.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
GOLDEN = HERE / "golden"
FILES = sorted(path.name for path in GOLDEN.iterdir())
MEGABYTES = {"4gb": 4096, "8gb": 8192, "24gb": 24576, "64gb": 65536}


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    into = tmp_path_factory.mktemp("rendered")
    program = Path(sys.executable).with_name("ansible-playbook")
    done = subprocess.run(
        [program, "-i", HERE / "hosts.yml", HERE / "render.yml", "-e", f"into={into}"],
        cwd=ROOT, env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return into


def settings(text: str) -> dict[str, str]:
    """Name → value of a PostgreSQL configuration file."""
    found = re.findall(r"^(\w+) = '?([^'#]*?)'? *(?:#.*)?$", text, re.MULTILINE)
    return dict(found)


def megabytes(value: str) -> int:
    return int(value.removesuffix("MB"))


@pytest.mark.parametrize("name", FILES)
def test_rendered_as_the_golden_file(rendered: Path, name: str) -> None:
    assert (rendered / name).read_text() == (GOLDEN / name).read_text()


def test_every_size_has_both_files_and_every_edition_its_own() -> None:
    sizes = {f"{size}.{name}" for size in MEGABYTES for name in ("50-ispvm.conf", "pgbouncer.ini")}
    assert sizes | {f"{edition}.60-timescaledb.conf" for edition in ("apache", "community")} == set(FILES)


def test_an_edition_has_its_own_licence_and_its_jobs_fit_into_the_processes() -> None:
    assert "timescaledb.license" not in (GOLDEN / "apache.60-timescaledb.conf").read_text()
    community = (GOLDEN / "community.60-timescaledb.conf").read_text()
    assert "timescaledb.license = 'timescale'" in community
    workers = re.findall(r"^timescaledb.max_background_workers = (\d+)", community, re.MULTILINE)
    for size in MEGABYTES:
        most = settings((GOLDEN / f"{size}.50-ispvm.conf").read_text())["max_worker_processes"]
        assert [int(n) < int(most) for n in workers] == [True], size


@pytest.mark.parametrize("size", MEGABYTES)
def test_pools_fit_into_max_connections(size: str) -> None:
    granted = int(settings((GOLDEN / f"{size}.50-ispvm.conf").read_text())["max_connections"])
    pools = re.findall(r"pool_size=(\d+) reserve_pool_size=(\d+)", (GOLDEN / f"{size}.pgbouncer.ini").read_text())
    assert len(pools) == 2
    assert 0 < sum(int(plain) + int(reserve) for plain, reserve in pools) <= granted - 15


@pytest.mark.parametrize(("size", "memory"), MEGABYTES.items())
def test_all_of_it_at_once_fits_into_memory(size: str, memory: int) -> None:
    conf = settings((GOLDEN / f"{size}.50-ispvm.conf").read_text())
    sorting = int(conf["max_connections"]) * megabytes(conf["work_mem"])
    vacuum = int(conf["autovacuum_max_workers"]) * megabytes(conf["autovacuum_work_mem"])
    assert (
        megabytes(conf["shared_buffers"]) + sorting + vacuum + megabytes(conf["maintenance_work_mem"]) <= memory * 0.75
    )


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith("50-ispvm.conf")])
def test_every_setting_says_from_what_and_why(name: str) -> None:
    lines = [line for line in (GOLDEN / name).read_text().splitlines() if line and not line.startswith("#")]
    assert len(lines) > 30
    silent = [line for line in lines if not re.search(r"# .+ -> .+", line)]
    assert silent == []
