"""Store one batch in one transaction: ledger, inventory, landing rows, events, latest pointers, dirty hours.

Rows are inserted rather than copied: PostgreSQL refuses COPY into a table whose row-level security applies to the user
(docs/decisions/0008-insert-not-copy.md). The inserts travel in one pipeline.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any
from uuid import UUID

import msgspec
from ispvm_contract.identity import set_id
from ispvm_contract.ingest import MAX_FUTURE_SECONDS, Batch, BatchAnswer, DevicePatch, Poll, Rejection
from ispvm_contract.registry import registry
from msgspec import Struct
from psycopg.types.json import Jsonb

from ispvm.store.columns import LATE, array_columns, columns, landing_types, pack_positions, table
from ispvm.store.pool import Connection

QUALITY = {"good": 0, "estimated": 1, "stale": 2}
# An hour is packed when it is over and its last polls are here, not all routers at once; until then whoever reads takes
# its samples from the landing rows. What comes later than that is packed at once.
PACKED_HOURS = 1
CLOSING = timedelta(minutes=2)
SPREAD_SECONDS = 1200
# A poll that takes longer to arrive than this was kept back by an outage.
LATE_AFTER = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Sender:
    """An agent whose token was accepted; `sites` are the ids it may speak for."""

    id: int
    tenant: int
    name: str
    sites: frozenset[int]


@dataclass(slots=True)
class _Known:
    """What the database knows of the devices a batch speaks of."""

    devices: dict[UUID, tuple[int, int]] = field(default_factory=dict)  # uuid → (id, site id)
    sets: dict[tuple[int, str, str], tuple[int, int]] = field(
        default_factory=dict
    )  # (device, type, name) → (id, length)


async def store(connection: Connection, sender: Sender, batch: Batch, now: datetime, oldest: datetime) -> BatchAnswer:
    """Store `batch` within the transaction of `connection`; a batch that was stored before changes nothing.

    `oldest` is the earliest moment raw data are kept for: older polls are rejected, not stored to be dropped.
    """
    rejected: list[Rejection] = []
    ledger = await connection.execute(
        "insert into ingest_batch (agent_id, id, tenant_id) values (%s, %s, %s) on conflict do nothing",
        [sender.id, batch.id, sender.tenant],
    )
    if ledger.rowcount == 0:
        return BatchAnswer(batch.id, "duplicate")
    known = _Known()
    await _find_devices(connection, sender, batch, known)
    await _patch_devices(connection, sender, batch.inventory_patch.devices, known, rejected)
    await _patch_entities(connection, sender, batch, known, rejected)
    await _find_sets(connection, sender, batch, known)
    await _store_polls(connection, sender, batch, known, rejected, now, oldest)
    await _store_events(connection, sender, batch, known, rejected, now, oldest)
    await connection.execute("update agent set last_batch = now() where id = %s", [sender.id])
    return BatchAnswer(batch.id, "stored", rejected)


async def _find_devices(connection: Connection, sender: Sender, batch: Batch, known: _Known) -> None:
    wanted = {p.device for p in batch.polls} | {e.device for e in batch.events}
    wanted |= {d.id for d in batch.inventory_patch.devices} | {e.device for e in batch.inventory_patch.entities}
    rows = await connection.execute(
        "select uuid, id, site_id, agent_id from device where tenant_id = %s and uuid = any(%s)",
        [sender.tenant, list(wanted)],
    )
    adopt = []
    async for uuid, device, site, agent in rows:
        if site in sender.sites:
            known.devices[uuid] = (device, site)
            if agent != sender.id:
                adopt.append(device)
    if adopt:
        await connection.execute("update device set agent_id = %s where id = any(%s)", [sender.id, adopt])


async def _patch_devices(
    connection: Connection, sender: Sender, patches: Sequence[DevicePatch], known: _Known, rejected: list[Rejection]
) -> None:
    if not patches:
        return
    rows = await connection.execute("select key, id from site where id = any(%s)", [list(sender.sites)])
    sites: dict[str, int] = {key: site async for key, site in rows}
    rows = await connection.execute(
        "select name, uuid from device where tenant_id = %s and (name = any(%s) or uuid = any(%s))",
        [sender.tenant, [p.name for p in patches], [p.id for p in patches]],
    )
    names: dict[str, UUID] = {name: uuid async for name, uuid in rows}
    foreign = set(names.values()) - set(known.devices)
    for at, patch in enumerate(patches):
        where = f"inventory_patch.devices[{at}]"
        if _unstorable(patch):
            rejected.append(Rejection(where, NUL))
        elif patch.site not in sites:
            rejected.append(
                Rejection(where, f"site {patch.site!r} is not one of this agent's; enroll the agent with it")
            )
        elif patch.id in foreign:
            rejected.append(
                Rejection(where, f"device {patch.name!r} belongs to a site that is not one of this agent's")
            )
        elif names.get(patch.name, patch.id) != patch.id:
            rejected.append(Rejection(where, f"the name {patch.name!r} belongs to device {names[patch.name]}"))
        else:
            known.devices[patch.id] = (
                await _patch_device(connection, sender, patch, sites[patch.site]),
                sites[patch.site],
            )
            names[patch.name] = patch.id


async def _patch_device(connection: Connection, sender: Sender, patch: DevicePatch, site: int) -> int:
    facts = ("model", "routeros", "serial", "identity", "architecture")
    row = {
        "tenant_id": sender.tenant,
        "uuid": patch.id,
        "site_id": site,
        "agent_id": sender.id,
        "name": patch.name,
        "address": patch.address,
        "vendor": patch.vendor,
        **{fact: getattr(patch, fact) for fact in facts},
    }
    sets = ", ".join(
        f"{n} = coalesce(excluded.{n}, device.{n})" if n in facts else f"{n} = excluded.{n}" for n in list(row)[2:]
    )
    written = await connection.execute(
        f"insert into device ({', '.join(row)}) values ({', '.join(f'%({n})s' for n in row)})"  # noqa: S608
        f" on conflict (tenant_id, uuid) do update set {sets} returning id",
        row,
    )
    found = await written.fetchone()
    assert found is not None  # noqa: S101  # DO UPDATE always returns its row
    await connection.execute(
        "insert into entity (tenant_id, device_id, type, key, name) values (%s, %s, 'device', '', %s)"
        " on conflict (device_id, type, key) do update set name = excluded.name where entity.name <> excluded.name",
        [sender.tenant, found[0], patch.name],
    )
    return int(found[0])


async def _patch_entities(
    connection: Connection, sender: Sender, batch: Batch, known: _Known, rejected: list[Rejection]
) -> None:
    rows = []
    for at, patch in enumerate(batch.inventory_patch.entities):
        where = f"inventory_patch.entities[{at}]"
        if _unstorable(patch):
            rejected.append(Rejection(where, NUL))
        elif patch.device not in known.devices:
            rejected.append(Rejection(where, _unknown_device(patch.device)))
        elif patch.entity_type not in landing_types() or not array_columns(patch.entity_type):
            rejected.append(Rejection(where, f"entity_type {patch.entity_type!r} is not in the registry"))
        else:
            device = known.devices[patch.device][0]
            key = (sender.tenant, device, patch.entity_type, patch.key, patch.name, Jsonb(patch.attributes))
            rows.append(key)
    if rows:
        rows.sort(key=lambda row: row[1:4])
        async with connection.cursor() as cursor:
            await cursor.executemany(
                "insert into entity as e (tenant_id, device_id, type, key, name, attributes)"
                " values (%s, %s, %s, %s, %s, %s) on conflict (device_id, type, key) do update"
                " set name = excluded.name, attributes = e.attributes || excluded.attributes"
                " where e.name <> excluded.name or e.attributes || excluded.attributes <> e.attributes",
                rows,
            )


async def _find_sets(connection: Connection, sender: Sender, batch: Batch, known: _Known) -> None:
    """Find the key sets that polls use, and store those that are new and whose keys are all known."""
    wanted = {
        (known.devices[p.device][0], p.entity_type, p.set)
        for p in batch.polls
        if p.set is not None and p.device in known.devices and p.entity_type in landing_types()
    }
    if not wanted:
        return
    devices = sorted({device for device, _, _ in wanted})
    found = "select device_id, type, name, id, cardinality(entities) from entity_set where device_id = any(%s)"
    async for device, kind, name, number, length in await connection.execute(found, [devices]):
        known.sets[device, kind, name] = (number, length)
    new = {key for key in wanted if key not in known.sets and set_id(batch.sets.get(key[2], ())) == key[2]}
    if not new:
        return
    entities: dict[tuple[int, str], dict[str, int]] = defaultdict(dict)
    rows = await connection.execute(
        "select device_id, type, key, id from entity where device_id = any(%s)", [sorted({d for d, _, _ in new})]
    )
    async for device, kind, key, entity in rows:
        entities[device, kind][key] = entity
    for device, kind, name in sorted(new):
        keys, there = batch.sets[name], entities[device, kind]
        if all(key in there for key in keys):
            written = await connection.execute(
                "insert into entity_set (tenant_id, device_id, type, name, entities) values (%s, %s, %s, %s, %s)"
                " on conflict (device_id, type, name) do update set name = excluded.name returning id",
                [sender.tenant, device, kind, name, [there[key] for key in keys]],
            )
            row = await written.fetchone()
            assert row is not None  # noqa: S101
            known.sets[device, kind, name] = (row[0], len(keys))


def _unstorable(part: Struct) -> bool:
    """Whether a text in it holds the one character that PostgreSQL cannot keep."""
    return b"\\u0000" in msgspec.json.encode(part)


NUL = "holds a NUL character, which cannot be stored"


def _unknown_device(device: UUID) -> str:
    return f"device {device} is not known at this agent's sites; send it in inventory_patch.devices"


def _time_fault(ts: datetime, now: datetime, oldest: datetime) -> str | None:
    if ts > now + timedelta(seconds=MAX_FUTURE_SECONDS):
        return f"ts {ts.isoformat()} is more than {MAX_FUTURE_SECONDS} s in the future; set the agent's clock"
    if ts < oldest:
        return f"ts {ts.isoformat()} is older than raw data are kept"
    return None


def moment(epoch_ms: int) -> datetime:
    """A contract time as datetime; raises ValueError when it is beyond any calendar."""
    try:
        return datetime.fromtimestamp(epoch_ms / 1000, UTC)
    except (OverflowError, OSError, ValueError) as error:
        raise ValueError(f"ts {epoch_ms} is not a time in milliseconds since 1970") from error


def _poll_row(
    poll: Poll, batch: Batch, known: _Known, now: datetime, oldest: datetime
) -> tuple[tuple[str, ...], dict[str, Any], list[str]]:
    """The landing row of one poll, its metric columns, and remarks; raises ValueError when it cannot be stored."""
    if poll.device not in known.devices:
        raise ValueError(_unknown_device(poll.device))
    if poll.entity_type not in landing_types():
        raise ValueError(f"entity_type {poll.entity_type!r} is not in the registry")
    ts = moment(poll.ts)
    if fault := _time_fault(ts, now, oldest):
        raise ValueError(fault)
    if "\0" in poll.source:
        raise ValueError(f"source: {NUL}")
    if poll.interval_s is not None and not 0 <= poll.interval_s < 1e9:
        raise ValueError(f"interval_s: {poll.interval_s} is not a time in seconds")
    device = known.devices[poll.device][0]
    quality = QUALITY[poll.quality] + (LATE if now - ts > LATE_AFTER else 0)
    row: dict[str, Any] = {"device_id": device, "ts": ts, "quality": quality, "source": poll.source}
    row["interval_s"], length = poll.interval_s, 1
    if array_columns(poll.entity_type):
        row["set_id"], length = _set_of(poll, batch, known, device)
    elif poll.set is not None:
        raise ValueError("set: a poll of the device itself has none")
    if any(not 0 <= position < length for position in poll.reset):
        raise ValueError(f"reset: positions are from 0 to {length - 1}")
    row["reset"] = pack_positions(poll.reset) if poll.reset else None
    there, remarks, names = columns(poll.entity_type), [], []
    for name, values in poll.columns.items():
        if (column := there.get(name)) is None:
            remarks.append(f"columns.{name}: not a metric of {poll.entity_type!r}; the other columns were stored")
            continue
        if len(values) != length:
            raise ValueError(f"columns.{name}: {len(values)} values for {length} keys")
        try:
            row[column.name] = column.pack(values) if "set_id" in row else column.scalar(values[0])
        except ValueError as error:
            raise ValueError(f"columns.{name}: {error}") from error
        names.append(column.name)
    if not names:
        raise ValueError("columns: none that is in the registry")
    return tuple(sorted(names)), row, remarks


def _set_of(poll: Poll, batch: Batch, known: _Known, device: int) -> tuple[int, int]:
    if poll.set is None:
        raise ValueError(f"set: missing; a poll of {poll.entity_type!r} names its key set")
    if (found := known.sets.get((device, poll.entity_type, poll.set))) is not None:
        return found
    if poll.set not in batch.sets:
        raise ValueError(f"set: {poll.set!r} is not in sets")
    if set_id(batch.sets[poll.set]) != poll.set:
        raise ValueError(f"set: {poll.set!r} is not the id of its keys, which is {set_id(batch.sets[poll.set])!r}")
    raise ValueError(
        f"set: some of its keys are not known {poll.entity_type!r} entities; send them in inventory_patch.entities"
    )


@cache
def _insert(entity_type: str, names: tuple[str, ...]) -> str:
    """The statement for one kind of poll. A moment that is there already keeps its values and gains missing columns."""
    key = ("device_id", "ts", "set_id") if array_columns(entity_type) else ("device_id", "ts")
    row = ("tenant_id", *key, "interval_s", "quality", "source", "reset", *names)
    gains = ", ".join(f"{n} = coalesce(p.{n}, excluded.{n})" for n in (*names, "reset"))
    new = " or ".join(f"(p.{n} is null and excluded.{n} is not null)" for n in names)
    values = ", ".join(f"%({n})s" for n in row)
    return (
        f"insert into {table(entity_type)} as p ({', '.join(row)}) values ({values})"  # noqa: S608  # registry's names
        f" on conflict ({', '.join(key)}) do update set {gains} where {new}"
    )


async def _store_polls(
    connection: Connection,
    sender: Sender,
    batch: Batch,
    known: _Known,
    rejected: list[Rejection],
    now: datetime,
    oldest: datetime,
) -> None:
    rows: dict[tuple[str, tuple[str, ...]], list[dict[str, Any]]] = defaultdict(list)
    for at, poll in enumerate(batch.polls):
        try:
            names, row, remarks = _poll_row(poll, batch, known, now, oldest)
        except ValueError as error:
            rejected.append(Rejection(f"polls[{at}]", str(error)))
            continue
        rejected += [Rejection(f"polls[{at}]", remark) for remark in remarks]
        row["tenant_id"] = sender.tenant
        rows[poll.entity_type, names].append(row)
    async with connection.cursor() as cursor:
        for (kind, names), group in rows.items():
            await cursor.executemany(_insert(kind, names), group)
        await _point_to_latest(cursor, sender, rows)
        await _mark_dirty(
            cursor,
            sender,
            ((kind, row["device_id"], row["ts"]) for (kind, _), group in rows.items() for row in group),
            now,
        )


async def _point_to_latest(
    cursor: Any, sender: Sender, rows: dict[tuple[str, tuple[str, ...]], list[dict[str, Any]]]
) -> None:
    newest: dict[tuple[int, str, int, tuple[str, ...]], list[tuple[datetime, float | None]]] = defaultdict(list)
    for (kind, names), group in rows.items():
        for row in group:
            newest[row["device_id"], kind, row.get("set_id", 0), names].append((row["ts"], row["interval_s"]))
    pointers = []
    for (device, kind, number, names), polls in sorted(newest.items(), key=lambda item: item[0]):
        polls.sort(key=lambda poll: poll[0])
        period = (polls[-1][0] - polls[-2][0]).total_seconds() if len(polls) > 1 else None
        pointers.append((sender.tenant, device, kind, number, list(names), *polls[-1], period or None))
    await cursor.executemany(
        "insert into latest_poll as l (tenant_id, device_id, type, set_id, columns, ts, interval_s, period_s)"
        " values (%s, %s, %s, %s, %s, %s, %s, %s) on conflict (device_id, type, set_id, columns) do update"
        " set ts = excluded.ts, interval_s = excluded.interval_s,"
        " period_s = coalesce(excluded.period_s, extract(epoch from excluded.ts - l.ts)) where l.ts < excluded.ts",
        pointers,
    )


def _due(device: int, hour: datetime, now: datetime) -> datetime:
    end = hour.replace(hour=hour.hour // PACKED_HOURS * PACKED_HOURS) + timedelta(hours=PACKED_HOURS)
    return max(now, end + CLOSING + timedelta(seconds=device * 7919 % SPREAD_SECONDS))


async def _mark_dirty(cursor: Any, sender: Sender, touched: Iterable[tuple[str, int, datetime]], now: datetime) -> None:
    hours = {(device, kind, ts.replace(minute=0, second=0, microsecond=0)) for kind, device, ts in touched}
    # DO UPDATE, not DO NOTHING: it locks the mark, so the worker cannot take it before this data is visible to it.
    await cursor.executemany(
        "insert into rollup_dirty as d (tenant_id, device_id, type, hour, due) values (%s, %s, %s, %s, %s)"
        " on conflict (device_id, type, hour) do update set due = least(d.due, excluded.due)",
        [(sender.tenant, device, kind, hour, _due(device, hour, now)) for device, kind, hour in sorted(hours)],
    )


async def _store_events(
    connection: Connection,
    sender: Sender,
    batch: Batch,
    known: _Known,
    rejected: list[Rejection],
    now: datetime,
    oldest: datetime,
) -> None:
    rows = []
    for at, event in enumerate(batch.events):
        try:
            ts = moment(event.ts)
            fault = _time_fault(ts, now, oldest)
        except ValueError as error:
            ts, fault = now, str(error)
        if event.device not in known.devices:
            fault = _unknown_device(event.device)
        elif event.name not in registry().events:
            fault = f"event {event.name!r} is not in the registry"
        elif _unstorable(event):
            fault = NUL
        if fault:
            rejected.append(Rejection(f"events[{at}]", fault))
            continue
        device = known.devices[event.device][0]
        rows.append(
            (
                sender.tenant,
                device,
                ts,
                event.id,
                event.name,
                event.severity,
                event.entity_type,
                event.key,
                event.old,
                event.new,
                Jsonb(event.payload),
            )
        )
    if rows:
        async with connection.cursor() as cursor:
            await cursor.executemany(
                "insert into event (tenant_id, device_id, ts, id, name, severity, entity_type, key, old, new, payload)"
                " values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) on conflict do nothing",
                rows,
            )
