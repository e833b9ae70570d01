"""Generated history of a seed's tenant, so that a chart of 30 days has something to show before 30 days are over.

It is packed like what is measured, and `tenant.generated` says which part of the history it is. What was measured
stays: only time before it is filled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from math import ceil
from uuid import uuid5

from ispvm_contract.identity import device_id
from ispvm_contract.registry import registry
from ispvm_contract.seed import Seed
from psycopg.types.json import Jsonb
from psycopg.types.range import Range

from ispvm.inventory.simulation import Event, Thing, World
from ispvm.store.columns import register
from ispvm.store.pool import Connection
from ispvm.store.rollup import UTILIZATION, first_row, store_day

MAX_DAYS = 366
_TYPES = ("device", "interface")
# Row ids of a router and of one of its entities.
Ids = tuple[int, int]


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


async def generate(connection: Connection, seed: Seed, days: int, now: datetime) -> bool:
    """Fill `days` days before `now` up to what was measured or is there already, within the current transaction.

    Returns whether anything was added.
    """
    register(connection)
    rows = await connection.execute("select id, generated from tenant where key = %s and seeded", [seed.tenant.key])
    row = await rows.fetchone()
    assert row is not None  # noqa: S101  # the seed was loaded before
    tenant, generated = row
    ids = await _entities(connection, tenant)
    await _hold_worker(connection, ids)
    start = _midnight(now.astimezone(UTC).date() - timedelta(days=days))
    until = generated.lower if generated else await _measured(connection, tenant, now)
    if start >= until:
        return False
    rows = await connection.execute("select name, id from metric")
    metrics: dict[str, int] = {name: number async for name, number in rows}
    exact = {name: metric.type != "gauge" for name, metric in registry().metrics.items()}
    world = World(seed, now)
    for day in (start.date() + timedelta(days=n) for n in range(ceil((until - start) / timedelta(days=1)))):
        rows_of_day = [
            first_row(ids[thing][1], metrics[name], one, exact=exact[name], derived=name == UTILIZATION)
            for thing, samples in world.day(day, until).items()
            for name, one in samples.items()
        ]
        if rows_of_day:
            await store_day(connection, tenant, day, rows_of_day)
        events = [event for event in world.events(day) if event.at < until.timestamp()]
        await _say(connection, seed, tenant, ids, events)
    part = Range(start, generated.upper if generated else until, "[)")
    await connection.execute("update tenant set generated = %s where id = %s", [part, tenant])
    return True


async def _entities(connection: Connection, tenant: int) -> dict[Thing, Ids]:
    rows = await connection.execute(
        "select d.name, e.type, e.key, d.id, e.id from entity e join device d on d.id = e.device_id"
        " where d.tenant_id = %s",
        [tenant],
    )
    return {(name, kind, key): (device, entity) async for name, kind, key, device, entity in rows}


async def _hold_worker(connection: Connection, ids: Mapping[Thing, Ids]) -> None:
    """The worker's own locks: it may be about to pack the first real polls."""
    for device in sorted({device for device, _ in ids.values()}):
        for kind in _TYPES:
            await connection.execute("select pg_advisory_xact_lock(%s, hashtext(%s))", [device, kind])


async def _measured(connection: Connection, tenant: int, now: datetime) -> datetime:
    """When the first thing was measured: packed days, and hours that wait to be packed; `now` when nothing was."""
    rows = await connection.execute(
        "select least((select min(day)::timestamp at time zone 'UTC' from rollup_1d where tenant_id = %(tenant)s),"
        " (select min(hour) from rollup_dirty where tenant_id = %(tenant)s),"
        " date_trunc('minute', %(now)s::timestamptz))",
        {"tenant": tenant, "now": now},
    )
    row = await rows.fetchone()
    assert row is not None  # noqa: S101  # without a from there is always one
    moment: datetime = row[0]
    return moment.astimezone(UTC)


async def _say(
    connection: Connection, seed: Seed, tenant: int, ids: Mapping[Thing, Ids], events: Sequence[Event]
) -> None:
    """Store events; the same ones have the same ids."""
    severities = {name: event.severity for name, event in registry().events.items()}
    rows = []
    for event in events:
        number = uuid5(device_id(seed.tenant.key, event.device), f"{event.name}/{event.key}/{event.at}")
        device = ids[event.device, "device", ""][0]
        moment = datetime.fromtimestamp(event.at, UTC)
        rows.append((tenant, device, moment, number, event.name, severities[event.name], event.type, event.key,
                     event.old, event.new, Jsonb({"generated": True})))  # fmt: skip
    async with connection.cursor() as cursor:
        await cursor.executemany(
            "insert into event (tenant_id, device_id, ts, id, name, severity, entity_type, key, old, new, payload)"
            " values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) on conflict do nothing",
            rows,
        )
