"""What reports read of the past: typed answers that hide how rollups are stored. Nothing else outside the store reads
rollup tables for reports.

All functions run in a transaction of one tenant; another tenant's entities give nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Literal

from psycopg.rows import class_row

from ispvm.store.packing import DAY_SECONDS, spans, unpack
from ispvm.store.pool import Connection

SLOT_S = 300
# Entities a statement: so that each stays well inside the statement timeout.
_AT_ONCE = 20


async def five_minute_means(
    connection: Connection, entities: Sequence[int], metrics: Sequence[str], start: datetime, end: datetime
) -> dict[tuple[int, str], list[float | None]]:
    """Mean of each five minutes from `start` up to `end` by (entity, metric): one place a slot, None where no sample
    came. The mean of a slot is that of its minute means. Samples
    of an hour are there once the hour is packed. `start` and `end` must be multiples of five minutes.
    """
    first, last = (round(moment.timestamp()) for moment in (start, end))
    if first % SLOT_S or last % SLOT_S:
        raise ValueError("start and end must be multiples of five minutes")
    count = max(0, (last - first) // SLOT_S)
    means: dict[tuple[int, str], list[float | None]] = {(e, m): [None] * count for e in entities for m in metrics}
    for at in range(0, len(entities), _AT_ONCE):
        rows = await connection.execute(
            "select s.entity_id, k.name, s.day - '1970-01-01'::date, s.samples"
            " from sample_day s join metric k on k.id = s.metric_id"
            " where s.entity_id = any(%s) and s.metric_id = any(array(select id from metric where name = any(%s)))"
            " and s.day >= %s and s.day <= %s",
            [list(entities[at : at + _AT_ONCE]), list(metrics), _day(start), _day(end)],
            binary=True,
        )
        async for entity, metric, day, packed in rows:
            samples = unpack(packed)
            minutes = spans(samples.seconds, samples.values, 60)
            slots = spans(minutes.span * 60, minutes.mean, SLOT_S)
            row, offset = means[entity, metric], (day * DAY_SECONDS - first) // SLOT_S
            for slot, mean in zip((slots.span + offset).tolist(), slots.mean.tolist(), strict=True):
                if 0 <= slot < count:
                    row[slot] = mean
    return means


def _day(moment: datetime) -> date:
    return moment.astimezone(UTC).date()


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
    first = start.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    last = end.astimezone(UTC)
    whole_from = first.date() if first.hour == 0 else first.date() + timedelta(days=1)
    edges = {first.date(), last.date()} if whole_from > first.date() else {last.date()}
    cursor = await connection.cursor(row_factory=class_row(Aggregate)).execute(
        # Whole days from the index alone, the hours before and after them from their days' arrays.
        "with part as ("
        "  select entity_id, n, sum, min::float8 as low, max::float8 as high from rollup_1d"
        "  where tenant_id = current_tenant() and metric_id = (select id from metric where name = %(metric)s)"
        "   and day >= %(whole_from)s and day < %(whole_to)s"
        "  union all"
        "  select entity_id, n, n * mean::float8, min::float8, max::float8 from rollup_1h"
        "  where tenant_id = current_tenant() and metric_id = (select id from metric where name = %(metric)s)"
        "   and day = any(%(edges)s) and hour >= %(first)s and hour < %(last)s"
        ") select p.entity_id as entity, sum(p.n)::bigint as n, sum(p.sum) / sum(p.n) as mean, min(p.low) as low,"
        "         max(p.high) as high"
        " from part p group by p.entity_id"
        " order by case when %(by)s = 'mean' then sum(p.sum) / sum(p.n) else max(p.high) end desc, entity"
        " limit %(limit)s",
        {
            "metric": metric,
            "first": first,
            "last": last,
            "whole_from": whole_from,
            "whole_to": last.date(),
            "edges": sorted(edges),
            "limit": limit,
            "by": by,
        },
    )
    return await cursor.fetchall()


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
        "select (begin at time zone %(zone)s)::date as day, name, sum(n)::bigint from incident_count"
        " where tenant_id = current_tenant() and begin >= %(first)s::timestamp at time zone %(zone)s"
        " and begin < %(last)s::timestamp at time zone %(zone)s group by 1, 2 limit 10000",
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
