"""Packed columns: what one side packs the other reads, to the bit that the contract names."""

from __future__ import annotations

import struct
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ispvm_contract.ingest import Agent, Batch, Poll, Value
from ispvm_contract.packed import FORMATS, length, pack, packed, unpack
from ispvm_contract.registry import Kind, registry

VALUES: dict[Kind, st.SearchStrategy[Value]] = {
    "real": st.none() | st.floats(width=32, allow_nan=False) | st.integers(-1000, 1000),
    "bigint": st.none() | st.integers(1 - (1 << 63), (1 << 63) - 1),
    "smallint": st.none() | st.integers(0, (1 << 15) - 1),
    "boolean": st.none() | st.booleans(),
}
ID = UUID(int=1)


@given(st.data(), st.sampled_from(sorted(FORMATS)))
def test_what_is_packed_is_read_back(data: st.DataObject, kind: Kind) -> None:
    values = data.draw(st.lists(VALUES[kind]))
    column = pack(kind, values)
    assert len(column) == len(values) * FORMATS[kind][1]
    assert unpack(kind, column) == values


@pytest.mark.parametrize(
    ("kind", "values", "sent"),
    [
        ("real", [1.5, 0, -2], "0000c03f 00000000 000000c0"),
        ("bigint", [1, None, (1 << 62) + 1], "0100000000000000 0000000000000080 0100000000000040"),
        ("smallint", [5, None], "0500 0080"),
        ("boolean", [True, False, None], "01 00 80"),
    ],
)
def test_the_bytes_never_change(kind: Kind, values: list[Value], sent: str) -> None:
    assert pack(kind, values) == bytes.fromhex(sent)


def test_an_absent_real_is_any_nan() -> None:
    assert unpack("real", pack("real", [None]) + struct.pack("<I", 0x7F800001)) == [None, None]


def test_a_flag_or_code_that_does_not_exist_stays_what_it_is() -> None:
    assert unpack("boolean", bytes([2, 255])) == [2, 255]
    assert unpack("smallint", struct.pack("<h", -1)) == [-1]


def test_a_column_that_does_not_fit_travels_as_a_list() -> None:
    columns = {
        "interface.rx_bps": [1.0, None],
        "interface.rx_bytes_total": [1.5, 2],
        "interface.tx_bytes_total": [1 << 63, 2],
        "interface.oper_up": ["up", True],
        "interface.colour": [1, 2],
    }
    batch = Batch(1, ID, 0, Agent("a", "1"), polls=[Poll(ID, 0, "interface", {**columns}, "0" * 16)])  # type: ignore[dict-item]
    (poll,) = packed(batch).polls
    assert poll.columns == {**columns, "interface.rx_bps": pack("real", [1.0, None])}
    assert batch.polls[0].columns == columns
    assert packed(packed(batch)) == packed(batch)


def test_single_values_of_a_device_stay_as_they_are() -> None:
    batch = Batch(1, ID, 0, Agent("a", "1"), polls=[Poll(ID, 0, "device", {"device.cpu_pct": [1.0]})])
    assert packed(batch) == batch


def test_values_are_counted_in_either_form() -> None:
    for name, metric in registry().metrics.items():
        values: list[Value] = [None] * 7
        assert length(name, values) == length(name, pack(metric.kind, values)) == 7
    assert length("interface.colour", bytes(16)) == 2
