"""Packed columns: the values of one metric as bytes, so that neither side builds an object per value.

A column is packed as its metric's kind (`registry.py`) says: values one after another without a header, little-endian.

| kind | each value | absent |
|---|---|---|
| real | IEEE 754, 4 bytes | NaN |
| bigint | signed, 8 bytes | -2^63 |
| smallint | signed, 2 bytes: the code of a state | -32768 |
| boolean | 1 byte: 0 or 1 | 128 |

In JSON the bytes are base64. A column that does not fit (a value of another type, a metric that is not in this side's
registry) travels as a list, and the server says what is wrong with it.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from contextlib import suppress
from functools import cache, lru_cache
from math import nan

import msgspec

from ispvm_contract.ingest import Batch, Column, Poll, Value
from ispvm_contract.registry import Kind, registry

# Letter in `struct`, bytes a value, and what stands for an absent one.
FORMATS: dict[Kind, tuple[str, int, float | int]] = {
    "real": ("f", 4, nan),
    "bigint": ("q", 8, -(1 << 63)),
    "smallint": ("h", 2, -(1 << 15)),
    "boolean": ("B", 1, 128),
}
_WIDEST = 8


@cache
def _kinds() -> dict[str, Kind]:
    return {name: metric.kind for name, metric in registry().metrics.items()}


@lru_cache(maxsize=4096)
def _cells(letter: str, count: int) -> struct.Struct:
    return struct.Struct(f"<{count}{letter}")


def pack(kind: Kind, values: Sequence[Value]) -> bytes:
    """Values as a packed column; raises struct.error or OverflowError when one is not of this kind."""
    letter, _, absent = FORMATS[kind]
    cells = _cells(letter, len(values))
    try:
        return cells.pack(*values)
    except struct.error:
        return cells.pack(*(absent if value is None else value for value in values))


def unpack(kind: Kind, column: bytes) -> list[Value]:
    """The values of a packed column, which holds a whole number of them; a flag that does not exist stays a number."""
    letter, width, absent = FORMATS[kind]
    cells = _cells(letter, len(column) // width).unpack(column)
    if kind == "real":
        return [None if v != v else v for v in cells]
    if kind == "boolean":
        return [None if v == absent else bool(v) if v < 2 else v for v in cells]
    return [None if v == absent else v for v in cells]


def packed(batch: Batch) -> Batch:
    """The batch with its columns packed where they can be; a poll of a device itself has single values, which stay."""
    return msgspec.structs.replace(batch, polls=[_packed(poll) for poll in batch.polls])


def _packed(poll: Poll) -> Poll:
    if poll.set is None:
        return poll
    columns: dict[str, Column] = {}
    kinds = _kinds()
    for name, column in poll.columns.items():
        columns[name] = column
        if name in kinds and not isinstance(column, bytes):
            with suppress(struct.error, OverflowError):
                columns[name] = pack(kinds[name], column)
    return msgspec.structs.replace(poll, columns=columns)


def length(name: str, column: Column) -> int:
    """How many values a column holds; of a packed metric that is not in the registry, at least so many."""
    if not isinstance(column, bytes):
        return len(column)
    kind = _kinds().get(name)
    return len(column) // (FORMATS[kind][1] if kind else _WIDEST)
