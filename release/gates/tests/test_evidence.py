"""The evidence of the statements in SBOM/vex.toml: each is true as long as its test passes."""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def test_the_server_s_dsns_are_unix_sockets_without_a_service() -> None:
    defaults = (ROOT / "roles/server/defaults/main.yml").read_text()
    dsns = re.findall(r"^server_(?:\w+_)?dsn: (.+)$", defaults, re.MULTILINE)
    assert len(dsns) == 3
    for dsn in dsns:
        assert dsn.startswith("host=/run/"), dsn
        assert "service" not in dsn
        assert "ldap" not in dsn
    units = "".join(path.read_text() for path in (ROOT / "roles/server/templates").glob("*.j2"))
    assert "PGSERVICE" not in units
    code = "".join(path.read_text() for path in (ROOT / "app/ispvm").rglob("*.py"))
    assert "PGSERVICE" not in code
    assert "ldap" not in code.lower()


def test_psycopg_s_locked_wheels_carry_no_sasl_plugin() -> None:
    """The installed wheel is the locked version; SASL plugins are named after their mechanism, in a folder sasl2."""
    locked = re.search(r"^psycopg-binary==([\d.]+)", (ROOT / "requirements/server.txt").read_text(), re.MULTILINE)
    assert locked is not None
    distribution = importlib.metadata.distribution("psycopg-binary")
    assert distribution.version == locked[1]
    names = [str(path) for path in distribution.files or []]
    assert any("libsasl2-" in name for name in names)
    assert not [name for name in names if re.search(r"sasl2/|lib(sql|sasldb|plain|gssapiv2|scram)\b", name)]
