"""GET /api/v1/…: what pages and integrations read. Every query has a tenant, a limit and an index that serves it."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Literal
from uuid import UUID
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from ispvm.health.state import State, worst
from ispvm.refusal import RESPONSES, RefusedError
from ispvm.series.budget import Budgets
from ispvm.series.cache import SERIES_SECONDS, SUMMARY_SECONDS, TOP_SECONDS, Answers, Kept, encoded_response
from ispvm.series.overview import (
    PLANNED_ONCE,
    Agent,
    Device,
    LoadClass,
    Overview,
    Port,
    Site,
    overview,
    read_devices,
    read_ports,
    read_sites,
)
from ispvm.series.query import MAX_POINTS, STATEMENT_MS, Series, metric_of, read_series
from ispvm.store.history import Day, incidents_a_day, top
from ispvm.store.latest import latest_entities
from ispvm.store.pool import Connection, reading
from ispvm.web.auth import SignedIn, User

router = APIRouter(prefix="/api/v1", tags=["dashboard"], responses=RESPONSES, route_class=Kept)


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


class BusyLink(BaseModel):
    """One of the most congested links: the busier direction, as either end sees it."""

    name: str
    medium: str
    utilization_pct: float
    capacity_bps: int


class FaultyPort(BaseModel):
    """A port whose error or drop counters rise: per second, both directions together, over the last minutes."""

    device: UUID
    device_name: str
    key: str
    errors_per_s: float
    drops_per_s: float
    over_s: float = Field(description="seconds between the two readings of the counters")


class AgentOut(BaseModel):
    """An agent and whether it reports."""

    name: str
    online: bool
    version: str | None
    last_heartbeat: datetime | None
    buffer_depth: int
    dropped_batches: int = Field(description="lost by the agent")
    refused_batches: int = Field(description="set aside by the agent because this server will never take them")
    clock_error_s: float | None


class Summary(BaseModel):
    """The NOC home in numbers."""

    at: datetime
    counts: dict[State, int]
    busiest: list[BusyPort]
    congested: list[BusyLink]
    faulty: list[FaultyPort]
    agents: list[AgentOut]


class Devices(BaseModel):
    """Routers in the order of their names."""

    devices: list[DeviceOut]


class Sites(BaseModel):
    """Sites in the order of their names."""

    sites: list[SiteOut]


class MapSite(SiteOut):
    """A site as the map shows it."""

    worst: State | None = Field(description="the most urgent state of its routers; null without any")


class MapLink(BaseModel):
    """A link as the map shows it: its ends, its load, and the class that colours it."""

    name: str
    medium: str
    capacity_bps: int
    a_site: str
    a_device: UUID
    b_site: str
    b_device: UUID
    down: bool = Field(description="an end says that it has no carrier")
    load_pct: float | None = Field(description="null when unknown, and when it is down")
    load_class: LoadClass


class Map(BaseModel):
    """Sites and links with what is to be drawn of them."""

    at: datetime
    sites: list[MapSite]
    links: list[MapLink]


class DayOut(BaseModel):
    """Incidents that began on one day, by kind."""

    day: date
    reachability: int
    api: int
    bgp: int
    ospf: int
    total: int


class Incidents(BaseModel):
    """Days, oldest first, as the tenant's zone has them."""

    time_zone: str
    days: list[DayOut]


class Ranked(BaseModel):
    """One entity of a top list over a range."""

    device: UUID
    device_name: str
    key: str
    name: str
    mean: float
    min: float
    max: float
    samples: int


class Top(BaseModel):
    """A top list over whole hours."""

    metric: str
    unit: str
    by: Literal["mean", "max"]
    entities: list[Ranked]


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
        refused_batches=agent.refused_batches,
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
        # Without the tenant's budget: what is wrong now must be seen whatever charts are being drawn.
        async with reading(request.app.state.pool, user.tenant, STATEMENT_MS, **PLANNED_ONCE) as connection:
            return await overview(connection, request.app.state.rankings, user.tenant)

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
    budgets: Budgets = request.app.state.budgets
    budget = await budgets.of(request, user)
    budget.check_points(max_points)
    begin, stop = _range(start, end, timedelta(hours=1))
    budget.check_range(begin, stop)

    async def read() -> bytes:
        async with budgets.query(request, user) as connection:
            found = await read_series(connection, device, wanted, key, begin, stop, max_points)
        return found.model_dump_json().encode()

    cache_key = (user.tenant, "series", device, metric, key, int(begin.timestamp()), int(stop.timestamp()), max_points)
    answers: Answers = request.app.state.answers
    return await answers.respond(request, cache_key, SERIES_SECONDS, read)


def _range(start: datetime | None, end: datetime | None, usual: timedelta) -> tuple[datetime, datetime]:
    """The range that `from` and `to` say, in UTC; raises RefusedError naming the parameter at fault."""
    now = datetime.now(UTC)
    stop = _aware(end or now, "to")
    begin = _aware(start or stop - usual, "from")
    if begin >= stop:
        raise RefusedError(422, "from", "is not before `to`", "ask for a range that ends after it begins")
    if stop > now + timedelta(days=1):
        raise RefusedError(422, "to", "is in the future", "ask for a range that ends now")
    return begin, stop


def _aware(moment: datetime, field: str) -> datetime:
    if moment.year < 1970 or moment.year > 2200:
        raise RefusedError(422, field, "is outside 1970 to 2200", "give a time as ISO 8601 or seconds since 1970")
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


@router.get("/top", response_model=Top)
async def top_list(
    request: Request,
    user: SignedIn,
    metric: Annotated[str, Query(max_length=100)] = "interface.utilization_pct",
    by: Annotated[Literal["mean", "max"], Query(description="what decides the order")] = "mean",
    start: Annotated[datetime | None, Query(alias="from", description="default: 24 hours before `to`")] = None,
    end: Annotated[datetime | None, Query(alias="to", description="default: now")] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 10,
) -> Response:
    """The entities with the highest mean or maximum of a metric over a range, by whole hours."""
    wanted = metric_of(metric)
    if wanted.type == "counter" and wanted.unit == "By":
        raise RefusedError(422, "metric", f"{metric} has no history of its own", "ask for its rate")
    budgets: Budgets = request.app.state.budgets
    begin, stop = _range(start, end, timedelta(hours=24))
    (await budgets.of(request, user)).check_range(begin, stop)

    async def read() -> bytes:
        async with budgets.query(request, user) as connection:
            found = await top(connection, metric, begin, stop, limit, "mean" if by == "mean" else "high")
            rows = await connection.execute(
                "select e.id, d.uuid, d.name, e.key, e.name from entity e join device d on d.id = e.device_id"
                " where e.id = any(%s)",
                [[one.entity for one in found]],
            )
            names = {row[0]: row[1:] async for row in rows}
        ranked = []
        for one in found:
            uuid, device_name, key, name = names[one.entity]
            ranked.append(
                Ranked(
                    device=uuid,
                    device_name=device_name,
                    key=key,
                    name=name,
                    mean=one.mean,
                    min=one.low,
                    max=one.high,
                    samples=one.n,
                )
            )
        return Top(metric=metric, unit=wanted.unit, by=by, entities=ranked).model_dump_json().encode()

    hours = (int(begin.timestamp()) // 3600, int(stop.timestamp()) // 3600)
    answers: Answers = request.app.state.answers
    return await answers.respond(request, (user.tenant, "top", metric, by, *hours, limit), TOP_SECONDS, read)


async def cached_incidents(request: Request, user: User, days: int) -> tuple[str, list[Day]]:
    """The tenant's zone and its incidents of the last days, at most half a minute old."""
    budgets: Budgets = request.app.state.budgets
    zone = (await budgets.of(request, user)).time_zone

    async def read() -> list[Day]:
        today = datetime.now(ZoneInfo(zone)).date()
        async with reading(request.app.state.pool, user.tenant, STATEMENT_MS) as connection:
            return await incidents_a_day(connection, today - timedelta(days=days - 1), days, zone)

    found: list[Day] = await request.app.state.incidents.get((user.tenant, zone, days), read)
    return zone, found


@router.get("/incidents", response_model=Incidents)
async def incidents(request: Request, user: SignedIn, days: Annotated[int, Query(ge=1, le=92)] = 30) -> Response:
    """How often something was lost on each day: reachability, API, BGP sessions, OSPF adjacencies."""
    zone, found = await cached_incidents(request, user, days)
    listed = [
        DayOut(day=d.day, reachability=d.reachability, api=d.api, bgp=d.bgp, ospf=d.ospf, total=d.total) for d in found
    ]
    return encoded_response(request, Incidents(time_zone=zone, days=listed).model_dump_json().encode())


@router.get("/summary", response_model=Summary)
async def summary(request: Request, user: SignedIn) -> Response:
    """Routers by state, the ten busiest interfaces, congested links and erring interfaces, agents."""

    async def read() -> bytes:
        return summary_of(await cached_overview(request, user)).model_dump_json().encode()

    answers: Answers = request.app.state.answers
    return await answers.respond(request, (user.tenant, "summary"), SUMMARY_SECONDS, read)


def summary_of(found: Overview) -> Summary:
    """The numbers of an overview."""
    return Summary(
        at=found.now,
        counts=found.counts(),
        busiest=[
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
        ],
        congested=[
            BusyLink(name=link.name, medium=link.medium, utilization_pct=pct, capacity_bps=link.capacity_bps)
            for pct, link in found.congested()
        ],
        faulty=[
            FaultyPort(
                device=found.devices[port.device_id].uuid,
                device_name=found.devices[port.device_id].name,
                key=port.key,
                errors_per_s=port.errors_per_s,
                drops_per_s=port.drops_per_s,
                over_s=port.seconds,
            )
            for port in found.faulty
        ],
        agents=[_agent(agent, found.now) for agent in found.agents.values() if not agent.revoked],
    )


@router.get("/sites", response_model=Sites)
async def sites(request: Request, user: SignedIn) -> Response:
    """All sites with the states of their routers."""
    found = await cached_overview(request, user)
    return encoded_response(
        request, Sites(sites=[_site(found, s) for s in found.sites.values()]).model_dump_json().encode()
    )


def _site(found: Overview, site: Site) -> SiteOut:
    return SiteOut(
        key=site.key,
        name=site.name,
        latitude=site.latitude,
        longitude=site.longitude,
        counts=found.counts_of(site),
    )


@router.get("/map", response_model=Map)
async def noc_map(request: Request, user: SignedIn) -> Response:
    """Sites with coordinates and their worst state, links with load and colour class."""

    async def read() -> bytes:
        return map_of(await cached_overview(request, user)).model_dump_json().encode()

    answers: Answers = request.app.state.answers
    return await answers.respond(request, (user.tenant, "map"), SUMMARY_SECONDS, read)


def map_of(found: Overview) -> Map:
    """What the map shows of an overview."""
    drawn = []
    for link in found.links:
        ends = [found.ports.get(end) for end in (link.a_entity, link.b_entity)]
        a, b = [found.devices.get(end.device_id) if end else None for end in ends]
        if a is None or b is None:
            continue
        seen = found.link_seen(link)
        drawn.append(
            MapLink(
                name=link.name,
                medium=link.medium,
                capacity_bps=link.capacity_bps,
                a_site=found.sites[a.site_id].key,
                a_device=a.uuid,
                b_site=found.sites[b.site_id].key,
                b_device=b.uuid,
                down=seen.down,
                load_pct=seen.load_pct,
                load_class=seen.load_class,
            )
        )
    listed = [
        MapSite(
            **_site(found, site).model_dump(), worst=worst(device.health.state for device in found.devices_of(site))
        )
        for site in found.sites.values()
    ]
    return Map(at=found.now, sites=listed, links=drawn)


@router.get("/devices", response_model=Devices)
async def devices(request: Request, user: SignedIn) -> Response:
    """All routers with their state."""
    found = await cached_overview(request, user)
    listed = [DeviceOut.model_validate(device_out(d, found.sites[d.site_id].key)) for d in found.devices.values()]
    return encoded_response(request, Devices(devices=listed).model_dump_json().encode())


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
    async with request.app.state.budgets.query(request, user) as connection:
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
    return encoded_response(request, body.model_dump_json().encode())
