from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from urllib.parse import urlencode
from uuid import uuid4

import msgspec
import psycopg
import pytest
from fastapi import APIRouter
from fastapi.routing import APIRoute
from feeder import AGENT, ms
from ispvm.inventory.tenants import set_operator
from ispvm.series.cache import Cache
from ispvm.server import ROUTERS
from ispvm.settings import Settings
from ispvm.store.edition import COMPRESSED
from ispvm_contract.ingest import Batch, Event
from server_world import World
from starlette.routing import BaseRoute

ROUTER, PORT = "EDGE-NTH-1", "sfp28-1"

# How each parameter of a route is filled, from whose world it says; a route with any other parameter fails the test, so
# that nobody adds one without saying how another tenant's ids are tried on it.
PARAMETERS: dict[str, Callable[[World], str]] = {
    "device": lambda world: str(world.feeder.id(ROUTER)),
    "device_id": lambda world: str(world.feeder.id(ROUTER)),
    "key": lambda _: PORT,
    "port": lambda _: PORT,
    "metric": lambda _: "interface.rx_bps",
    "token": lambda _: "no-such-token",
    "month": lambda world: world.now().strftime("%Y-%m"),
    "sheet": lambda _: "devices",
}
# Without a meaning of their own to a tenant: left at their defaults.
PLAIN = {"entity_type", "from", "to", "max_points", "by", "limit", "days", "zone", "tag"}
IDS = {"device", "device_id"}
POSTS = {
    "/ingest/v1/batch",
    "/ingest/v1/heartbeat",
    "/login",
    "/login/one-time/{token}",
    "/logout",
    "/account/password",
    "/inventory/check",
    "/inventory/apply",
}


class UncoveredError(AssertionError):
    """A route that nobody said how to try."""


def addresses(routes: Iterable[BaseRoute]) -> list[tuple[str, list[str]]]:
    """Every route that is read, with the parameters to fill; raises UncoveredError for what is not known."""
    found = []
    for route in routes:
        if not isinstance(route, APIRoute):
            raise UncoveredError(f"{route} is no plain route")
        if route.methods != {"GET"}:
            if route.path not in POSTS or route.methods != {"POST"}:
                raise UncoveredError(f"{route.methods} {route.path}")
            continue
        names = [p.alias for p in (*route.dependant.path_params, *route.dependant.query_params)]
        if unknown := set(names) - set(PARAMETERS) - PLAIN:
            raise UncoveredError(f"{route.path}: {sorted(unknown)}")
        found.append((route.path, [name for name in names if name in PARAMETERS]))
    return found


def filled(path: str, names: list[str], world: World) -> str:
    values = {name: PARAMETERS[name](world) for name in names}
    query = {name: value for name, value in values.items() if f"{{{name}}}" not in path}
    return path.format(**values) + (f"?{urlencode(query)}" if query else "")


async def test_no_endpoint_shows_another_tenant(make_world: Callable[[], Awaitable[World]]) -> None:
    mine, theirs = await make_world(), await make_world()
    for world in (mine, theirs):
        set_operator(world.settings, world.tenant, True)
        world.app.state.sessions = Cache(seconds=0)
        await world.sent(world.feeder.batch([world.now()]))
        await world.sent(world.feeder.heartbeat(world.now()), "heartbeat")
        await world.rolled_up()
    routes = addresses(route for router in ROUTERS for route in router.routes)
    assert len(routes) >= 17
    assert {path for path in mine.app.openapi()["paths"] if path.startswith("/api/")} <= {path for path, _ in routes}
    device = str(theirs.feeder.id(ROUTER))
    secrets = {theirs.tenant, *(str(theirs.feeder.id(d.name)) for d in theirs.seed.devices)}
    for path, names in routes:
        url = filled(path, names, theirs)
        answer = await mine.client.get(url)
        body = answer.text.replace(device, "") if IDS & set(names) else answer.text
        assert not [secret for secret in secrets if secret in body], url
        if IDS & set(names):
            assert answer.status_code == 404, (url, answer.text)
        own = await mine.client.get(filled(path, names, mine))
        usual = 410 if "token" in names else 404 if path == "/metrics" else 200
        assert own.status_code in (usual, 303), (url, own.text)


def test_a_route_that_nobody_tries_is_found() -> None:
    async def route(serial: str = "") -> str:
        return serial

    unknown = APIRouter()
    unknown.add_api_route("/api/v1/serials", route)
    with pytest.raises(UncoveredError, match="serial"):
        addresses(unknown.routes)
    writing = APIRouter()
    writing.add_api_route("/api/v1/note", route, methods=["POST"])
    with pytest.raises(UncoveredError, match="note"):
        addresses(writing.routes)


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


def _readable(server: psycopg.Connection) -> list[str]:
    """Every name that shows rows of tenants to the server, as it finds them: tables and views, of both schemas."""
    rows = server.execute(
        "select c.oid::regclass::text from pg_class c join pg_namespace n on n.oid = c.relnamespace"
        " join pg_attribute a on a.attrelid = c.oid and a.attname = 'tenant_id'"
        " where n.nspname in ('public', 'ispvm') and c.relkind in ('r', 'p', 'v')"
        " and has_any_column_privilege(c.oid, 'select') order by 1"
    ).fetchall()
    return [name for (name,) in rows]


def test_row_level_security_is_forced_on_every_tenant_table(settings: Settings, owner: psycopg.Connection) -> None:
    """Where it cannot be, because the community edition compresses the table, the server has no right on it at all."""
    tables = _tables(owner)
    assert len(tables) >= 25
    rows = owner.execute(
        "select relname from pg_class where relname = any(%s) and relnamespace = 'public'::regnamespace"
        " and relrowsecurity and relforcerowsecurity",
        [tables],
    ).fetchall()
    community = settings.storage.timescaledb_edition == "community"
    without = [*COMPRESSED] if community else []
    assert sorted([*without, *(name for (name,) in rows)]) == tables
    rights = "select has_any_column_privilege('ispvm', format('public.%%I', %s::text), 'select, insert, update')"
    assert [owner.execute(rights, [name]).fetchone() for name in COMPRESSED] == [(not community,)] * 2


async def test_the_server_has_no_right_on_a_chunk(world: World, owner: psycopg.Connection) -> None:
    """Chunks have no row-level security of their own: read by its name, one would show every tenant."""
    await world.sent(world.feeder.batch([world.now()]))
    await world.rolled_up()
    rows = owner.execute(
        "select c.relname, has_any_column_privilege('ispvm', c.oid, 'select, insert, update') from pg_class c"
        " join pg_attribute a on a.attrelid = c.oid and a.attname = 'tenant_id'"
        " where c.relnamespace = '_timescaledb_internal'::regnamespace and c.relkind in ('r', 'v')"
    ).fetchall()
    assert len(rows) > len(COMPRESSED)
    assert [name for name, readable in rows if readable] == []


async def test_the_server_role_sees_its_tenant_only_and_nothing_without_one(
    make_world: Callable[[], Awaitable[World]], owner: psycopg.Connection
) -> None:
    mine, theirs = await make_world(), await make_world()
    for world in (mine, theirs):
        router = world.feeder.id(ROUTER)
        down = Event(uuid4(), ms(world.now()), "device.api.changed", router, "critical", "device", None, "up", "down")
        await world.sent(world.feeder.batch([world.now()], events=[down]))
        await world.rolled_up()
    tenants: dict[str, int] = dict(owner.execute("select key, id from tenant").fetchall())
    with psycopg.connect(mine.settings.database.dsn, autocommit=True) as server:
        names = _readable(server)
        kept = {"event", "rollup_1d", "rollup_1h", "incident_count"}
        assert kept <= set(names)
        for name in names:
            with server.transaction():
                assert server.execute(f"select count(*) from {name}").fetchone() == (0,), name
            with server.transaction():
                server.execute("select set_config('ispvm.tenant', %s, true)", [str(tenants[mine.tenant])])
                seen = server.execute(f"select distinct tenant_id from {name}").fetchall()
                assert seen in ([(tenants[mine.tenant],)], [] if name not in kept else None), name
        with server.transaction():
            server.execute("select set_config('ispvm.tenant', %s, true)", [str(tenants[mine.tenant])])
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                server.execute(
                    "insert into poll_device (tenant_id, device_id, ts, source) values (%s, 1, now(), 'x')",
                    [tenants[theirs.tenant]],
                )
        # The setting ended with its transaction: the next user of the pooled connection starts with none.
        assert server.execute("select current_tenant()").fetchone() == (None,)
