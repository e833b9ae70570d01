"""One metric of one entity over a range, in at most 600 buckets.

Buckets of less than an hour are made of samples: packed days, and landing rows of the hours not packed yet. Those from
an hour to a day come from the daily rollup, which holds what it made of the same samples; they are whole, also at the
ends of the range. Only days that are not over are read from their samples. Wider ones are made of samples up to 200
days, and of the days' sketches beyond. Where samples are no longer kept, buckets are wider instead.

Buckets are never narrower than most of the samples are apart. One without a value is a gap, and null. p95 is the value
that 95 % of the samples do not exceed (nearest rank), never a percentile of percentiles; `p95_from` says what it was
read from.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Literal
from uuid import UUID

import numpy as np
from ispvm_contract.registry import Metric, registry
from numpy.typing import NDArray
from psycopg import AsyncCursor
from psycopg.rows import TupleRow
from psycopg.types.range import Range
from pydantic import BaseModel, Field

from ispvm.refusal import RefusedError
from ispvm.store.columns import DERIVED, columns, landing_types
from ispvm.store.packing import DAY_SECONDS, Spans, sketch_p95, spans
from ispvm.store.pool import Connection
from ispvm.store.samples import EPOCH, Subject, Track, read_samples, unpacked_hour
from ispvm.store.steps import HOUR_SECONDS, AskedSteps, ask_steps, fetch_steps

MAX_POINTS = 600
MAX_RANGE = timedelta(days=1830)
STATEMENT_MS = 5_000
# Samples that are farther apart are not neighbours: something was missing.
GAP_SECONDS = 900
_STEPS = (
    10,
    15,
    30,
    60,
    120,
    300,
    600,
    900,
    1800,
    3600,
    7200,
    10800,
    14400,
    21600,
    43200,
    86400,
    172800,
    604800,
    2592000,
    7776000,
)
# Longer ranges are read from the daily rollup.
SAMPLES_LIMIT = timedelta(days=200)
Resolution = Literal["raw", "1m", "1h", "1d"]
P95Source = Literal["samples", "minute means", "sketch"]


class Series(BaseModel):
    """Columns of equal length, one place per bucket; null where there is no value."""

    device: UUID
    entity_type: str
    key: str
    metric: str
    label: str
    unit: str
    resolution: Resolution = Field(description="what the buckets were made of")
    step_s: int = Field(description="width of a bucket in seconds")
    t: list[int] = Field(description="start of each bucket, seconds since 1970, UTC")
    avg: list[float | None]
    min: list[float | None]
    max: list[float | None]
    p95: list[float | None]
    p95_from: P95Source = Field(description="off by at most: samples 0.03 %, minute means 0.05 %, sketch 0.5 %")
    resets: list[int] = Field(description="places of buckets in which a counter went backwards")
    late: list[int] = Field(description="places of buckets with samples that an agent sent long after it took them")
    generated: list[int] = Field(description="places of buckets that a seed made up: nobody measured them")


@dataclass(frozen=True, slots=True)
class Entity:
    """What a series is of."""

    id: int
    device_id: int
    device: UUID
    type: str
    key: str
    generated: Range[datetime] | None  # the part of the tenant's history that a seed made up
    capacity_bps: int | None
    interval_s: float | None  # how often the metric arrives
    unpacked: datetime | None  # the first hour that is not packed yet

    @property
    def subject(self) -> Subject:
        """The same for the store."""
        return Subject(self.id, self.device_id, self.type, self.capacity_bps, self.unpacked)


_FIND = f"""
select e.id, d.id, d.uuid, e.type, e.key,
    (select generated from tenant where id = d.tenant_id), e.capacity_bps,
    (select coalesce(min(coalesce(period_s, interval_s)) filter (where ts > now() - interval '15 minutes'),
                     min(coalesce(period_s, interval_s)))
     from latest_poll where device_id = d.id and type = e.type and %(column)s = any(columns)),
    {unpacked_hour("d.id", "e.type")}
from entity e join device d on d.id = e.device_id
where d.tenant_id = current_tenant() and d.uuid = %(device)s and e.type = %(type)s and e.key = %(key)s
"""  # noqa: S608  # constants


def metric_of(name: str) -> Metric:
    """A metric that has a series; raises RefusedError naming the parameter."""
    metric = registry().metrics.get(name)
    if metric is None or metric.entity_type not in landing_types():
        raise RefusedError(
            422, "metric", f"{name!r} has no series", "use a metric of the registry, such as interface.rx_bps"
        )
    return metric


async def find_entity(connection: Connection, device: UUID, metric: Metric, key: str) -> AsyncCursor[TupleRow]:
    """Ask for what has the metric: a row for `Entity` if this tenant has it."""
    return await connection.execute(
        _FIND.encode(), {"device": device, "type": metric.entity_type, "key": key, "column": _column(metric)}
    )


def _column(metric: Metric) -> str:
    """The landing column whose arrival says how often the metric comes."""
    return "rx_bps" if metric.name in DERIVED else columns(metric.entity_type)[metric.name].name


def choose_step(seconds: float, max_points: int, interval_s: float | None, resolution: Resolution) -> int:
    """Bucket width: wide enough for `max_points`, not narrower than the data, snapped to a round number."""
    least = 1.5 * (interval_s or 20) if resolution == "raw" else {"1m": 60, "1h": 3600, "1d": DAY_SECONDS}[resolution]
    # One bucket is lost to alignment.
    wanted = max(seconds / max(1, max_points - 1), least)
    return next((step for step in _STEPS if step >= wanted), math.ceil(wanted / DAY_SECONDS) * DAY_SECONDS)


def _span(step: int, start: datetime, end: datetime, max_points: int) -> tuple[int, int]:
    """The number of the first bucket since 1970, and how many there are."""
    first = math.floor(start.timestamp() / step)
    return first, min(math.ceil(end.timestamp() / step) - first, max_points)


def _empty(entity: Entity, metric: Metric, step: int, start: datetime, end: datetime, max_points: int) -> Series:
    """A series of gaps over the range."""
    first, count = _span(step, start, end, max_points)
    return Series(
        device=entity.device,
        entity_type=entity.type,
        key=entity.key,
        metric=metric.name,
        label=metric.label,
        unit=metric.unit,
        resolution="raw",
        step_s=step,
        t=[(first + place) * step for place in range(count)],
        avg=[None] * count,
        min=[None] * count,
        max=[None] * count,
        p95=[None] * count,
        p95_from="samples",
        resets=[],
        late=[],
        generated=_overlapping(entity.generated, first, count, step),
    )


def _overlapping(part: Range[datetime] | None, first: int, count: int, step: int) -> list[int]:
    """The places of `count` buckets, from bucket number `first`, that have a share in a part of time."""
    if part is None or part.lower is None or part.upper is None:
        return []
    begin, end = math.floor(part.lower.timestamp() / step), math.ceil(part.upper.timestamp() / step)
    return list(range(max(begin - first, 0), min(end - first, count)))


def _places(series: Series, seconds: Iterable[int]) -> list[int]:
    """The places of the buckets that these moments are in."""
    first, count = series.t[0] // series.step_s, len(series.t)
    found = {second // series.step_s - first for second in seconds}
    return sorted(place for place in found if 0 <= place < count)


async def read_series(
    connection: Connection, device: UUID, metric: Metric, key: str, start: datetime, end: datetime, max_points: int
) -> Series:
    """Find, read and bucket one series; 404 when this tenant has none, the same for one that another tenant has."""
    seconds = (end - start).total_seconds()
    derived = metric.name in DERIVED
    asked = await find_entity(connection, device, metric, key)
    steps = None
    step = choose_step(seconds, max_points, None, "raw")
    if HOUR_SECONDS <= step <= DAY_SECONDS and not derived:  # as wide, however seldom there is a sample
        steps = await _ask_steps(connection, device, metric, key, step, start, end, max_points)
    if (row := await asked.fetchone()) is None:
        raise RefusedError(404, "device", f"no {metric.entity_type} {key!r} on device {device}", "see /api/v1/devices")
    entity = Entity(*row)
    if derived and entity.capacity_bps is None:
        raise RefusedError(422, "metric", f"{entity.key!r} has no capacity", "give capacity_bps in the inventory")
    step = choose_step(seconds, max_points, entity.interval_s, "raw")
    found = None
    # What is derived follows the capacity of today as long as there are samples.
    if not HOUR_SECONDS <= step <= DAY_SECONDS or derived:
        found = await _from_samples(connection, metric, entity, start, end, max_points)
    step = choose_step(seconds, max_points, entity.interval_s, "1h")
    if found is None and step <= DAY_SECONDS:
        if steps is None or steps.hours * HOUR_SECONDS != step:
            steps = await _ask_steps(connection, device, metric, key, step, start, end, max_points)
        found = await _from_hours(connection, metric, _empty(entity, metric, step, start, end, max_points), entity,
                                  steps)  # fmt: skip
    return found if found is not None else await _from_days(connection, entity, metric, start, end, max_points)


async def _ask_steps(
    connection: Connection, device: UUID, metric: Metric, key: str, step: int, start: datetime, end: datetime,
    max_points: int,
) -> AskedSteps:  # fmt: skip
    first, count = _span(step, start, end, max_points)
    days = [datetime.fromtimestamp(second, UTC).date() for second in (first * step, (first + count) * step - 1)]
    return await ask_steps(connection, device, metric, key, step // HOUR_SECONDS, *days)


async def _from_samples(
    connection: Connection, metric: Metric, entity: Entity, start: datetime, end: datetime, max_points: int
) -> Series | None:
    """Any buckets; None when the range is long or begins before its samples."""
    if end - start > SAMPLES_LIMIT:
        return None
    track = await read_samples(connection, entity.subject, metric.name, start, end)
    oldest = EPOCH + timedelta(days=int(track.seconds[0]) // DAY_SECONDS) if len(track.seconds) else end.date()
    if oldest > start.date() and await _only_rolled_up(connection, entity, metric, start, oldest):
        return None
    # What comes more often by now may once have come less often, and would be drawn as dots.
    pace, now = _pace(track.seconds), entity.interval_s
    step = choose_step((end - start).total_seconds(), max_points, pace if pace > 1.5 * (now or 0) else now, "raw")
    series = _empty(entity, metric, step, start, end, max_points)
    if track.minutes:
        series.resolution = "1m"
    _take(series, track)
    return series


def _pace(seconds: NDArray[np.int64]) -> float:
    """How far apart the samples are that cover most of their time, in seconds; 0 when nothing is covered."""
    apart = np.diff(seconds)
    often = np.bincount(apart[apart <= GAP_SECONDS], minlength=1)  # by seconds apart
    covered = np.cumsum(often * np.arange(len(often)))
    return float(np.searchsorted(covered, covered[-1] / 2))


async def _from_hours(
    connection: Connection, metric: Metric, series: Series, entity: Entity, steps: AskedSteps
) -> Series | None:
    """Buckets from an hour to a day; None when a day that is read from its samples has none any more."""
    step = series.step_s
    series.resolution = "1h" if step < DAY_SECONDS else "1d"
    unpacked = entity.unpacked.astimezone(UTC).date() if entity.unpacked else None
    days = await fetch_steps(steps, unpacked)
    _fill(series, days.buckets)
    series.resets, series.late = _places(series, days.resets), _late(series, days.late)
    for first, last_day in _stretches(days.open):
        begin, stop = (datetime.fromtimestamp(day * DAY_SECONDS, UTC) for day in (first, last_day + 1))
        track = await read_samples(connection, entity.subject, metric.name, begin, stop)
        there = {*(track.seconds // DAY_SECONDS).tolist()}
        if not days.packed.intersection(range(first, last_day + 1)) <= there:
            return None
        _take(series, track)
    series.resets.sort()
    series.late.sort()
    return series


def _stretches(days: list[int]) -> list[tuple[int, int]]:
    """Days one after another as first and last."""
    found: list[tuple[int, int]] = []
    for day in days:
        if found and found[-1][1] == day - 1:
            found[-1] = found[-1][0], day
        else:
            found.append((day, day))
    return found


def _take(series: Series, track: Track) -> None:
    """Samples into their buckets, with their marks."""
    found = spans(track.seconds, track.values, series.step_s)
    if track.minutes:
        low, high = (spans(track.seconds, values, series.step_s) for values in (track.low, track.high))
        found = replace(found, low=low.low, high=high.high)
        series.p95_from = "minute means"
    _fill(series, found)
    series.resets += _places(series, track.resets)
    series.late += _late(series, track.late)


def _fill(series: Series, found: Spans) -> None:
    """Buckets into their places."""
    places = found.span - series.t[0] // series.step_s
    inside = (places >= 0) & (places < len(series.t))
    places = places[inside]
    if not len(places):
        return
    first, last = int(places[0]), int(places[-1])
    for column, values in (
        (series.avg, found.mean), (series.min, found.low), (series.max, found.high), (series.p95, found.p95),
    ):  # fmt: skip
        given = values[inside].tolist()
        if last - first + 1 == len(given):  # no gaps
            column[first : last + 1] = given
        else:
            for place, value in zip(places.tolist(), given, strict=True):
                column[place] = value


def _late(series: Series, late: list[int]) -> list[int]:
    """The places of stretches of late samples."""
    first, count = series.t[0] // series.step_s, len(series.t)
    places: set[int] = set()
    for begin, end in zip(late[::2], late[1::2], strict=True):
        places.update(range(max(begin // series.step_s - first, 0), min(end // series.step_s - first + 1, count)))
    return sorted(places)


async def _only_rolled_up(
    connection: Connection, entity: Entity, metric: Metric, start: datetime, before: date
) -> bool:
    """Whether the rollup knows days of the range that samples are no longer kept of."""
    rows = await connection.execute(
        "select exists (select from rollup_1d where entity_id = %s"
        " and metric_id = (select id from metric where name = %s) and day >= %s and day < %s)",
        [entity.id, metric.name, start.date(), before],
    )
    row = await rows.fetchone()
    return bool(row and row[0])


async def _from_days(
    connection: Connection, entity: Entity, metric: Metric, start: datetime, end: datetime, max_points: int
) -> Series:
    """Buckets of one day or several."""
    step = choose_step((end - start).total_seconds(), max_points, None, "1d")
    series = _empty(entity, metric, step, start, end, max_points)
    series.resolution = "1d"
    rows = await connection.execute(
        "select day - '1970-01-01'::date, n, resets, sum, min, max, p95, sketch from rollup_1d where entity_id = %s"
        " and metric_id = (select id from metric where name = %s) and day >= %s and day <= %s order by day",
        [entity.id, metric.name, start.date(), end.date()],
        binary=True,
    )
    buckets: dict[int, list[tuple[int, int, float, float, float, float, bytes]]] = defaultdict(list)
    async for day, *row in rows:
        for place in _places(series, [day * DAY_SECONDS]):
            buckets[place].append((row[0], row[1], row[2], row[3], row[4], row[5], row[6]))
    for place, days in buckets.items():
        series.avg[place] = sum(day[2] for day in days) / sum(day[0] for day in days)
        series.min[place], series.max[place] = min(day[3] for day in days), max(day[4] for day in days)
        series.p95[place] = days[0][5] if len(days) == 1 else sketch_p95([day[6] for day in days])
        if any(day[1] for day in days):
            series.resets.append(place)
    if step > DAY_SECONDS:
        series.p95_from = "sketch"
    return series
