"""What a router tells beyond its facts, ports and sessions: a table for each kind of thing, by the registry's words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ispvm_contract.registry import Metric

from ispvm.store.columns import Column, columns, landing_types
from ispvm.store.latest import latest_entities
from ispvm.store.pool import Connection
from ispvm.web import show

# Titles of the kinds that the page has no place of its own for; a kind without a title is shown by its name.
TITLES = {
    "probe_target": "Probes",
    "sensor": "Sensors",
    "netwatch": "Netwatch",
    "radio": "Radios",
    "lte": "Mobile",
    "bfd_session": "BFD sessions",
    "pool": "Address pools",
    "neighbor": "Neighbours",
}
_ELSEWHERE = frozenset({"device", "interface", "bgp_peer", "ospf_neighbor"})
_PORT_COLUMNS = ("link_bps", "full_duplex")  # and those of optics
_DEVICE_ELSEWHERE = frozenset(
    {
        "up",
        "api_up",
        "uptime_seconds",
        "cpu_pct",
        "mem_used_bytes",
        "mem_total_bytes",
        "temp_c",
        "pppoe_sessions_active",
    }
    | {"dhcp_leases_active"}
)
# What is bad about a yes or a no, for its colour; of the others neither is.
_BAD_WHEN = {"optics.rx_loss": True, "optics.tx_fault": True, "device.clock.lost": True, "device.flagged": True}
_GOOD_WHEN_TRUE = frozenset(
    {"sensor.ok", "netwatch.up", "bfd.session.up", "neighbor.up", "lte.registered", "probe.tcp.up", "probe.http.up"}
    | {"probe.dns.up", "interface.full_duplex", "device.ntp.synced"}
)


@dataclass(frozen=True, slots=True)
class Cell:
    """A value as people read it, and "ok", "bad" or "" for its colour."""

    text: str
    state: str = ""


@dataclass(frozen=True, slots=True)
class Group:
    """A table: the labels of its columns, and for each thing its name, details for a tooltip, and cells."""

    key: str
    title: str
    labels: list[str]
    rows: list[tuple[str, str, list[Cell]]]


def cell(metric: Metric, value: Any) -> Cell:
    """One value in the metric's unit; a dash for one that is not known."""
    if value is None:
        return Cell("–")
    if metric.type == "bool":
        good = metric.name in _GOOD_WHEN_TRUE
        bad = not value if good else _BAD_WHEN.get(metric.name) == value
        return Cell("yes" if value else "no", "bad" if bad else "ok" if good else "")
    if metric.type == "enum":
        return Cell(metric.values[value] if 0 <= value < len(metric.values) else "–")
    if metric.unit == "bit/s":
        return Cell(show.capacity(value))
    if metric.unit == "By":
        return Cell(show.size(value))
    if metric.name.endswith("uptime_seconds"):
        return Cell(show.duration(value))
    unit = {"1": "", "Cel": " °C", "1/min": " /min"}.get(metric.unit, f" {metric.unit}")
    return Cell(f"{round(value, 2):,.15g}{unit}".replace(",", " "))


def _group(key: str, title: str, shown: list[Column], things: list[tuple[str, str, Mapping[str, Any]]]) -> Group | None:
    """A table of those columns in which anything has a value; None when there are none."""
    told = [column for column in shown if any(values.get(column.name) is not None for _, _, values in things)]
    rows = [
        (name, details, [cell(column.metric, values.get(column.name)) for column in told])
        for name, details, values in things
        if any(values.get(column.name) is not None for column in told)
    ]
    return Group(key, title, [column.metric.label for column in told], rows) if rows else None


async def more(connection: Connection, device: int, values: Mapping[str, Any], now: datetime) -> list[Group]:
    """All tables of one router; `values` are its own current values by column. Kinds without a value are left out."""
    found: list[Group | None] = []
    named = await connection.execute(
        "select id, type, name, attributes from entity where device_id = %s and type <> 'device'"
        " order by name limit 5000",
        [device],
    )
    entities = [row async for row in named]
    ports = [
        column
        for column in columns("interface").values()
        if column.name in _PORT_COLUMNS or column.name.startswith("optics_")
    ]
    kinds = {"interface": ("Links and optics", ports)}
    kinds |= {
        kind: (TITLES.get(kind, kind), [*columns(kind).values()]) for kind in landing_types() if kind not in _ELSEWHERE
    }
    for kind, (title, shown) in kinds.items():
        there = [row for row in entities if row[1] == kind]
        latest = await latest_entities(connection, kind, [device], now) if there else {}
        things: list[tuple[str, str, Mapping[str, Any]]] = [
            (name, _details(attributes), latest.get(number, {})) for number, _, name, attributes in there
        ]
        found.append(_group(kind, title, shown, things))
    facts = [
        (column.metric.label, column.metric.description, [cell(column.metric, values[column.name])])
        for column in columns("device").values()
        if column.name not in _DEVICE_ELSEWHERE and values.get(column.name) is not None
    ]
    found.append(Group("device", "The router itself", ["Value"], facts) if facts else None)
    return [group for group in found if group is not None]


def _details(attributes: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name.replace('_', ' ')}: {value}" for name, value in attributes.items() if value not in (None, "")
    )
