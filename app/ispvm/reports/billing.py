"""The 95th percentile of a month, as circuits are billed: five-minute means of each direction, nearest rank.

A five minutes without a sample is missing. It is counted and said, and never taken for zero.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from ispvm.ingest.landing import CLOSING_SECONDS, SPREAD_SECONDS
from ispvm.store.history import SLOT_S

# A month has up to 8 928 slots; a picture of it up to 600 places.
PLACES = 600


@dataclass(frozen=True, slots=True)
class Month:
    """A month of a zone: its first moment, the end of what can be known of it by now, and its last moment, in UTC."""

    name: str
    start: datetime
    until: datetime
    end: datetime

    @property
    def slots(self) -> int:
        """How many five minutes can be known."""
        return int((self.until - self.start).total_seconds()) // SLOT_S

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self.until == self.end


def packed_until(now: datetime) -> datetime:
    """Until when history is complete, but for what arrives late: hours are packed some at a time, a while later."""
    settled = int(now.timestamp()) - CLOSING_SECONDS - SPREAD_SECONDS
    return datetime.fromtimestamp(settled // 3600 * 3600, UTC)


def month(name: str, zone: str, now: datetime) -> Month:
    """The month "YYYY-MM" of `zone`, up to what is packed by now. Raises ValueError for one that has not begun."""
    year, number = (int(part) for part in name.split("-"))
    tz = ZoneInfo(zone)
    start = datetime(year, number, 1, tzinfo=tz).astimezone(UTC)
    end = datetime(year + number // 12, number % 12 + 1, 1, tzinfo=tz).astimezone(UTC)
    if start > now:
        raise ValueError(f"{name} has not begun")
    return Month(name, start, max(start, min(end, packed_until(now))), end)


def months(zone: str, now: datetime, count: int = 13) -> list[str]:
    """The names of this month and those before it, newest first."""
    local = now.astimezone(ZoneInfo(zone))
    first = local.year * 12 + local.month - 1
    return [f"{(first - at) // 12:04d}-{(first - at) % 12 + 1:02d}" for at in range(count)]


def percentile(values: Sequence[float | None], share: float = 0.95) -> float | None:
    """Nearest rank: the smallest value that at least `share` of the known values do not exceed. None without any."""
    known = sorted(value for value in values if value is not None)
    return known[math.ceil(share * len(known)) - 1] if known else None


@dataclass(frozen=True, slots=True)
class Direction:
    """One direction of one interface over a month, in bit/s; None when nothing was measured."""

    p95_bps: float | None
    mean_bps: float | None
    max_bps: float | None
    samples: int
    missing_pct: float


def direction(means: Sequence[float | None]) -> Direction:
    """Sum up the five-minute means of one direction."""
    known = [value for value in means if value is not None]
    return Direction(
        percentile(known),
        sum(known) / len(known) if known else None,
        max(known, default=None),
        len(known),
        (len(means) - len(known)) * 100 / len(means) if means else 0.0,
    )


@dataclass(frozen=True, slots=True)
class Picture:
    """A month in at most 600 places: mean and highest five minutes of each; None where all are missing."""

    step_s: int
    mean: list[float | None]
    high: list[float | None]


def picture(means: Sequence[float | None], slots: int) -> Picture:
    """Draw means that are part of `slots` together."""
    width = max(1, math.ceil(slots / PLACES))
    mean: list[float | None] = []
    high: list[float | None] = []
    for at in range(0, len(means), width):
        known = [value for value in means[at : at + width] if value is not None]
        mean.append(sum(known) / len(known) if known else None)
        high.append(max(known, default=None))
    return Picture(width * SLOT_S, mean, high)


def safe_cell(text: str) -> str:
    """A text that no spreadsheet takes for a formula: what an interface is called, its owner may choose."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text
