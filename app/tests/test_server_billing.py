from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ispvm.reports.billing import direction, month, months, percentile, picture, safe_cell

NOW = datetime(2026, 11, 22, 12, 3, tzinfo=UTC)


@pytest.mark.parametrize(
    ("name", "zone", "start", "slots"),
    [
        ("2026-10", "UTC", "2026-10-01T00:00+00:00", 31 * 288),
        # The clocks go back in October and forward in March: an hour more, an hour less.
        ("2026-10", "Europe/Dublin", "2026-09-30T23:00+00:00", 31 * 288 + 12),
        ("2026-03", "Europe/Berlin", "2026-02-28T23:00+00:00", 31 * 288 - 12),
        ("2025-12", "Asia/Kathmandu", "2025-11-30T18:15+00:00", 31 * 288),
        # The running month goes up to what is packed: six hours at a time, and 22 minutes later.
        ("2026-11", "UTC", "2026-11-01T00:00+00:00", 21 * 288 + 72),
    ],
)
def test_a_month_is_the_zones(name: str, zone: str, start: str, slots: int) -> None:
    found = month(name, zone, NOW)
    assert (found.start, found.slots) == (datetime.fromisoformat(start), slots)
    assert found.over == (name != "2026-11")


def test_a_month_begins_when_the_zone_says_and_not_before() -> None:
    eve = datetime(2026, 11, 30, 11, 0, tzinfo=UTC)
    assert months("Pacific/Kiritimati", eve, 2) == ["2026-12", "2026-11"]
    assert direction([]).missing_pct == 0
    assert months("UTC", eve, 1) == ["2026-11"]
    assert month("2026-12", "Pacific/Kiritimati", eve).slots == 0
    assert month("2026-12", "Pacific/Kiritimati", eve.replace(hour=18, minute=23)).slots == 8 * 12
    assert month("2026-12", "Pacific/Kiritimati", eve.replace(hour=18, minute=21)).slots == 2 * 12
    with pytest.raises(ValueError, match="has not begun"):
        month("2026-12", "UTC", eve)
    assert months("UTC", datetime(2026, 1, 5, tzinfo=UTC), 2) == ["2026-01", "2025-12"]


@given(st.lists(st.one_of(st.none(), st.floats(0, 1e12)), max_size=200))
def test_the_percentile_is_the_nearest_rank_of_what_is_known(values: list[float | None]) -> None:
    known = [value for value in values if value is not None]
    found = percentile(values)
    if not known:
        assert found is None
        return
    assert found in known
    # at least 95 % do not exceed it, and of every smaller value that is not true
    assert sum(value <= found for value in known) * 100 >= 95 * len(known)
    smaller = [value for value in known if value < found]
    assert not smaller or sum(value <= max(smaller) for value in known) * 100 < 95 * len(known)


def test_what_is_missing_is_never_zero() -> None:
    assert percentile([*range(1, 101)]) == 95
    found = direction([None] * 50 + [100.0] * 50)
    assert (found.p95_bps, found.mean_bps, found.samples, found.missing_pct) == (100, 100, 50, 50)
    nothing = direction([None] * 4)
    assert (nothing.p95_bps, nothing.max_bps, nothing.missing_pct) == (None, None, 100)


def test_a_month_fits_its_picture() -> None:
    slots = 31 * 288 + 12
    found = picture([float(n % 15) for n in range(slots)], slots)
    assert (len(found.mean), found.step_s) == (596, 15 * 300)
    assert (found.mean[0], found.high[0]) == (7, 14)
    assert picture([None] * 30 + [5.0], slots).mean == [None, None, 5]


@pytest.mark.parametrize("text", ["=1+1", "+x", "-x", "@x"])
def test_a_name_is_no_formula(text: str) -> None:
    assert safe_cell(text) == f"'{text}"
    assert safe_cell("uplink =1") == "uplink =1"
