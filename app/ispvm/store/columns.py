"""The registry as database columns: which table and column a metric lives in, and how its values are packed.

The values of a column of a whole batch are checked, and brought into PostgreSQL's binary form, by a few steps of numpy;
only their arrays' heads are made one by one. An array a row would be an array of arrays, which PostgreSQL does not
have: between them stand the types packed_KIND of the schema, each with one array in it.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import accumulate
from math import isfinite
from typing import Any
from uuid import UUID

import numpy as np
from ispvm_contract.ingest import Value
from ispvm_contract.packed import FORMATS, pack
from ispvm_contract.registry import Kind, Metric, registry
from numpy.typing import NDArray
from psycopg import adapters, pq
from psycopg.abc import AdaptContext
from psycopg.adapt import AdaptersMap, Dumper

from ispvm.store.packing import binary_array

Numbers = NDArray[Any]

# Stored elsewhere: an agent's metrics come with its heartbeat, utilisation is derived from rates and capacity.
HEARTBEAT_TYPES = frozenset({"agent"})
DERIVED = frozenset({"interface.utilization_pct"})
LARGEST_REAL = 3.4e38
_MS_TO_2000 = 946_684_800_000
# Added to the quality of a landing row that arrived late: after an outage an agent sends what it had kept.
LATE = 4


class PackedArray(bytes):
    """A parameter in PostgreSQL's binary form; its subclass or a cast in the statement says of which type."""

    oid = 0


class RealArray(PackedArray):
    """real[]"""

    oid = 1021


class SmallintArray(PackedArray):
    """smallint[]"""

    oid = 1005


class _PackedDumper(Dumper):
    format = pq.Format.BINARY

    def dump(self, obj: PackedArray) -> bytes:
        return obj


def _dumper(kind: type[PackedArray]) -> type[Dumper]:
    return type(f"{kind.__name__}Dumper", (_PackedDumper,), {"oid": kind.oid})


def register(context: AdaptContext | AdaptersMap = adapters) -> None:
    """Teach psycopg (a connection, or all of them) to send packed arrays."""
    target = context if isinstance(context, AdaptersMap) else context.adapters
    for kind in (PackedArray, RealArray, SmallintArray):
        target.register_dumper(kind, _dumper(kind))


@dataclass(frozen=True, slots=True)
class _Form:
    """How PostgreSQL takes values of one kind: its oids of the value and of an array of them, and one as a cell."""

    oid: int
    array_oid: int
    cell: np.dtype[Any]


def _form(oid: int, array_oid: int, value: str) -> _Form:
    return _Form(oid, array_oid, np.dtype([("size", ">i4"), ("value", value)]))


_FORMS: dict[Kind, _Form] = {
    "real": _form(700, 1021, ">f4"),
    "bigint": _form(20, 1016, ">i8"),
    "smallint": _form(21, 1005, ">i2"),
    "boolean": _form(16, 1000, "u1"),
}
_NUMBERS: dict[Kind, np.dtype[Any]] = {kind: np.dtype(f"<{letter}") for kind, (letter, _, _) in FORMATS.items()}
_NULL = struct.pack(">i", -1)


@cache
def _array_head(kind: Kind, count: int, nulls: bool) -> bytes:
    """Of one dimension beginning at 1, as array_recv reads it."""
    return struct.pack(">5i", 1, nulls, _FORMS[kind].oid, count, 1)


@lru_cache(maxsize=8192)
def _element_head(kind: Kind, count: int, size: int) -> bytes:
    """Of an element of packed_KIND[] as record_recv reads it; `size` bytes of cells follow."""
    form = _FORMS[kind]
    head = _array_head(kind, count, size < count * form.cell.itemsize)
    return struct.pack(">iiIi", 32 + size, 1, form.array_oid, 20 + size) + head


def _cells(kind: Kind, numbers: Numbers) -> tuple[bytes, list[int] | None]:
    """Values as cells one after another, absent ones as null, and where each begins unless all take the same space."""
    form = _FORMS[kind]
    cells = np.empty(len(numbers), form.cell)
    cells["size"], cells["value"] = form.cell.itemsize - 4, numbers
    gone = absent(kind, numbers)
    if not gone.any():
        return cells.tobytes(), None
    cells["size"][gone] = -1
    kept = np.ones((len(cells), form.cell.itemsize), bool)
    kept[gone, 4:] = False
    begins = [0, *kept.sum(axis=1).cumsum().tolist()]
    return cells.view(np.uint8).reshape(kept.shape)[kept].tobytes(), begins


def array_parameter(kind: Kind, numbers: Numbers) -> PackedArray:
    """Values as one KIND[], absent ones as null."""
    body, begins = _cells(kind, numbers)
    return PackedArray(_array_head(kind, len(numbers), begins is not None) + body)


def arrays_parameter(kind: Kind, numbers: Numbers, lengths: Sequence[int | None]) -> PackedArray:
    """Values cut into arrays of these lengths as one packed_KIND[]; a length of None is a null without values."""
    body, begins = _cells(kind, numbers)
    step = _FORMS[kind].cell.itemsize
    places = accumulate((length or 0 for length in lengths), initial=0)
    bounds = [place * step if begins is None else begins[place] for place in places]
    parts = [struct.pack(">5i", 1, 1, 0, len(lengths), 1)]
    for length, begin, end in zip(lengths, bounds, bounds[1:], strict=False):
        parts += (_NULL if length is None else _element_head(kind, length, end - begin), body[begin:end])
    return PackedArray(b"".join(parts))


def absent(kind: Kind, numbers: Numbers) -> NDArray[np.bool_]:
    """Which values of a packed column are absent."""
    return np.isnan(numbers) if kind == "real" else numbers == FORMATS[kind][2]


def integers_parameter(numbers: Sequence[int]) -> PackedArray:
    """As integer[]."""
    return PackedArray(binary_array(np.array(numbers, np.int32), ">i4", 23))


def times_parameter(epoch_ms: Sequence[int]) -> PackedArray:
    """Milliseconds since 1970 as timestamptz[]."""
    return PackedArray(binary_array((np.array(epoch_ms, np.int64) - _MS_TO_2000) * 1000, ">i8", 1184))


def texts_parameter(texts: Collection[str]) -> PackedArray:
    """As text[]."""
    return _items(25, [text.encode() for text in texts])


def uuids_parameter(uuids: Collection[UUID]) -> PackedArray:
    """As uuid[]."""
    return _items(2950, [uuid.bytes for uuid in uuids])


def _items(oid: int, items: Collection[bytes]) -> PackedArray:
    parts = [struct.pack(">5i", 1, 0, oid, len(items), 1)]
    for item in items:
        parts += (len(item).to_bytes(4, "big"), item)
    return PackedArray(b"".join(parts))


@dataclass(frozen=True, slots=True)
class Column:
    """Where one metric is stored."""

    metric: Metric
    name: str
    kind: Kind
    width: int  # bytes of a packed value

    def check(self, values: Sequence[Value]) -> None:
        """Raise ValueError naming the first value that the metric's type does not allow."""
        kind = self.kind
        for at, value in enumerate(values):
            if value is None:
                continue
            if (kind == "boolean") != isinstance(value, bool):
                raise ValueError(f"value {at} is {value!r}, not {'true or false' if kind == 'boolean' else 'a number'}")
            if kind == "real":
                if not isfinite(value) or abs(value) > LARGEST_REAL:
                    raise ValueError(f"value {at} is {value!r}, not a finite number")
            elif kind in ("bigint", "smallint"):
                limit = len(self.metric.values) if kind == "smallint" else 1 << 63
                whole = not isinstance(value, float) or value.is_integer()
                if not whole or not (-limit if kind == "bigint" else -1) < value < limit:
                    allowed = f"a code from 0 to {limit - 1}" if kind == "smallint" else "a 64-bit whole number"
                    raise ValueError(f"value {at} is {value!r}, not {allowed}")

    def pack(self, values: Sequence[Value]) -> bytes:
        """A list of values, checked and packed; raises ValueError naming the first wrong one."""
        self.check(values)
        if self.kind in ("bigint", "smallint"):
            values = [None if value is None else int(value) for value in values]
        return pack(self.kind, values)

    def numbers(self, packed: bytes) -> Numbers:
        """The values of a packed column, or of several joined."""
        return np.frombuffer(packed, _NUMBERS[self.kind])

    def wrong(self, numbers: Numbers) -> NDArray[np.bool_]:
        """Which of these the metric's type does not allow."""
        if self.kind == "bigint":
            return np.zeros(0, bool)
        if self.kind == "real":
            return np.abs(numbers) > LARGEST_REAL
        limit = len(self.metric.values) if self.kind == "smallint" else 2
        return ((numbers < 0) | (numbers >= limit)) & ~absent(self.kind, numbers)


@cache
def columns(entity_type: str) -> dict[str, Column]:
    """The stored columns of one entity type, by metric name; empty for a type that has no landing table."""
    if entity_type in HEARTBEAT_TYPES:
        return {}
    return {
        metric.name: Column(metric, metric.column, metric.kind, FORMATS[metric.kind][1])
        for metric in registry().of(entity_type)
        if metric.name not in DERIVED
    }


@cache
def landing_types() -> tuple[str, ...]:
    """Entity types that have a landing table, in registry order."""
    return tuple(t for t in registry().entity_types if t not in HEARTBEAT_TYPES)


def table(entity_type: str) -> str:
    """The landing table of an entity type."""
    return f"poll_{entity_type}"


def array_columns(entity_type: str) -> bool:
    """Whether the type's columns are arrays over a key set (every type but the device itself)."""
    return entity_type != "device"
