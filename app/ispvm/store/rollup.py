"""Rollups from the dirty log: whole hours are recomputed from landing rows, so repeating one is harmless and late data
are as right as punctual ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import cache

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from ispvm.store.columns import Column, array_columns, columns, table

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
    """Recompute one hour: unnest the arrays once, one line per metric, then both rollups from the same lines."""
    wanted = rolled(entity_type)
    arrays = array_columns(entity_type)
    names = ", ".join(c.name for c in wanted)
    if arrays:
        source = (
            f"{table(entity_type)} p cross join lateral unnest({', '.join(f'p.{c.name}' for c in wanted)})"  # noqa: S608
            f" with ordinality as u({names}, at)"
            " join (select s.id as set_id, x.entity_id, x.at from entity_set s,"
            " unnest(s.entities) with ordinality as x(entity_id, at)"
            " where s.device_id = %(device)s and s.type = %(type)s) s"
            " on s.set_id = p.set_id and s.at = u.at join entity e on e.id = s.entity_id"
        )
        alias, reset = "u", "(u.at - 1 = any(p.reset))"
    else:
        source = f"{table(entity_type)} p join entity e on e.device_id = p.device_id and e.type = 'device'"
        alias, reset = "p", "(cardinality(p.reset) > 0)"
    lines = [f"('{c.metric.name}', {alias}.{c.name}{'::int' if c.kind == 'boolean' else ''}::real)" for c in wanted]
    if entity_type == "interface":
        lines.append("('interface.utilization_pct', (greatest(u.rx_bps, u.tx_bps) * 100.0 / e.capacity_bps)::real)")
    return f"""
with line as materialized (
    select e.id as entity_id, m.id as metric_id, p.ts, v.value, coalesce({reset}, false) as reset
    from {source}
    cross join lateral (values {", ".join(lines)}) as v(name, value)
    join metric m on m.name = v.name
    where p.device_id = %(device)s and p.ts >= %(hour)s and p.ts < %(hour)s + interval '1 hour'
), minute as (
    select entity_id, metric_id, extract(minute from ts)::int as at, avg(value)::real as mean,
           min(value) as low, max(value) as high, count(*) as n
    from line where value is not null group by 1, 2, 3
), filled as (
    select k.entity_id, k.metric_id, array_agg(x.mean order by g.at) as mean, array_agg(x.low order by g.at) as low,
           array_agg(x.high order by g.at) as high, bool_or(x.n > 1) as several
    from (select distinct entity_id, metric_id from minute) k cross join generate_series(0, 59) g(at)
    left join minute x on x.entity_id = k.entity_id and x.metric_id = k.metric_id and x.at = g.at group by 1, 2
), minutes as (
    insert into rollup_1m as r (tenant_id, device_id, entity_id, metric_id, hour, mean, low, high)
    select %(tenant)s, %(device)s, entity_id, metric_id, %(hour)s, mean,
           case when several then low end, case when several then high end from filled
    on conflict (entity_id, metric_id, hour) do update
    set mean = excluded.mean, low = excluded.low, high = excluded.high
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
        {"tenant": dirty.tenant, "device": dirty.device, "type": dirty.type, "hour": dirty.hour},
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
