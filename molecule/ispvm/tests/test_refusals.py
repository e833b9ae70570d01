"""Preflight refuses each fault with one sentence, and touches nothing."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import yaml
from testinfra.host import Host

ROOT = Path(__file__).resolve().parents[3]
ROUTER = {"name": "R1", "site": "a", "address": "192.0.2.1", "tls": "pin", "fingerprint_sha256": "0" * 64}
AS_I686 = '#!/bin/sh\\nexec setarch i686 /usr/bin/python3 "$@"\\n'


def preflight(**variables: object) -> subprocess.CompletedProcess[str]:
    command = [
        "ansible-playbook", "--inventory", str(ROOT / "molecule/shared/inventory"),
        "--inventory", str(ROOT / "molecule/ispvm/inventory"), str(ROOT / "playbooks/preflight.yml"),
        "--extra-vars", yaml.safe_dump(variables, default_flow_style=True, width=10_000),
    ]  # fmt: skip
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=ROOT)


def assert_refused(done: subprocess.CompletedProcess[str], sentence: str) -> None:
    said = " ".join(done.stdout.split())
    assert done.returncode != 0, said[-2000:]
    assert sentence in said, said[-3000:]


def test_a_sound_inventory_passes() -> None:
    done = preflight()
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"ispvm_sed": "demo_small"}, "Nothing reads ispvm_sed: did you mean ispvm_seed?"),
        ({"postgresql_memory_bm": 1}, "Nothing reads postgresql_memory_bm: did you mean postgresql_memory_mb?"),
        ({"_ispvm_renamed": {"ispvm_ntp": "ispvm_ntp_servers"}, "ispvm_ntp": ["a"]},
         "ispvm_ntp is now called ispvm_ntp_servers."),
        ({"ispvm_environment": "prod"}, "ispvm_environment is 'prod': set it to production, lab or demo."),
        ({"ispvm_environment": "production", "ispvm_seed": "demo_small"}, "demo data never goes into production"),
        ({"ispvm_tenant": "North Net"}, "ispvm_tenant is 'North Net'"),
        ({"ispvm_public_name": ""}, "ispvm_public_name is empty"),
        ({"ispvm_maintenance_window": "at night"}, "ispvm_maintenance_window is 'at night'"),
        ({"ispvm_poll_seconds": 1}, "routers are polled every 5 to 300 seconds"),
        ({"ispvm_poll_seconds": "soon"}, "ispvm_poll_seconds"),
        ({"ispvm_tls_certificate": "/etc/x.crt"}, "ispvm_tls_certificate and ispvm_tls_key go together"),
        ({"ispvm_routers": [{"name": "R1", "site": "a"}]}, "ispvm_routers[0].address is missing."),
        ({"ispvm_routers": [{"name": "R1", "site": "a", "address": "192.0.2.1", "password": "x"}]},
         "passwords do not belong in an inventory"),
        ({"ispvm_routers": [{"name": "R1", "site": "a", "address": "192.0.2.1", "tls": "pin"}]},
         "tls: pin needs the 64 hex digits"),
        ({"ispvm_routers": [ROUTER] * 2},
         "R1 stands twice"),
        ({"ispvm_minimum_memory_mb": 9_999_999}, "give it at least 9999999 MB"),
        ({"ispvm_minimum_disk_gb": 9_999_999}, "make room for at least 9999999 GB"),
    ],
)  # fmt: skip
def test_a_fault_is_refused_in_one_sentence(variables: dict[str, object], sentence: str) -> None:
    assert_refused(preflight(**variables), sentence)


def test_an_unsynchronised_clock_is_refused(host: Host) -> None:
    """The clock of a test host is never synchronised by itself: systemd says so, and preflight must believe it."""
    assert host.check_output("timedatectl show --property=NTPSynchronized --value") == "no"
    assert_refused(preflight(ispvm_require_synchronised_clock=True), "The clock of m-ispvm is not synchronised")


def test_another_debian_is_refused(host: Host) -> None:
    host.check_output("cp --dereference /etc/os-release /root/os-release.true && cp /etc/debian_version /root/")
    host.check_output("rm /etc/os-release; printf 'ID=debian\\nNAME=Debian\\nVERSION_ID=\"12\"\\n' > /etc/os-release")
    host.check_output("echo 12.11 > /etc/debian_version")
    try:
        assert_refused(preflight(), "m-ispvm runs Debian 12.11: install Debian 13 (trixie).")
    finally:
        host.check_output("cp /root/os-release.true /etc/os-release; cp /root/debian_version /etc/debian_version")


def test_another_architecture_is_refused(host: Host) -> None:
    """The kernel's own personality for 32 bit makes it claim a 32 bit processor."""
    host.check_output(f"printf '{AS_I686}' > /root/python-i686 && chmod 0755 /root/python-i686")
    done = preflight(ansible_python_interpreter="/root/python-i686")
    assert_refused(done, "m-ispvm is i386: the appliance needs x86_64 (amd64).")


def test_nothing_was_touched(host: Host) -> None:
    assert not host.file("/etc/ispvm").exists
    assert not host.file("/opt/ispvm").exists
    assert not host.package("postgresql-17").is_installed


@pytest.mark.parametrize(
    ("installed", "sentence"),
    [("99.0.0", "99.0.0 is installed and"), ("0.0.7", "cannot become"), ("soon", "soon is no version")],
)
def test_a_step_that_the_matrix_does_not_promise_is_refused(host: Host, installed: str, sentence: str) -> None:
    fact = "/etc/ansible/facts.d/ispvm.fact"
    host.check_output(f'mkdir -p /etc/ansible/facts.d && echo \'{{"version": "{installed}"}}\' > {fact}')
    try:
        assert_refused(preflight(), sentence)
    finally:
        host.check_output(f"rm {fact}")
