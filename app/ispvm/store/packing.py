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
from dataclasses import dataclass
from functools import lru_cache
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


def _widen(width: int, count: int, body: bytes) -> NDArray[np.int64]:
    if not width:
        return np.zeros(count, np.int64)
    if width == 1:
        folded = np.frombuffer(body, np.uint8).astype(np.int64)
    else:
        cells = np.frombuffer(body, np.uint8).reshape(width, count)
        folded = np.ascontiguousarray(cells.T).view(f"<u{width}").reshape(-1).astype(np.int64)
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
    kind, time_width, width, low, first, step, base = _HEADER.unpack_from(packed)
    count = low | (first & 1) << 16
    body = _decompressor.decompress(packed[_HEADER.size :]) if len(packed) > _HEADER.size else b""
    cut = time_width * (count - 1)
    seconds = np.empty(count, np.int64)
    seconds[0] = first >> 1
    if count > 1:
        np.cumsum(_widen(time_width, count - 1, body[:cut]) + step, out=seconds[1:])
        seconds[1:] += seconds[0]
    values = np.empty(count, np.float64)
    if kind == _WHOLE:
        values[0] = base
        if count > 1:
            values[1:] = np.cumsum(_widen(width, count - 1, body[cut:])) + base
    elif kind == _LOG:
        grid = np.cumsum(_widen(width, count, body[cut:]))
        np.multiply(grid + (base - 1), STEP, out=values)
        np.exp(values, out=values)
        values[grid == 0] = 0
    else:
        cells = np.frombuffer(body[cut:], np.uint8).reshape(4, count)
        values[:] = np.ascontiguousarray(cells.T).view("<f4").reshape(-1)
    return Samples(seconds.astype(np.int32), values)


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


def spans(span: NDArray[np.int64], values: Values) -> Spans:
    """Statistics of `values` by the number in `span`, which never falls."""
    starts = np.flatnonzero(np.diff(span, prepend=span[0] - 1)) if len(span) else np.empty(0, np.int64)
    n = np.diff(starts, append=len(span))
    if not len(starts):
        return Spans(starts, n, EMPTY.values, EMPTY.values, EMPTY.values, EMPTY.values)
    # A row for each span and in it the values in order: the place of the percentile is known.
    most = int(n.max())
    if len(values) == most * len(starts):
        table = np.sort(values.reshape(-1, most), axis=1)
    elif most * len(starts) <= 4 * len(values):
        table = np.full((len(starts), most), np.inf)
        table[np.repeat(np.arange(len(starts)), n), np.arange(len(span)) - np.repeat(starts, n)] = values
        table.sort(axis=1)
    else:
        parts = [np.sort(values[at : at + size]) for at, size in zip(starts.tolist(), n.tolist(), strict=True)]
        return Spans(
            span[starts],
            n,
            np.add.reduceat(values, starts) / n,
            np.array([part[0] for part in parts]),
            np.array([part[-1] for part in parts]),
            np.array([part[math.ceil(0.95 * len(part)) - 1] for part in parts]),
        )
    rows = np.arange(len(starts))
    return Spans(
        span[starts],
        n,
        np.add.reduceat(values, starts) / n,
        table[:, 0],
        table[rows, n - 1],
        table[rows, np.ceil(0.95 * n).astype(np.int64) - 1],
    )


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
        for at, number in enumerate(_widen(width, len(body) // width, body).tolist()):
            if number:
                counts[least + at] = counts.get(least + at, 0) + number
    rank = math.ceil(0.95 * sum(counts.values()))
    for step in sorted(counts):
        rank -= counts[step]
        if rank <= 0:
            middle = math.exp((abs(step) - _SKETCH_ZERO + 0.5) * SKETCH_STEP) if step else 0.0
            return math.copysign(middle, step) if step else 0.0
    return None


def array_values(packed: bytes, dtype: str) -> NDArray[Any]:
    """The elements of a one-dimensional PostgreSQL array in binary form as float64, NaN where null.

    `dtype` is numpy's letter for one element in network order, such as ">f4".
    """
    if len(packed) <= 12:
        return EMPTY.values
    count = int.from_bytes(packed[12:16], "big")
    size = np.dtype(dtype).itemsize
    cell = np.dtype([("size", ">i4"), ("value", dtype)])
    if len(packed) == 20 + count * (4 + size):  # no nulls
        return np.frombuffer(packed, cell, count, 20)["value"].astype(np.float64)
    values, at = np.full(count, np.nan), 20
    one = struct.Struct({">f4": ">f", ">i8": ">q", ">i2": ">h", "?": ">?"}[dtype])
    for place in range(count):
        length = int.from_bytes(packed[at : at + 4], "big", signed=True)
        at += 4
        if length >= 0:
            values[place] = one.unpack_from(packed, at)[0]
            at += length
    return values


def binary_array(values: NDArray[Any], dtype: str, oid: int) -> bytes:
    """A one-dimensional array without nulls as PostgreSQL reads it; `dtype` as in `array_values`."""
    size = np.dtype(dtype).itemsize
    cells = np.empty(len(values), np.dtype([("size", ">i4"), ("value", dtype)]))
    cells["size"], cells["value"] = size, values
    return struct.pack(">5i", 1, 0, oid, len(values), 1) + cells.tobytes()
