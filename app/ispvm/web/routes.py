"""Pages: NOC home, router, account, signing in and out."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from datetime import UTC, datetime
from functools import cache
from typing import Annotated, Any
from uuid import UUID

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerifyMismatchError
from fastapi import APIRouter, Form, Query, Request
from psycopg.rows import dict_row
from starlette.responses import RedirectResponse, Response

from ispvm.health.state import URGENCY, State
from ispvm.series.overview import FAULTY_MINUTES, Overview, Port, read_devices, read_ports, read_sites
from ispvm.series.query import STATEMENT_MS
from ispvm.series.routes import cached_incidents, cached_overview, sessions
from ispvm.store.pool import Connection, Pool, reading
from ispvm.web import show
from ispvm.web.auth import (
    COOKIE,
    Throttle,
    User,
    end_session,
    find_user,
    hashed,
    new_secret,
    set_session,
)
from ispvm.web.more import more
from ispvm.web.page import NotFoundError, PageUser, page, page_user
from ispvm.web.topology import HEIGHT, WIDTH, lay_out

# Forms are small; nothing else is posted here.
router = APIRouter(include_in_schema=False, max_body_size=64 * 1024)
MIN_PASSWORD = 12
# Days of incidents on the first page.
DAYS = 30
# argon2id with the library's parameters (RFC 9106, second choice). Takes tens of milliseconds: never on the event loop.
_hasher = PasswordHasher()


# --- NOC home ---------------------------------------------------------------------------------------------------------


async def _recent_events(connection: Connection, device: int | None = None, limit: int = 12) -> list[dict[str, Any]]:
    rows = await connection.cursor(row_factory=dict_row).execute(
        "select e.ts, e.name, e.severity, e.key, e.old, e.new, d.name as device, d.uuid,"
        " e.payload ? 'generated' as generated from event e"
        " join device d on d.id = e.device_id where e.tenant_id = current_tenant() and e.ts > now() - interval '7 days'"
        " and (%(device)s::int is null or e.device_id = %(device)s) order by e.ts desc limit %(limit)s",
        {"device": device, "limit": limit},
    )
    return [row async for row in rows]


def _chart_port(found: Overview) -> Port | None:
    """What the home chart shows: the busiest uplink, or the busiest port when none is tagged so.

    When nothing reports, its history is still worth seeing.
    """
    ports = [port for _, port in found.busiest(len(found.ports))] or list(found.ports.values())
    return next((port for port in ports if "uplink:true" in port.tags), ports[0] if ports else None)


async def _home(request: Request, user: User) -> dict[str, Any]:
    found = await cached_overview(request, user)
    _, incidents = await cached_incidents(request, user, DAYS)
    async with reading(request.app.state.pool, user.tenant, STATEMENT_MS) as connection:
        events = await _recent_events(connection)
    urgency = {device.id: URGENCY.index(device.health.state) for device in found.devices.values()}
    by_site = defaultdict(list)
    for device in sorted(found.devices.values(), key=lambda d: (urgency[d.id], d.name)):
        by_site[device.site_id].append(device)
    worst = {site: min((urgency[device.id] for device in by_site[site]), default=len(URGENCY)) for site in found.sites}
    sites = sorted(found.sites.values(), key=lambda site: (worst[site.id], site.name))
    return {
        "user": user,
        "now": found.now,
        "overview": found,
        "counts": found.counts(),
        "states": list(State),
        "by_site": by_site,
        "sites": sites,
        "busiest": found.busiest(),
        "congested": found.congested(),
        "faulty_minutes": FAULTY_MINUTES,
        "incidents": incidents,
        "topology": lay_out(found),
        "width": WIDTH,
        "height": HEIGHT,
        "agents": [a for a in found.agents.values() if not a.revoked],
        "events": events,
        "chart": _chart_port(found),
    }


@router.get("/")
async def home(request: Request, user: PageUser) -> Response:
    """What needs attention now."""
    return page("home.html", **await _home(request, user))


@router.get("/partials/home")
async def home_partial(request: Request, user: PageUser) -> Response:
    """The part of the home page that refreshes."""
    return page("home_live.html", **await _home(request, user))


# --- Router -----------------------------------------------------------------------------------------------------------


async def _sparklines(connection: Connection, device: int) -> dict[int, list[tuple[float, float | None]]]:
    """The busier direction of each port over the last hour by entity id: (place in the hour from 0 to 1, bit/s)."""
    rows = await connection.execute(
        "select s.entities, p.rx_bps, p.tx_bps, 1 - extract(epoch from now() - p.ts)::float8 / 3600"
        " from poll_interface p join entity_set s on s.id = p.set_id where p.device_id = %s"
        " and p.ts > now() - interval '1 hour' and p.ts <= now() and p.rx_bps is not null order by p.ts limit 800",
        [device],
    )
    lines: dict[int, list[tuple[float, float | None]]] = defaultdict(list)
    async for entities, received, sent, at in rows:
        for entity, rx, tx in zip(entities, received, sent or received, strict=True):
            lines[entity].append((at, None if rx is None or tx is None else max(rx, tx)))
    return lines


async def _polling(connection: Connection, device: int) -> dict[str, Any] | None:
    """What polling costs the router, and what cannot be collected from it and why; None before the first heartbeat."""
    cursor = await connection.cursor(row_factory=dict_row).execute(
        "select ms_per_minute, bytes_per_minute, slowed, disabled_collectors from agent_router where device_id = %s",
        [device],
    )
    return await cursor.fetchone()


async def _device(request: Request, user: User, device_id: UUID, port: str | None) -> dict[str, Any]:
    now = datetime.now(UTC)
    async with reading(request.app.state.pool, user.tenant, STATEMENT_MS) as connection:
        devices, agents = await read_devices(connection, now, device_id)
        if not devices:
            raise NotFoundError("There is no such router")
        (device,) = devices.values()
        ports = list((await read_ports(connection, [device.id], now)).values())
        values = {
            "user": user,
            "now": now,
            "device": device,
            "agent": agents.get(device.agent_id or 0),
            "site": (await read_sites(connection))[device.site_id],
            "ports": ports,
            "sparklines": await _sparklines(connection, device.id),
            "bgp": await sessions(connection, device.id, "bgp_peer", now),
            "ospf": await sessions(connection, device.id, "ospf_neighbor", now),
            "events": await _recent_events(connection, device.id),
            "polling": await _polling(connection, device.id),
            "more": await more(connection, device.id, device.values, now),
        }
    busiest = max(ports, key=lambda p: p.utilization_pct or 0, default=None)
    chosen = next((p for p in ports if p.key == port), busiest)
    return {**values, "chosen": chosen}


@router.get("/devices/{device_id}")
async def device(
    request: Request, user: PageUser, device_id: UUID, port: Annotated[str | None, Query(max_length=255)] = None
) -> Response:
    """One router."""
    return page("device.html", **await _device(request, user, device_id, port))


@router.get("/partials/devices/{device_id}")
async def device_partial(
    request: Request, user: PageUser, device_id: UUID, port: Annotated[str | None, Query(max_length=255)] = None
) -> Response:
    """The part of a router's page that refreshes."""
    return page("device_live.html", **await _device(request, user, device_id, port))


# --- Signing in and out -----------------------------------------------------------------------------------------------


def _client(request: Request) -> str:
    return f"address {request.client.host if request.client else 'local'}"


@router.get("/login")
async def login_form(request: Request) -> Response:
    """Name and password."""
    if await find_user(request) is not None:
        return RedirectResponse("/", 303)
    return page("login.html", user=None, problem="", name="")


@router.post("/login")
async def login(
    request: Request,
    name: Annotated[str, Form(max_length=64)] = "",
    password: Annotated[str, Form(max_length=1024)] = "",
) -> Response:
    """Sign in with a password. The answer is the same, and as slow, for a wrong name and a wrong password."""
    pool: Pool = request.app.state.pool
    throttle: Throttle = request.app.state.throttle
    keys = (f"user {name.lower()}", _client(request))
    if (wait := throttle.wait(*keys)) > 0:
        problem = f"Too many attempts. Try again in {show.duration(wait + 1)}."
        response = page("login.html", 429, user=None, problem=problem, name=name)
        response.headers["Retry-After"] = str(int(wait) + 1)
        return response
    async with pool.connection() as connection:
        row = await (await connection.execute("select id, password_hash from user_by_name(%s)", [name])).fetchone()
    right = await asyncio.to_thread(_verify, (row[1] if row else None) or _hash_of_nothing(), password)
    if row is None or row[1] is None or not right:
        throttle.failed(*keys)
        return page("login.html", 403, user=None, problem="Name or password is wrong.", name=name)
    throttle.succeeded(*keys)
    token = new_secret()
    async with pool.connection() as connection:
        await connection.execute("select open_session(%s, %s)", [row[0], hashed(token)])
    response_to_home = RedirectResponse("/", 303)
    set_session(response_to_home, token)
    return response_to_home


@cache
def _hash_of_nothing() -> str:
    """A password hash that nothing matches, so that an unknown name takes as long as a wrong password."""
    return _hasher.hash(new_secret())


def _verify(password_hash: str, password: str) -> bool:
    try:
        return _hasher.verify(password_hash, password)
    except (VerifyMismatchError, InvalidHashError):
        return False


@router.get("/login/one-time/{token}")
async def one_time_form(request: Request, token: str) -> Response:
    """Asks for a click: link previewers only GET, so they do not use the link up."""
    async with request.app.state.pool.connection() as connection:
        row = await (await connection.execute("select login_link_user(%s)", [hashed(token)])).fetchone()
    name = row[0] if row else None
    return page("one_time.html", 200 if name else 410, user=None, name=name)


@router.post("/login/one-time/{token}")
async def one_time(request: Request, token: str) -> Response:
    """Sign in, once."""
    session = new_secret()
    async with request.app.state.pool.connection() as connection:
        row = await (
            await connection.execute("select login_with_link(%s, %s)", [hashed(token), hashed(session)])
        ).fetchone()
    if row is None or not row[0]:
        return page("one_time.html", 410, user=None, name=None)
    response = RedirectResponse("/account", 303)
    set_session(response, session)
    return response


@router.post("/logout")
async def logout(request: Request) -> Response:
    """End the session, here and in the database."""
    key = hashed(request.cookies.get(COOKIE, ""))
    async with request.app.state.pool.connection() as connection:
        await connection.execute("select close_session(%s)", [key])
    request.app.state.sessions.forget(key)
    response = RedirectResponse("/login", 303)
    end_session(response)
    return response


@router.get("/account")
async def account(user: PageUser) -> Response:
    """Who am I, and my password."""
    return page("account.html", user=user, problem="", done=False)


@router.post("/account/password")
async def set_password(
    request: Request,
    user: PageUser,
    new: Annotated[str, Form(max_length=1024)] = "",
    again: Annotated[str, Form(max_length=1024)] = "",
    current: Annotated[str, Form(max_length=1024)] = "",
) -> Response:
    """Set the password; whoever did not come by a one-time link must know the old one. Ends all other sessions."""
    pool: Pool = request.app.state.pool
    problem = ""
    if len(new) < MIN_PASSWORD:
        problem = f"Use at least {MIN_PASSWORD} characters."
    elif new != again:
        problem = "The two new passwords differ."
    elif user.has_password and not user.by_link:
        async with pool.connection() as connection:
            row = await (await connection.execute("select password_hash from user_by_name(%s)", [user.name])).fetchone()
        if row is None or not await asyncio.to_thread(_verify, row[0], current):
            problem = "The current password is wrong."
    if problem:
        return page("account.html", 422, user=user, problem=problem, done=False)
    password_hash = await asyncio.to_thread(_hasher.hash, new)
    key = hashed(request.cookies[COOKIE])
    async with pool.connection() as connection:
        await connection.execute("select set_password(%s, %s, %s)", [user.id, password_hash, key])
    request.app.state.sessions.forget(key)
    return page("account.html", user=await page_user(request), problem="", done=True)
