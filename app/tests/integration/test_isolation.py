from __future__ import annotations

from collections.abc import Awaitable, Callable
from uuid import uuid4

import msgspec
import psycopg
import pytest
from fastapi.routing import APIRoute
from feeder import AGENT
from ispvm.server import ROUTERS
from ispvm_contract.ingest import Batch
from server_world import World

# Every route there is, and how another tenant's ids are tried on it: "" is a route without ids.
GET = {
    "/healthz": "",
    "/readyz": "",
    "/login": "",
    "/account": "",
    "/": "",
    "/partials/home": "",
    "/compatibility": "",
    "/api/v1/compatibility": "",
    "/api/v1/summary": "",
    "/api/v1/sites": "",
    "/api/v1/devices": "",
    "/api/v1/series": "?device={device}&metric=interface.rx_bps&key=sfp28-1",
    "/api/v1/devices/{device_id}": "{device}",
    "/devices/{device_id}": "{device}",
    "/partials/devices/{device_id}": "{device}",
    "/login/one-time/{token}": "{device}",
}
POST = {"/ingest/v1/batch", "/ingest/v1/heartbeat", "/login", "/login/one-time/{token}", "/logout", "/account/password"}


async def test_no_endpoint_shows_another_tenant(make_world: Callable[[], Awaitable[World]]) -> None:
    mine, theirs = await make_world(), await make_world()
    for world in (mine, theirs):
        await world.sent(world.feeder.batch([world.now()]))
        await world.sent(world.feeder.heartbeat(world.now()), "heartbeat")
    routes = {
        (method, route.path)
        for router in ROUTERS
        for route in router.routes
        if isinstance(route, APIRoute)
        for method in route.methods or ()
    }
    assert routes == {("GET", path) for path in GET} | {("POST", path) for path in POST}
    secrets = {theirs.tenant, *(str(theirs.feeder.id(d.name)) for d in theirs.seed.devices)}
    device = str(theirs.feeder.id("EDGE-NTH-1"))
    for path, ids in GET.items():
        url = (
            path.split("{")[0] + ids.format(device=device) if ids and "{" in path else path + ids.format(device=device)
        )
        answer = await mine.client.get(url)
        body = answer.text.replace(device, "") if ids else answer.text
        assert not [secret for secret in secrets if secret in body], url
        if ids and "one-time" not in path:
            assert answer.status_code == 404, url
        own = await mine.client.get(url.replace(device, str(mine.feeder.id("EDGE-NTH-1"))))
        assert own.status_code in (200, 303, 410), url


async def test_an_agent_cannot_write_for_another_tenants_router(make_world: Callable[[], Awaitable[World]]) -> None:
    mine, theirs = await make_world(), await make_world()
    batch = theirs.feeder.batch([theirs.now()])
    stolen = Batch(1, uuid4(), batch.sent_at, AGENT, batch.sets, batch.polls)
    answer = await mine.sent(stolen)
    assert len(msgspec.convert(answer["rejected"], list[object])) == len(batch.polls)
    assert (mine.count("poll_device"), theirs.count("poll_device")) == (0, 0)
    # The same uuid in one's own inventory is one's own router and touches nobody else's.
    claimed = Batch(1, uuid4(), batch.sent_at, AGENT, batch.sets, batch.polls, inventory_patch=batch.inventory_patch)
    await mine.sent(claimed)
    assert theirs.count("poll_device") == 0
    assert {d["state"] for d in (await theirs.devices()).values()} == {"never-seen"}


def _tables(owner: psycopg.Connection) -> list[str]:
    rows = owner.execute(
        "select c.relname from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attname = 'tenant_id'"
        " where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p') order by 1"
    ).fetchall()
    return [name for (name,) in rows]


def test_row_level_security_is_forced_on_every_tenant_table(owner: psycopg.Connection) -> None:
    tables = _tables(owner)
    assert len(tables) == 24
    rows = owner.execute(
        "select relname from pg_class where relname = any(%s) and relnamespace = 'public'::regnamespace"
        " and relrowsecurity and relforcerowsecurity",
        [tables],
    ).fetchall()
    assert sorted(name for (name,) in rows) == tables


async def test_the_server_role_sees_its_tenant_only_and_nothing_without_one(
    make_world: Callable[[], Awaitable[World]], owner: psycopg.Connection
) -> None:
    mine, theirs = await make_world(), await make_world()
    for world in (mine, theirs):
        await world.sent(world.feeder.batch([world.now()]))
        await world.rolled_up()
    tenants: dict[str, int] = dict(owner.execute("select key, id from tenant").fetchall())
    with psycopg.connect(mine.settings.database.dsn, autocommit=True) as server:
        for name in _tables(owner):
            if owner.execute("select has_table_privilege('ispvm', %s, 'select')", [name]).fetchone() != (True,):
                continue  # not even readable
            with server.transaction():
                assert server.execute(f"select count(*) from {name}").fetchone() == (0,), name
            with server.transaction():
                server.execute("select set_config('ispvm.tenant', %s, true)", [str(tenants[mine.tenant])])
                seen = server.execute(f"select distinct tenant_id from {name}").fetchall()
                assert seen in ([], [(tenants[mine.tenant],)]), name
        with server.transaction():
            server.execute("select set_config('ispvm.tenant', %s, true)", [str(tenants[mine.tenant])])
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                server.execute(
                    "insert into poll_device (tenant_id, device_id, ts, source) values (%s, 1, now(), 'x')",
                    [tenants[theirs.tenant]],
                )
        # The setting ended with its transaction: the next user of the pooled connection starts with none.
        assert server.execute("select current_tenant()").fetchone() == (None,)
