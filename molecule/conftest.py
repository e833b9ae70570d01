"""Testinfra reaches a scenario's hosts over SSH, as Ansible does."""

from __future__ import annotations

from pathlib import Path

import pytest
import testinfra
import yaml
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
