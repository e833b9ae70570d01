"""Rollups from the dirty log: whole hours are recomputed from landing rows, so repeating one is harmless and late data
are as right as punctual ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import cache

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from ispvm.store.columns import Column, columns

# Byte counters are not rolled up: their rates are.
_SKIPPED_UNITS = {"counter": "By"}


@dataclass(frozen=True, slots=True)
class DirtyHour:
    """One hour of one entity type of one device, whose landing rows changed."""

    tenant: int
    device: int
    type: str
    hour: datetime


def rolled(entity_type: str) -> list[Column]:
    """The columns that are rolled up."""
    return [c for c in columns(entity_type).values() if _SKIPPED_UNITS.get(c.metric.type) != c.metric.unit]


@cache
def _statement(entity_type: str) -> str:
    """Recompute one hour: one line per entity, moment and metric, then both rollups from the same lines."""
    values = {c.metric.name: f"s.{c.name}{'::int' if c.kind == 'boolean' else ''}::real" for c in rolled(entity_type)}
    if entity_type == "interface":
        values["interface.utilization_pct"] = "(greatest(s.rx_bps, s.tx_bps) * 100.0 / e.capacity_bps)::real"
    lines = ", ".join(f"((select id from metric where name = '{name}'), {v})" for name, v in values.items())  # noqa: S608
    return f"""
with line as materialized (
    select e.id as entity_id, v.metric_id, s.ts, v.value, s.reset
    from sample_{entity_type} s join entity e on e.id = s.entity_id and e.device_id = s.device_id
    cross join lateral (values {lines}) as v(metric_id, value)
    where s.device_id = %(device)s and s.ts >= %(hour)s and s.ts < %(hour)s + interval '1 hour'
), minute as (
    select entity_id, metric_id, extract(minute from ts)::smallint as at, avg(value)::real as mean,
           min(value) as low, max(value) as high, count(*) as n
    from line where value is not null group by 1, 2, 3
), minutes as (
    insert into rollup_1m as r (tenant_id, device_id, entity_id, metric_id, hour, minutes, mean, low, high)
    select %(tenant)s, %(device)s, entity_id, metric_id, %(hour)s, array_agg(at order by at),
           array_agg(mean order by at), case when max(n) > 1 then array_agg(low order by at) end,
           case when max(n) > 1 then array_agg(high order by at) end
    from minute group by entity_id, metric_id
    on conflict (entity_id, metric_id, hour) do update
    set minutes = excluded.minutes, mean = excluded.mean, low = excluded.low, high = excluded.high
)
insert into rollup_1h as r (tenant_id, device_id, entity_id, metric_id, hour, n, sum, min, max, resets, samples)
select %(tenant)s, %(device)s, entity_id, metric_id, %(hour)s, count(value), sum(value::float8), min(value), max(value),
       count(*) filter (where reset), array_agg(value order by ts) filter (where value is not null)
from line group by entity_id, metric_id having count(value) > 0
on conflict (entity_id, metric_id, hour) do update set n = excluded.n, sum = excluded.sum, min = excluded.min,
    max = excluded.max, resets = excluded.resets, samples = excluded.samples
"""  # noqa: S608  # every name comes from the registry


async def recompute(connection: AsyncConnection[TupleRow], dirty: DirtyHour) -> None:
    """Recompute one hour within the current transaction."""
    await connection.execute(
        _statement(dirty.type).encode(),
        {"tenant": dirty.tenant, "device": dirty.device, "hour": dirty.hour},
    )


async def take_due(connection: AsyncConnection[TupleRow], limit: int, *, all_marks: bool = False) -> list[DirtyHour]:
    """Remove up to `limit` due marks within the current transaction; marks that another transaction holds are left.

    With `all_marks` also the open hour's, that are not due yet.
    """
    rows = await connection.execute(
        "delete from rollup_dirty d using (select device_id, type, hour from rollup_dirty"
        " where %s or due <= now() order by due limit %s for update skip locked) t"
        " where (d.device_id, d.type, d.hour) = (t.device_id, t.type, t.hour)"
        " returning d.tenant_id, d.device_id, d.type, d.hour",
        [all_marks, limit],
    )
    return [DirtyHour(*row) async for row in rows]


async def roll_up(connection: AsyncConnection[TupleRow], limit: int = 20, *, all_marks: bool = False) -> int:
    """Take due hours and recompute them in one transaction; returns how many. A failure leaves their marks in place."""
    async with connection.transaction():
        taken = await take_due(connection, limit, all_marks=all_marks)
        for dirty in taken:
            await recompute(connection, dirty)
    return len(taken)
