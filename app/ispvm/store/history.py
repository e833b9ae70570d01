"""What reports read of the past: typed answers that hide how rollups are stored. Nothing else outside the store reads
rollup tables for reports.

All functions run in a transaction of one tenant; another tenant's entities give nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Literal

from ispvm_contract.registry import registry
from psycopg.rows import class_row

from ispvm.store.pool import Connection

SLOT_S = 300
# Entities a statement: so that each stays well inside the statement timeout.
_AT_ONCE = 20


async def five_minute_means(
    connection: Connection, entities: Sequence[int], metrics: Sequence[str], start: datetime, end: datetime
) -> dict[tuple[int, str], list[float | None]]:
    """Mean of each five minutes from `start` up to `end` by (entity, metric): one place a slot, None where no sample
    came. The mean of a slot is that of its minute means. `start` and `end` must be multiples of five minutes.
    """
    first, last = (round(moment.timestamp()) for moment in (start, end))
    if first % SLOT_S or last % SLOT_S:
        raise ValueError("start and end must be multiples of five minutes")
    count = max(0, (last - first) // SLOT_S)
    means: dict[tuple[int, str], list[float | None]] = {(e, m): [None] * count for e in entities for m in metrics}
    for at in range(0, len(entities), _AT_ONCE):
        rows = await connection.execute(
            "select x.entity_id, x.name, array_agg(x.slot), array_agg(x.mean) from ("
            "  select r.entity_id, k.name,"
            "         (extract(epoch from r.hour)::bigint + m.minute * 60 - %(first)s) / %(slot)s as slot,"
            "         avg(m.mean)::float8 as mean"
            "  from rollup_1m r join metric k on k.id = r.metric_id, unnest(r.minutes, r.mean) as m(minute, mean)"
            "  where r.entity_id = any(%(entities)s) and k.name = any(%(metrics)s)"
            "    and r.hour > %(start)s::timestamptz - interval '1 hour' and r.hour < %(end)s and m.mean is not null"
            "    and extract(epoch from r.hour)::bigint + m.minute * 60 >= %(first)s"
            "    and extract(epoch from r.hour)::bigint + m.minute * 60 < %(last)s"
            "  group by 1, 2, 3) x group by 1, 2",
            {
                "entities": list(entities[at : at + _AT_ONCE]),
                "metrics": list(metrics),
                "start": start,
                "end": end,
                "first": first,
                "last": last,
                "slot": SLOT_S,
            },
        )
        async for entity, metric, slots, values in rows:
            row = means[entity, metric]
            for slot, value in zip(slots, values, strict=True):
                row[slot] = value
    return means


@dataclass(frozen=True, slots=True)
class Aggregate:
    """One metric of one entity over a range: mean weighed by samples, lowest and highest sample, how many samples."""

    entity: int
    n: int
    mean: float
    low: float
    high: float


async def top(
    connection: Connection,
    metric: str,
    start: datetime,
    end: datetime,
    limit: int,
    by: Literal["mean", "high"] = "mean",
) -> list[Aggregate]:
    """The `limit` entities of the tenant with the highest mean (or highest sample) of a metric, highest first.

    Whole hours count: from the hour that contains `start` to the hour that contains the moment before `end`.
    """
    cursor = await connection.cursor(row_factory=class_row(Aggregate)).execute(
        "select r.entity_id as entity, sum(r.n)::bigint as n, sum(r.sum) / sum(r.n) as mean,"
        "       min(r.min)::float8 as low, max(r.max)::float8 as high"
        " from device d join entity e on e.device_id = d.id"
        " join rollup_1h r on r.entity_id = e.id and r.metric_id = (select id from metric where name = %(metric)s)"
        "  and r.hour >= date_trunc('hour', %(start)s::timestamptz, 'UTC') and r.hour < %(end)s"
        " where d.tenant_id = current_tenant() and e.type = %(type)s"
        " group by r.entity_id"
        " order by case when %(by)s = 'mean' then sum(r.sum) / sum(r.n) else max(r.max) end desc, entity"
        " limit %(limit)s",
        {
            "metric": metric,
            "start": start,
            "end": end,
            "limit": limit,
            "by": by,
            "type": registry().metrics[metric].entity_type,
        },
    )
    return await cursor.fetchall()


# What begins an incident: only the change for the worse counts, and each once.
_BAD = (
    "(e.name in ('device.reachable.changed', 'device.api.changed') and e.new = 'down'"
    " or e.name = 'bgp.peer.state.changed' and e.old = 'established'"
    " or e.name = 'ospf.neighbor.state.changed' and e.old = 'full')"
)


@dataclass(frozen=True, slots=True)
class Day:
    """What went wrong on one day, by kind."""

    day: date
    reachability: int
    api: int
    bgp: int
    ospf: int

    @property
    def total(self) -> int:
        """All kinds."""
        return self.reachability + self.api + self.bgp + self.ospf


async def incidents_a_day(connection: Connection, first: date, days: int, zone: str) -> list[Day]:
    """Losses of reachability, API, BGP and OSPF on each of `days` days from `first`, days as `zone` (IANA) has them.

    A day without any is there, with zeros.
    """
    rows = await connection.execute(
        "select (e.ts at time zone %(zone)s)::date as day, e.name, count(*) from event e"  # noqa: S608  # a constant
        " where e.tenant_id = current_tenant() and e.ts >= %(first)s::timestamp at time zone %(zone)s"
        f" and e.ts < %(last)s::timestamp at time zone %(zone)s and {_BAD} group by 1, 2 limit 10000",
        {"zone": zone, "first": first, "last": first + timedelta(days=days)},
    )
    counts: dict[tuple[date, str], int] = {(day, name): count async for day, name, count in rows}
    return [
        Day(
            day,
            counts.get((day, "device.reachable.changed"), 0),
            counts.get((day, "device.api.changed"), 0),
            counts.get((day, "bgp.peer.state.changed"), 0),
            counts.get((day, "ospf.neighbor.state.changed"), 0),
        )
        for day in (first + timedelta(days=at) for at in range(days))
    ]
