"""GET /api/v1/…: what pages and integrations read. Every query has a tenant, a limit and an index that serves it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from ispvm.health.state import State
from ispvm.refusal import RESPONSES, RefusedError
from ispvm.series.cache import json_response
from ispvm.series.overview import Agent, Device, Overview, Port, overview, read_devices, read_ports, read_sites
from ispvm.series.query import MAX_POINTS, MAX_RANGE, STATEMENT_MS, Series, find_entity, metric_of, read_series
from ispvm.store.latest import latest_entities
from ispvm.store.pool import Connection, transaction
from ispvm.web.auth import SignedIn, User

router = APIRouter(prefix="/api/v1", tags=["dashboard"], responses=RESPONSES)


class DeviceOut(BaseModel):
    """A router and its one state."""

    id: UUID
    name: str
    site: str = Field(description="key of its site")
    role: str | None
    address: str
    vendor: str
    model: str | None
    routeros: str | None
    tags: list[str]
    state: State
    evidence: str
    last_poll: datetime | None
    cpu_pct: float | None
    uptime_seconds: float | None


class PortOut(BaseModel):
    """An interface with its newest values; null is unknown."""

    key: str
    name: str
    capacity_bps: int | None
    oper_up: bool | None
    admin_up: bool | None
    rx_bps: float | None
    tx_bps: float | None
    utilization_pct: float | None


class SessionOut(BaseModel):
    """A BGP session or an OSPF adjacency."""

    key: str
    name: str
    up: bool | None
    state: str | None
    uptime_seconds: float | None
    prefixes_in: float | None = Field(description="null for an adjacency")
    attributes: dict[str, str | float | int | bool | None] = Field(description="as the agent described it")


class DevicePage(DeviceOut):
    """A router with what is inside it."""

    interfaces: list[PortOut]
    bgp_peers: list[SessionOut]
    ospf_neighbors: list[SessionOut]


class SiteOut(BaseModel):
    """A PoP with the states of its routers."""

    key: str
    name: str
    latitude: float | None
    longitude: float | None
    counts: dict[State, int]


class BusyPort(BaseModel):
    """One of the busiest interfaces."""

    device: UUID
    device_name: str
    key: str
    utilization_pct: float
    rx_bps: float | None
    tx_bps: float | None
    capacity_bps: int


class AgentOut(BaseModel):
    """An agent and whether it reports."""

    name: str
    online: bool
    version: str | None
    last_heartbeat: datetime | None
    buffer_depth: int
    dropped_batches: int
    clock_error_s: float | None


class Summary(BaseModel):
    """The NOC home in numbers."""

    at: datetime
    counts: dict[State, int]
    busiest: list[BusyPort]
    agents: list[AgentOut]


class Devices(BaseModel):
    """Routers in the order of their names."""

    devices: list[DeviceOut]


class Sites(BaseModel):
    """Sites in the order of their names."""

    sites: list[SiteOut]


def device_out(device: Device, site: str) -> dict[str, object]:
    """The fields of DeviceOut."""
    return {
        "id": device.uuid,
        "name": device.name,
        "site": site,
        "role": device.role,
        "address": device.address,
        "vendor": device.vendor,
        "model": device.model,
        "routeros": device.routeros,
        "tags": device.tags,
        "state": device.health.state,
        "evidence": device.health.evidence,
        "last_poll": device.last_poll,
        "cpu_pct": device.values.get("cpu_pct"),
        "uptime_seconds": device.values.get("uptime_seconds"),
    }


def _agent(agent: Agent, now: datetime) -> AgentOut:
    return AgentOut(
        name=agent.name,
        online=not agent.offline(now),
        version=agent.version,
        last_heartbeat=agent.last_heartbeat,
        buffer_depth=agent.buffer_depth,
        dropped_batches=agent.dropped_batches,
        clock_error_s=agent.clock_error_s,
    )


def _port(port: Port) -> PortOut:
    values = {name: port.values.get(name) for name in ("oper_up", "admin_up", "rx_bps", "tx_bps")}
    return PortOut(
        key=port.key, name=port.name, capacity_bps=port.capacity_bps, utilization_pct=port.utilization_pct, **values
    )


async def cached_overview(request: Request, user: User) -> Overview:
    """The tenant's overview, at most two seconds old and read once for all who ask."""

    async def read() -> Overview:
        async with transaction(request.app.state.pool, user.tenant, STATEMENT_MS) as connection:
            return await overview(connection)

    found: Overview = await request.app.state.overviews.get(user.tenant, read)
    return found


@router.get("/series", response_model=Series)
async def series(
    request: Request,
    user: SignedIn,
    device: UUID,
    metric: Annotated[str, Query(max_length=100)],
    entity_type: Annotated[str | None, Query(max_length=50, description="default: the metric's")] = None,
    key: Annotated[str, Query(max_length=255, description="empty for the device itself")] = "",
    start: Annotated[datetime | None, Query(alias="from", description="default: one hour before `to`")] = None,
    end: Annotated[datetime | None, Query(alias="to", description="default: now")] = None,
    max_points: Annotated[int, Query(ge=1, le=MAX_POINTS)] = 300,
) -> Response:
    """One metric of one entity in buckets with average, minimum, maximum and 95th percentile."""
    wanted = metric_of(metric)
    if entity_type not in (None, wanted.entity_type):
        raise RefusedError(
            422, "entity_type", f"{metric} is a metric of {wanted.entity_type!r}", "leave entity_type out"
        )
    now = datetime.now(UTC)
    stop = _aware(end or now, "to")
    begin = _aware(start or stop - timedelta(hours=1), "from")
    if begin >= stop:
        raise RefusedError(422, "from", "is not before `to`", "ask for a range that ends after it begins")
    if stop - begin > MAX_RANGE:
        raise RefusedError(422, "from", f"the range is longer than {MAX_RANGE.days} days", "ask for a shorter range")
    if stop > now + timedelta(days=1):
        raise RefusedError(422, "to", "is in the future", "ask for a range that ends now")

    async def read() -> bytes:
        async with transaction(request.app.state.pool, user.tenant, STATEMENT_MS) as connection:
            entity = await find_entity(connection, device, wanted.entity_type, key)
            found = await read_series(connection, entity, wanted, begin, stop, max_points)
        return found.model_dump_json().encode()

    cache_key = ("series", user.tenant, device, metric, key, int(begin.timestamp()), int(stop.timestamp()), max_points)
    return json_response(request, await request.app.state.answers.get(cache_key, read))


def _aware(moment: datetime, field: str) -> datetime:
    if moment.year < 1970 or moment.year > 2200:
        raise RefusedError(422, field, "is outside 1970 to 2200", "give a time as ISO 8601 or seconds since 1970")
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


@router.get("/summary", response_model=Summary)
async def summary(request: Request, user: SignedIn) -> Response:
    """Routers by state, the ten busiest interfaces, agents."""
    found = await cached_overview(request, user)
    busiest = [
        BusyPort(
            device=found.devices[port.device_id].uuid,
            device_name=found.devices[port.device_id].name,
            key=port.key,
            utilization_pct=pct,
            rx_bps=port.values.get("rx_bps"),
            tx_bps=port.values.get("tx_bps"),
            capacity_bps=port.capacity_bps or 0,
        )
        for pct, port in found.busiest()
    ]
    agents = [_agent(agent, found.now) for agent in found.agents.values() if not agent.revoked]
    body = Summary(at=found.now, counts=found.counts(), busiest=busiest, agents=agents)
    return json_response(request, body.model_dump_json().encode())


@router.get("/sites", response_model=Sites)
async def sites(request: Request, user: SignedIn) -> Response:
    """All sites with the states of their routers."""
    found = await cached_overview(request, user)
    counts = {site: dict.fromkeys(State, 0) for site in found.sites}
    for device in found.devices.values():
        counts[device.site_id][device.health.state] += 1
    body = Sites(
        sites=[
            SiteOut(key=s.key, name=s.name, latitude=s.latitude, longitude=s.longitude, counts=counts[s.id])
            for s in found.sites.values()
        ]
    )
    return json_response(request, body.model_dump_json().encode())


@router.get("/devices", response_model=Devices)
async def devices(request: Request, user: SignedIn) -> Response:
    """All routers with their state."""
    found = await cached_overview(request, user)
    listed = [DeviceOut.model_validate(device_out(d, found.sites[d.site_id].key)) for d in found.devices.values()]
    return json_response(request, Devices(devices=listed).model_dump_json().encode())


async def sessions(connection: Connection, device: int, entity_type: str, now: datetime) -> list[SessionOut]:
    """BGP sessions or OSPF adjacencies of a router, with the names of their states."""
    rows = await connection.execute(
        "select id, key, name, attributes from entity where device_id = %s and type = %s order by key limit 5000",
        [device, entity_type],
    )
    entities = [row async for row in rows]
    latest = await latest_entities(connection, entity_type, [device], now)
    names = metric_of(f"{entity_type.replace('_', '.')}.state").values
    out = []
    for number, key, name, attributes in entities:
        values = latest.get(number, {})
        code = values.get(f"{entity_type}_state")
        out.append(
            SessionOut(
                key=key,
                name=name,
                up=values.get(f"{entity_type}_up"),
                state=names[code] if code is not None and 0 <= code < len(names) else None,
                uptime_seconds=values.get(f"{entity_type}_uptime_seconds"),
                prefixes_in=values.get(f"{entity_type}_prefixes_in"),
                attributes=attributes,
            )
        )
    return out


@router.get("/devices/{device_id}", response_model=DevicePage)
async def device(request: Request, user: SignedIn, device_id: UUID) -> Response:
    """One router with its interfaces, BGP sessions and OSPF adjacencies."""
    now = datetime.now(UTC)
    async with transaction(request.app.state.pool, user.tenant, STATEMENT_MS) as connection:
        found, _ = await read_devices(connection, now, device_id)
        if not found:
            raise RefusedError(404, "device_id", f"no device {device_id}", "see /api/v1/devices")
        (one,) = found.values()
        site = (await read_sites(connection))[one.site_id]
        ports = await read_ports(connection, [one.id], now)
        body = DevicePage.model_validate(
            {
                **device_out(one, site.key),
                "interfaces": [_port(port) for port in ports.values()],
                "bgp_peers": await sessions(connection, one.id, "bgp_peer", now),
                "ospf_neighbors": await sessions(connection, one.id, "ospf_neighbor", now),
            }
        )
    return json_response(request, body.model_dump_json().encode())
