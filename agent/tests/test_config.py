"""agent.toml: defaults, and one line per fault that names the field and the fix."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ispvm_agent import config
from ispvm_contract.identity import device_id

MINIMAL = """
schema_version = 1
[agent]
name = "pop-north"
tenant = "demo"
[server]
url = "https://10.89.77.10"
[[router]]
name = "CORE-NTH-1"
site = "north"
address = "10.89.77.101"
user = "ispvm"
credential = "routers"
"""


def faults(text: str) -> list[str]:
    with pytest.raises(config.ConfigError) as caught:
        config.parse(text)
    return caught.value.faults


def test_defaults() -> None:
    found = config.parse(MINIMAL)
    assert (found.polling.fast_seconds, found.polling.medium_seconds, found.polling.slow_seconds) == (30, 60, 300)
    assert (found.spool.max_megabytes, found.spool.max_age_hours) == (2048, 168)
    (router,) = found.routers
    assert (router.port, router.tls) == (8729, "ca")
    assert found.device_id(router) == device_id("demo", "CORE-NTH-1")


def test_id_keeps_history_across_a_rename() -> None:
    known = "7c274596-3550-5122-8d28-a812beb29387"
    found = config.parse(MINIMAL + f'id = "{known}"\n')
    assert found.device_id(found.routers[0]) == UUID(known)


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("schema_version = 1", "", "schema_version: must be 1, is None; write schema_version = 1"),
        ('name = "pop-north"\n', "", "agent.name: missing; add it"),
        ('name = "pop-north"', "name = 5", "agent.name: Expected `str`, got `int`; got 5"),
        ("https://", "http://", "server.url: 'http://10.89.77.10' must begin with https:// and name a host"),
        ('user = "ispvm"', 'user = "ispvm"\nport = 0', "router[CORE-NTH-1].port: Expected `int` >= 1; got 0"),
        ('user = "ispvm"', 'user = "ispvm"\ntls = "no"', "router[CORE-NTH-1].tls: Invalid enum value 'no'; got 'no'"),
        ("10.89.77.101", "core.example", "router[CORE-NTH-1].address: 'core.example' is not an IP address"),
        ('credential = "routers"', 'credential = "../x"', "router[CORE-NTH-1].credential: '../x'; use only letters"),
        ("[server]", "[server]\ntimeout = 3", "server.timeout: unknown; use one of url, ca_file"),
        ("[[router]]", "[extra]\n[[router]]", "extra: unknown; use one of schema_version"),
        ('user = "ispvm"', 'user = "ispvm"\ntls = "pin"', 'router[CORE-NTH-1].fingerprint_sha256: tls = "pin" needs'),
        ('user = "ispvm"', 'user = "ispvm"\ntls = "off"\nca_file = "/x"', 'router[CORE-NTH-1].ca_file: only used with'),
        ("[server]", "[polling]\nmedium_seconds = 10\n[server]", "polling.medium_seconds: must lie between"),
        ('user = "ispvm"', 'user = "ispvm"\nid = "x"', "router[CORE-NTH-1].id: Invalid UUID; got 'x'"),
        ("schema_version = 1", "schema_version = ", "file: not TOML"),
    ],
)  # fmt: skip
def test_faults_name_field_and_fix(old: str, new: str, fault: str) -> None:
    assert old in MINIMAL
    assert any(line.startswith(fault) for line in faults(MINIMAL.replace(old, new)))


def test_a_password_is_refused_and_not_repeated() -> None:
    lines = faults(MINIMAL + 'password = "hunter2"\n')
    assert lines == [
        "router[CORE-NTH-1].password: secrets do not belong into this file; remove it and store the secret with "
        "`ispvm-agent credential set NAME` or `ispvm-agent token ensure`"
    ]
    assert faults(MINIMAL.replace("[server]", '[server]\ntoken = "hunter2"'))[0].startswith("server.token: secrets")


def test_all_faults_at_once() -> None:
    text = MINIMAL.replace('tenant = "demo"\n', "").replace('site = "north"\n', "").replace("https", "ftp")
    assert [line.partition(":")[0] for line in faults(text)] == [
        "agent.tenant",
        "server.url",
        "router[CORE-NTH-1].site",
    ]


def test_no_routers_and_repeated_routers() -> None:
    assert any(line.startswith("router: none given") for line in faults(MINIMAL.partition("[[router]]")[0]))
    twice = MINIMAL + MINIMAL[MINIMAL.index("[[router]]") :]
    assert [line.partition(":")[0] for line in faults(twice)] == ["router[CORE-NTH-1].name", "router"]


def test_unreadable_file(tmp_path: Path) -> None:
    with pytest.raises(config.ConfigError, match="check the path"):
        config.load(tmp_path / "missing.toml")
    (tmp_path / "latin.toml").write_bytes(b"name = '\xfc'")
    with pytest.raises(config.ConfigError, match="UTF-8"):
        config.load(tmp_path / "latin.toml")


@settings(deadline=None)
@given(st.text(max_size=80), st.sampled_from(["agent", "server", "polling", "spool", "router"]))
def test_any_value_gives_a_config_or_faults(value: str, table: str) -> None:
    quoted = '"' + "".join(c for c in value if c.isalnum()) + '"'
    with pytest.raises(config.ConfigError):
        config.parse(MINIMAL + f"\n[x]\n{table} = {quoted}\n")
    with pytest.raises(config.ConfigError):
        config.parse(f"schema_version = 1\n{table} = {quoted}\n")
