"""Current values: the newest landing row of each kind of poll, folded column by column."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg import AsyncCursor
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


async def ask_device(connection: Connection, uuid: UUID | None, wanted: Sequence[str] | None) -> AsyncCursor[Row]:
    """A cursor for `current_device`: device columns, all or those `wanted`, of one router or of all."""
    which = "in (select id from device where %(which)s::uuid is null or uuid = %(which)s)"
    return await _ask(connection, "device", which, uuid, wanted or _names("device"))


def current_device(rows: list[Row], now: datetime) -> dict[int, Values]:
    """Current value of each column asked for, and `COLUMN@` with its time. Keys of the outer dict are device ids."""
    found: dict[int, Values] = defaultdict(dict)
    for row, names in _current(rows, now):
        values = found[row["device_id"]]
        for name in names:
            values[name] = row[name]
            values[f"{name}@"] = row["ts"]
    return found


async def latest_entities(
    connection: Connection, entity_type: str, devices: list[int], now: datetime
) -> dict[int, Values]:
    """Current value of each column by entity id, with the time of the newest poll as `ts`."""
    cursor = await _ask(connection, entity_type, "= any(%(which)s)", devices, _names(entity_type))
    rows = await cursor.fetchall()
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
    connection: Connection, entity_type: str, entities: list[int], names: Sequence[str], now: datetime
) -> dict[int, Values]:
    """Like `latest_entities`, for some entities and some columns only: what a large network costs then depends on what
    is shown of it.
    """
    if unknown := set(names).difference(_names(entity_type)):
        raise ValueError(f"{sorted(unknown)} are no columns of {entity_type}")
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
        {"type": entity_type, "names": list(names), "entities": entities},
    )
    found: dict[int, Values] = defaultdict(dict)
    for row, current in _current(await cursor.fetchall(), now):
        for name in current:
            found[row["entity"]][name] = row[name]
    return found


def _names(entity_type: str) -> list[str]:
    """All columns of a type."""
    return [column.name for column in columns(entity_type).values()]


def _current(rows: list[Row], now: datetime) -> Iterator[tuple[Row, list[str]]]:
    """Rows oldest first, so that folding in order leaves the newest, each with those of its columns that were asked for
    and are still current.

    A column comes as often as the most frequent kind of poll that carries it.
    """
    fresh = MISSED * LEAST_SECONDS  # however often a column comes
    of_kind: dict[tuple[str, ...], list[str]] = {}
    kinds: list[tuple[Row, float, list[str]]] = []
    slow: set[int] = set()
    for row in rows:
        kind = tuple(row["columns"])
        if (names := of_kind.get(kind)) is None:
            names = of_kind[kind] = [name for name in kind if name in row]
        age = (now - row["ts"]).total_seconds()
        kinds.append((row, age, names))
        if age > fresh:
            slow.add(row["device_id"])
    paces = _paces(kinds, slow)
    for row, age, names in kinds:
        current = names if age <= fresh else [n for n in names if age <= MISSED * paces.get((row["device_id"], n), 0.0)]
        if current:
            yield row, current


def _paces(kinds: list[tuple[Row, float, list[str]]], devices: set[int]) -> dict[tuple[int, str], float]:
    """How often columns of these devices come, in seconds, by device and name."""
    paces: dict[tuple[int, str], float] = {}
    for row, age, names in kinds:
        device, period = row["device_id"], row["period_s"] or UNKNOWN_SECONDS
        if device not in devices or age > MISSED * max(period, UNKNOWN_SECONDS):
            continue  # a kind that no longer comes, perhaps of an older agent, sets no pace
        for name in names:
            paces[device, name] = min(paces.get((device, name), period), period)
    return {key: max(period, LEAST_SECONDS) for key, period in paces.items()}


async def _ask(
    connection: Connection, entity_type: str, which: str, parameter: object, wanted: Sequence[str]
) -> AsyncCursor[Row]:
    """A cursor for the newest polls of the devices for which `device_id {which}` is true, with the columns wanted."""
    same_set = "and p.set_id = l.set_id" if array_columns(entity_type) else ""
    return await connection.cursor(row_factory=dict_row).execute(
        "select l.device_id, l.set_id, l.columns, l.ts, l.period_s,"  # noqa: S608  # names of the registry
        f" {', '.join(f'p.{name}' for name in wanted)}"
        f" from latest_poll l join {table(entity_type)} p on p.device_id = l.device_id and p.ts = l.ts {same_set}"
        f" where l.device_id {which} and l.type = %(type)s and l.ts > {HORIZON} and p.ts > {HORIZON}"
        f" and l.columns && %(wanted)s order by l.ts limit {MAX_ROWS}",
        {"which": parameter, "type": entity_type, "wanted": list(wanted)},
        binary=True,
    )
