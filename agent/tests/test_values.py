"""Vectors from real routers."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ispvm_agent.routeros import values


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1w4d23h26m9s", 604800 + 4 * 86400 + 23 * 3600 + 26 * 60 + 9), ("12m29s740ms", 749.74),
        ("-29ms481us", -0.029481),
        ("9ms445us", 0.009445), ("114us", 0.000114), ("4s70ms", 4.07), ("49s", 49), ("15m", 900), ("00:05:13", 313),
        ("2d00:05:13", 2 * 86400 + 313), ("1h2m3.5s", 3723.5),
    ],
)  # fmt: skip
def test_durations(text: str, seconds: float) -> None:
    assert values.duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", None, "never", "-", "12", "1x", "5s3m"])
def test_no_duration(text: str | None) -> None:
    assert values.duration(text) is None


@settings(deadline=None)
@given(st.text(max_size=30))
def test_any_text_is_a_duration_or_none(text: str) -> None:
    found = values.duration(text)
    assert found is None or isinstance(found, float)


@pytest.mark.parametrize(
    ("date", "time", "offset", "expected"),
    [
        ("jul/21/2023", "14:27:01", "+03:00", datetime(2023, 7, 21, 11, 27, 1, tzinfo=UTC)),
        ("2026-09-18", "00:10:00", "-03:30", datetime(2026, 9, 18, 3, 40, tzinfo=UTC)),
        ("Jan/01/1970", "00:00:05", "+00:00", datetime(1970, 1, 1, 0, 0, 5, tzinfo=UTC)),
        ("2026-09-18", "00:10:00", "+05:45", datetime(2026, 9, 17, 18, 25, tzinfo=UTC)),
        ("foo/21/2023", "14:27:01", "+03:00", None),
        ("2026-13-18", "14:27:01", "+03:00", None),
        ("2026-09-18", "14:27:01", None, None),
        ("2026-09-18", None, "+00:00", None),
    ],
)
def test_router_clock(date: str | None, time: str | None, offset: str | None, expected: datetime | None) -> None:
    assert values.date_time(date, time, offset) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("7.24rc2 (testing)", (7, 24)),
     ("6.49.10 (long-term)", (6, 49)), ("7.4 (stable)", (7, 4)), ("x", None), (None, None)],
)  # fmt: skip
def test_versions(text: str | None, expected: tuple[int, int] | None) -> None:
    assert values.version(text) == expected


def test_absent_is_none() -> None:
    assert values.integer({}, "a") is None
    assert values.integer({"a": "x"}, "a") is None
    assert values.number({"a": "nan"}, "a") is None
    assert values.number({"a": "inf"}, "a") is None
    assert values.boolean({"a": ""}, "a") is None
    assert values.boolean({"a": "yes"}, "a") is True
    assert values.boolean({"a": "false"}, "a") is False


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("10Gbps", 10**10),
        ("2.5Gbps", 2_500_000_000),
        ("100Mbps", 10**8),
        ("0bps", 0),
        ("", None),
        (None, None),
        ("10G", None),
    ],
)
def test_rates(text: str | None, rate: int | None) -> None:
    assert values.rate(text) == rate


@pytest.mark.parametrize(
    ("text", "number"),
    [("-62@1Mbps", -62), ("-0.512 ms", -0.512), ("-95dBm", -95), ("41", 41), ("", None), (None, None), ("x", None),
     ("9" * 400, None), ("10.0.0.1", None), ("10:15", None)],
)  # fmt: skip
def test_leading_numbers(text: str | None, number: float | None) -> None:
    assert values.leading(text) == number


@pytest.mark.parametrize(
    ("text", "total"), [("1/20", 21), ("0/0", 0), ("1", None), ("a/b", None), ("9" * 30 + "/1", None)]
)
def test_pairs(text: str, total: int | None) -> None:
    assert values.both(text) == total


@pytest.mark.parametrize(
    ("ranges", "count"),
    [("10.0.0.2-10.0.0.254", 253), ("10.0.0.0/24,10.1.0.9", 257), ("2001:db8::/64", None), ("10.0.0.9-10.0.0.1", None),
     ("", None), (None, None), ("x", None), ("10.0.0.1-::2", None)],
)  # fmt: skip
def test_pool_ranges(ranges: str | None, count: int | None) -> None:
    assert values.addresses(ranges) == count
