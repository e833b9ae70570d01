"""Everything the first pages show of one tenant, read in one transaction: sites, routers with their state, ports with
their load, links, agents.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from psycopg.rows import class_row, dict_row

from ispvm.health.state import Evidence, Health, State, agent_offline, health
from ispvm.store.latest import last_polls, latest_device, latest_entities
from ispvm.store.pool import Connection

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


@dataclass(slots=True)
class Overview:
    """One tenant at one moment; dicts are keyed by id."""

    now: datetime
    sites: dict[int, Site]
    agents: dict[int, Agent]
    devices: dict[int, Device]
    ports: dict[int, Port]
    links: list[Link]

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

    def link_load(self, link: Link) -> float | None:
        """Utilisation of a link in percent of its own capacity: the busier direction, as either end saw it."""
        ends = [self.ports[end] for end in (link.a_entity, link.b_entity) if end in self.ports]
        rates = [r for p in ends for r in (p.values.get("rx_bps"), p.values.get("tx_bps")) if r is not None]
        return max(rates) * 100 / link.capacity_bps if rates else None

    def link_down(self, link: Link) -> bool:
        """Whether either end says that it has no carrier."""
        ends = [self.ports[end] for end in (link.a_entity, link.b_entity) if end in self.ports]
        return any(end.values.get("oper_up") is False for end in ends)


async def read_devices(
    connection: Connection, now: datetime, uuid: UUID | None = None
) -> tuple[dict[int, Device], dict[int, Agent]]:
    """Routers (or one) with values and state, and all agents, of the transaction's tenant."""
    agents_cursor = await connection.cursor(row_factory=class_row(Agent)).execute(
        "select a.id, name, version, last_heartbeat, last_batch, clock_error_s, clock_synchronised, buffer_depth,"
        " dropped_batches, revoked_at is not null as revoked,"
        " array(select site_id from agent_site s where s.agent_id = a.id) as sites"
        " from agent a where tenant_id = current_tenant() order by name limit %(agents)s",
        LIMITS,
    )
    agents = {agent.id: agent async for agent in agents_cursor}
    devices_cursor = await connection.cursor(row_factory=class_row(Device)).execute(
        "select id, uuid, site_id, agent_id, name, role, address, vendor, model, routeros, serial, architecture, tags"
        " from device where tenant_id = current_tenant() and (%(uuid)s::uuid is null or uuid = %(uuid)s)"
        " order by name limit %(devices)s",
        {"uuid": uuid, **LIMITS},
    )
    devices = {device.id: device async for device in devices_cursor}
    ids = list(devices)
    latest = await latest_device(connection, ids, now)
    polls = await last_polls(connection, ids)
    says_cursor = await connection.cursor(row_factory=dict_row).execute(
        "select device_id, state, detail from agent_router where device_id = any(%s)", [ids]
    )
    says = {row["device_id"]: row async for row in says_cursor}
    for device in devices.values():
        device.values = latest.get(device.id, {})
        device.last_poll, interval = polls.get(device.id, (None, None))
        agent = agents.get(device.agent_id) if device.agent_id else None
        device.health = health(
            Evidence(
                agent=agent.name if agent else None,
                agent_heartbeat=agent.last_heartbeat if agent else None,
                last_poll=device.last_poll,
                interval_s=interval,
                up=device.values.get("up"),
                up_at=device.values.get("up@"),
                api_up=device.values.get("api_up"),
                api_at=device.values.get("api_up@"),
                agent_says=says[device.id]["state"] if device.id in says else None,
                agent_detail=says[device.id]["detail"] if device.id in says else "",
            ),
            now,
        )
    return devices, agents


async def read_ports(connection: Connection, devices: list[int], now: datetime) -> dict[int, Port]:
    """Interfaces of these routers with their newest values, in the order of device and natural port order."""
    cursor = await connection.cursor(row_factory=class_row(Port)).execute(
        "select id, device_id, key, name, capacity_bps, tags, attributes from entity"
        " where device_id = any(%s) and type = 'interface' order by device_id, id limit %s",
        [devices, LIMITS["ports"]],
    )
    ports = {port.id: port async for port in cursor}
    latest = await latest_entities(connection, "interface", devices, now)
    for port in ports.values():
        port.values = latest.get(port.id, {})
    return ports


async def read_sites(connection: Connection) -> dict[int, Site]:
    """All sites of the transaction's tenant."""
    cursor = await connection.cursor(row_factory=class_row(Site)).execute(
        "select id, key, name, latitude, longitude from site where tenant_id = current_tenant()"
        " order by name limit %(sites)s",
        LIMITS,
    )
    return {site.id: site async for site in cursor}


async def overview(connection: Connection) -> Overview:
    """Read it all."""
    now = datetime.now(UTC)
    devices, agents = await read_devices(connection, now)
    cursor = await connection.cursor(row_factory=class_row(Link)).execute(
        "select id, name, a_entity, b_entity, capacity_bps, medium from link where tenant_id = current_tenant()"
        " order by name limit %(links)s",
        LIMITS,
    )
    links = [link async for link in cursor]
    return Overview(
        now, await read_sites(connection), agents, devices, await read_ports(connection, list(devices), now), links
    )
