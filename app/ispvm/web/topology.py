"""The map: routers around their sites at true bearings, links between them. Coordinates are SVG user units."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from ispvm.series.overview import Device, Link, Overview, Site

WIDTH, HEIGHT = 720.0, 400.0
MARGIN_X, MARGIN_Y = 150.0, 88.0
# A ring does not outgrow the map; where routers stand close, their names are left to the tooltip.
MAX_RADIUS, MAX_NAMED = 60.0, 8


@dataclass(frozen=True, slots=True)
class Node:
    """A router on the map; its name stands on the outer side of its ring."""

    device: Device
    x: float
    y: float
    side: Literal["left", "right", "middle"]
    named: bool

    @property
    def label_x(self) -> float:
        """Where its name begins, ends or has its middle, by `side`."""
        return self.x + {"left": -12.0, "right": 12.0, "middle": 0.0}[self.side]

    @property
    def label_y(self) -> float:
        """The base line of its name."""
        return self.y + (20.0 if self.side == "middle" else 4.0)


@dataclass(frozen=True, slots=True)
class Spot:
    """A site: its middle, the radius of the ring its routers stand on, and where its name is written."""

    site: Site
    x: float
    y: float
    radius: float


@dataclass(frozen=True, slots=True)
class Line:
    """A link between two routers; `load` is in percent or None."""

    link: Link
    a: Node
    b: Node
    load: float | None
    css: str
    label_at: float

    @property
    def label_x(self) -> float:
        """Where its load is written."""
        return self.a.x + (self.b.x - self.a.x) * self.label_at

    @property
    def label_y(self) -> float:
        """Where its load is written."""
        return self.a.y + (self.b.y - self.a.y) * self.label_at


@dataclass(frozen=True, slots=True)
class Topology:
    """Everything to draw."""

    spots: list[Spot]
    nodes: list[Node]
    lines: list[Line]


def _middles(sites: list[Site]) -> dict[int, tuple[float, float]]:
    """Where each site is: by its coordinates when all have them, otherwise on a circle."""
    placed = [
        (s.longitude * math.cos(math.radians(s.latitude)), -s.latitude)
        for s in sites
        if s.latitude is not None and s.longitude is not None
    ]
    if len(placed) < len(sites) or len({(round(x, 4), round(y, 4)) for x, y in placed}) < len(sites):
        angles = [2 * math.pi * at / max(1, len(sites)) - math.pi / 2 for at in range(len(sites))]
        placed = [(math.cos(angle), math.sin(angle)) for angle in angles]
    if not placed:
        return {}
    xs, ys = [x for x, _ in placed], [y for _, y in placed]
    wide, high = max(xs) - min(xs), max(ys) - min(ys)
    scale = min((WIDTH - 2 * MARGIN_X) / (wide or 1e-9), (HEIGHT - 2 * MARGIN_Y) / (high or 1e-9))
    left, top = (WIDTH - wide * scale) / 2, (HEIGHT - high * scale) / 2
    return {
        site.id: (left + (x - min(xs)) * scale, top + (y - min(ys)) * scale)
        for site, (x, y) in zip(sites, placed, strict=True)
    }


def lay_out(overview: Overview) -> Topology:
    """Place sites, routers and links."""
    sites = list(overview.sites.values())
    middles = _middles(sites)
    nodes: dict[int, Node] = {}
    spots = []
    for site in sites:
        x, y = middles[site.id]
        devices = [d for d in overview.devices.values() if d.site_id == site.id]
        radius = 0.0 if len(devices) < 2 else min(34.0 + 3.0 * len(devices), MAX_RADIUS)
        spots.append(Spot(site, x, y, radius))
        for at, device in enumerate(devices):
            angle = 2 * math.pi * at / len(devices) + math.pi
            across = math.cos(angle)
            side: Literal["left", "right", "middle"] = (
                "left" if across < -0.3 else "right" if across > 0.3 else "middle"
            )
            if not radius:
                side = "middle"
            nodes[device.id] = Node(
                device, x + radius * across, y + radius * math.sin(angle), side, len(devices) <= MAX_NAMED
            )
    lines: list[Line] = []
    for link in overview.links:
        ends = [overview.ports.get(end) for end in (link.a_entity, link.b_entity)]
        if any(end is None or end.device_id not in nodes for end in ends):
            continue
        a, b = [nodes[end.device_id] for end in ends if end is not None]
        seen = overview.link_seen(link)
        # Long lines run close to each other: their labels take turns.
        label_at = 0.5 if a.device.site_id == b.device.site_id else (0.5, 0.36, 0.64)[len(lines) % 3]
        lines.append(Line(link, a, b, seen.load_pct, seen.load_class, label_at))
    return Topology(spots, list(nodes.values()), lines)
