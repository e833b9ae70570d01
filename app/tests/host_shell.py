"""The integration tests' host from its inside: what must be done there as root or as PostgreSQL's superuser."""

from __future__ import annotations

import os
import shlex
import subprocess

import pytest


def on_host(*argv: str, stdin: str | None = None, check: bool = True) -> str:
    """Run a command on the host as root; what it printed."""
    try:
        ssh = os.environ["ISPVM_TEST_SSH"]
    except KeyError:
        pytest.fail("ISPVM_TEST_SSH is not set; `make test-integration` makes the host and sets it", pytrace=False)
    done = subprocess.run(
        [*shlex.split(ssh), shlex.join(argv)], input=stdin, capture_output=True, text=True, check=False
    )
    assert not check or done.returncode == 0, f"{argv[:4]}: {done.stderr[-1000:]}"
    return done.stdout


def superuser(statements: str, database: str = "postgres") -> str:
    """Run SQL as the superuser; the rows, unaligned."""
    psql = ("psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", database)
    return on_host("runuser", "-u", "postgres", "--", *psql, stdin=statements).strip()
