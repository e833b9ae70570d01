from __future__ import annotations

import re
import struct

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ispvm.store.columns import (
    DERIVED,
    HEARTBEAT_TYPES,
    RealArray,
    array_columns,
    columns,
    landing_types,
    pack_positions,
    register,
    table,
)
from ispvm.store.migrate import migrations
from ispvm_contract.registry import registry
from psycopg.types.array import ListDumper

_OWN = {"tenant_id", "device_id", "ts", "set_id", "interval_s", "quality", "source", "reset", "unique"}


def schema() -> dict[str, dict[str, str]]:
    """Landing tables as the migrations make them: table → column → type."""
    text = "\n".join(m.text for m in migrations())
    tables: dict[str, dict[str, str]] = {}
    for name, body in re.findall(r"create table (poll_\w+) \(\n(.*?)\n\);", text, re.DOTALL):
        fields = re.findall(r"^    (\w+) ([a-z]+(?:\[\])?)", re.sub(r"--.*", "", body), re.MULTILINE)
        tables[name] = {column: kind for column, kind in fields if column not in _OWN}
    for name, column, kind in re.findall(r"alter table (poll_\w+) add column (\w+) ([a-z]+(?:\[\])?)", text):
        tables[name][column] = kind
    return tables


def test_every_metric_of_the_registry_has_its_column_and_no_other_is_there() -> None:
    expected = {
        table(kind): {c.name: c.kind + ("[]" if array_columns(kind) else "") for c in columns(kind).values()}
        for kind in landing_types()
    }
    assert schema() == expected


def test_only_derived_and_heartbeat_metrics_have_no_column() -> None:
    stored = {name for kind in registry().entity_types for name in columns(kind)}
    elsewhere = {m.name for m in registry().metrics.values() if m.entity_type in HEARTBEAT_TYPES} | DERIVED
    assert stored | elsewhere == set(registry().metrics)
    assert not stored & elsewhere


@pytest.mark.parametrize(
    ("metric", "value", "reason"),
    [
        ("interface.rx_bps", True, "not a number"),
        ("interface.rx_bps", float("nan"), "not a finite number"),
        ("interface.rx_bps", 1e39, "not a finite number"),
        ("interface.oper_up", 1, "not true or false"),
        ("interface.rx_bytes_total", 1.5, "not a 64-bit whole number"),
        ("interface.rx_bytes_total", 1 << 63, "not a 64-bit whole number"),
        ("interface.rx_bytes_total", float("inf"), "not a 64-bit whole number"),
    ],
)
def test_a_wrong_value_is_named(metric: str, value: float, reason: str) -> None:
    with pytest.raises(ValueError, match=f"value 1 is .*{reason}"):
        columns("interface")[metric].pack([None, value])


@pytest.mark.parametrize("code", [-1, 6])
def test_an_enum_takes_only_its_codes(code: int) -> None:
    with pytest.raises(ValueError, match="a code from 0 to 5"):
        columns("bgp_peer")["bgp.peer.state"].pack([code])


@given(st.lists(st.none() | st.integers(-(1 << 63), (1 << 63) - 1), min_size=1))
def test_whole_numbers_are_packed_as_postgresql_reads_them(values: list[int | None]) -> None:
    packed = columns("interface")["interface.rx_bytes_total"].pack(values)
    dims, nulls, oid, count, bound = struct.unpack_from(">5i", packed)
    assert (dims, nulls, oid, count, bound) == (1, None in values, 20, len(values), 1)
    at, read = 20, []
    while at < len(packed):
        (length,) = struct.unpack_from(">i", packed, at)
        read.append(None if length < 0 else struct.unpack_from(">q", packed, at + 4)[0])
        at += 4 + max(length, 0)
    assert read == values


def test_positions_are_a_smallint_array() -> None:
    assert struct.unpack(">5iihih", pack_positions([3, 7])) == (1, 0, 21, 2, 1, 2, 3, 2, 7)


def test_psycopg_sends_packed_arrays_as_they_are() -> None:
    adapters = psycopg.adapt.AdaptersMap(psycopg.adapters)
    register(adapters)
    dumper = adapters.get_dumper(RealArray, psycopg.adapt.PyFormat.AUTO)
    assert dumper.oid == 1021
    assert dumper is not ListDumper
    assert dumper(RealArray).dump(RealArray(b"x")) == b"x"
