"""How RouterOS writes versions, durations, dates and speeds."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import cache, lru_cache

Version = tuple[int, int, int]

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")


@cache
def version(text: str) -> Version:
    """`7.16.2`, `6.49` or `7.24rc2` as numbers to compare; raises ValueError for anything else."""
    match = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?(?:(?:beta|rc)\d+)?(?:\s|$)", text)
    if match is None:
        raise ValueError(f"{text!r} is no RouterOS version: write it like 7.16.2")
    major, minor, patch = match.groups()
    return int(major), int(minor), int(patch or 0)


def duration(seconds: float) -> str:
    """Whole seconds as `1w4d23h26m9s`; zero parts are left out, nothing at all is `0s`."""
    left = int(seconds)
    parts = []
    for unit, size in (("w", 604800), ("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def fine_duration(seconds: float) -> str:
    """A duration with milliseconds, as timers are printed: `4s70ms`, `-29ms`."""
    milliseconds = round(abs(seconds) * 1000)
    whole, rest = divmod(milliseconds, 1000)
    text = (duration(whole) if whole else "") + (f"{rest}ms" if rest else "")
    return ("-" if seconds < 0 and milliseconds else "") + (text or "0s")


def moment(epoch: float) -> datetime:
    """Seconds since 1970 as UTC."""
    return datetime.fromtimestamp(epoch, UTC)


def date(epoch: float, routeros: Version) -> str:
    """`jul/21/2023` before 7.10, `2023-07-21` from then on."""
    when = moment(epoch)
    if routeros >= (7, 10, 0):
        return f"{when:%Y-%m-%d}"
    return f"{_MONTHS[when.month - 1]}/{when:%d/%Y}"


def gmt_offset(seconds: int) -> str:
    """`+00:00`, `-03:30`."""
    minutes = abs(seconds) // 60
    return f"{'-' if seconds < 0 else '+'}{minutes // 60:02d}:{minutes % 60:02d}"


def date_time(epoch: float, routeros: Version) -> str:
    """Date and time of day in one field."""
    return _date_time(int(epoch), routeros)


@lru_cache(maxsize=1 << 17)
def _date_time(epoch: int, routeros: Version) -> str:
    return f"{date(epoch, routeros)} {moment(epoch):%H:%M:%S}"


def log_time(epoch: float, now: float, routeros: Version) -> str:
    """A log line's time: the newer 7.x write it whole; before, only what differs from today."""
    when, today = moment(epoch), moment(now)
    if routeros >= (7, 10, 0):
        return f"{when:%Y-%m-%d %H:%M:%S}"
    if when.date() == today.date():
        return f"{when:%H:%M:%S}"
    if when.year == today.year:
        return f"{_MONTHS[when.month - 1]}/{when:%d %H:%M:%S}"
    return f"{_MONTHS[when.month - 1]}/{when:%d/%Y %H:%M:%S}"


def speed(bits_per_second: int) -> str:
    """`10Gbps`, `2.5Gbps`, `100Mbps`."""
    if bits_per_second >= 1_000_000_000:
        return f"{bits_per_second / 1_000_000_000:g}Gbps"
    return f"{bits_per_second / 1_000_000:g}Mbps"


def yes(value: bool) -> str:
    """How the API prints a flag."""
    return "true" if value else "false"
