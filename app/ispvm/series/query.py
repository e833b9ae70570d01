"""One metric of one entity over a range, in at most 600 buckets.

Ranges up to 24 h come from landing rows, longer ones only from rollups. A bucket without a value is a gap, and null.
p95 is the value that 95 % of the samples do not exceed (nearest rank), never a percentile of percentiles; between 24 h
and about 25 days the samples are minute means.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal
from uuid import UUID

from ispvm_contract.registry import Metric, registry
from pydantic import BaseModel, Field

from ispvm.refusal import RefusedError
from ispvm.store.columns import DERIVED, array_columns, columns, landing_types, table
from ispvm.store.pool import Connection

MAX_POINTS = 600
RAW_LIMIT = timedelta(hours=24)
MAX_RANGE = timedelta(days=1830)
STATEMENT_MS = 5_000
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
    21600,
    43200,
    86400,
    172800,
    604800,
    2592000,
    7776000,
)
Resolution = Literal["raw", "1m", "1h"]


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
    resets: list[int] = Field(description="places of buckets in which a counter went backwards")


@dataclass(frozen=True, slots=True)
class Entity:
    """What a series is of."""

    id: int
    device_id: int
    device: UUID
    type: str
    key: str
    capacity_bps: int | None


def metric_of(name: str) -> Metric:
    """A metric that has a series; raises RefusedError naming the parameter."""
    metric = registry().metrics.get(name)
    if metric is None or metric.entity_type not in landing_types():
        raise RefusedError(
            422, "metric", f"{name!r} has no series", "use a metric of the registry, such as interface.rx_bps"
        )
    return metric


async def find_entity(connection: Connection, device: UUID, entity_type: str, key: str) -> Entity:
    """The entity, if this tenant has it; otherwise 404, the same for one that another tenant has."""
    rows = await connection.execute(
        "select e.id, d.id, d.uuid, e.type, e.key, e.capacity_bps from entity e join device d on d.id = e.device_id"
        " where d.tenant_id = current_tenant() and d.uuid = %s and e.type = %s and e.key = %s",
        [device, entity_type, key],
    )
    row = await rows.fetchone()
    if row is None:
        raise RefusedError(404, "device", f"no {entity_type} {key!r} on device {device}", "see /api/v1/devices")
    return Entity(*row)


def choose_step(seconds: float, max_points: int, interval_s: float | None, resolution: Resolution) -> int:
    """Bucket width: wide enough for `max_points`, not narrower than the data, snapped to a round number."""
    least = {
        "raw": 1.5 * (interval_s or 20),
        "1m": max(60, 1.5 * (interval_s or 0) if (interval_s or 0) > 60 else 60),
        "1h": 3600,
    }
    # One bucket is lost to alignment.
    wanted = max(seconds / max(1, max_points - 1), least[resolution])
    return next((step for step in _STEPS if step >= wanted), math.ceil(wanted / 86400) * 86400)


def choose_resolution(start: datetime, end: datetime, max_points: int) -> Resolution:
    """Which table answers a range."""
    if end - start <= RAW_LIMIT:
        return "raw"
    return "1m" if (end - start).total_seconds() / max_points < 3600 else "1h"


async def read_series(
    connection: Connection, entity: Entity, metric: Metric, start: datetime, end: datetime, max_points: int
) -> Series:
    """Read and bucket one series."""
    resolution = choose_resolution(start, end, max_points)
    interval = await _interval(connection, entity, metric)
    step = choose_step((end - start).total_seconds(), max_points, interval, resolution)
    first = math.floor(start.timestamp() / step)
    last = math.ceil(end.timestamp() / step)
    count = min(last - first, max_points)
    parameters = {
        "device": entity.device_id,
        "entity": entity.id,
        "type": entity.type,
        "metric": metric.name,
        "capacity": entity.capacity_bps,
        "start": start,
        "hour": start.replace(minute=0, second=0, microsecond=0),
        "end": end,
        "step": step,
        "limit": MAX_POINTS + 1,
    }
    query = {"raw": _raw(metric, entity), "1m": _MINUTES, "1h": _HOURS}[resolution]
    series = Series(
        device=entity.device,
        entity_type=entity.type,
        key=entity.key,
        metric=metric.name,
        label=metric.label,
        unit=metric.unit,
        resolution=resolution,
        step_s=step,
        t=[(first + place) * step for place in range(count)],
        avg=[None] * count,
        min=[None] * count,
        max=[None] * count,
        p95=[None] * count,
        resets=[],
    )
    async for bucket, mean, low, high, p95, reset in await connection.execute(query.encode(), parameters):
        place = bucket - first
        if 0 <= place < count:
            series.avg[place], series.min[place], series.max[place], series.p95[place] = mean, low, high, p95
            if reset:
                series.resets.append(place)
    return series


async def _interval(connection: Connection, entity: Entity, metric: Metric) -> float | None:
    """How often the metric arrives."""
    column = "rx_bps" if metric.name in DERIVED else columns(entity.type)[metric.name].name
    rows = await connection.execute(
        "select coalesce(min(coalesce(period_s, interval_s)) filter (where ts > now() - interval '15 minutes'),"
        " min(coalesce(period_s, interval_s))) from latest_poll"
        " where device_id = %s and type = %s and %s = any(columns)",
        [entity.device_id, entity.type, column],
    )
    row = await rows.fetchone()
    return row[0] if row else None


def _raw(metric: Metric, entity: Entity) -> str:
    """From landing rows: one array element per poll, or the device's own column."""
    if metric.name in DERIVED:
        if entity.capacity_bps is None:
            raise RefusedError(422, "metric", f"{entity.key!r} has no capacity", "give capacity_bps in the inventory")
        value = "greatest(p.rx_bps[s.at], p.tx_bps[s.at]) * 100.0 / %(capacity)s"
    else:
        column = columns(metric.entity_type)[metric.name]
        value = f"p.{column.name}[s.at]" if array_columns(metric.entity_type) else f"p.{column.name}"
        value = f"{value}::int" if column.kind == "boolean" else value
    source = (
        f"{table(metric.entity_type)} p join (select id, array_position(entities, %(entity)s) as at from entity_set"  # noqa: S608
        " where device_id = %(device)s and type = %(type)s and %(entity)s = any(entities)) s on s.id = p.set_id"
        if array_columns(metric.entity_type)
        else f"{table(metric.entity_type)} p"
    )
    reset = "s.at - 1 = any(p.reset)" if array_columns(metric.entity_type) else "cardinality(p.reset) > 0"
    return (
        "select floor(extract(epoch from ts) / %(step)s)::bigint as bucket, avg(v), min(v), max(v),"  # noqa: S608
        " percentile_disc(0.95) within group (order by v), coalesce(bool_or(reset), false)"
        f" from (select p.ts, ({value})::float8 as v, {reset} as reset from {source}"
        " where p.device_id = %(device)s and p.ts >= %(start)s and p.ts < %(end)s) x"
        " group by 1 order by 1 limit %(limit)s"
    )


_MINUTES = """
with found as (
    select r.hour + make_interval(mins => m.minute) as ts, m.mean, coalesce(m.low, m.mean) as low,
           coalesce(m.high, m.mean) as high
    from rollup_1m r, unnest(r.minutes, r.mean, r.low, r.high) as m(minute, mean, low, high)
    where r.entity_id = %(entity)s and r.metric_id = (select id from metric where name = %(metric)s)
      and r.hour >= %(hour)s and r.hour < %(end)s and m.mean is not null
), resets as (
    select distinct floor(extract(epoch from r.hour) / %(step)s)::bigint as bucket from rollup_1h r
    where r.entity_id = %(entity)s and r.metric_id = (select id from metric where name = %(metric)s)
      and r.hour >= %(hour)s and r.hour < %(end)s and r.resets > 0
)
select f.bucket, f.mean, f.low, f.high, f.p95, resets.bucket is not null
from (select floor(extract(epoch from ts) / %(step)s)::bigint as bucket, avg(mean) as mean, min(low) as low,
             max(high) as high, percentile_disc(0.95) within group (order by mean) as p95
      from found where ts >= %(start)s and ts < %(end)s group by 1) f
left join resets using (bucket) order by 1 limit %(limit)s
"""

_HOURS = """
with found as (
    select floor(extract(epoch from hour) / %(step)s)::bigint as bucket, n, sum, min, max, resets, samples
    from rollup_1h
    where entity_id = %(entity)s and metric_id = (select id from metric where name = %(metric)s)
      and hour >= %(hour)s and hour < %(end)s
), ranked as (
    select bucket, percentile_disc(0.95) within group (order by v) as p95 from found, unnest(samples) as v group by 1
)
select bucket, sum(f.sum) / sum(f.n), min(f.min), max(f.max), min(r.p95), sum(f.resets) > 0
from found f join ranked r using (bucket) group by bucket order by bucket limit %(limit)s
"""
