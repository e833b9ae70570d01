"""Load a seed bundle into its own tenant. Applying it again changes nothing; production refuses."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
from ispvm_contract.identity import device_id
from ispvm_contract.seed import Seed, load
from psycopg.types.json import Jsonb

from ispvm.inventory.agents import ensure_tenant
from ispvm.inventory.history import MAX_DAYS, generate
from ispvm.settings import Settings


class SeedRefusedError(RuntimeError):
    """Seeds do not belong into this database; the message says why."""


class _Writer:
    """Writes rows by their natural key and remembers whether anything was different."""

    def __init__(self, connection: psycopg.Connection, tenant: int) -> None:
        self.connection, self.tenant, self.changed = connection, tenant, False

    def put(
        self, table: str, key: dict[str, Any], values: dict[str, Any], initial: dict[str, Any] | None = None
    ) -> int:
        """Insert or update one row and return its id; `initial` values yield to what an agent has said since."""
        row = {"tenant_id": self.tenant, **key, **(initial or {}), **values}
        names, holders = ", ".join(row), ", ".join(f"%({name})s" for name in row)
        same_key = " and ".join(f"{name} = %({name})s" for name in key)
        differs = " or ".join(f"t.{name} is distinct from excluded.{name}" for name in values)
        updates = ", ".join(f"{name} = excluded.{name}" for name in values)
        written = self.connection.execute(
            f"insert into {table} as t ({names}) values ({holders})"  # noqa: S608  # names are this module's own
            f" on conflict ({', '.join(key)}) do update set {updates} where {differs} returning 1",
            row,
        ).fetchone()
        self.changed |= written is not None
        column = "child_id" if table == "dependency" else "id"
        found = self.connection.execute(f"select {column} from {table} where {same_key}", row).fetchone()  # noqa: S608
        assert found is not None  # noqa: S101  # it was written above
        return int(found[0])


def apply(settings: Settings, path: Path, history_days: int = 0) -> bool:
    """Load the bundle at `path`, and generate so many days of history. Returns whether anything changed.

    Raises ValueError with every fault of the file, SeedRefusedError in production or if the tenant holds real routers.
    """
    try:
        seed = load(path)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error}") from error
    if settings.environment == "production":
        raise SeedRefusedError("environment is production in the configuration; seeds are for demo and lab only")
    if not 0 <= history_days <= MAX_DAYS:
        raise ValueError(f"--history {history_days}d: from 0d to {MAX_DAYS}d")
    with psycopg.connect(settings.database.owner_dsn) as connection:
        changed = apply_to(connection, seed)
    return (asyncio.run(_history(settings, seed, history_days)) if history_days else False) or changed


async def _history(settings: Settings, seed: Seed, days: int) -> bool:
    async with await psycopg.AsyncConnection.connect(settings.database.owner_dsn) as connection:
        return await generate(connection, seed, days, datetime.now(UTC))


def apply_to(connection: psycopg.Connection, seed: Seed) -> bool:
    """The same within the transaction of `connection`; what the database says of its environment is final."""
    row = connection.execute("select environment from deployment").fetchone()
    if row is None:
        raise SeedRefusedError("the database is not marked with an environment yet; run `ispvm migrate` first")
    if row[0] == "production":
        raise SeedRefusedError("this is a production database; seeds are for demo and lab only")
    tenant, changed = _own_tenant(connection, seed)
    writer = _Writer(connection, tenant)
    _write(writer, seed)
    return changed or writer.changed


def _own_tenant(connection: psycopg.Connection, seed: Seed) -> tuple[int, bool]:
    tenant, changed = ensure_tenant(connection, seed.tenant.key, seed.tenant.name)
    seeded, name, others = connection.execute(
        "select seeded, name, (select count(*) from device where tenant_id = t.id and uuid <> all(%s))"
        " from tenant t where id = %s",
        [[device_id(seed.tenant.key, d.name) for d in seed.devices], tenant],
    ).fetchone() or (False, "", 0)
    if not seeded and others:
        raise SeedRefusedError(
            f"tenant {seed.tenant.key!r} holds {others} routers that are not of this bundle;"
            " seeds need a tenant of their own"
        )
    if not seeded or name != seed.tenant.name:
        connection.execute("update tenant set seeded = true, name = %s where id = %s", [seed.tenant.name, tenant])
        changed = True
    return tenant, changed


def _write(writer: _Writer, seed: Seed) -> None:
    tenant = writer.tenant
    sites = {
        s.key: writer.put(
            "site",
            {"tenant_id": tenant, "key": s.key},
            {"name": s.name, "latitude": s.latitude, "longitude": s.longitude},
        )
        for s in seed.sites
    }
    devices: dict[str, int] = {}
    ports: dict[tuple[str, str], int] = {}
    for d in seed.devices:
        uuid = device_id(seed.tenant.key, d.name)
        devices[d.name] = device = writer.put(
            "device",
            {"tenant_id": tenant, "uuid": uuid},
            {"site_id": sites[d.site], "name": d.name, "role": d.role, "tags": d.tags},
            {"address": d.address, "model": d.model, "routeros": d.routeros},
        )
        writer.put("entity", {"device_id": device, "type": "device", "key": ""}, {"name": d.name})
        for port in d.interfaces:
            ports[d.name, port.key] = writer.put(
                "entity",
                {"device_id": device, "type": "interface", "key": port.key},
                {"capacity_bps": port.capacity_bps, "expected": True, "tags": port.tags},
                {"name": port.key, "attributes": Jsonb({"comment": port.comment})},
            )
    for link in seed.links:
        writer.put(
            "link",
            {"tenant_id": tenant, "name": link.name},
            {
                "a_entity": ports[link.a.device, link.a.interface],
                "b_entity": ports[link.b.device, link.b.interface],
                "capacity_bps": link.capacity_bps,
                "medium": link.medium,
            },
        )
    for dependency in seed.dependencies:
        writer.put(
            "dependency",
            {"child_id": devices[dependency.child]},
            {"mode": dependency.mode, "k": dependency.k, "members": [devices[name] for name in dependency.members]},
        )
    for target in seed.probe_targets:
        writer.put(
            "probe_target",
            {"tenant_id": tenant, "name": target.name},
            {"site_id": sites[target.site], "kind": target.kind, "address": target.address},
        )
