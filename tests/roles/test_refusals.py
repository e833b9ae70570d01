"""What the roles refuse before anything is touched, each with a sentence that says what to do."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
# every case is a host; all are asked in one run
PLAYBOOK = """
- hosts: all
  gather_facts: false
  tasks:
    - block:
        - include_role: {name: "{{ role }}", tasks_from: preflight.yml, rolespec_validate: false}
          vars: {ansible_facts: "{{ facts }}"}
      rescue:
        - copy: {content: "{{ ansible_failed_result.msg }}", dest: "{{ inventory_dir }}/{{ inventory_hostname }}.said"}
"""
DEBIAN_13 = {
    "distribution": "Debian",
    "distribution_major_version": "13",
    "distribution_version": "13.2",
    "ansible_local": {},
}
CASES: list[tuple[str, dict[str, Any], str]] = [
    (
        "base",
        {"ansible_facts": {**DEBIAN_13, "distribution_major_version": "12", "distribution_version": "12.9"}},
        "localhost runs Debian 12.9; install Debian 13 (trixie).",
    ),
    (
        "base",
        {
            "ansible_facts": {**DEBIAN_13, "ansible_local": {"ispvm": {"environment": "production"}}},
            "base_environment": "demo",
        },
        "localhost is a production host and base_environment says demo",
    ),
    (
        "base",
        {"ansible_facts": DEBIAN_13, "base_admin_networks": ["192.0.2.0/24"]},
        "You are logged in from 198.51.100.7, which is not in base_admin_networks (192.0.2.0/24)",
    ),
    (
        "base",
        {"ansible_facts": DEBIAN_13, "base_admin_networks": ["198.51.100.7/24"]},
        "'198.51.100.7/24' is no network",
    ),
    (
        "postgresql",
        {"postgresql_memory_mb": 512, "postgresql_cores": 2, "postgresql_disk_gb": 20},
        "memory (512 MB) is at least 1024 MB",
    ),
    (
        "postgresql",
        {"postgresql_memory_mb": 4096, "postgresql_cores": 2, "postgresql_disk_gb": 20, "postgresql_owner": "nobody"},
        "postgresql_owner (nobody) is one of postgresql_roles",
    ),
    (
        "timescaledb",
        {"timescaledb_memory_mb": 4096, "timescaledb_edition": "community", "ansible_facts": {"packages": {}}},
        "give the vendor's apt source, or your mirror of it, in timescaledb_apt_source",
    ),
    (
        "timescaledb",
        {"timescaledb_memory_mb": 4096, "ansible_facts": {"packages": {"timescaledb-2-postgresql-17": []}}},
        "compressed data the Apache edition cannot read",
    ),
    (
        "timescaledb",
        {"timescaledb_memory_mb": 4096, "timescaledb_routers": 0, "ansible_facts": {"packages": {}}},
        "routers is 0: give a number above 0",
    ),
    (
        "pgbouncer",
        {"pgbouncer_max_connections": 20},
        "The pools may open 26 connections (ispvm 16 + 4, ispvm_worker 4 + 2) and PostgreSQL leaves them 20",
    ),
]


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with what each case was told, in a file by the case's number."""
    directory = tmp_path_factory.mktemp("refusals")
    hosts: dict[str, Any] = {}
    for number, (role, variables, _) in enumerate(CASES):
        others = {name: value for name, value in variables.items() if name != "ansible_facts"}
        hosts[f"case{number}"] = {"role": role, "facts": variables.get("ansible_facts", {}), **others}
    connection = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    (directory / "hosts.json").write_text(json.dumps({"all": {"hosts": hosts, "vars": connection}}))
    (directory / "refuse.yml").write_text(PLAYBOOK)
    program = Path(sys.executable).with_name("ansible-playbook")
    done = subprocess.run(
        [program, "-i", directory / "hosts.json", directory / "refuse.yml"],
        cwd=ROOT,
        env={
            **os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_ANY_ERRORS_FATAL": "false",
            "SSH_CLIENT": "198.51.100.7 50000 22",
        },
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return directory


@pytest.mark.parametrize("number", range(len(CASES)), ids=[f"{role}: {sentence[:40]}" for role, _, sentence in CASES])
def test_refused(said: Path, number: int) -> None:
    file = said / f"case{number}.said"
    assert file.exists(), "not refused"
    assert CASES[number][2].replace("localhost", f"case{number}") in re.sub(r"\s+", " ", file.read_text())
