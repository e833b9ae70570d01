from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from ispvm.store.packing import (
    DAY_SECONDS,
    EMPTY,
    SKETCH_STEP,
    STEP,
    Samples,
    array_values,
    arrays_values,
    binary_array,
    constant,
    constant_sketch,
    p95,
    pack,
    sketch,
    sketch_p95,
    spans,
    steady,
    unpack,
    unpack_days,
)
from ispvm.store.rollup import STEP_HOURS, STEP_PLACES, _step_p95

moments = st.lists(st.integers(0, DAY_SECONDS - 1), min_size=1, max_size=200, unique=True).map(sorted)
SEED = 20_261_122


def samples(seconds: list[int], values: list[float]) -> Samples:
    return Samples(np.array(seconds, np.int32), np.array(values, np.float64))


@given(moments, st.data())
def test_whole_numbers_and_moments_come_back_exactly(seconds: list[int], data: st.DataObject) -> None:
    numbers = st.integers(-(1 << 53) + 1, (1 << 53) - 1) | st.integers(0, 3)
    values = data.draw(st.lists(numbers, min_size=len(seconds), max_size=len(seconds)))
    back = unpack(pack(samples(seconds, [float(v) for v in values]), exact=True))
    assert back.seconds.tolist() == seconds
    assert back.values.tolist() == values


@given(moments, st.data())
def test_no_value_is_off_by_more_than_half_a_step_of_itself(seconds: list[int], data: st.DataObject) -> None:
    real = st.floats(0, float(np.float32(3e38)), width=32) | st.floats(-1e4, 1e4, width=32) | st.just(0.0)
    values = data.draw(st.lists(real, min_size=len(seconds), max_size=len(seconds)))
    back = unpack(pack(samples(seconds, values), exact=False))
    assert back.seconds.tolist() == seconds
    for value, found in zip(values, back.values.tolist(), strict=True):
        assert math.isclose(found, value, rel_tol=math.expm1(STEP / 2) * 1.0001), value


@given(st.integers(0, 7200), st.integers(1, 60), st.integers(1, 1440), st.integers(-(1 << 53) + 1, (1 << 53) - 1))
def test_what_never_moves_is_known_without_unpacking(first: int, step: int, count: int, value: int) -> None:
    same = samples([first + step * n for n in range(count)], [float(value)] * count)
    found = constant(pack(same, exact=False))
    assert found is not None
    assert found.packed() == pack(same, exact=True)
    assert (found.first, found.count, found.value) == (first, count, value)
    assert constant_sketch(found.value, found.count) == sketch(same.values)
    moved = samples([first, first + step], [float(value), float(value) + (1 if value < 0 else -1)])
    assert constant(pack(moved, exact=True)) is None


def test_a_day_has_at_least_one_sample() -> None:
    with pytest.raises(ValueError, match="not 0"):
        pack(EMPTY, exact=False)


@given(moments, moments)
def test_merging_keeps_every_moment_and_the_newer_value(one: list[int], other: list[int]) -> None:
    merged = samples(one, [1.0] * len(one)).merged(samples(other, [2.0] * len(other)))
    expected = dict.fromkeys(one, 1.0) | dict.fromkeys(other, 2.0)
    assert dict(zip(merged.seconds.tolist(), merged.values.tolist(), strict=True)) == expected
    assert merged.seconds.tolist() == sorted(expected)


def level(rng: np.random.Generator) -> np.ndarray:
    return np.full(1440, rng.uniform(0, 1e9))


def random(rng: np.random.Generator) -> np.ndarray:
    return rng.uniform(0, 1e10, 1440)


def bursty(rng: np.random.Generator) -> np.ndarray:
    return 1e6 * rng.lognormal(0, 0.1, 1440) * (1 + (rng.uniform(size=1440) < 0.06) * rng.pareto(1.2, 1440) * 100)


def idle(rng: np.random.Generator) -> np.ndarray:
    return np.where(rng.uniform(size=1440) < 0.2, rng.uniform(0, 1e8, 1440), 0.0)


def negative(rng: np.random.Generator) -> np.ndarray:
    return rng.normal(-8, 3, 1440)


@pytest.mark.parametrize("kind", [level, random, bursty, idle, negative])
def test_p95_of_a_month_is_exact_from_samples_and_within_half_a_percent_from_sketches(
    kind: Callable[[np.random.Generator], np.ndarray],
) -> None:
    rng = np.random.default_rng(SEED)
    days = [kind(rng) for _ in range(30)]
    exact = float(np.sort(np.concatenate(days))[math.ceil(0.95 * 30 * 1440) - 1])
    seconds = np.arange(0, DAY_SECONDS, 60, dtype=np.int32)
    kept = np.concatenate([unpack(pack(Samples(seconds, day), exact=False)).values for day in days])
    assert p95(kept) == pytest.approx(exact, rel=STEP / 2 * 1.001)
    merged = sketch_p95([sketch(day) for day in days])
    assert merged == pytest.approx(exact, rel=math.expm1(SKETCH_STEP / 2))
    assert math.expm1(SKETCH_STEP / 2) < 0.005
    # Billing: five-minute averages.
    billed = float(np.sort(np.concatenate(days).reshape(-1, 5).mean(axis=1))[math.ceil(0.95 * 30 * 288) - 1])
    assert p95(kept.reshape(-1, 5).mean(axis=1)) == pytest.approx(billed, rel=0.0005)


def test_a_percentile_of_percentiles_would_have_failed() -> None:
    rng = np.random.default_rng(SEED)
    days = [bursty(rng) for _ in range(30)]
    exact = p95(np.concatenate(days))
    assert max(p95(day) for day in days) > 1.05 * exact


@given(arrays.arrays(np.float64, st.integers(1, 100), elements=st.floats(-1e6, 1e6)), st.data())
def test_spans_are_what_one_by_one_gives(values: np.ndarray, data: st.DataObject) -> None:
    moments = np.array(sorted(data.draw(st.lists(st.integers(0, 99), min_size=len(values), max_size=len(values)))))
    span = moments // 7
    found = spans(moments, values, 7)
    for at, number in enumerate(found.span.tolist()):
        mine = sorted(values[span == number].tolist())
        assert (found.n[at], found.low[at], found.high[at]) == (len(mine), mine[0], mine[-1])
        assert found.p95[at] == mine[math.ceil(0.95 * len(mine)) - 1]
        assert found.mean[at] == pytest.approx(sum(mine) / len(mine), abs=1e-6)
    assert found.n.sum() == len(values)


@given(st.lists(st.tuples(st.integers(0, 30_000), moments), max_size=6), st.booleans())
def test_many_days_are_unpacked_as_one_by_one(days: list[tuple[int, list[int]]], whole: bool) -> None:
    values = [[float(second if whole else second + 0.5) for second in seconds] for _, seconds in days]
    packed = [(day, pack(samples(s, v), exact=whole)) for (day, s), v in zip(days, values, strict=True)]
    seconds, found = unpack_days(packed)
    assert seconds.tolist() == [day * DAY_SECONDS + second for day, s in days for second in s]
    assert found.tolist() == [v for _, one in packed for v in unpack(one).values.tolist()]


def test_no_sketches_have_no_percentile() -> None:
    assert sketch_p95([]) is None


def test_a_day_of_traffic_takes_less_than_two_bytes_a_sample_and_an_idle_counter_nothing() -> None:
    rng = np.random.default_rng(SEED)
    seconds = np.arange(0, DAY_SECONDS, 60, dtype=np.int32)
    noisy = 1e9 * np.exp(np.cumsum(rng.normal(0, 0.05, 1440)) * 0.2)
    assert len(pack(Samples(seconds, noisy), exact=False)) < 2 * 1440
    assert len(pack(Samples(seconds, np.zeros(1440)), exact=True)) < 32


@given(moments, st.integers(0, 2**32))
def test_the_percentiles_of_steps_are_those_of_their_samples(seconds: list[int], seed: int) -> None:
    values = np.random.default_rng(seed).integers(0, 50, len(seconds)).astype(np.float64)
    hours = np.bincount(np.array(seconds) // 3600, minlength=24).astype(np.float64)
    expected = []
    for width in STEP_HOURS:
        for first in range(0, 24, width):
            part = sorted(v for s, v in zip(seconds, values, strict=True) if first <= s // 3600 < first + width)
            expected.append(part[math.ceil(0.95 * len(part)) - 1] if part else 0.0)
    assert _step_p95(values, hours).tolist() == expected
    assert len(expected) == STEP_PLACES


@given(moments, st.sampled_from([0.0, 1.0, -7.0, 2.0**52, 0.5]), st.booleans())
def test_what_is_steady_is_packed_without_a_look_at_each_sample(seconds: list[int], value: float, moved: bool) -> None:
    for times in (seconds, list(range(seconds[0], DAY_SECONDS, 60))):
        values = [value] * len(times)
        if moved:
            values[-1] += 1
        given_ = samples(times, values)
        found = steady(given_)
        assert (found.packed() if found else None) == (pack(given_, exact=True) if found else None)
        assert (found is None) == (constant(pack(given_, exact=True)) is None)


def test_many_arrays_are_read_like_one_after_another() -> None:
    one, two = (binary_array(np.array(numbers), ">f4", 700) for numbers in ([1.5, 2.5], [3.5, 4.5]))
    null = binary_array(np.array([1.0, 2.0]), ">f4", 700)[:20] + b"\xff\xff\xff\xff\x00\x00\x00\x04\x40\x00\x00\x00"
    for rows in ([one, two], [one, null], [null], [one, binary_array(np.array([9.0]), ">f4", 700)]):
        expected = np.concatenate([array_values(row, ">f4") for row in rows])
        np.testing.assert_array_equal(arrays_values(rows, ">f4"), expected)
