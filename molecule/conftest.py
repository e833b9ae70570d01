"""Testinfra reaches a scenario's hosts over SSH, as Ansible does."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import pytest
import testinfra
import yaml
from testinfra.backend.base import CommandResult
from testinfra.host import Host

STATE = Path(__file__).resolve().parent.parent / ".cache" / "testhost"


def scenario_hosts(directory: Path) -> dict[str, str]:
    """Name → address of the scenario's test hosts."""
    inventory = yaml.safe_load((directory / "inventory" / "hosts.yml").read_text())
    return {name: variables["ansible_host"] for name, variables in inventory["all"]["hosts"].items()}


@pytest.fixture(scope="package")
def hosts(request: pytest.FixtureRequest) -> dict[str, Host]:
    """All test hosts of the scenario by name."""
    directory = Path(request.path).parent.parent
    return {
        name: testinfra.get_host(
            f"ssh://root@{address}",
            ssh_identity_file=str(STATE / "id_ed25519"),
            ssh_extra_args=f"-o UserKnownHostsFile={STATE / 'known_hosts'} -o BatchMode=yes -o LogLevel=ERROR",
        )
        for name, address in scenario_hosts(directory).items()
    }


@pytest.fixture(scope="package")
def host(hosts: dict[str, Host]) -> Host:
    """The scenario's first host; most scenarios have one."""
    return next(iter(hosts.values()))


class Sql(Protocol):
    """Runs SQL on the host as an operating system user; returns what psql said."""

    def __call__(
        self, query: str, *, user: str = ..., role: str = ..., database: str = ..., socket: str = ..., port: int = ...
    ) -> CommandResult: ...


@pytest.fixture(scope="package")
def sql(host: Host) -> Sql:
    """psql over the Unix socket, PostgreSQL's by default."""

    def run(
        query: str,
        *,
        user: str = "postgres",
        role: str = "postgres",
        database: str = "ispvm",
        socket: str = "/run/postgresql",
        port: int = 5432,
    ) -> CommandResult:
        return host.run(
            "runuser -u %s -- psql -X -q -At -v ON_ERROR_STOP=1 -h %s -p %s -U %s -d %s -c %s",
            user, socket, str(port), role, database, query,
        )  # fmt: skip

    return run
