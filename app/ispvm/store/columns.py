"""The registry as database columns: which table and column a metric lives in, and how its values are packed.

An array goes to PostgreSQL in its binary form, packed in one step that also refuses what is out of range, so validation
and encoding are the same pass.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import isfinite
from typing import Any, Literal

import numpy as np
from ispvm_contract.ingest import Value
from ispvm_contract.registry import Metric, registry
from numpy.typing import NDArray
from psycopg import adapters, pq
from psycopg.abc import AdaptContext
from psycopg.adapt import AdaptersMap, Dumper

from ispvm.store.packing import binary_array

Kind = Literal["real", "bigint", "smallint", "boolean"]

# Stored elsewhere: an agent's metrics come with its heartbeat, utilisation is derived from rates and capacity.
HEARTBEAT_TYPES = frozenset({"agent"})
DERIVED = frozenset({"interface.utilization_pct"})
LARGEST_REAL = 3.4e38
# Added to the quality of a landing row that arrived late: after an outage an agent sends what it had kept.
LATE = 4


class PackedArray(bytes):
    """One PostgreSQL array in binary form; its subclass says of which element type."""

    oid = 0


class RealArray(PackedArray):
    """real[]"""

    oid = 1021


class BigintArray(PackedArray):
    """bigint[]"""

    oid = 1016


class SmallintArray(PackedArray):
    """smallint[]"""

    oid = 1005


class BooleanArray(PackedArray):
    """boolean[]"""

    oid = 1000


class _PackedDumper(Dumper):
    format = pq.Format.BINARY

    def dump(self, obj: PackedArray) -> bytes:
        return obj


def _dumper(kind: type[PackedArray]) -> type[Dumper]:
    return type(f"{kind.__name__}Dumper", (_PackedDumper,), {"oid": kind.oid})


def register(context: AdaptContext | AdaptersMap = adapters) -> None:
    """Teach psycopg (a connection, or all of them) to send packed arrays."""
    target = context if isinstance(context, AdaptersMap) else context.adapters
    for kind in (RealArray, BigintArray, SmallintArray, BooleanArray):
        target.register_dumper(kind, _dumper(kind))


@dataclass(frozen=True, slots=True)
class _Packing:
    """How values of one kind travel: array class, element type's oid and size, struct letter, Python's own types."""

    array: type[PackedArray]
    oid: int
    size: int
    letter: str
    exact: frozenset[type]

    def packed(self, values: Sequence[Value]) -> PackedArray:
        """Values of the right types as an array; raises OverflowError when one is out of range, infinity or NaN."""
        if self.letter == "f":
            numbers: NDArray[Any] = np.array(values, np.float64)
            if not np.abs(numbers).max(initial=0) <= LARGEST_REAL:
                raise OverflowError
        else:
            numbers = np.array(values, self.letter)
        return self.array(binary_array(numbers, f">{self.letter}" if self.size > 1 else self.letter, self.oid))


_PACKING: dict[Kind, _Packing] = {
    "real": _Packing(RealArray, 700, 4, "f", frozenset({float, int})),
    "bigint": _Packing(BigintArray, 20, 8, "q", frozenset({int})),
    "smallint": _Packing(SmallintArray, 21, 2, "h", frozenset({int})),
    "boolean": _Packing(BooleanArray, 16, 1, "?", frozenset({bool})),
}


@dataclass(frozen=True, slots=True)
class Column:
    """Where one metric is stored."""

    metric: Metric
    name: str
    kind: Kind

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
                if not whole or not (-limit if kind == "bigint" else 0) <= value < limit:
                    allowed = f"a code from 0 to {limit - 1}" if kind == "smallint" else "a 64-bit whole number"
                    raise ValueError(f"value {at} is {value!r}, not {allowed}")

    def scalar(self, value: Value) -> Value:
        """One checked value as the database takes it."""
        self.check((value,))
        return int(value) if value is not None and self.kind in ("bigint", "smallint") else value

    def pack(self, values: Sequence[Value]) -> PackedArray:
        """Checked values as a PostgreSQL array; raises ValueError naming the first wrong one."""
        packing = _PACKING[self.kind]
        if set(map(type, values)) <= packing.exact:
            # All of the right type: packing itself refuses what is out of range; codes have a range of their own.
            try:
                if self.kind != "smallint":
                    return packing.packed(values)
            except OverflowError:
                pass
        self.check(values)
        if self.kind in ("bigint", "smallint"):
            values = [None if v is None else int(v) for v in values]
        one = struct.Struct(f">i{packing.letter}")
        body = b"".join(b"\xff\xff\xff\xff" if v is None else one.pack(packing.size, v) for v in values)
        return packing.array(_header(packing, len(values), int(None in values)) + body)


def _header(packing: _Packing, count: int, nulls: int) -> bytes:
    """One dimension beginning at 1, as array_recv reads it."""
    return struct.pack(">5i", 1, nulls, packing.oid, count, 1)


def pack_positions(positions: Sequence[int]) -> SmallintArray:
    """Positions within a key set (0-based) as smallint[]."""
    return SmallintArray(binary_array(np.array(positions, np.int16), ">h", _PACKING["smallint"].oid))


def _kind(metric: Metric) -> Kind:
    if metric.type == "bool":
        return "boolean"
    if metric.type == "enum":
        return "smallint"
    return "bigint" if metric.type == "counter" or metric.unit == "By" else "real"


@cache
def columns(entity_type: str) -> dict[str, Column]:
    """The stored columns of one entity type, by metric name; empty for a type that has no landing table."""
    if entity_type in HEARTBEAT_TYPES:
        return {}
    return {
        metric.name: Column(metric, metric.column, _kind(metric))
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
