"""History from the dirty log: the landing rows of marked hours are merged into the packed days they belong to, and what
is derived of a day is derived anew. Merging twice changes nothing, and late data are as right as punctual ones.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from functools import cache, lru_cache

import numpy as np
import psycopg
import structlog
from numpy.typing import NDArray
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from ispvm.store.columns import (
    LARGEST_REAL,
    LATE,
    Column,
    PackedArray,
    RealArray,
    SmallintArray,
    array_columns,
    columns,
    register,
    table,
)
from ispvm.store.packing import (
    EMPTY,
    Constant,
    Samples,
    array_values,
    binary_array,
    constant,
    constant_sketch,
    p95,
    p95s,
    pack,
    sketch,
    spans,
    steady,
    unpack,
)

log = structlog.get_logger("ispvm.worker")
RETRY_AFTER = timedelta(hours=1)
# Byte counters are not kept in history: their rates are.
_SKIPPED_UNITS = {"counter": "By"}
UTILIZATION = "interface.utilization_pct"
_LETTERS = {"real": ">f4", "bigint": ">i8", "smallint": ">i2", "boolean": "?"}
# Late stretches this near to each other are one.
_STRETCH_GAP_SECONDS = 900
# Parts of a day, in hours, whose percentiles are kept beside those of its hours and its own.
STEP_HOURS = (2, 3, 4, 6, 12)
STEP_PLACES = sum(24 // hours for hours in STEP_HOURS)


@dataclass(frozen=True, slots=True)
class DirtyHour:
    """One hour of one entity type of one device, whose landing rows changed."""

    tenant: int
    device: int
    type: str
    hour: datetime


@dataclass(slots=True)
class _Landed:
    """What the landing rows of some hours say of one entity: samples by column, moments of resets, stretches of late
    arrivals.
    """

    samples: dict[str, Samples]
    resets: NDArray[np.int32]
    late: list[int]


def kept(entity_type: str) -> list[Column]:
    """The columns that have a history."""
    return [c for c in columns(entity_type).values() if _SKIPPED_UNITS.get(c.metric.type) != c.metric.unit]


def merge_stretches(*lists: Sequence[int]) -> list[int]:
    """Stretches [first, last, first, last, …] of several lists as one; near ones become one."""
    pairs = [pair for one in lists for pair in zip(one[::2], one[1::2], strict=True)]
    merged: list[int] = []
    for first, last in sorted(pairs):
        if merged and first - merged[-1] <= _STRETCH_GAP_SECONDS:
            merged[-1] = max(merged[-1], last)
        else:
            merged += [first, last]
    return merged


def stretches_of(moments: Iterable[int]) -> list[int]:
    """Single moments as stretches."""
    return merge_stretches([moment for moment in moments for _ in "ab"])


def utilization(rx: Samples, tx: Samples, capacity_bps: int) -> Samples:
    """Percent of capacity used by the busier direction, at the moments that either has."""
    if len(rx.seconds) == len(tx.seconds) and np.array_equal(rx.seconds, tx.seconds):
        return Samples(rx.seconds, _percent(np.maximum(rx.values, tx.values), capacity_bps))
    seconds = np.union1d(rx.seconds, tx.seconds).astype(np.int32)
    values = np.zeros(len(seconds))
    for one in (rx, tx):
        at = np.searchsorted(seconds, one.seconds)
        values[at] = np.maximum(values[at], one.values)
    return Samples(seconds, _percent(values, capacity_bps))


def _percent(rates: NDArray[np.float64], capacity_bps: int) -> NDArray[np.float64]:
    """A rate that nobody can have sent still has to fit the rollup's columns."""
    return np.minimum(rates * (100.0 / capacity_bps), LARGEST_REAL)


@cache
def _landing(entity_type: str) -> str:
    """The landing rows of one device between two moments; the values of arrays as PostgreSQL sends them."""
    names = [c.name for c in kept(entity_type)]
    times = "floor(extract(epoch from p.ts - %(day)s::date::timestamp at time zone 'UTC'))::int4, p.quality, p.reset"
    where = "where p.device_id = %(device)s and p.ts >= %(from)s and p.ts < %(to)s order by p.ts"
    if array_columns(entity_type):
        values = ", ".join(f"array_send(p.{name})" for name in names)
        return f"select p.set_id, {times}, {values} from {table(entity_type)} p {where}"  # noqa: S608  # registry's names
    values = ", ".join(f"p.{name}" for name in names)
    return f"select 0, {times}, {values} from {table(entity_type)} p {where}"  # noqa: S608


async def _landed(
    connection: AsyncConnection[TupleRow], device: int, entity_type: str, day: date, hours: Sequence[datetime]
) -> dict[int, _Landed]:
    """What landed in these hours of the day, by entity."""
    wanted = {hour.hour for hour in hours}
    found = await connection.execute(
        _landing(entity_type).encode(),
        {"device": device, "day": day, "from": min(hours), "to": max(hours) + timedelta(hours=1)},
        binary=True,
    )
    by_set: dict[int, list[TupleRow]] = defaultdict(list)
    async for row in found:
        if row[1] // 3600 in wanted:
            by_set[row[0]].append(row)
    if array_columns(entity_type):
        rows = await connection.execute("select id, entities from entity_set where id = any(%s)", [list(by_set)])
    else:
        rows = await connection.execute(
            "select 0, array[id] from entity where device_id = %s and type = %s", [device, entity_type]
        )
    landed: dict[int, _Landed] = {}
    for number, entities in [row async for row in rows]:
        for entity, one in _of_set(by_set.get(number, []), entities, entity_type):
            landed[entity] = _joined(landed[entity], one) if entity in landed else one
    return landed


def _of_set(rows: list[TupleRow], entities: list[int], entity_type: str) -> Iterable[tuple[int, _Landed]]:
    if not rows:
        return
    seconds = np.array([row[1] for row in rows], np.int32)
    late = stretches_of(row[1] for row in rows if row[2] >= LATE)
    resets: dict[int, list[int]] = defaultdict(list)
    for row in rows:
        for place in row[3] or ():
            resets[place].append(row[1])
    samples: list[dict[str, Samples]] = [{} for _ in entities]
    for at, column in enumerate(kept(entity_type), 4):
        there = [place for place, row in enumerate(rows) if row[at] is not None]
        if not there:
            continue
        if array_columns(entity_type):
            matrix = np.stack([array_values(rows[place][at], _LETTERS[column.kind]) for place in there])
        else:
            matrix = np.array([[float(rows[place][at])] for place in there])
        moments = seconds[there]
        # Two polls in one second: the later one counts.
        last = np.append(moments[1:] != moments[:-1], True)
        whole = bool(last.all()) and not np.isnan(matrix).any()
        for place in range(len(entities)):
            values = matrix[:, place]
            if whole:
                samples[place][column.metric.name] = Samples(moments, values)
            elif (good := last & ~np.isnan(values)).any():
                samples[place][column.metric.name] = Samples(moments[good], values[good])
    for place, entity in enumerate(entities):
        if samples[place]:
            yield entity, _Landed(samples[place], np.array(resets.get(place, []), np.int32), late)


def _joined(one: _Landed, other: _Landed) -> _Landed:
    names = {*one.samples, *other.samples}
    return _Landed(
        {name: one.samples.get(name, EMPTY).merged(other.samples.get(name, EMPTY)) for name in names},
        np.union1d(one.resets, other.resets).astype(np.int32),
        merge_stretches(one.late, other.late),
    )


@dataclass(slots=True)
class _Row:
    """A row of sample_day and what is derived of it."""

    entity: int
    metric: int
    samples: Samples | Constant
    packed: bytes | None  # None: derived from other metrics' samples, and not stored itself
    resets: list[int]
    late: list[int]


@lru_cache(maxsize=256)
def _hours_of(first: int, step: int, count: int) -> NDArray[np.int64]:
    return np.bincount((first + step * np.arange(count)) // 3600, minlength=24)


class _Days:
    """Rows of rollup_1d as columns; the hours of all rows behind one another, 24 each, and so the steps."""

    def __init__(self, rows: Sequence[_Row]) -> None:
        self.n, self.sum, self.low, self.high, self.p95 = (np.zeros(len(rows)) for _ in range(5))
        self.hours = {name: np.zeros((len(rows), 24)) for name in ("n", "mean", "min", "max", "p95")}
        self.steps = np.zeros((len(rows), STEP_PLACES))
        self.over: list[bool] = []
        self.flat: list[bool] = []
        self.sketches: list[bytes] = []
        for at, row in enumerate(rows):
            self._fill(at, row.samples)

    def _fill(self, at: int, samples: Samples | Constant) -> None:
        hours = self.hours
        if isinstance(samples, Constant):
            self.n[at], self.sum[at] = samples.count, samples.count * samples.value
            self.low[at] = self.high[at] = self.p95[at] = samples.value
            hours["n"][at] = _hours_of(samples.first, samples.step, samples.count)
            hours["mean"][at] = samples.value
            self.over.append(bool(hours["n"][at, 23]))
            self.flat.append(True)
            self.sketches.append(constant_sketch(samples.value, samples.count))
            return
        values = samples.values
        found = spans(samples.seconds, values, 3600)
        self.n[at], self.sum[at] = len(values), values.sum()
        self.low[at], self.high[at], self.p95[at] = found.low.min(), found.high.max(), p95(values)
        for name, numbers in zip(hours, (found.n, found.mean, found.low, found.high, found.p95), strict=True):
            hours[name][at, found.span] = numbers
        # Only when the day is over: each hour that is packed before would do it again.
        self.over.append(bool(found.span[-1] == 23))
        if self.over[-1] and self.low[at] != self.high[at]:
            self.steps[at] = _step_p95(values, hours["n"][at])
        self.flat.append(bool((found.low == found.high).all()))
        self.sketches.append(sketch(values))

    def hour(self, name: str) -> PackedArray:
        """All rows' hours of one kind."""
        flat = self.hours[name].reshape(-1)
        if name == "n":
            return SmallintArray(binary_array(flat, ">i2", 21))
        return RealArray(binary_array(flat, ">f4", 700))

    def step_p95(self) -> PackedArray:
        """All rows' percentiles of steps."""
        return RealArray(binary_array(self.steps.reshape(-1), ">f4", 700))


def _step_p95(values: NDArray[np.float64], hour_n: NDArray[np.float64]) -> NDArray[np.float64]:
    """Percentiles of each of STEP_HOURS, one after another; 0 where there is no sample."""
    found = np.zeros(STEP_PLACES)
    first = 0
    for hours in STEP_HOURS:
        n = hour_n.reshape(-1, hours).sum(axis=1).astype(np.int64)
        there = np.flatnonzero(n)
        found[first + there] = p95s(values, (np.cumsum(n) - n)[there], n[there])
        first += 24 // hours
    return found


_STORE_SAMPLES = """
insert into sample_day as s (tenant_id, day, entity_id, metric_id, samples, resets, late)
select %(tenant)s, %(day)s, u.entity, u.metric, u.samples, u.resets::integer[], u.late::integer[]
from unnest(%(entities)s::int[], %(metrics)s::smallint[], %(samples)b::bytea[], %(resets)s::text[], %(late)s::text[])
     as u(entity, metric, samples, resets, late)
on conflict (entity_id, metric_id, day) do update
set samples = excluded.samples, resets = excluded.resets, late = excluded.late
"""
_STORE_DAYS = """
insert into rollup_1d as r (tenant_id, day, entity_id, metric_id, n, resets, sum, min, max, p95, hour_n, hour_mean,
    hour_min, hour_max, hour_p95, sketch, step_p95, reset_at, late)
select %(tenant)s, %(day)s, u.entity, u.metric, u.n, u.resets, u.sum, u.min, u.max, u.p95,
    (%(hour_n)b)[u.at * 24 - 23 : u.at * 24], (%(hour_mean)b)[u.at * 24 - 23 : u.at * 24],
    case when not u.flat then (%(hour_min)b)[u.at * 24 - 23 : u.at * 24] end,
    case when not u.flat then (%(hour_max)b)[u.at * 24 - 23 : u.at * 24] end,
    case when not u.flat then (%(hour_p95)b)[u.at * 24 - 23 : u.at * 24] end, u.sketch,
    case when u.min = u.max and u.over then '{}' when u.over
        then (%(step_p95)b)[(u.at - 1) * %(step_places)s + 1 : u.at * %(step_places)s] end,
    u.reset_at::integer[], u.late::integer[]
from unnest(%(entities)s::int[], %(metrics)s::smallint[], %(n)s::int[], %(resets)s::int[], %(sum)s::float8[],
     %(min)s::float8[], %(max)s::float8[], %(p95)s::float8[], %(flat)s::boolean[], %(over)s::boolean[],
     %(sketches)b::bytea[], %(reset_at)s::text[], %(late)s::text[])
     with ordinality as u(entity, metric, n, resets, sum, min, max, p95, flat, over, sketch, reset_at, late, at)
on conflict (entity_id, metric_id, day) do update
set n = excluded.n, resets = excluded.resets, sum = excluded.sum, min = excluded.min, max = excluded.max,
    p95 = excluded.p95, hour_n = excluded.hour_n, hour_mean = excluded.hour_mean, hour_min = excluded.hour_min,
    hour_max = excluded.hour_max, hour_p95 = excluded.hour_p95, sketch = excluded.sketch,
    step_p95 = excluded.step_p95, reset_at = excluded.reset_at, late = excluded.late
"""


def _literal(numbers: Sequence[int]) -> str | None:
    return "{" + ",".join(map(str, numbers)) + "}" if numbers else None


def _merged(packed: bytes | None, new: Samples, exact: bool) -> tuple[Samples | Constant, bytes]:
    """Old and new samples of a day together, as they are worked on and as they are stored."""
    if packed is None:
        # What has never moved, which most counters and states have not, is worked on without packing it.
        if (one := steady(new)) is not None:
            return one, one.packed()
        packed = pack(new, exact)
        return new, packed
    old = constant(packed)
    if old is not None:
        # Nor unpacked, as long as it goes on so.
        expected = np.arange(1, len(new.seconds) + 1) * old.step + old.first + old.step * (old.count - 1)
        if old.count > 1 and (new.values == old.value).all() and np.array_equal(expected, new.seconds):
            longer = replace(old, count=old.count + len(new.seconds))
            return longer, longer.packed()
    samples = unpack(packed).merged(new)
    packed = pack(samples, exact)
    return constant(packed) or samples, packed


def _opened(samples: Samples | Constant) -> Samples:
    return unpack(samples.packed()) if isinstance(samples, Constant) else samples


async def recompute(
    connection: AsyncConnection[TupleRow],
    tenant: int,
    device: int,
    entity_type: str,
    day: date,
    hours: Sequence[datetime],
) -> None:
    """Merge the landing rows of some hours of one day into history, within the current transaction."""
    landed = await _landed(connection, device, entity_type, day, hours)
    if not landed:
        return
    rows = await connection.execute("select name, id from metric")
    metrics: dict[str, int] = {name: number async for name, number in rows}
    rows = await connection.execute(
        "select entity_id, metric_id, samples, resets, late from sample_day where entity_id = any(%s) and day = %s",
        [list(landed), day],
        binary=True,
    )
    there = {(entity, metric): (packed, resets, late) async for entity, metric, packed, resets, late in rows}
    capacities: dict[int, int] = {}
    if entity_type == "interface":
        rows = await connection.execute(
            "select id, capacity_bps from entity where id = any(%s) and capacity_bps is not null", [list(landed)]
        )
        capacities = {entity: capacity async for entity, capacity in rows}
    changed: list[_Row] = []
    for entity, new in sorted(landed.items()):
        days: dict[str, Samples | Constant] = {}
        for column in kept(entity_type):
            name = column.metric.name
            if name not in new.samples:
                continue
            old, resets, late = there.get((entity, metrics[name]), (None, None, None))
            samples, packed = _merged(old, new.samples[name], column.metric.type != "gauge")
            days[name] = samples
            resets = sorted({*(resets or ()), *new.resets.tolist()})
            late = merge_stretches(late or (), new.late)
            changed.append(_Row(entity, metrics[name], samples, packed, resets, late))
        if entity in capacities and "interface.rx_bps" in days and "interface.tx_bps" in days:
            used = utilization(_opened(days["interface.rx_bps"]), _opened(days["interface.tx_bps"]), capacities[entity])
            changed.append(_Row(entity, metrics[UTILIZATION], used, None, [], []))
    await store_day(connection, tenant, day, changed)


def first_row(entity: int, metric: int, samples: Samples, *, exact: bool, derived: bool = False) -> _Row:
    """The row of a day that holds these samples and nothing else."""
    if derived:
        return _Row(entity, metric, samples, None, [], [])
    shown, packed = _merged(None, samples, exact)
    return _Row(entity, metric, shown, packed, [], [])


async def store_day(connection: AsyncConnection[TupleRow], tenant: int, day: date, changed: Sequence[_Row]) -> None:
    """Write rows of one day, and what is derived of them."""
    stored = [row for row in changed if row.packed is not None]
    await connection.execute(
        _STORE_SAMPLES,
        {
            "tenant": tenant,
            "day": day,
            "entities": [row.entity for row in stored],
            "metrics": [row.metric for row in stored],
            "samples": [row.packed for row in stored],
            "resets": [_literal(row.resets) for row in stored],
            "late": [_literal(row.late) for row in stored],
        },
    )
    days_ = _Days(changed)
    await connection.execute(
        _STORE_DAYS,
        {
            "tenant": tenant,
            "day": day,
            "entities": [row.entity for row in changed],
            "metrics": [row.metric for row in changed],
            "n": days_.n.astype(int).tolist(),
            "resets": [len(row.resets) for row in changed],
            "sum": days_.sum.tolist(),
            "min": days_.low.tolist(),
            "max": days_.high.tolist(),
            "p95": days_.p95.tolist(),
            "flat": days_.flat,
            "over": days_.over,
            "sketches": days_.sketches,
            "step_p95": days_.step_p95(),
            "step_places": STEP_PLACES,
            "reset_at": [_literal(row.resets) for row in changed],
            "late": [_literal(row.late) for row in changed],
            **{f"hour_{name}": days_.hour(name) for name in days_.hours},
        },
    )


async def take_due(connection: AsyncConnection[TupleRow], limit: int, *, all_marks: bool = False) -> list[DirtyHour]:
    """Remove the `limit` marks that are due longest within the current transaction, and with them all due marks of the
    same days, so that a day is not written once an hour; marks that another transaction holds are left.

    With `all_marks` also those that are not due yet.
    """
    rows = await connection.execute(
        "with day as (select distinct device_id, type, date_trunc('day', hour, 'UTC') as begin from"
        "  (select * from rollup_dirty where %(all)s or due <= now() order by due limit %(limit)s"
        "   for update skip locked) as first)"
        " delete from rollup_dirty d using (select m.device_id, m.type, m.hour from day join rollup_dirty m"
        "  on m.device_id = day.device_id and m.type = day.type and m.hour >= day.begin"
        "  and m.hour < day.begin + interval '24 hours' where %(all)s or m.due <= now() for update of m skip locked) t"
        " where (d.device_id, d.type, d.hour) = (t.device_id, t.type, t.hour)"
        " returning d.tenant_id, d.device_id, d.type, d.hour",
        {"all": all_marks, "limit": limit},
    )
    return [DirtyHour(*row) async for row in rows]


async def roll_up(connection: AsyncConnection[TupleRow], limit: int = 20, *, all_marks: bool = False) -> int:
    """Take due hours and merge them in one transaction; returns how many. A failure leaves their marks in place."""
    register(connection)
    async with connection.transaction():
        taken = await take_due(connection, limit, all_marks=all_marks)
        days: dict[tuple[int, str, date, int], list[datetime]] = defaultdict(list)
        for dirty in taken:
            hour = dirty.hour.astimezone(UTC)
            days[dirty.device, dirty.type, hour.date(), dirty.tenant].append(hour)
        for device, entity_type, day, tenant in sorted(days):
            # Two workers on one day of a device would each lose what the other merged.
            await connection.execute("select pg_advisory_xact_lock(%s, hashtext(%s))", [device, entity_type])
            hours = days[device, entity_type, day, tenant]
            try:
                async with connection.transaction():
                    await recompute(connection, tenant, device, entity_type, day, hours)
            except (psycopg.DataError, ValueError, ArithmeticError) as error:
                # Its landing rows stay as long as it is marked, and it does not hold up the others.
                log.error("a day could not be packed; tried again later", device=device, type=entity_type, day=str(day),
                          error=str(error))  # fmt: skip
                await connection.execute(
                    "insert into rollup_dirty (tenant_id, device_id, type, hour, due)"
                    " select %s, %s, %s, hour, now() + %s from unnest(%s::timestamptz[]) hour"
                    " on conflict (device_id, type, hour) do nothing",
                    [tenant, device, entity_type, RETRY_AFTER, hours],
                )
    return len(taken)
