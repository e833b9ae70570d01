"""Imports and exports of the inventory: it is read, and exactly what was planned is written, in one transaction."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import psycopg
from ispvm_contract.identity import device_id
from psycopg.types.json import Jsonb

from ispvm.inventory import sheets
from ispvm.inventory.planning import Change, Inventory, Item, Plan, Upload, plan
from ispvm.inventory.sheets import LINKS, SHEETS, Sheet
from ispvm.settings import Settings
from ispvm.store.pool import Connection


class InventoryChangedError(RuntimeError):
    """Somebody else changed the inventory after the import was shown."""

    def __init__(self) -> None:
        """Always the same."""
        super().__init__("The inventory changed since this was checked. Nothing was imported: check the files again.")


def _plain_address(address: str) -> str:
    try:
        return str(ip_address(address))
    except ValueError:
        return address


async def read(connection: Connection) -> Inventory:
    """The inventory of the tenant of the running transaction."""
    row = await (await connection.execute("select key from tenant where id = current_tenant()")).fetchone()
    if row is None:
        raise LookupError("no tenant is set")
    found = Inventory(row[0], {name: {} for name in SHEETS}, {})
    rows = await connection.execute(
        "select id, xmin::text, key, name, latitude, longitude from site where tenant_id = current_tenant()"
        " order by key"
    )
    async for number, version, key, name, latitude, longitude in rows:
        values = {"site": key, "name": name, "latitude": latitude, "longitude": longitude}
        found.items["sites"][(key,)] = Item(number, version, values)
    rows = await connection.execute(
        "select d.id, d.xmin::text, d.name, s.key, d.role, d.address, d.tags, a.name, p.mode, p.k,"
        " array(select m.name from device m where m.id = any(p.members))"
        " from device d join site s on s.id = d.site_id left join agent a on a.id = d.agent_id"
        " left join dependency p on p.child_id = d.id where d.tenant_id = current_tenant() order by d.name"
    )
    async for number, version, name, site, role, address, tags, agent, mode, k, members in rows:
        values = {
            "device": name,
            "site": site,
            "role": role,
            "address": _plain_address(address),
            "tags": tuple(sorted(tags)),
            "depends on": tuple(sorted(members)),
            "needed": str(k) if mode == "kofn" else mode,
        }
        found.items["devices"][(name,)] = Item(number, version, values, agent)
    rows = await connection.execute(
        "select e.id, e.xmin::text, d.name, e.key, e.name, e.capacity_bps, e.tags from entity e"
        " join device d on d.id = e.device_id where e.tenant_id = current_tenant() and e.type = 'interface'"
        " order by d.name, e.id"
    )
    async for number, version, device, key, name, capacity, tags in rows:
        values = {"device": device, "interface": key, "capacity": capacity, "tags": tuple(sorted(tags))}
        found.items["interfaces"][device, key] = Item(number, version, values)
        found.ports.setdefault((device, name), key)
    rows = await connection.execute(
        "select l.id, l.xmin::text, l.name, da.name, a.key, db.name, b.key, l.capacity_bps, l.medium from link l"
        " join entity a on a.id = l.a_entity join device da on da.id = a.device_id"
        " join entity b on b.id = l.b_entity join device db on db.id = b.device_id"
        " where l.tenant_id = current_tenant() order by l.name"
    )
    async for number, version, *cells in rows:
        found.items["links"][(cells[0],)] = Item(number, version, dict(zip(LINKS.header, cells, strict=True)))
    return found


def export(inventory: Inventory, sheet: Sheet) -> str:
    """A sheet of the inventory as the file that imports as unchanged."""
    return sheets.written(sheet, (item.values for item in inventory.items[sheet.name].values()))


# Rows come as one JSON array. A row changes only in the version of it that was read.
_ADD = {
    "sites": """
        insert into site (tenant_id, key, name, latitude, longitude)
        select current_tenant(), r.site, r.name, r.latitude, r.longitude
        from jsonb_to_recordset(%s) as r(site text, name text, latitude float8, longitude float8)
    """,
    "devices": """
        insert into device (tenant_id, uuid, site_id, name, role, address, tags)
        select current_tenant(), r.uuid, s.id, r.device, r.role, r.address, r.tags
        from jsonb_to_recordset(%s) as r(uuid uuid, device text, site text, role text, address text, tags text[])
        join site s on s.tenant_id = current_tenant() and s.key = r.site
    """,
    "interfaces": """
        insert into entity (tenant_id, device_id, type, key, name, capacity_bps, expected, tags)
        select current_tenant(), d.id, 'interface', r.interface, r.interface, r.capacity, true, r.tags
        from jsonb_to_recordset(%s) as r(device text, interface text, capacity bigint, tags text[])
        join device d on d.tenant_id = current_tenant() and d.name = r.device
    """,
    "links": """
        insert into link (tenant_id, name, a_entity, b_entity, capacity_bps, medium)
        select current_tenant(), r.link, a.id, b.id, r.capacity, r.medium
        from jsonb_to_recordset(%s) as r(link text, "device a" text, "interface a" text, "device b" text,
            "interface b" text, capacity bigint, medium text)
        join device x on x.tenant_id = current_tenant() and x.name = r."device a"
        join entity a on a.device_id = x.id and a.type = 'interface' and a.key = r."interface a"
        join device y on y.tenant_id = current_tenant() and y.name = r."device b"
        join entity b on b.device_id = y.id and b.type = 'interface' and b.key = r."interface b"
    """,
}
_CHANGE = {
    "sites": """
        update site t set name = r.name, latitude = r.latitude, longitude = r.longitude
        from jsonb_to_recordset(%s) as r(id int, version text, name text, latitude float8, longitude float8)
        where t.id = r.id and t.xmin::text = r.version
    """,
    "devices": """
        update device t set site_id = s.id, role = r.role, address = r.address, tags = r.tags
        from jsonb_to_recordset(%s) as r(id int, version text, site text, role text, address text, tags text[])
        join site s on s.tenant_id = current_tenant() and s.key = r.site
        where t.id = r.id and t.xmin::text = r.version
    """,
    "interfaces": """
        update entity t set capacity_bps = r.capacity, tags = r.tags
        from jsonb_to_recordset(%s) as r(id int, version text, capacity bigint, tags text[])
        where t.id = r.id and t.xmin::text = r.version
    """,
    "links": """
        update link t set a_entity = a.id, b_entity = b.id, capacity_bps = r.capacity, medium = r.medium
        from jsonb_to_recordset(%s) as r(id int, version text, "device a" text, "interface a" text, "device b" text,
            "interface b" text, capacity bigint, medium text)
        join device x on x.tenant_id = current_tenant() and x.name = r."device a"
        join entity a on a.device_id = x.id and a.type = 'interface' and a.key = r."interface a"
        join device y on y.tenant_id = current_tenant() and y.name = r."device b"
        join entity b on b.device_id = y.id and b.type = 'interface' and b.key = r."interface b"
        where t.id = r.id and t.xmin::text = r.version
    """,
}
_DEVICE_ENTITY = """
    insert into entity (tenant_id, device_id, type, key, name) select d.tenant_id, d.id, 'device', '', d.name
    from jsonb_to_recordset(%s) as r(device text) join device d on d.tenant_id = current_tenant() and d.name = r.device
"""
_DEPEND = """
    insert into dependency (tenant_id, child_id, mode, k, members)
    select current_tenant(), c.id, r.mode, r.k,
        array(select id from device where tenant_id = current_tenant() and name = any(r.members) order by name)
    from jsonb_to_recordset(%s) as r(device text, mode text, k smallint, members text[])
    join device c on c.tenant_id = current_tenant() and c.name = r.device
    on conflict (child_id) do update set mode = excluded.mode, k = excluded.k, members = excluded.members
"""


async def check(connection: Connection, uploads: Sequence[Upload]) -> Plan:
    """What an import would do now. Raises TooMuchError beyond the limits."""
    inventory = await read(connection)
    return await asyncio.to_thread(plan, uploads, inventory)


async def apply(connection: Connection, uploads: Sequence[Upload], who: str, shown: str | None = None) -> Plan:
    """Import within the transaction of `connection`, which must be rolled back when this raises; with faults nothing is
    written. `shown` is the digest of the plan that somebody has agreed to.

    Raises InventoryChangedError when that is no longer what would be done, and TooMuchError beyond the limits.
    """
    await connection.execute("select pg_advisory_xact_lock(hashtext('inventory import'), current_tenant())")
    inventory = await read(connection)
    made = await asyncio.to_thread(plan, uploads, inventory)
    if shown is not None and made.digest != shown:
        raise InventoryChangedError
    if made.faults or not made.changed:
        return made
    try:
        for name in SHEETS:
            await _write(connection, inventory.tenant, name, made)
    except psycopg.errors.UniqueViolation as error:
        raise InventoryChangedError from error
    counts = {name: dict(found) for name, found in made.counts().items() if found}
    changes = [(c.sheet.name, c.name, c.cells) for c in made.changes if c.action != "same"]
    details = {"files": [name for name, _ in uploads], "counts": counts, "changes": changes}
    await connection.execute(
        "insert into audit_log (tenant_id, who, action, details) values (current_tenant(), %s, 'inventory import', %s)",
        [who, Jsonb(details)],
    )
    return made


async def _write(connection: Connection, tenant: str, name: str, made: Plan) -> None:
    added, changed = made.of(name, "add"), made.of(name, "change")
    rows = [dict(c.values) for c in added]
    if name == "devices":
        rows = [{**row, "uuid": str(device_id(tenant, row["device"]))} for row in rows]
    await _put(connection, _ADD[name], rows)
    if name == "devices":
        await _put(connection, _DEVICE_ENTITY, rows)
    await _put(connection, _CHANGE[name], [_versioned(c) for c in changed])
    if name == "devices":
        await _put(connection, _DEPEND, _dependencies(added + changed))


def _versioned(change: Change) -> dict[str, Any]:
    assert change.item is not None  # noqa: S101  # a change is one of something
    return {**change.values, "id": change.item.id, "version": change.item.version}


def _dependencies(changes: Iterable[Change]) -> list[dict[str, Any]]:
    rows = []
    for change in changes:
        if {"depends on", "needed"} & {column for column, _, _ in change.cells}:
            needed = change.values["needed"]
            mode, k = ("kofn", int(needed)) if needed.isdecimal() else (needed, None)
            rows.append({"device": change.key[0], "mode": mode, "k": k, "members": change.values["depends on"]})
    return rows


async def _put(connection: Connection, statement: str, rows: list[dict[str, Any]]) -> None:
    """Write rows in one statement; raises InventoryChangedError unless it found a place for each."""
    if rows and (await connection.execute(statement.encode(), [Jsonb(rows)])).rowcount != len(rows):
        raise InventoryChangedError


# --- From the command line, as the owner ------------------------------------------------------------------------------


@asynccontextmanager
async def _as_owner(settings: Settings, tenant: str) -> AsyncIterator[Connection]:
    """A transaction in which `tenant` is set; raises LookupError when there is none of that key."""
    async with await psycopg.AsyncConnection.connect(settings.database.owner_dsn) as connection:
        rows = await connection.execute("select id from tenant where key = %s", [tenant])
        if (row := await rows.fetchone()) is None:
            raise LookupError(f"--tenant: there is no tenant {tenant!r}")
        await connection.execute("select set_config('ispvm.tenant', %s, true)", [str(row[0])])
        yield connection


def import_files(settings: Settings, tenant: str, files: Sequence[Path], *, dry_run: bool) -> Plan:
    """Import files, or with `dry_run` say what importing them would do. Raises ValueError beyond the limits."""
    uploads = [(file.name, file.read_bytes()) for file in files]

    async def run() -> Plan:
        async with _as_owner(settings, tenant) as connection:
            return await (check(connection, uploads) if dry_run else apply(connection, uploads, "command line"))

    return asyncio.run(run())


def export_files(settings: Settings, tenant: str, directory: Path) -> bool:
    """Write the inventory as four files into `directory`; returns whether any of them is new or different."""

    async def run() -> Inventory:
        async with _as_owner(settings, tenant) as connection:
            return await read(connection)

    inventory = asyncio.run(run())
    directory.mkdir(exist_ok=True)
    changed = False
    for sheet in SHEETS.values():
        path, content = directory / f"{sheet.name}.csv", export(inventory, sheet).encode()
        if not path.exists() or path.read_bytes() != content:
            path.write_bytes(content)
            changed = True
    return changed
