"""The emulated routers of a seed, as a unit."""

from __future__ import annotations

import re

import pytest
from testinfra.host import Host

ADDRESSES = ["192.0.2.11", "192.0.2.12"]
STATE = "/var/lib/ispvm-lab"
# one TLS handshake that trusts the lab's authority only
HANDSHAKE = """
import socket, ssl, sys
context = ssl.create_default_context(cafile='/var/lib/ispvm-lab/routers-ca.crt')
with socket.create_connection((sys.argv[1], 8729), 5) as plain:
    print(context.wrap_socket(plain, server_hostname=sys.argv[1]).version())
"""


def addresses(host: Host) -> list[str]:
    """The routers' addresses that the host has."""
    shown = host.check_output("ip -4 -o address show dev eth0")
    return [address for address in ADDRESSES if f" {address}/32 " in shown]


def test_the_routers_answer_on_their_own_addresses(host: Host) -> None:
    assert host.service("ispvm-lab").is_enabled
    assert addresses(host) == ADDRESSES
    for address in ADDRESSES:
        for port in (8728, 8729):
            assert host.socket(f"tcp://{address}:{port}").is_listening


@pytest.mark.parametrize("address", ADDRESSES)
def test_a_router_shows_a_certificate_of_the_labs_authority(host: Host, address: str) -> None:
    assert host.check_output("python3 -c %s %s", HANDSHAKE, address).startswith("TLSv1.")


def test_what_the_agents_role_reads_is_there_and_the_password_is_the_labs_own(host: Host) -> None:
    assert "BEGIN CERTIFICATE" in host.file(f"{STATE}/routers-ca.crt").content_string
    password = host.file(f"{STATE}/router-password")
    assert (password.user, password.mode) == ("ispvm-lab", 0o600)
    assert len(password.content_string.strip()) >= 16


def test_addresses_go_with_the_unit_and_come_back(host: Host) -> None:
    host.check_output("systemctl stop ispvm-lab-addresses")
    assert addresses(host) == []
    assert not host.service("ispvm-lab").is_running
    host.check_output("systemctl start ispvm-lab")
    assert addresses(host) == ADDRESSES
    # the host's own address is not the lab's business
    assert host.check_output("ip -4 -o address show dev eth0").count("10.89.77.37/24") == 1


def test_password_and_authority_survive_a_restart(host: Host) -> None:
    kept = f"cat {STATE}/router-password {STATE}/routers-ca.crt | sha256sum"
    before = host.check_output(kept)
    host.check_output("systemctl restart ispvm-lab")
    assert host.check_output(kept) == before


def test_an_operator_sees_the_routers(host: Host) -> None:
    assert "CORE-NTH-1" in host.check_output("ispvm-lab status")


def test_the_unit_is_hardened(host: Host) -> None:
    said = host.check_output("systemd-analyze security --no-pager ispvm-lab.service")
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", said)
    assert found is not None
    assert float(found[1]) <= 1.5, found[0]


def test_killed_routers_come_back(host: Host) -> None:
    before = host.check_output("systemctl show --property=MainPID --value ispvm-lab")
    host.check_output(f"kill -KILL {before}")
    comes_back = (
        f'[ "$(systemctl show --property=MainPID --value ispvm-lab)" != {before} ]'
        " && systemctl is-active --quiet ispvm-lab"
    )
    host.check_output(f"timeout 20 sh -c 'until {comes_back}; do sleep 0.1; done'")
    assert host.socket(f"tcp://{ADDRESSES[0]}:8729").is_listening
