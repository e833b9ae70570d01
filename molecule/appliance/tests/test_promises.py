"""What the compatibility matrix calls tested on the appliance is what runs here, version by version."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest
from ispvm_contract.compatibility import Cell, compatibility
from testinfra.host import Host

PROMISED = [cell for cell in compatibility().cells if cell.evidence == "molecule/appliance"]
PYTHON = "import platform; print(platform.python_version())"
FOUND: dict[str, Callable[[Host], str]] = {
    "debian": lambda host: host.check_output("cut -d. -f1 /etc/debian_version"),
    "architecture": lambda host: host.check_output("uname -m"),
    "python": lambda host: host.check_output("/opt/ispvm/current/server/bin/python -c %s", PYTHON),
    "postgresql": lambda host: host.check_output("dpkg-query -W -f '${Version}' postgresql-17"),
    "timescaledb": lambda host: host.check_output("dpkg-query -W -f '${Version}' postgresql-17-timescaledb"),
    "pgbouncer": lambda host: host.check_output("dpkg-query -W -f '${Version}' pgbouncer"),
}


@pytest.mark.parametrize("cell", PROMISED, ids=lambda cell: f"{cell.part} {cell.version}")
def test_the_promised_version_is_the_one_that_runs(appliance: Host, cell: Cell) -> None:
    assert cell.fact
    for name, promised in cell.fact.items():
        found = FOUND[name](appliance)
        assert found == promised or found.startswith((f"{promised}.", f"{promised}-", f"{promised}+")), (
            f"{name}: {found}"
        )


def test_the_server_tells_the_matrix_and_takes_its_agent(api: httpx.Client) -> None:
    told = api.get("/api/v1/compatibility").json()
    assert told["matrix"]["server"] == compatibility().server
    assert [agent["problem"] for agent in told["agents"]] == [None]
