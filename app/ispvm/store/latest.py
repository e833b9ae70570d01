"""Current values: the newest landing row of each kind of poll, folded column by column."""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime
from typing import Any

from psycopg.rows import dict_row

from ispvm.store.columns import array_columns, columns, table
from ispvm.store.pool import Connection

# A value is current for three intervals of its own kind of poll; later it is unknown, not frozen. The horizon keeps the
# join inside the newest chunks.
CURRENT = "l.ts > now() - make_interval(secs => 3 * greatest(coalesce(l.interval_s, 300), 30))"
HORIZON = "now() - interval '2 hours'"
MAX_ROWS = 20_000

Values = dict[str, Any]


async def latest_device(connection: Connection, devices: list[int]) -> dict[int, Values]:
    """Newest value of each device column, and `COLUMN@` with its time. Keys of the outer dict are device ids."""
    found: dict[int, Values] = defaultdict(dict)
    async for row in await _rows(connection, "device", devices):
        values = found[row["device_id"]]
        for name in row["columns"]:
            values[name] = row[name]
            values[f"{name}@"] = row["ts"]
    return found


async def latest_entities(connection: Connection, entity_type: str, devices: list[int]) -> dict[int, Values]:
    """Newest value of each column by entity id, with the time of the newest poll as `ts`."""
    rows = [row async for row in await _rows(connection, entity_type, devices)]
    found_sets = await connection.execute(
        "select id, entities from entity_set where id = any(%s)", [[row["set_id"] for row in rows]]
    )
    sets: dict[int, list[int]] = {number: entities async for number, entities in found_sets}
    found: dict[int, Values] = defaultdict(dict)
    for row in rows:
        present = [(name, row[name]) for name in row["columns"] if row[name] is not None]
        for at, entity in enumerate(sets[row["set_id"]]):
            values = found[entity]
            values["ts"] = row["ts"]
            for name, array in present:
                values[name] = array[at]
    return found


async def _rows(connection: Connection, entity_type: str, devices: list[int]) -> Any:
    """Oldest first, so that folding in order leaves the newest."""
    same_set = "and p.set_id = l.set_id" if array_columns(entity_type) else ""
    names = ", ".join(f"p.{column.name}" for column in columns(entity_type).values())
    cursor = connection.cursor(row_factory=dict_row)
    return await cursor.execute(
        f"select l.device_id, l.set_id, l.columns, l.ts, {names}"  # noqa: S608  # names come from the registry
        f" from latest_poll l join {table(entity_type)} p on p.device_id = l.device_id and p.ts = l.ts {same_set}"
        f" where l.device_id = any(%s) and l.type = %s and {CURRENT} and l.ts > {HORIZON} and p.ts > {HORIZON}"
        f" order by l.ts limit {MAX_ROWS}",
        [devices, entity_type],
    )


async def last_polls(connection: Connection, devices: list[int]) -> dict[int, tuple[datetime, float | None]]:
    """Per device: the time of its newest poll and the shortest interval between polls of one kind, in seconds."""
    rows = await connection.execute(
        "select device_id, max(ts), min(interval_s) from latest_poll where device_id = any(%s) group by device_id",
        [devices],
    )
    return {device: (ts, interval) async for device, ts, interval in rows}
