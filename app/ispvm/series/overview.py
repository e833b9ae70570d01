"""Everything the first pages show of one tenant, read in one transaction: sites, routers with their state, the ports
that matter with their load, links, agents.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from psycopg import AsyncCursor
from psycopg.rows import class_row

from ispvm.health.state import Evidence, Health, State, agent_offline, health
from ispvm.series.cache import Cache
from ispvm.store.latest import Row, ask_device, current_device, latest_entities, latest_some
from ispvm.store.packing import array_values, arrays_values
from ispvm.store.pool import Connection

BUSIEST = 10
# What one tenant is shown at most.
LIMITS = {"sites": 2_000, "devices": 5_000, "ports": 200_000, "links": 10_000, "agents": 1_000}


@dataclass(slots=True)
class Site:
    """A PoP."""

    id: int
    key: str
    name: str
    latitude: float | None
    longitude: float | None


@dataclass(slots=True)
class Agent:
    """Who sends, and how it does."""

    id: int
    name: str
    version: str | None
    last_heartbeat: datetime | None
    last_batch: datetime | None
    clock_error_s: float | None
    clock_synchronised: bool | None
    buffer_depth: int
    dropped_batches: int
    refused_batches: int
    revoked: bool
    sites: list[int]

    def offline(self, now: datetime) -> bool:
        """Whether it has missed too many heartbeats."""
        return agent_offline(self.last_heartbeat, now)


@dataclass(slots=True)
class Device:
    """A router, its newest values by column name, and its state."""

    id: int
    uuid: UUID
    site_id: int
    agent_id: int | None
    name: str
    role: str | None
    address: str
    vendor: str
    model: str | None
    routeros: str | None
    serial: str | None
    architecture: str | None
    tags: list[str]
    values: dict[str, Any] = field(default_factory=dict)
    last_poll: datetime | None = None
    interval_s: float | None = None
    agent_says: str | None = None
    agent_detail: str | None = None
    health: Health = field(default_factory=lambda: Health(State.NEVER, ""))


@dataclass(slots=True)
class Port:
    """An interface with its newest rates; `utilization_pct` is that of the busier direction."""

    id: int
    device_id: int
    key: str
    name: str
    capacity_bps: int | None
    tags: list[str]
    attributes: dict[str, Any]
    values: dict[str, Any] = field(default_factory=dict)

    @property
    def utilization_pct(self) -> float | None:
        """None without a capacity or a rate."""
        rates = [rate for rate in (self.values.get("rx_bps"), self.values.get("tx_bps")) if rate is not None]
        return max(rates) * 100 / self.capacity_bps if rates and self.capacity_bps else None


@dataclass(slots=True)
class Link:
    """A circuit between two ports."""

    id: int
    name: str
    a_entity: int
    b_entity: int
    capacity_bps: int
    medium: str


@dataclass(frozen=True, slots=True)
class Faulty:
    """A port whose error or drop counters rose: per second over `seconds`, both directions together."""

    device_id: int
    key: str
    name: str
    errors_per_s: float
    drops_per_s: float
    seconds: float


LoadClass = Literal["load-none", "load-low", "load-mid", "load-high", "load-full", "load-down"]


def load_class(load_pct: float | None) -> LoadClass:
    """The colour class of a utilisation: calm below 50 %, full from 90 %."""
    if load_pct is None:
        return "load-none"
    return (
        "load-low" if load_pct < 50 else "load-mid" if load_pct < 75 else "load-high" if load_pct < 90 else "load-full"
    )


@dataclass(frozen=True, slots=True)
class LinkSeen:
    """A link as a map draws it: what it carried before it went down says nothing now."""

    down: bool
    load_pct: float | None
    load_class: LoadClass


@dataclass(slots=True)
class Overview:
    """One tenant at one moment; dicts are keyed by id. `ports` are those that links and top lists need."""

    now: datetime
    sites: dict[int, Site]
    agents: dict[int, Agent]
    devices: dict[int, Device]
    ports: dict[int, Port]
    links: list[Link]
    faulty: list[Faulty] = field(default_factory=list)

    def counts(self) -> dict[State, int]:
        """Routers by state; every state is there."""
        counts = dict.fromkeys(State, 0)
        for device in self.devices.values():
            counts[device.health.state] += 1
        return counts

    def busiest(self, limit: int = 10) -> list[tuple[float, Port]]:
        """Ports by utilisation, busiest first."""
        known = [(pct, port) for port in self.ports.values() if (pct := port.utilization_pct) is not None]
        return sorted(known, key=lambda item: -item[0])[:limit]

    def congested(self, limit: int = 10) -> list[tuple[float, Link]]:
        """Links by utilisation, busiest first; a link without carrier has none."""
        known = [(load, link) for link in self.links if (load := self.link_seen(link).load_pct) is not None]
        return sorted(known, key=lambda item: -item[0])[:limit]

    def devices_of(self, site: Site) -> list[Device]:
        """Routers of a site in the order of their names."""
        return [device for device in self.devices.values() if device.site_id == site.id]

    def counts_of(self, site: Site) -> dict[State, int]:
        """Routers of a site by state; every state is there."""
        counts = dict.fromkeys(State, 0)
        for device in self.devices_of(site):
            counts[device.health.state] += 1
        return counts

    def link_seen(self, link: Link) -> LinkSeen:
        """What a map draws of a link."""
        down = self.link_down(link)
        load = None if down else self.link_load(link)
        return LinkSeen(down, load, "load-down" if down else load_class(load))

    def link_load(self, link: Link) -> float | None:
        """Utilisation of a link in percent of its own capacity: the busier direction, as either end saw it."""
        ends = [self.ports[end] for end in (link.a_entity, link.b_entity) if end in self.ports]
        rates = [r for p in ends for r in (p.values.get("rx_bps"), p.values.get("tx_bps")) if r is not None]
        return max(rates) * 100 / link.capacity_bps if rates else None

    def link_down(self, link: Link) -> bool:
        """Whether either end says that it has no carrier."""
        ends = [self.ports[end] for end in (link.a_entity, link.b_entity) if end in self.ports]
        return any(end.values.get("oper_up") is False for end in ends)


# Columns of a router and of a port that the first pages show.
_OF_DEVICE = ("up", "api_up", "cpu_pct", "uptime_seconds")
_OF_PORT = ("oper_up", "admin_up", "rx_bps", "tx_bps")


# For `overview`: planning costs more than running, and this is asked too seldom for PostgreSQL to stop planning by
# itself. The horizons leave one chunk or two: looking for each row which of them it is in costs more than it saves.
PLANNED_ONCE = {"plan_cache_mode": "force_generic_plan", "timescaledb.enable_runtime_exclusion": "off"}


async def _ask_devices(
    connection: Connection, uuid: UUID | None
) -> tuple[AsyncCursor[Agent], AsyncCursor[Device], AsyncCursor[Row]]:
    """Cursors for `_with_health`: all agents, one router or all, and their newest polls."""
    agents = await connection.cursor(row_factory=class_row(Agent)).execute(
        "select a.id, name, version, last_heartbeat, last_batch, clock_error_s, clock_synchronised, buffer_depth,"
        " dropped_batches, refused_batches, revoked_at is not null as revoked,"
        " array(select site_id from agent_site s where s.agent_id = a.id) as sites"
        " from agent a where tenant_id = current_tenant() order by name limit %(agents)s",
        LIMITS,
    )
    devices = await connection.cursor(row_factory=class_row(Device)).execute(
        "select d.id, uuid, site_id, d.agent_id, name, role, address, vendor, model, routeros, serial, architecture,"
        " tags, p.last_poll, p.interval_s, r.state as agent_says, r.detail as agent_detail"
        " from device d left join agent_router r on r.device_id = d.id"
        # When its newest poll was, and the period of its most frequent kind of poll. Looked up router by router: the
        # planner would compare each with the polls of all.
        " cross join lateral (select max(ts) as last_poll, min(period_s) as interval_s from latest_poll p"
        "                     where p.device_id = d.id) p"
        " where d.tenant_id = current_tenant() and (%(uuid)s::uuid is null or uuid = %(uuid)s)"
        " order by name limit %(devices)s",
        {"uuid": uuid, **LIMITS},
        binary=True,
    )
    latest = await ask_device(connection, uuid, None if uuid else _OF_DEVICE)
    return agents, devices, latest


async def _with_health(
    asked: tuple[AsyncCursor[Agent], AsyncCursor[Device], AsyncCursor[Row]], now: datetime
) -> tuple[dict[int, Device], dict[int, Agent]]:
    """Routers with their values and state, and agents, of what `_ask_devices` asked."""
    agents = {agent.id: agent for agent in await asked[0].fetchall()}
    devices = {device.id: device for device in await asked[1].fetchall()}
    latest = current_device(await asked[2].fetchall(), now)
    for device in devices.values():
        values = device.values = latest.get(device.id, {})
        agent = agents.get(device.agent_id) if device.agent_id else None
        device.health = health(
            Evidence(
                agent=agent.name if agent else None,
                agent_heartbeat=agent.last_heartbeat if agent else None,
                last_poll=device.last_poll,
                interval_s=device.interval_s,
                up=values.get("up"),
                up_at=values.get("up@"),
                api_up=values.get("api_up"),
                api_at=values.get("api_up@"),
                agent_says=device.agent_says,
                agent_detail=device.agent_detail or "",
            ),
            now,
        )
    return devices, agents


async def read_devices(
    connection: Connection, now: datetime, uuid: UUID | None = None
) -> tuple[dict[int, Device], dict[int, Agent]]:
    """Routers with the values that the first pages show (or one with all), their state, and all agents, of the
    transaction's tenant.
    """
    return await _with_health(await _ask_devices(connection, uuid), now)


async def read_ports(connection: Connection, devices: list[int], now: datetime) -> dict[int, Port]:
    """Interfaces of these routers with their newest values, in the order of device and natural port order."""
    cursor = await connection.cursor(row_factory=class_row(Port)).execute(
        "select id, device_id, key, name, capacity_bps, tags, attributes from entity"
        " where device_id = any(%s) and type = 'interface' order by device_id, id limit %s",
        [devices, LIMITS["ports"]],
    )
    ports = {port.id: port for port in await cursor.fetchall()}
    latest = await latest_entities(connection, "interface", devices, now)
    for port in ports.values():
        port.values = latest.get(port.id, {})
    return ports


# The newest poll of every interface set that carries a column, unless it is too old to be current.
_NEWEST = """select distinct on (l.device_id, l.set_id) l.device_id, l.set_id, l.ts
    from latest_poll l where l.tenant_id = current_tenant() and l.type = 'interface' and %(column)s = any(l.columns)
      and l.ts > now() - make_interval(secs => 3 * greatest(coalesce(l.period_s, 300), 30))
      and l.ts > now() - interval '2 hours'
    order by l.device_id, l.set_id, l.ts desc"""
_RATES = f"""
with newest as materialized ({_NEWEST})
select n.set_id, array_send(coalesce(p.rx_bps, p.tx_bps)), array_send(coalesce(p.tx_bps, p.rx_bps))
from newest n
join poll_interface p on (p.device_id, p.ts, p.set_id) = (n.device_id, n.ts, n.set_id)
  and p.ts > now() - interval '2 hours'
where coalesce(p.rx_bps, p.tx_bps) is not null order by n.ts
"""  # noqa: S608  # a constant
# Thousands of ports are ranked, so none is a row.
_PORTS = """
select array_send(array_agg(id order by id)), array_send(array_agg(capacity_bps order by id)),
    coalesce(array_agg(id) filter (where tags @> '{uplink:true}'), '{}')
from entity where tenant_id = current_tenant() and type = 'interface'
"""


@dataclass(frozen=True, slots=True)
class Ranking:
    """What is asked of a tenant's ports to rank them: ids, ascending, what they can carry, NaN where nobody said so,
    the ids of the uplinks, and for each key set the places of its ports.
    """

    ids: NDArray[np.float64]
    capacities: NDArray[np.float64]
    uplinks: list[int]
    sets: dict[int, NDArray[np.intp]]

    def busiest(self, polls: Sequence[tuple[int, bytes, bytes]], limit: int) -> list[int]:
        """The ports with the highest utilisation of the busier direction, of polls as _RATES gives them."""
        at = np.concatenate([self.sets[number] for number, _, _ in polls])
        rx, tx = (arrays_values(arrays, ">f4") for arrays in list(zip(*polls, strict=True))[1:])
        rates = np.full(len(self.ids), np.nan)
        rates[at] = np.fmax(rx, tx)  # of a port in two sets the newer poll counts: what is written last
        used = rates / self.capacities
        ranked = np.flatnonzero(~np.isnan(used))
        if len(ranked) > limit:
            ranked = ranked[used[ranked] >= np.partition(used[ranked], -limit)[-limit]]
        return [int(self.ids[place]) for place in ranked[np.lexsort((ranked, -used[ranked]))][:limit]]


async def _read_ranking(connection: Connection, sets: list[int]) -> Ranking:
    asked = await connection.execute(_PORTS, binary=True)
    asked_sets = await connection.execute(
        "select id, array_send(entities) from entity_set where id = any(%s)", [sets], binary=True
    )
    packed_ids, capacities, uplinks = await asked.fetchone() or (None, None, [])
    ids = array_values(packed_ids or b"", ">i4")
    places = {n: np.searchsorted(ids, array_values(entities, ">i4")) for n, entities in await asked_sets.fetchall()}
    return Ranking(ids, array_values(capacities or b"", ">i8"), uplinks, places)


async def _some_ports(connection: Connection, now: datetime, wanted: list[int]) -> dict[int, Port]:
    """These ports, with the columns the first pages show."""
    cursor = await connection.cursor(row_factory=class_row(Port)).execute(
        "select id, device_id, key, name, capacity_bps, tags, attributes from entity where id = any(%s)"
        " order by device_id, id limit %s",
        [wanted, 2 * LIMITS["links"]],
    )
    latest = await latest_some(connection, "interface", wanted, _OF_PORT, now)
    ports = {port.id: port for port in await cursor.fetchall()}
    for port in ports.values():
        port.values = latest.get(port.id, {})
    return ports


# Counters now against counters some minutes ago; a set in which nothing rose is done with after one comparison.
_FAULTY = f"""
with newest as materialized (
    -- Worked out here: with row-level security only a plain comparison may use the index.
    select *, ts - make_interval(mins => %(minutes)s) as since from ({_NEWEST}) as n),
pair as materialized (
    select n.device_id, n.set_id, extract(epoch from p.ts - q.ts)::float8 as seconds,
           p.rx_errors_total as a1, p.tx_errors_total as a2, p.rx_discards_total as a3, p.tx_discards_total as a4,
           q.rx_errors_total as b1, q.tx_errors_total as b2, q.rx_discards_total as b3, q.tx_discards_total as b4
    from newest n
    join poll_interface p on (p.device_id, p.ts, p.set_id) = (n.device_id, n.ts, n.set_id)
      and p.ts > now() - interval '2 hours'
    cross join lateral (
        select * from poll_interface q where q.device_id = n.device_id and q.set_id = n.set_id
          and q.ts >= n.since and q.ts < n.ts and q.ts > now() - interval '3 hours'
          and q.rx_errors_total is not null order by q.ts limit 1) q
    where (p.rx_errors_total, p.tx_errors_total, p.rx_discards_total, p.tx_discards_total)
          is distinct from (q.rx_errors_total, q.tx_errors_total, q.rx_discards_total, q.tx_discards_total)
), rise as (
    select pair.device_id, entity, seconds, coalesce(n1 - o1, 0) + coalesce(n2 - o2, 0) as errors,
           coalesce(n3 - o3, 0) + coalesce(n4 - o4, 0) as drops
    from pair join entity_set s on s.id = set_id
    cross join lateral unnest(s.entities, a1, a2, a3, a4, b1, b2, b3, b4)
      as u(entity, n1, n2, n3, n4, o1, o2, o3, o4)
    -- a counter that went backwards says nothing of what happened
    where coalesce(n1 >= o1, true) and coalesce(n2 >= o2, true) and coalesce(n3 >= o3, true)
      and coalesce(n4 >= o4, true)
)
select r.device_id, e.key, e.name, r.errors / r.seconds as errors_per_s, r.drops / r.seconds as drops_per_s, r.seconds
from rise r join entity e on e.id = r.entity where r.errors > 0 or r.drops > 0
order by (r.errors + r.drops) / r.seconds desc, e.id limit %(limit)s
"""  # noqa: S608  # a constant
FAULTY_MINUTES = 10


async def _ask_faulty(connection: Connection, limit: int = 10) -> AsyncCursor[Faulty]:
    """Ports with the most errors and drops per second over the last minutes, worst first."""
    return await connection.cursor(row_factory=class_row(Faulty)).execute(
        _FAULTY.encode(),
        {"column": "rx_errors_total", "minutes": FAULTY_MINUTES, "limit": limit},
    )


async def _ask_sites(connection: Connection) -> AsyncCursor[Site]:
    return await connection.cursor(row_factory=class_row(Site)).execute(
        "select id, key, name, latitude, longitude from site where tenant_id = current_tenant()"
        " order by name limit %(sites)s",
        LIMITS,
    )


async def read_sites(connection: Connection) -> dict[int, Site]:
    """All sites of the transaction's tenant."""
    return {site.id: site for site in await (await _ask_sites(connection)).fetchall()}


async def overview(connection: Connection, kept: Cache[Ranking], tenant: int) -> Overview:
    """Read it all, of the `tenant` of a reading PLANNED_ONCE, in two round trips: all is asked at once, and PostgreSQL
    looks through the ports while this process works out how the routers are; then come the ports that are shown.

    What ports can carry may be as old as `kept` keeps it; it is read at once when ports are new.
    """
    now = datetime.now(UTC)
    asked_links = await connection.cursor(row_factory=class_row(Link)).execute(
        "select id, name, a_entity, b_entity, capacity_bps, medium from link where tenant_id = current_tenant()"
        " order by name limit %(links)s",
        LIMITS,
    )
    asked_sites = await _ask_sites(connection)
    asked_devices = await _ask_devices(connection, None)
    asked_rates = await connection.execute(_RATES.encode(), {"column": "rx_bps"}, binary=True)
    asked_faulty = await _ask_faulty(connection)
    devices, agents = await _with_health(asked_devices, now)
    links = await asked_links.fetchall()
    polls = await asked_rates.fetchall()
    sets, ranking = [number for number, _, _ in polls], kept.peek(tenant)
    if ranking is None or not ranking.sets.keys() >= {*sets}:
        ranking = await _read_ranking(connection, sets)
        kept.put(tenant, ranking)
    shown = {*ranking.uplinks, *(end for link in links for end in (link.a_entity, link.b_entity))}
    if polls:
        shown.update(ranking.busiest(polls, BUSIEST))
    return Overview(
        now,
        {site.id: site for site in await asked_sites.fetchall()},
        agents,
        devices,
        await _some_ports(connection, now, [*shown]),
        links,
        await asked_faulty.fetchall(),
    )
