"""The sizing filters that roles and inventories share."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st


def plugin(name: str) -> ModuleType:
    file = Path(__file__).resolve().parent.parent.parent / "plugins" / "filter" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"{name}_filters", file)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


filters, preflight = plugin("ispvm"), plugin("preflight")


@pytest.mark.parametrize(
    ("memory_mb", "routers", "interfaces", "seconds", "days", "hours"),
    [
        (4096, 6, 4, 5, 30, 24),  # the demo: never more than a day
        (4096, 6, 4, 5, 5, 12),  # retention decides: a tenth of it
        (8192, 300, 40, 30, 30, 24),
        (4096, 1000, 50, 10, 30, 8),  # memory decides
        (65536, 1000, 50, 10, 30, 24),
        (4096, 5000, 200, 5, 30, 1),  # never less than an hour
    ],
)
def test_chunk_hours(memory_mb: int, routers: int, interfaces: int, seconds: int, days: int, hours: int) -> None:
    assert filters.chunk_hours(memory_mb, routers, interfaces, seconds, days) == hours


@given(
    st.integers(1024, 1 << 20), st.integers(1, 10000), st.integers(1, 1000), st.integers(1, 600), st.integers(1, 3650)
)
def test_chunk_hours_keeps_the_quarter(memory_mb: int, routers: int, interfaces: int, seconds: int, days: int) -> None:
    hours = filters.chunk_hours(memory_mb, routers, interfaces, seconds, days)
    assert hours in filters.CHUNK_HOURS
    rows = routers * 3600 / seconds * filters.ROWS_PER_POLL * hours * filters.ACTIVE_CHUNKS
    assert hours == 1 or rows * max(filters.INDEX_BYTES_PER_ROW, interfaces) <= memory_mb * 1024 * 1024 / 4
    # a stronger host never gets shorter chunks
    assert filters.chunk_hours(memory_mb * 2, routers, interfaces, seconds, days) >= hours


@pytest.mark.parametrize("bad", [0, -1, "", None, "many"])
def test_chunk_hours_names_what_is_wrong(bad: object) -> None:
    with pytest.raises(ValueError, match=r"^routers is .*: give a number above 0$"):
        filters.chunk_hours(4096, bad, 50, 30)


@pytest.mark.parametrize(
    ("cores", "server", "worker"), [(1, 16, 4), (2, 16, 4), (8, 32, 8), (16, 64, 16), (64, 64, 16)]
)
def test_pools_follow_the_cores(cores: int, server: int, worker: int) -> None:
    assert filters.server_connections(cores) == server
    assert filters.worker_connections(cores) == worker


@pytest.mark.parametrize(
    ("address", "inside"),
    [("192.0.2.9", True), ("192.0.3.9", False), ("2001:db8::1", True), ("2001:db9::1", False)],
)
def test_within(address: str, inside: bool) -> None:
    assert filters.within(address, ["192.0.2.0/24", "2001:db8::/32"]) is inside


def test_within_names_the_wrong_network() -> None:
    with pytest.raises(ValueError, match=r"^'192\.0\.2\.1/24' is no network"):
        filters.within("192.0.2.9", ["192.0.2.1/24"])


@pytest.mark.parametrize(
    ("installed", "wanted", "said"),
    [
        ("1.3.2", "1.4.0", ""),
        ("1.4.0", "1.4.1", ""),
        ("1.4.0+0badcafe", "1.4.0", ""),
        ("1.4.0", "1.3.9", "1.4.0 is installed and 1.3.9 is older"),
        ("1.4.10", "1.4.9", "1.4.10 is installed and 1.4.9 is older"),
        ("1.1.0", "1.4.0", "upgrade to 1.2 first"),
        ("0.9.0", "1.4.0", "upgrade to 1.2 first"),
        ("abc", "1.4.0", "abc is no version"),
    ],
)
def test_only_promised_upgrades_are_taken(installed: str, wanted: str, said: str) -> None:
    fault = preflight.upgrade_fault(installed, wanted, ["1.2", "1.3", "1.4"])
    assert said in fault if said else fault == ""
