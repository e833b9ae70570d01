"""Buckets of whole hours that divide a day, from the daily rollup: a chart of 90 days reads 90 rows and no sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from functools import cache
from typing import Any
from uuid import UUID

import numpy as np
from ispvm_contract.registry import Metric
from numpy.typing import NDArray
from psycopg import AsyncCursor
from psycopg.rows import TupleRow

from ispvm.store.packing import DAY_SECONDS, EMPTY, Spans, array_matrix
from ispvm.store.pool import Connection
from ispvm.store.rollup import STEP_HOURS
from ispvm.store.samples import EPOCH

HOUR_SECONDS = 3600


@dataclass(frozen=True, slots=True)
class Steps:
    """Buckets of the days that are over, numbered since 1970; `open` are the days, since 1970, that must be read from
    their samples, of which `packed` certainly had some. `resets` and `late` are seconds since 1970, `late` as
    stretches: first, last, first, last, …
    """

    buckets: Spans
    open: list[int]
    packed: set[int]
    resets: list[int]
    late: list[int]


@cache
def _query(hours: int) -> str:
    """The days of one entity and metric; `p95` has a place a bucket."""
    if hours == 1:
        p95 = "coalesce(hour_p95, hour_mean)"
    elif hours == 24:
        p95 = "array[p95]"
    else:
        first = sum(24 // other for other in STEP_HOURS[: STEP_HOURS.index(hours)])
        places = 24 // hours
        p95 = (
            f"case when cardinality(step_p95) = 0 then array_fill(p95, array[{places}])"
            f" else step_p95[{first + 1}:{first + places}] end"
        )
    return (
        "select day - '1970-01-01'::date, step_p95 is null, reset_at, late, array_send(hour_n), array_send(hour_mean),"  # noqa: S608  # constants
        " array_send(coalesce(hour_min, hour_mean)), array_send(coalesce(hour_max, hour_mean)),"
        f" array_send({p95}) from rollup_1d where entity_id = (select e.id from entity e join device d"
        " on d.id = e.device_id where d.uuid = %(device)s and e.type = %(type)s and e.key = %(key)s)"
        " and metric_id = (select id from metric where name = %(metric)s)"
        " and day >= %(first)s and day <= %(last)s order by day"
    )


@dataclass(frozen=True, slots=True)
class AskedSteps:
    """Steps on their way."""

    hours: int
    last: date
    rows: AsyncCursor[TupleRow]


async def ask_steps(
    connection: Connection, device: UUID, metric: Metric, key: str, hours: int, first: date, last: date
) -> AskedSteps:
    """Ask for buckets of `hours` (1, one of STEP_HOURS, or 24) of whole days. The entity need not be found before."""
    names = {"device": device, "type": metric.entity_type, "key": key, "metric": metric.name}
    rows = await connection.execute(_query(hours).encode(), {**names, "first": first, "last": last}, binary=True)
    return AskedSteps(hours, last, rows)


async def fetch_steps(asked: AskedSteps, packed_until: date | None) -> Steps:
    """What was asked. From `packed_until` on, hours may still wait to be packed: these days are open, too."""
    open_from = (packed_until - EPOCH).days if packed_until else None
    over: list[Sequence[Any]] = []
    packed: set[int] = set()
    resets: list[int] = []
    late: list[int] = []
    for row in await asked.rows.fetchall():
        if row[1] or (open_from is not None and row[0] >= open_from):
            packed.add(row[0])
            continue
        over.append(row)
        resets += [row[0] * DAY_SECONDS + second for second in row[2] or ()]
        late += [row[0] * DAY_SECONDS + second for second in row[3] or ()]
    # What landed first today has no row at all yet.
    unpacked = range(open_from, (asked.last - EPOCH).days + 1) if open_from is not None else ()
    return Steps(_merged(over, asked.hours), sorted(packed.union(unpacked)), packed, resets, late)


def _merged(days: Sequence[Sequence[Any]], hours: int) -> Spans:
    """Hours of days as buckets of `hours`; those without a sample are left out."""
    if not days:
        return Spans(np.empty(0, np.int64), np.empty(0, np.int64), *[EMPTY.values] * 4)

    def column(at: int, dtype: str = ">f4", width: int = hours) -> NDArray[np.float64]:
        return array_matrix([day[at] for day in days], dtype).reshape(-1, width)

    n = column(4, ">i2")
    some = n > 0
    total = n.sum(axis=1)
    there = total > 0
    per_day = 24 // hours
    span = (np.array([[day[0]] for day in days], np.int64) * per_day + np.arange(per_day)).reshape(-1)
    mean = (n * column(5)).sum(axis=1)[there] / total[there]
    low = np.where(some, column(6), np.inf).min(axis=1)[there]
    high = np.where(some, column(7), -np.inf).max(axis=1)[there]
    return Spans(span[there], total[there].astype(np.int64), mean, low, high, column(8, width=1)[there, 0])
