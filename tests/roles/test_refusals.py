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
PLAYBOOK = """
- hosts: all
  gather_facts: false
  connection: local
  tasks:
    - include_role: {name: "{{ role }}", tasks_from: preflight.yml, rolespec_validate: false}
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


@pytest.mark.parametrize(
    ("role", "variables", "sentence"), CASES, ids=lambda value: value if isinstance(value, str) else ""
)
def test_refused(tmp_path: Path, role: str, variables: dict[str, Any], sentence: str) -> None:
    (tmp_path / "refuse.yml").write_text(PLAYBOOK)
    program = Path(sys.executable).with_name("ansible-playbook")
    done = subprocess.run(
        [program, "-i", "localhost,", tmp_path / "refuse.yml", "-e", f"ansible_python_interpreter={sys.executable}",
         "-e", json.dumps({"role": role, **variables})],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "SSH_CLIENT": "198.51.100.7 50000 22"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stdout + done.stderr
    assert sentence in re.sub(r"\s+", " ", done.stdout + done.stderr)
