"""Store one batch in one transaction: ledger, inventory, landing rows, events, latest pointers, dirty hours."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from uuid import UUID

import msgspec
from ispvm_contract.identity import set_id
from ispvm_contract.ingest import Batch, BatchAnswer, DevicePatch, EntityPatch, Rejection
from ispvm_contract.registry import registry
from msgspec import Struct
from psycopg import AsyncCursor
from psycopg.rows import TupleRow
from psycopg.types.json import Jsonb

from ispvm.ingest.known import NUL, Known, Taken, moment, unknown_device
from ispvm.ingest.landing import landings, store_polls
from ispvm.ingest.senders import CONFIRM, Sender, sender_in
from ispvm.store.columns import array_columns, landing_types, texts_parameter, uuids_parameter
from ispvm.store.pool import Connection, Pool

Cursor = AsyncCursor[TupleRow]
# One statement of a batch; what takes longer waits for something that will not come soon.
STATEMENT_MS = 30_000


class SenderChangedError(Exception):
    """Something else is known of the token by now: it was revoked, or bound to other sites."""


async def store(pool: Pool, token_sha256: bytes, sender: Sender, batch: Batch, taken: Taken) -> BatchAnswer:
    """Store `batch` in one transaction and two round trips, more only for inventory and new key sets; a batch that was
    stored before changes nothing. Raises SenderChangedError when the token no longer stands for `sender`.
    """
    rejected: list[Rejection] = []
    async with pool.connection() as connection, connection.pipeline() as pipeline, connection.transaction():
        await connection.execute(
            "select set_config('ispvm.tenant', %s, true), set_config('statement_timeout', %s, true)",
            [str(sender.tenant), str(STATEMENT_MS)],
            prepare=True,
        )
        token = await connection.execute(CONFIRM, [token_sha256], prepare=True)
        ledger = await connection.execute(
            "insert into ingest_batch (agent_id, id, tenant_id) values (%s, %s, %s::smallint) on conflict do nothing",
            [sender.id, batch.id, sender.tenant],
            prepare=True,
        )
        devices = await _ask_devices(connection, sender, batch)
        sets = await _ask_sets(connection, batch)
        await pipeline.sync()
        if sender_in(await token.fetchone()) != sender:
            raise SenderChangedError
        if ledger.rowcount == 0:
            return BatchAnswer(batch.id, "duplicate")
        known = Known()
        await _note_devices(connection, sender, devices, known)
        for device, kind, name, number, length in await sets.fetchall():
            known.sets[device, kind, name] = (number, length)
        patch = batch.inventory_patch
        if patch.devices or patch.entities:
            await _patch_devices(connection, sender, patch.devices, known, rejected)
            await _patch_entities(connection, sender, patch.entities, known, rejected)
        await _make_sets(connection, sender, batch, known)
        found = landings(batch, known, taken, rejected)
        await _store_events(connection, sender, batch, known, rejected, taken)
        await store_polls(connection, sender, found, taken.now)
        # Not with every batch: those that come at the same time would wait for each other.
        await connection.execute(
            "update agent set last_batch = now() where id = %s"
            " and (last_batch is null or last_batch < now() - interval '1 second')",
            [sender.id],
            prepare=True,
        )
    return BatchAnswer(batch.id, "stored", rejected)


async def _ask_devices(connection: Connection, sender: Sender, batch: Batch) -> Cursor:
    wanted = {p.device for p in batch.polls} | {e.device for e in batch.events}
    wanted |= {d.id for d in batch.inventory_patch.devices} | {e.device for e in batch.inventory_patch.entities}
    return await connection.execute(
        "select uuid, id, site_id, agent_id from device where tenant_id = %s::smallint and uuid = any(%s::uuid[])",
        [sender.tenant, uuids_parameter(wanted)],
        prepare=True,
        binary=True,
    )


async def _ask_sets(connection: Connection, batch: Batch) -> Cursor:
    named = [(poll.device, poll.set) for poll in batch.polls if poll.set is not None]
    return await connection.execute(
        "select device_id, type, name, id, cardinality(entities) from entity_set"
        " where device_id in (select id from device where uuid = any(%s::uuid[])) and name = any(%s::text[])",
        [uuids_parameter({device for device, _ in named}), texts_parameter({name for _, name in named})],
        prepare=True,
        binary=True,
    )


async def _note_devices(connection: Connection, sender: Sender, found: Cursor, known: Known) -> None:
    adopt = []
    for uuid, device, site, agent in await found.fetchall():
        if site in sender.sites:
            known.devices[uuid] = device
            if agent != sender.id:
                adopt.append(device)
    if adopt:
        await connection.execute("update device set agent_id = %s where id = any(%s)", [sender.id, adopt])


async def _patch_devices(
    connection: Connection, sender: Sender, patches: Sequence[DevicePatch], known: Known, rejected: list[Rejection]
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
            known.devices[patch.id] = await _patch_device(connection, sender, patch, sites[patch.site])
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
    connection: Connection,
    sender: Sender,
    patches: Sequence[EntityPatch],
    known: Known,
    rejected: list[Rejection],
) -> None:
    rows = []
    for at, patch in enumerate(patches):
        where = f"inventory_patch.entities[{at}]"
        if _unstorable(patch):
            rejected.append(Rejection(where, NUL))
        elif patch.device not in known.devices:
            rejected.append(Rejection(where, unknown_device(patch.device)))
        elif patch.entity_type not in landing_types() or not array_columns(patch.entity_type):
            rejected.append(Rejection(where, f"entity_type {patch.entity_type!r} is not in the registry"))
        else:
            device = known.devices[patch.device]
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


async def _make_sets(connection: Connection, sender: Sender, batch: Batch, known: Known) -> None:
    """Store the key sets of polls that are new and whose keys are all known."""
    new = {
        (device, poll.entity_type, poll.set)
        for poll in batch.polls
        if poll.set is not None
        and (device := known.devices.get(poll.device)) is not None
        and (device, poll.entity_type, poll.set) not in known.sets
        and poll.entity_type in landing_types()
        and set_id(batch.sets.get(poll.set, ())) == poll.set
    }
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


async def _store_events(
    connection: Connection,
    sender: Sender,
    batch: Batch,
    known: Known,
    rejected: list[Rejection],
    taken: Taken,
) -> None:
    rows = []
    for at, event in enumerate(batch.events):
        fault = None
        try:
            taken.check(event.ts)
        except ValueError as error:
            fault = str(error)
        if event.device not in known.devices:
            fault = unknown_device(event.device)
        elif event.name not in registry().events:
            fault = f"event {event.name!r} is not in the registry"
        elif _unstorable(event):
            fault = NUL
        if fault:
            rejected.append(Rejection(f"events[{at}]", fault))
            continue
        rows.append(
            (
                sender.tenant,
                known.devices[event.device],
                moment(event.ts),
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
