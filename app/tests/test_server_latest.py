from __future__ import annotations

from datetime import UTC, datetime, timedelta

from ispvm.store.latest import Row, _current

NOW = datetime(2026, 11, 22, tzinfo=UTC)
WANTED = ("up", "cpu_pct", "temp_c")


def row(age: float, period: float | None, *names: str, device: int = 1) -> Row:
    values = dict.fromkeys(WANTED)
    return {
        "device_id": device,
        "ts": NOW - timedelta(seconds=age),
        "period_s": period,
        "columns": list(names),
    } | values


def current(*rows: Row) -> dict[str, float]:
    """Column → age of the newest current value."""
    return {n: (NOW - r["ts"]).total_seconds() for r, names in _current(list(rows), NOW) for n in names}


def test_a_slow_column_stays_current_as_long_as_it_takes_to_come_again() -> None:
    assert current(row(290, 300, "cpu_pct", "temp_c"), row(20, 30, "cpu_pct")) == {"cpu_pct": 20, "temp_c": 290}


def test_a_fast_column_is_not_kept_alive_by_the_slow_poll_it_also_came_with() -> None:
    assert current(row(400, 300, "cpu_pct", "temp_c"), row(380, 30, "cpu_pct")) == {"temp_c": 400}


def test_a_column_seen_once_is_current_for_a_while() -> None:
    assert current(row(899, None, "up")) == {"up": 899}
    assert current(row(901, None, "up")) == {}


def test_a_kind_that_no_longer_comes_sets_no_pace() -> None:
    assert current(row(901, 10, "up", "cpu_pct"), row(100, 60, "up")) == {"up": 100}
    assert current(row(899, 10, "up", "cpu_pct"), row(100, 60, "up")) == {}


def test_devices_do_not_share_their_rhythm() -> None:
    slow, fast = row(200, 100, "up"), row(200, 10, "up", device=2)
    assert [r["device_id"] for r, _ in _current([slow, fast], NOW)] == [1]


def test_a_column_that_was_not_asked_for_is_left_out() -> None:
    assert current(row(10, 30, "up", "fan_rpm")) == {"up": 10}
