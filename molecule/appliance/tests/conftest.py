"""A signed-in browser and API client against the appliance."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterator

import httpx
import pytest
from testinfra.host import Host

URL = "https://10.89.77.44"
ROUTERS = 6


def wait_until(what: str, condition: Callable[[], object], seconds: float = 60) -> None:
    """Wait for a condition; fail with its name after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.25)


def login_link(host: Host) -> str:
    """A fresh one-time link."""
    out: str = host.check_output("runuser -u ispvm-owner -- /opt/ispvm/current/server/bin/ispvm login-link")
    return out.splitlines()[-1]


def sql(host: Host, query: str) -> str:
    """One value, asked as the superuser over the socket."""
    out: str = host.check_output("runuser -u postgres -- psql -XAtqd ispvm -c %s", query)
    return out.strip()


@pytest.fixture(scope="package")
def appliance(hosts: dict[str, Host]) -> Host:
    """The appliance's host."""
    return hosts["m-appliance"]


@pytest.fixture(scope="package")
def lab(hosts: dict[str, Host]) -> Host:
    """The host of the emulated routers."""
    return hosts["m-appliance-lab"]


@pytest.fixture(scope="package")
def api(appliance: Host) -> Iterator[httpx.Client]:
    """A signed-in client that trusts the appliance's own CA and nothing else."""
    trust = ssl.create_default_context(cadata=appliance.file("/etc/ispvm/tls/ca.crt").content_string)
    with httpx.Client(base_url=URL, verify=trust, headers={"Origin": URL}, timeout=10) as client:
        assert client.post(login_link(appliance)).status_code == 303
        yield client
