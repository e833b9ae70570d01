"""The samples of one entity, metric and day as a few bytes, and the statistics that are made of them.

Packed samples are a header and one zstd frame. Times are whole seconds of the day: a rhythm that is kept costs nothing.
Values are coded in the first way that fits:

* whole numbers, exactly, as differences: counters, states, flags, counts;
* anything else that is not negative, on a logarithmic grid: no value is off by more than 0.0225 % of itself, half a
  `STEP`, and zero stays zero;
* the rest (dBm, degrees) as 32-bit floats, which is what the landing rows hold.

A sketch is a histogram of values over a logarithmic grid 20 times as wide. Sketches of days add up, and a percentile
read from their sum is off by at most 0.46 % of itself, whatever the data.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import groupby
from typing import Any

import numpy as np
import zstandard
from numpy.typing import NDArray

Seconds = NDArray[np.int32]
Values = NDArray[np.float64]

DAY_SECONDS = 86_400
STEP = 0.00045
SKETCH_STEP = 20 * STEP
_WHOLE, _LOG, _FLOAT = range(3)
# kind of values, bytes per time residual, bytes per value, samples, first second, most usual step, base of the values
_HEADER = struct.Struct("<BBBxHxxiiq")
_HEADER_WIDE = 1 << 16
_LARGEST_WHOLE = float(1 << 53)
# Below this nothing that is measured differs from zero; it bounds the grid of a sketch.
_SMALLEST = 1e-9
_SKETCH_ZERO = math.ceil(-math.log(_SMALLEST) / SKETCH_STEP) + 1
_SKETCH_HEADER = struct.Struct("<iB")

_compressor = zstandard.ZstdCompressor(level=3, write_checksum=False, write_content_size=True)
_decompressor = zstandard.ZstdDecompressor()


@dataclass(frozen=True, slots=True)
class Samples:
    """Samples of one day in the order of time: `seconds` since midnight UTC, all different, and `values`."""

    seconds: Seconds
    values: Values

    def merged(self, newer: Samples) -> Samples:
        """Both together; where both have a moment, `newer` says what it was."""
        if not len(self.seconds) or not len(newer.seconds):
            return newer if len(newer.seconds) else self
        if self.seconds[-1] < newer.seconds[0]:  # the usual case: the next hour
            return Samples(np.concatenate((self.seconds, newer.seconds)), np.concatenate((self.values, newer.values)))
        kept = ~np.isin(self.seconds, newer.seconds, assume_unique=True)
        seconds = np.concatenate((self.seconds[kept], newer.seconds))
        order = np.argsort(seconds, kind="stable")
        return Samples(seconds[order], np.concatenate((self.values[kept], newer.values))[order])


EMPTY = Samples(np.empty(0, np.int32), np.empty(0, np.float64))


def _narrow(numbers: NDArray[np.int64]) -> tuple[int, bytes]:
    """Signed numbers as (bytes each, all lowest bytes, then all next ones …); nothing at all when all are 0."""
    folded = ((numbers << 1) ^ (numbers >> 63)).astype(np.uint64)
    largest = int(folded.max(initial=0))
    width = next(w for w in (0, 1, 2, 4, 8) if largest < 1 << (8 * w))
    if not width:
        return 0, b""
    cells = folded.astype(f"<u{width}").view(np.uint8).reshape(-1, width)
    return width, cells.T.tobytes()


def _widen(width: int, count: int, body: NDArray[np.uint8]) -> NDArray[Any]:
    """What `_narrow` was given, a row for each row of `body`."""
    rows = len(body)
    if not width:
        return np.zeros((rows, count), np.int64)
    folded: NDArray[Any] = body[:, :count].astype(np.int32 if width <= 2 else np.int64)
    for byte in range(1, width):
        folded |= body[:, byte * count : (byte + 1) * count].astype(folded.dtype) << (8 * byte)
    return (folded >> 1) ^ -(folded & 1)


def pack(samples: Samples, exact: bool) -> bytes:
    """Samples as bytes; with `exact` whole numbers are kept exactly however far they jump."""
    seconds, values = samples.seconds.astype(np.int64), samples.values
    count = len(seconds)
    if not 0 < count <= DAY_SECONDS:
        raise ValueError(f"a day has 1 to {DAY_SECONDS} samples, not {count}")
    steps = np.diff(seconds)
    step = int(np.partition(steps, count // 2 - 1)[count // 2 - 1]) if count > 1 else 0
    time_width, times = _narrow(steps - step)
    kind, width, base, body = _coded(values, exact)
    packed = _compressor.compress(times + body) if times or body else b""
    return (
        _HEADER.pack(kind, time_width, width, count & 0xFFFF, (int(seconds[0]) << 1) | (count >> 16), step, base)
        + packed
    )


def _coded(values: Values, exact: bool) -> tuple[int, int, int, bytes]:
    """Values as (kind, bytes each, base, body)."""
    if np.all(values == np.rint(values)) and np.all(np.abs(values) < _LARGEST_WHOLE):
        whole = values.astype(np.int64)
        width, body = _narrow(np.diff(whole))
        if exact or width <= 2:
            return _WHOLE, width, int(whole[0]), body
    if values.min() >= 0:
        grid = np.zeros(len(values), np.int64)
        some = values > 0
        grid[some] = np.rint(np.log(values[some]) / STEP)
        least = int(grid[some].min())
        grid[some] += 1 - least  # 0 is zero itself
        width, body = _narrow(np.diff(grid, prepend=0))
        if width <= 2:
            return _LOG, width, least, body
    cells = values.astype("<f4").view(np.uint8).reshape(-1, 4)
    return _FLOAT, 4, 0, cells.T.tobytes()


def unpack(packed: bytes) -> Samples:
    """What `pack` was given, values as near as the module says."""
    seconds, values = _unpack_alike([packed])
    return Samples(seconds[0].astype(np.int32), values[0])


def unpack_days(days: Sequence[tuple[int, bytes]]) -> tuple[NDArray[np.int64], Values]:
    """Seconds since 1970 and values of many days, given as (day since 1970, packed), one after another.

    Days of one shape, which most days of a metric are, are unpacked together: many small steps cost more than few large
    ones.
    """
    seconds: list[NDArray[np.int64]] = []
    values: list[Values] = []
    for _, group in groupby(days, key=lambda day: _shape(day[1])):
        alike = list(group)
        found, numbers = _unpack_alike([packed for _, packed in alike])
        found += np.array([[day * DAY_SECONDS] for day, _ in alike])
        seconds.append(found.reshape(-1))
        values.append(numbers.reshape(-1))
    if len(seconds) == 1:
        return seconds[0], values[0]
    return np.concatenate([np.empty(0, np.int64), *seconds]), np.concatenate([EMPTY.values, *values])


def _shape(packed: bytes) -> tuple[int, ...]:
    kind, time_width, width, low, first, _, _ = _HEADER.unpack_from(packed)
    return kind, time_width, width, low | (first & 1) << 16


def _unpack_alike(rows: Sequence[bytes]) -> tuple[NDArray[np.int64], Values]:
    """Seconds of the day and values of days of one shape, a row a day."""
    headers = [_HEADER.unpack_from(packed) for packed in rows]
    kind, time_width, width, count = _shape(rows[0])
    bodies = [
        _decompressor.decompress(packed[_HEADER.size :]) if len(packed) > _HEADER.size else b"" for packed in rows
    ]
    body = np.frombuffer(b"".join(bodies), np.uint8).reshape(len(rows), -1)
    cut = time_width * (count - 1)
    steps = np.array([[header[5]] for header in headers])
    seconds = np.empty((len(rows), count), np.int64)
    seconds[:, 0] = [header[4] >> 1 for header in headers]
    if time_width:
        seconds[:, 1:] = _widen(time_width, count - 1, body[:, :cut])
        seconds[:, 1:] += steps
        np.cumsum(seconds, axis=1, out=seconds)
    else:
        seconds[:, 1:] = steps * np.arange(1, count) + seconds[:, :1]
    bases = np.array([[header[6]] for header in headers])
    if kind == _WHOLE:
        whole = np.empty((len(rows), count), np.int64)
        whole[:, :1] = bases
        whole[:, 1:] = _widen(width, count - 1, body[:, cut:])
        return seconds, np.cumsum(whole, axis=1).astype(np.float64)
    if kind == _LOG:
        grid = np.cumsum(_widen(width, count, body[:, cut:]), axis=1)
        zeros = grid == 0
        values = (grid + (bases - 1)) * STEP
        np.exp(values, out=values)
        values[zeros] = 0
        return seconds, values
    cells = np.ascontiguousarray(body[:, cut:].reshape(len(rows), 4, count).transpose(0, 2, 1))
    return seconds, cells.view("<f4").reshape(len(rows), count).astype(np.float64)


@dataclass(frozen=True, slots=True)
class Constant:
    """A day whose samples all say the same, at a rhythm that was kept."""

    first: int
    step: int
    count: int
    value: int

    def packed(self) -> bytes:
        """The same as `pack` would give."""
        return _HEADER.pack(
            _WHOLE, 0, 0, self.count & 0xFFFF, (self.first << 1) | (self.count >> 16), self.step, self.value
        )


def constant(packed: bytes) -> Constant | None:
    """Packed samples that are nothing but a header, or None; what is idle is worked on without unpacking it."""
    if len(packed) != _HEADER.size:
        return None
    _, _, _, low, first, step, value = _HEADER.unpack(packed)
    return Constant(first >> 1, step, low | (first & 1) << 16, value)


def steady(samples: Samples) -> Constant | None:
    """What these samples are when they all say the same at a rhythm that was kept, or None."""
    seconds, values = samples.seconds, samples.values
    value = values[0]
    if not -_LARGEST_WHOLE < value < _LARGEST_WHOLE or value != int(value) or (values != value).any():
        return None
    step = int(seconds[1] - seconds[0]) if len(seconds) > 1 else 0
    if (seconds[1:] - seconds[:-1] != step).any():
        return None
    return Constant(int(seconds[0]), step, len(seconds), int(value))


def p95(values: Values) -> float:
    """Nearest rank: the least value that 95 % of the values do not exceed."""
    rank = math.ceil(0.95 * len(values)) - 1
    return float(np.partition(values, rank)[rank])


@dataclass(frozen=True, slots=True)
class Spans:
    """Statistics of successive spans of time; only spans that have a sample, arrays of one length."""

    span: NDArray[np.int64]
    n: NDArray[np.int64]
    mean: Values
    low: Values
    high: Values
    p95: Values


def spans(moments: NDArray[Any], values: Values, width: int) -> Spans:
    """Statistics of `values` by `moments // width`; moments never fall."""
    if not len(moments):
        return Spans(np.empty(0, np.int64), np.empty(0, np.int64), *[EMPTY.values] * 4)
    edges = np.arange(int(moments[0]) // width, int(moments[-1]) // width + 1)
    starts = np.searchsorted(moments, edges * width)
    n = np.diff(starts, append=len(moments))
    there = n > 0
    span, starts, n = edges[there], starts[there], n[there]
    low, high = np.minimum.reduceat(values, starts), np.maximum.reduceat(values, starts)
    return Spans(span, n, np.add.reduceat(values, starts) / n, low, high, p95s(values, starts, n))


def p95s(values: Values, starts: NDArray[np.int64], n: NDArray[np.int64]) -> Values:
    """`p95` of each part of `values`: the `n` from `starts` on; together they are all of it."""
    ranks = np.ceil(0.95 * n).astype(np.int64) - 1
    most = int(n.max())
    if len(values) == most * len(starts):  # no gaps: a row for each part
        rank = int(ranks[0])
        return np.partition(values.reshape(-1, most), rank, axis=1)[:, rank]
    return np.array(
        [
            np.partition(values[at : at + size], rank)[rank]
            for at, size, rank in zip(starts.tolist(), n.tolist(), ranks.tolist(), strict=True)
        ]
    )


def often(packed: bytes) -> bool:
    """Whether more than one sample a minute is likely; reads the header only."""
    _, time_width, _, _, _, step, _ = _HEADER.unpack_from(packed)
    return bool(step < 60 or time_width > 1)


def thinned(samples: Samples, last: bool) -> tuple[Samples, Samples | None, Samples | None]:
    """One sample a minute at its full minute: the mean, and lowest and highest when a minute had several; with `last`
    the last of the minute instead, for what has no mean.
    """
    found = spans(samples.seconds, samples.values, 60)
    seconds = (found.span * 60).astype(np.int32)
    if last:
        return Samples(seconds, samples.values[np.cumsum(found.n) - 1]), None, None
    if (found.low == found.high).all():
        return Samples(seconds, found.mean), None, None
    return Samples(seconds, found.mean), Samples(seconds, found.low), Samples(seconds, found.high)


def sketch(values: Values) -> bytes:
    """How often each step of the wide grid occurs."""
    size = np.abs(values)
    steps = np.zeros(len(values), np.int64)
    some = size >= _SMALLEST
    steps[some] = np.floor(np.log(size[some]) / SKETCH_STEP).astype(np.int64) + _SKETCH_ZERO
    steps = np.where(values < 0, -steps, steps)
    least = int(steps.min())
    width, body = _narrow(np.bincount(steps - least).astype(np.int64))
    return _SKETCH_HEADER.pack(least, width) + _compressor.compress(body)


@lru_cache(maxsize=4096)
def constant_sketch(value: int, count: int) -> bytes:
    """The sketch of a value that came `count` times."""
    return sketch(np.full(count, float(value)))


def sketch_p95(sketches: list[bytes]) -> float | None:
    """The percentile of all samples behind these sketches; None when there are none."""
    counts: dict[int, int] = {}
    for one in sketches:
        least, width = _SKETCH_HEADER.unpack_from(one)
        body = _decompressor.decompress(one[_SKETCH_HEADER.size :])
        numbers = _widen(width, len(body) // width, np.frombuffer(body, np.uint8).reshape(1, -1))[0]
        for at, number in enumerate(numbers.tolist()):
            if number:
                counts[least + at] = counts.get(least + at, 0) + number
    rank = math.ceil(0.95 * sum(counts.values()))
    for step in sorted(counts):
        rank -= counts[step]
        if rank <= 0:
            middle = math.exp((abs(step) - _SKETCH_ZERO + 0.5) * SKETCH_STEP) if step else 0.0
            return math.copysign(middle, step) if step else 0.0
    return None


@cache
def _cell(dtype: str) -> np.dtype[Any]:
    """One element with its length before it."""
    return np.dtype([("size", ">i4"), ("value", dtype)])


def array_values(packed: bytes, dtype: str) -> NDArray[Any]:
    """The elements of a one-dimensional PostgreSQL array in binary form as float64, NaN where null.

    `dtype` is numpy's letter for one element in network order, such as ">f4".
    """
    if len(packed) <= 12:
        return EMPTY.values
    count = int.from_bytes(packed[12:16], "big")
    cell = _cell(dtype)
    if len(packed) == 20 + count * cell.itemsize:  # no nulls
        return np.frombuffer(packed, cell, count, 20)["value"].astype(np.float64)
    values, at = np.full(count, np.nan), 20
    one = struct.Struct({">f4": ">f", ">i8": ">q", ">i4": ">i", ">i2": ">h", "?": ">?"}[dtype])
    for place in range(count):
        length = int.from_bytes(packed[at : at + 4], "big", signed=True)
        at += 4
        if length >= 0:
            values[place] = one.unpack_from(packed, at)[0]
            at += length
    return values


def arrays_values(rows: Sequence[bytes], dtype: str) -> NDArray[Any]:
    """The elements of many arrays one after another, as `array_values` reads them."""
    size = _cell(dtype).itemsize
    if rows and all(len(row) == len(rows[0]) == 20 + size * int.from_bytes(row[12:16], "big") for row in rows):
        return array_matrix(rows, dtype).reshape(-1)
    return np.concatenate([EMPTY.values, *(array_values(row, dtype) for row in rows)])


def array_matrix(rows: Sequence[bytes], dtype: str) -> NDArray[Any]:
    """Arrays of one length without nulls, as `array_values` reads them, a row each."""
    cells = np.frombuffer(b"".join(rows), np.uint8).reshape(len(rows), -1)[:, 20:]
    return np.ascontiguousarray(cells).view(_cell(dtype))["value"].astype(np.float64)


def binary_array(values: NDArray[Any], dtype: str, oid: int) -> bytes:
    """A one-dimensional array without nulls as PostgreSQL reads it, beginning at 1; `dtype` as in `array_values`."""
    cell = _cell(dtype)
    cells = np.empty(len(values), cell)
    cells["size"], cells["value"] = cell.itemsize - 4, values
    return struct.pack(">5i", 1, 0, oid, len(values), 1) + cells.tobytes()
