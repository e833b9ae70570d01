from __future__ import annotations

import asyncio
from datetime import UTC, datetime, time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ispvm.series.cache import Cache
from ispvm.series.query import MAX_POINTS, Resolution, _pace, choose_step
from ispvm.store.upkeep import in_window
from ispvm.web import show
from ispvm.web.auth import Throttle

NOW = datetime(2026, 11, 22, tzinfo=UTC)


@given(
    st.integers(1, 158_000_000), st.integers(1, MAX_POINTS), st.floats(1, 4000), st.sampled_from(["raw", "1h", "1d"])
)
def test_buckets_are_never_too_many_nor_narrower_than_the_data(
    seconds: int, max_points: int, interval: float, resolution: Resolution
) -> None:
    step = choose_step(seconds, max_points, interval, resolution)
    if max_points > 1:
        assert seconds / step <= max_points - 1
    assert step >= {"raw": interval, "1h": 3600, "1d": 86400}[resolution]


@pytest.mark.parametrize(
    ("apart", "pace"),
    [
        ([], 0), ([0], 0), ([60], 60), ([5] * 60 + [60] * 55, 60), ([5] * 720 + [60] * 10, 5),
        ([60] * 10 + [40_000] + [60] * 10, 60), ([40_000], 0),
    ],
)  # fmt: skip
def test_the_pace_is_that_of_most_of_the_time_and_no_gap(apart: list[int], pace: float) -> None:
    assert _pace(np.cumsum([1_700_000_000, *apart])) == pace


async def test_a_value_is_made_once_for_all_who_wait() -> None:
    cache: Cache[int] = Cache(seconds=60)
    made = 0
    gate = asyncio.Event()

    async def make() -> int:
        nonlocal made
        made += 1
        await gate.wait()
        return 7

    waiting = [asyncio.create_task(cache.get("k", make)) for _ in range(5)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    gate.set()
    assert await asyncio.gather(*waiting[1:]) == [7, 7, 7, 7]
    assert await cache.get("k", make) == 7
    assert made == 1


async def test_an_error_reaches_everybody_and_is_not_kept() -> None:
    cache: Cache[int] = Cache(seconds=60)

    async def fail() -> int:
        raise LookupError("gone")

    async def work() -> int:
        return 1

    with pytest.raises(LookupError):
        await cache.get("k", fail)
    assert await cache.get("k", work) == 1


async def test_the_cache_is_bounded() -> None:
    cache: Cache[int] = Cache(seconds=60, size=2)

    async def make() -> int:
        return 1

    for key in range(5):
        await cache.get(key, make)
    assert len(cache._values) == 2


@pytest.mark.parametrize(
    ("window", "moment", "inside"),
    [
        ("02:00-05:00", "02:00", True),
        ("02:00-05:00", "05:00", False),
        ("23:00-04:00", "23:30", True),
        ("23:00-04:00", "03:59", True),
        ("23:00-04:00", "12:00", False),
    ],
)
def test_the_maintenance_window_may_cross_midnight(window: str, moment: str, inside: bool) -> None:
    assert in_window(window, time.fromisoformat(moment)) is inside


def test_guessing_gets_slower_and_success_forgives(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr("ispvm.web.auth.time.monotonic", lambda: clock[0])
    throttle = Throttle(free=3, longest=8)
    waits = []
    for _ in range(8):
        throttle.failed("user x")
        waits.append(throttle.wait("user x"))
    assert waits == [0, 0, 1, 2, 4, 8, 8, 8]
    assert throttle.wait("user y") == 0
    clock[0] += 8
    assert throttle.wait("user x") == 0
    throttle.succeeded("user x")
    throttle.failed("user x")
    assert throttle.wait("user x") == 0


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0, "0 bit/s"),
        (999, "999 bit/s"),
        (1000, "1.00 kbit/s"),
        (4_736_000_000, "4.74 Gbit/s"),
        (99_960_000, "100 Mbit/s"),
        (1e12, "1.00 Tbit/s"),
    ],
)
def test_rates_have_three_digits(value: float | None, text: str) -> None:
    assert show.bps(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(None, "–"), (0, "0 s"), (59, "59 s"), (3600, "1 h"), (3660, "1 h 1 min"), (90061, "1 d 1 h")]
)
def test_durations_have_two_units(value: float | None, text: str) -> None:
    assert show.duration(value) == text


def test_a_sparkline_keeps_its_gaps() -> None:
    assert show.sparkline([(0, 1), (0.1, None), (0.2, 2), (0.3, 2)]).count("M") == 2
    assert show.sparkline([(0, 1), (0.1, 1), (0.2, 2), (0.9, 2), (1, 2)]).count("M") == 2
    assert show.sparkline([(0, 1), (0.1, 1), (0.2, 2), (0.3, 2)]) == "M0.0 12.0L12.0 12.0L24.0 1.0L36.0 1.0"
    assert show.sparkline([(0, None), (0.1, 1)]) == ""
