"""Current values: the newest landing row of each kind of poll, folded column by column."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from psycopg.rows import dict_row

from ispvm.store.columns import array_columns, columns, table
from ispvm.store.pool import Connection

# A value is current for three times as long as its column usually takes to come again; then it is unknown, not frozen.
# The horizon keeps the join inside the newest chunks.
MISSED = 3
LEAST_SECONDS, UNKNOWN_SECONDS = 30.0, 300.0
HORIZON = "now() - interval '2 hours'"
MAX_ROWS = 20_000

Row = dict[str, Any]
Values = dict[str, Any]


async def latest_device(connection: Connection, devices: list[int], now: datetime) -> dict[int, Values]:
    """Current value of each device column, and `COLUMN@` with its time. Keys of the outer dict are device ids."""
    found: dict[int, Values] = defaultdict(dict)
    for row, names in _current(await _rows(connection, "device", devices), now):
        values = found[row["device_id"]]
        for name in names:
            values[name] = row[name]
            values[f"{name}@"] = row["ts"]
    return found


async def latest_entities(
    connection: Connection, entity_type: str, devices: list[int], now: datetime
) -> dict[int, Values]:
    """Current value of each column by entity id, with the time of the newest poll as `ts`."""
    rows = await _rows(connection, entity_type, devices)
    found_sets = await connection.execute(
        "select id, entities from entity_set where id = any(%s)", [list({row["set_id"] for row in rows})]
    )
    sets: dict[int, list[int]] = {number: entities async for number, entities in found_sets}
    found: dict[int, Values] = defaultdict(dict)
    for row, names in _current(rows, now):
        present = [(name, row[name]) for name in names if row[name] is not None]
        for at, entity in enumerate(sets[row["set_id"]]):
            values = found[entity]
            values["ts"] = row["ts"]
            for name, array in present:
                values[name] = array[at]
    return found


async def latest_some(
    connection: Connection, entity_type: str, entities: list[int], names: list[str], now: datetime
) -> dict[int, Values]:
    """Like `latest_entities`, for some entities and some columns only: what a large network costs then depends on what
    is shown of it.
    """
    known = {column.name for column in columns(entity_type).values()}
    if not set(names) <= known:
        raise ValueError(f"{sorted(set(names) - known)} are no columns of {entity_type}")
    cursor = await connection.cursor(row_factory=dict_row).execute(
        # An entity is looked for among the few wanted of its own device, not among all.
        "with wanted as materialized ("  # noqa: S608  # names of the registry
        " select device_id, array_agg(id) as ids from entity where id = any(%(entities)s) group by device_id)"
        f" select l.device_id, l.columns, l.ts, l.period_s, u.entity, {', '.join(f'u.{n}' for n in names)}"
        " from wanted w join latest_poll l on l.device_id = w.device_id"
        f" join {table(entity_type)} p on (p.device_id, p.ts, p.set_id) = (l.device_id, l.ts, l.set_id)"
        " join entity_set s on s.id = l.set_id"
        f" cross join lateral unnest(s.entities, {', '.join(f'p.{n}' for n in names)}) as u(entity, {', '.join(names)})"
        " where l.type = %(type)s and l.columns && %(names)s"
        f" and l.ts > {HORIZON} and p.ts > {HORIZON} and u.entity = any(w.ids) order by l.ts limit 100000",
        {"type": entity_type, "names": names, "entities": entities},
    )
    found: dict[int, Values] = defaultdict(dict)
    for row, current in _current(await cursor.fetchall(), now):
        for name in current:
            if name in row:
                found[row["entity"]][name] = row[name]
    return found


def _current(rows: list[Row], now: datetime) -> Iterator[tuple[Row, list[str]]]:
    """Rows oldest first, so that folding in order leaves the newest, each with its columns that are still current.

    A column comes as often as the most frequent kind of poll that carries it.
    """
    periods: dict[tuple[int, str], float] = {}
    for row in rows:
        age, period = (now - row["ts"]).total_seconds(), row["period_s"] or UNKNOWN_SECONDS
        if age > MISSED * max(period, UNKNOWN_SECONDS):
            continue  # a kind that no longer comes, perhaps of an older agent, sets no pace
        for name in row["columns"]:
            key = (row["device_id"], name)
            periods[key] = min(periods.get(key, period), period)
    for row in rows:
        age = (now - row["ts"]).total_seconds()
        pace = [(n, periods.get((row["device_id"], n), 0.0)) for n in row["columns"]]
        names = [name for name, period in pace if period and age <= MISSED * max(period, LEAST_SECONDS)]
        if names:
            yield row, names


async def _rows(connection: Connection, entity_type: str, devices: list[int]) -> list[Row]:
    same_set = "and p.set_id = l.set_id" if array_columns(entity_type) else ""
    names = ", ".join(f"p.{column.name}" for column in columns(entity_type).values())
    cursor = await connection.cursor(row_factory=dict_row).execute(
        f"select l.device_id, l.set_id, l.columns, l.ts, l.period_s, {names}"  # noqa: S608  # names of the registry
        f" from latest_poll l join {table(entity_type)} p on p.device_id = l.device_id and p.ts = l.ts {same_set}"
        f" where l.device_id = any(%s) and l.type = %s and l.ts > {HORIZON} and p.ts > {HORIZON}"
        f" order by l.ts limit {MAX_ROWS}",
        [devices, entity_type],
    )
    return await cursor.fetchall()


async def last_polls(connection: Connection, devices: list[int]) -> dict[int, tuple[datetime, float | None]]:
    """Per device: the time of its newest poll, and the period of its most frequent kind of poll in seconds."""
    rows = await connection.execute(
        "select device_id, max(ts), min(period_s) from latest_poll where device_id = any(%s) group by device_id",
        [devices],
    )
    return {device: (ts, period) async for device, ts, period in rows}
