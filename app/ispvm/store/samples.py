"""Samples of one entity over a range: packed days, and the landing rows of hours that are not packed yet."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from functools import cache

import numpy as np
from numpy.typing import NDArray

from ispvm.store.columns import LATE, array_columns, columns, table
from ispvm.store.packing import DAY_SECONDS, Samples, unpack_days
from ispvm.store.pool import Connection
from ispvm.store.rollup import UTILIZATION, merge_stretches, stretches_of, utilization

EPOCH = date(1970, 1, 1)
# The packed days follow within minutes; while the worker is down, no more than this is read from landing rows.
TAIL_HOURS = 25
DAYS_OF = (
    "select day - '1970-01-01'::date, samples, low, high, resets, late from sample_day"
    " where entity_id = %(entity)s and metric_id = (select id from metric where name = %(metric)s)"
    " and day >= %(from)s and day <= %(to)s order by day"
)


@dataclass(frozen=True, slots=True)
class Subject:
    """An entity as the store knows it."""

    id: int
    device_id: int
    type: str
    capacity_bps: int | None = None
    unpacked: datetime | None = None  # the first hour whose landing rows are not packed yet


@dataclass(slots=True)
class Track:
    """Samples in the order of time: `seconds` since 1970, `values`, and their extremes `low` and `high`, which are
    `values` itself unless `minutes`, the samples being minute means. `late` are stretches: first, last, first, last, …
    """

    seconds: NDArray[np.int64]
    values: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    resets: list[int]
    late: list[int]
    minutes: bool = False


def _sources(metric: str) -> list[str]:
    """The metrics whose samples make up a metric's."""
    return ["interface.rx_bps", "interface.tx_bps"] if metric == UTILIZATION else [metric]


def unpacked_hour(device: str, entity_type: str) -> str:
    """The `unpacked` of a Subject as a scalar sub-select, for two SQL expressions. It must be asked before the days are
    read: what is packed in between is then read twice, never missed.
    """
    return (
        f"(select min(hour) from rollup_dirty r where r.device_id = {device} and r.type = {entity_type}"  # noqa: S608
        f" and r.hour > now() - interval '{TAIL_HOURS} hours')"
    )


async def read_samples(connection: Connection, subject: Subject, metric: str, start: datetime, end: datetime) -> Track:
    """Every sample from `start` until before `end`. Utilisation is worked out from the capacity of today."""
    unpacked = subject.unpacked
    names = _sources(metric)
    tracks = [await _packed(connection, subject, name, start, end) for name in names]
    if unpacked is not None and unpacked < end:
        tail = await _unpacked(connection, subject, names, max(start, unpacked), end)
        tracks = [_joined(track, more) for track, more in zip(tracks, tail, strict=True)]
    if metric == UTILIZATION:
        tracks = [_used(tracks[0], tracks[1], subject.capacity_bps or 1)]
    return _cut(tracks[0], start.timestamp(), end.timestamp())


async def _packed(connection: Connection, subject: Subject, metric: str, start: datetime, end: datetime) -> Track:
    parameters = {"entity": subject.id, "metric": metric, "from": start.date(), "to": end.date()}
    rows = await connection.execute(DAYS_OF, parameters, binary=True)
    mean: list[tuple[int, bytes]] = []
    low: list[tuple[int, bytes]] = []
    high: list[tuple[int, bytes]] = []
    resets: list[int] = []
    late: list[int] = []
    for day, samples, lowest, highest, reset, stretches in await rows.fetchall():
        mean.append((day, samples))
        low.append((day, lowest or samples))
        high.append((day, highest or samples))
        resets += [day * DAY_SECONDS + second for second in reset or ()]
        late += [day * DAY_SECONDS + second for second in stretches or ()]
    seconds, values = unpack_days(mean)
    if low == mean:
        return Track(seconds, values, values, values, resets, late)
    return Track(seconds, values, unpack_days(low)[1], unpack_days(high)[1], resets, late, minutes=True)


@cache
def _landing(entity_type: str, names: tuple[str, ...]) -> str:
    there = columns(entity_type)
    of_sets = array_columns(entity_type)
    values = ", ".join(f"p.{there[name].name}{'[s.at]' if of_sets else ''}" for name in names)
    reset = "coalesce(s.at - 1 = any(p.reset), false)" if of_sets else "coalesce(cardinality(p.reset), 0) > 0"
    places = (
        " join (select id, array_position(entities, %(entity)s) as at from entity_set where device_id = %(device)s"
        " and type = %(type)s and %(entity)s = any(entities)) s on s.id = p.set_id"
    )
    return (
        f"select extract(epoch from p.ts)::float8, p.quality, {reset}, {values} from {table(entity_type)} p"  # noqa: S608
        f"{places if of_sets else ''} where p.device_id = %(device)s and p.ts >= %(from)s and p.ts < %(to)s"
        " order by p.ts"
    )


async def _unpacked(
    connection: Connection, subject: Subject, names: list[str], start: datetime, end: datetime
) -> list[Track]:
    rows = await connection.execute(
        _landing(subject.type, tuple(names)).encode(),
        {"device": subject.device_id, "entity": subject.id, "type": subject.type, "from": start, "to": end},
        binary=True,
    )
    found = await rows.fetchall()
    tracks = []
    for at in range(3, 3 + len(names)):
        there = [row for row in found if row[at] is not None]
        seconds = np.array([int(row[0]) for row in there], np.int64)
        values = np.array([float(row[at]) for row in there], np.float64)
        resets = [int(row[0]) for row in found if row[2]]
        late = stretches_of(int(row[0]) for row in found if row[1] >= LATE)
        tracks.append(Track(seconds, values, values, values, resets, late))
    return tracks


def _joined(one: Track, newer: Track) -> Track:
    """Both together; where both have a moment, `newer` says what it was."""
    if not len(newer.seconds):
        return one
    seconds = np.concatenate((one.seconds, newer.seconds))
    order = np.argsort(seconds, kind="stable")
    ordered = seconds[order]
    keep = order[np.append(ordered[1:] != ordered[:-1], True)]
    mean = np.concatenate((one.values, newer.values))[keep]
    low, high = mean, mean
    if one.minutes:
        low, high = np.concatenate((one.low, newer.low))[keep], np.concatenate((one.high, newer.high))[keep]
    late = merge_stretches(one.late, newer.late)
    return Track(seconds[keep], mean, low, high, sorted({*one.resets, *newer.resets}), late, one.minutes)


def _used(rx: Track, tx: Track, capacity_bps: int) -> Track:
    def side_used(which: str) -> Samples:
        # Seconds since 1970 fit where seconds of the day do.
        sides = [Samples(side.seconds.astype(np.int32), getattr(side, which)) for side in (rx, tx)]
        return utilization(sides[0], sides[1], capacity_bps)

    mean = side_used("values")
    minutes = rx.minutes or tx.minutes
    low, high = (side_used("low").values, side_used("high").values) if minutes else (mean.values, mean.values)
    return Track(mean.seconds.astype(np.int64), mean.values, low, high, rx.resets, rx.late, minutes)


def _cut(track: Track, start: float, end: float) -> Track:
    first, last = np.searchsorted(track.seconds, [start, end])
    mean = track.values[first:last]
    low, high = (track.low[first:last], track.high[first:last]) if track.minutes else (mean, mean)
    resets = [second for second in track.resets if start <= second < end]
    return Track(track.seconds[first:last], mean, low, high, resets, track.late, track.minutes)
