"""What RouterOS prints, as numbers and times. What cannot be read is None, never 0."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from math import isfinite
from typing import cast

Row = dict[str, str]
_DURATION = re.compile(
    r"(?P<sign>-)?(?:(?P<w>\d+)w)?(?:(?P<d>\d+)d)?"
    r"(?:(?P<hh>\d+):(?P<mm>\d\d):(?P<ss>\d\d(?:\.\d+)?)"
    r"|(?:(?P<h>\d+)h)?(?:(?P<m>\d+)m(?!s))?(?:(?P<s>\d+(?:\.\d+)?)s)?"
    r"(?:(?P<ms>\d+)ms)?(?:(?P<us>\d+)us)?(?:(?P<ns>\d+)ns)?)"
)
_SECONDS = {
    "w": 604800.0, "d": 86400.0, "h": 3600.0, "hh": 3600.0, "m": 60.0, "mm": 60.0,
    "s": 1.0, "ss": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9,
}  # fmt: skip
_LIMIT = 1 << 63
_TRUTH = {"true": True, "yes": True, "false": False, "no": False}
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_OFFSET = re.compile(r"([+-])(\d{1,2}):(\d\d)(?::(\d\d))?")


def text(row: Row, key: str) -> str:
    """A name or other short text: without control characters (identities with NULs exist), at most 255 characters.

    "" when absent.
    """
    found = row.get(key, "")
    if len(found) > 255 or not found.isprintable():
        found = "".join(filter(str.isprintable, found))[:255]
    return found


def integer(row: Row, key: str) -> int | None:
    """A whole number that fits into 64 bits with sign, as the server stores it."""
    try:
        found = int(row[key])
    except (KeyError, ValueError):
        return None
    return found if -_LIMIT <= found < _LIMIT else None


def integers(column: Sequence[str | None]) -> list[int | None]:
    """`integer` for one field of all rows."""
    try:
        found = [*map(int, cast("Sequence[str]", column))]
        if not found or (min(found) >= -_LIMIT and max(found) < _LIMIT):
            return cast("list[int | None]", found)
    except (TypeError, ValueError):
        pass
    return [None if text is None else integer({"": text}, "") for text in column]


def booleans(column: Sequence[str | None]) -> list[bool | None]:
    """`boolean` for one field of all rows."""
    return [_TRUTH.get(text or "") for text in column]


def number(row: Row, key: str) -> float | None:
    """A finite decimal number."""
    try:
        value = float(row[key])
    except (KeyError, ValueError):
        return None
    return value if isfinite(value) else None


def boolean(row: Row, key: str) -> bool | None:
    """ "true" and "yes", "false" and "no"."""
    return _TRUTH.get(row.get(key, ""))


def duration(text: str | None) -> float | None:
    """Seconds of "1w4d23h26m9s", "-29ms481us", "00:05:13" or "2d00:05:13"."""
    match = _DURATION.fullmatch(text) if text else None
    if match is None:
        return None
    parts = {name: value for name, value in match.groupdict().items() if value is not None and name != "sign"}
    if not parts:
        return None
    total = sum(float(value) * _SECONDS[name] for name, value in parts.items())
    if not isfinite(total):
        return None
    return -total if match["sign"] else total


def date_time(date: str | None, time: str | None, gmt_offset: str | None) -> datetime | None:
    """The UTC moment of /system/clock: date "jul/21/2023" or "2026-09-18", time "14:27:01", offset "+03:00"."""
    offset = _OFFSET.fullmatch(gmt_offset) if gmt_offset else None
    if date is None or time is None or offset is None:
        return None
    pieces = date.lower().split("/")
    try:
        if len(pieces) == 3:
            date = f"{int(pieces[2]):04d}-{_MONTHS.index(pieces[0]) + 1:02d}-{int(pieces[1]):02d}"
        local = datetime.strptime(f"{date} {time}", "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC)
        sign, hours, minutes, seconds = offset.groups(default="0")
        shift = timedelta(hours=int(hours), minutes=int(minutes), seconds=int(seconds))
        return local + shift if sign == "-" else local - shift
    except (ValueError, OverflowError):
        return None


def version(text: str | None) -> tuple[int, int] | None:
    """Major and minor of "7.24rc2 (testing)" or "6.49.10 (long-term)"."""
    match = re.match(r"(\d+)\.(\d+)", text or "")
    return (int(match[1]), int(match[2])) if match else None


def rate(text: str | None) -> int | None:
    """Bits a second of "10Gbps", "2.5Gbps", "100Mbps"; None for anything else."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kMG]?)bps", text or "")
    return round(float(match[1]) * _PREFIX[match[2]]) if match else None


_PREFIX = {"": 1, "k": 1_000, "M": 1_000_000, "G": 1_000_000_000}


def leading(text: str | None) -> float | None:
    """The number that a text begins with: "-62@1Mbps", "-0.512 ms", "-71dBm"."""
    match = re.match(r"-?\d+(?:\.\d+)?(?![\d.:])", text or "")
    value = float(match[0]) if match else None
    return value if value is not None and isfinite(value) else None


def both(text: str | None) -> int | None:
    """The sum of an up/down pair, "12/30"."""
    match = re.fullmatch(r"(\d{1,18})/(\d{1,18})", text or "")
    return int(match[1]) + int(match[2]) if match else None


def addresses(text: str | None) -> int | None:
    """How many addresses pool ranges hold: "10.0.0.2-10.0.0.254,10.1.0.0/24,10.2.0.1"."""
    total = 0
    try:
        for part in (text or "").split(","):
            low, _, high = part.partition("-")
            if "/" in low:
                total += ipaddress.ip_network(low, strict=False).num_addresses
            else:
                total += max(0, int(ipaddress.ip_address(high or low)) - int(ipaddress.ip_address(low)) + 1)
    except ValueError:
        return None
    return total if 0 < total < 1 << 63 else None
