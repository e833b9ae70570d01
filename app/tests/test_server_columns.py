from __future__ import annotations

import math
import re
import struct

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ispvm.store.columns import (
    DERIVED,
    HEARTBEAT_TYPES,
    PackedArray,
    RealArray,
    array_columns,
    array_parameter,
    arrays_parameter,
    columns,
    landing_types,
    register,
    table,
)
from ispvm.store.migrate import migrations
from ispvm_contract.ingest import Value
from ispvm_contract.packed import pack, unpack
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


KINDS = {
    "interface.rx_bps": ("f", 700, st.none() | st.floats(-(2.0**100), 2.0**100, width=32)),
    "interface.rx_bytes_total": ("q", 20, st.none() | st.integers(1 - (1 << 63), (1 << 63) - 1)),
    "interface.oper_up": ("?", 16, st.none() | st.booleans()),
}


def read_array(metric: str, body: bytes) -> list[object]:
    """What array_recv makes of it."""
    letter, oid, _ = KINDS[metric]
    dims, nulls, found_oid, count, bound = struct.unpack_from(">5i", body)
    at, read = 20, []
    while at < len(body):
        (size,) = struct.unpack_from(">i", body, at)
        at += 4
        read.append(None if size < 0 else struct.unpack_from(f">{letter}", body, at)[0])
        at += max(size, 0)
    assert (dims, nulls, found_oid, count, bound) == (1, None in read, oid, len(read), 1)
    return read


@given(st.data(), st.sampled_from(sorted(KINDS)))
def test_packed_values_become_the_arrays_that_postgresql_reads(data: st.DataObject, metric: str) -> None:
    rows: list[list[Value] | None] = data.draw(st.lists(st.none() | st.lists(KINDS[metric][2])))
    column = columns("interface")[metric]
    numbers = column.numbers(b"".join(pack(column.kind, row) for row in rows if row is not None))
    assert not column.wrong(numbers).any()
    body = arrays_parameter(column.kind, numbers, [None if row is None else len(row) for row in rows])
    assert struct.unpack_from(">5i", body) == (1, 1, 0, len(rows), 1)
    at = 20
    read: list[list[object] | None] = []
    for _ in rows:
        (size,) = struct.unpack_from(">i", body, at)
        at += 4
        if size < 0:
            read.append(None)
            continue
        fields, oid, inner = struct.unpack_from(">iIi", body, at)
        assert (fields, oid, inner) == (1, {"f": 1021, "q": 1016, "?": 1000}[KINDS[metric][0]], size - 12)
        read.append(read_array(metric, body[at + 12 : at + size]))
        at += size
    assert at == len(body)
    assert read == rows
    assert read_array(metric, array_parameter(column.kind, numbers)) == [v for row in rows for v in row or ()]


@pytest.mark.parametrize(
    ("metric", "values", "wrong"),
    [
        ("interface.rx_bps", struct.pack("<4f", 1, math.inf, -math.inf, math.nan), [1, 2]),
        ("interface.rx_bytes_total", struct.pack("<2q", -(1 << 63), (1 << 63) - 1), []),
        ("interface.oper_up", bytes([0, 1, 2, 127, 128, 255]), [2, 3, 5]),
        ("bgp.peer.state", struct.pack("<5h", -(1 << 15), -1, 0, 5, 6), [1, 4]),
    ],
)
def test_packed_values_that_are_not_allowed_are_found(metric: str, values: bytes, wrong: list[int]) -> None:
    column = columns(registry().metrics[metric].entity_type)[metric]
    assert column.wrong(column.numbers(values)).nonzero()[0].tolist() == wrong
    for at, value in enumerate(unpack(column.kind, values)):
        if at in wrong:
            with pytest.raises(ValueError, match="value 0 is"):
                column.check([value])
        else:
            column.check([value])


def test_psycopg_sends_packed_arrays_as_they_are() -> None:
    adapters = psycopg.adapt.AdaptersMap(psycopg.adapters)
    register(adapters)
    for kind, oid in ((PackedArray, 0), (RealArray, 1021)):
        dumper = adapters.get_dumper(kind, psycopg.adapt.PyFormat.AUTO)
        assert dumper.oid == oid
        assert dumper is not ListDumper
        assert dumper(kind).dump(kind(b"x")) == b"x"
