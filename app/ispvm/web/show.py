"""Numbers and times for people."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise
from statistics import median

from ispvm.health.state import ago

NOTHING = "–"
_RATES = (("Tbit/s", 1e12), ("Gbit/s", 1e9), ("Mbit/s", 1e6), ("kbit/s", 1e3))


# Kinds of incidents, in the order in which they are stacked.
KINDS = (("reachability", "not reachable"), ("api", "API"), ("bgp", "BGP"), ("ospf", "OSPF"))


def bps(value: float | None) -> str:
    """A rate in bit/s with three digits: 4.74 Gbit/s."""
    if value is None:
        return NOTHING
    for unit, size in _RATES:
        if abs(value) >= size:
            scaled = value / size
            return f"{scaled:.{2 if scaled < 9.995 else 1 if scaled < 99.95 else 0}f} {unit}"
    return f"{value:.0f} bit/s"


def capacity(value: float | None) -> str:
    """A nominal rate without needless digits: 10 Gbit/s."""
    if value is None:
        return NOTHING
    unit, factor = next(((u, f) for u, f in _RATES if value >= f), ("bit/s", 1.0))
    return f"{value / factor:g} {unit}"


def size(value: float | None) -> str:
    """Bytes in binary units: 1.9 GiB."""
    if value is None:
        return NOTHING
    for unit, factor in (("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if abs(value) >= factor:
            return f"{value / factor:.1f} {unit}"
    return f"{value:.0f} B"


def pct(value: float | None) -> str:
    """A percentage: 4.2 %, 68 %."""
    if value is None:
        return NOTHING
    return f"{value:.1f} %" if abs(value) < 10 else f"{value:.0f} %"


def number(value: float | None) -> str:
    """A count with thin spaces between thousands."""
    return NOTHING if value is None else f"{value:,.0f}".replace(",", "\u202f")


def each_second(value: float | None) -> str:
    """A rate of events: 12/s, 0.4/s; below one in ten seconds by the minute."""
    if not value:
        return NOTHING
    if value < 0.1:
        return f"{value * 60:.1f}/min"
    return f"{value:.1f}/s" if value < 10 else f"{number(value)}/s"


def seconds(value: float | None) -> str:
    """A signed difference of clocks: +0.3 s."""
    if value is None:
        return NOTHING
    return "0.0 s" if abs(value) < 0.05 else f"{value:+.1f} s"


def duration(seconds: float | None) -> str:
    """A length of time in its two largest units: 12 d 4 h."""
    if seconds is None:
        return NOTHING
    rest = int(seconds)
    parts: list[str] = []
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        count, rest = divmod(rest, length)
        if count or (unit == "s" and not parts):
            parts.append(f"{count} {unit}")
        elif parts:
            break
    return " ".join(parts[:2])


def since(moment: datetime | None, now: datetime) -> str:
    """How long ago, or a dash."""
    return ago(moment, now) if moment else NOTHING


def sparkline(points: Sequence[tuple[float, float | None]], width: int = 120, height: int = 24) -> str:
    """SVG path data of a line from 0 to the maximum. A point is (place in time from 0 to 1, value).

    The line breaks where a value is missing and where nothing came for three times the usual distance. Empty without
    two values.
    """
    known = [(at, value) for at, value in points if value is not None]
    if len(known) < 2:
        return ""
    top = max(value for _, value in known) or 1.0
    usual = median(later[0] - earlier[0] for earlier, later in pairwise(points))
    path, before = [], None
    for at, value in points:
        if value is None:
            before = None
            continue
        joined = before is not None and at - before <= 3 * usual
        path.append(f"{'L' if joined else 'M'}{at * width:.1f} {height - 1 - value / top * (height - 2):.1f}")
        before = at
    return "".join(path)
