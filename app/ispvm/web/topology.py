"""The map: routers around their sites at true bearings, links between them. Coordinates are SVG user units."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ispvm.series.overview import Device, Link, Overview, Site
from ispvm.web.show import load_class

WIDTH, HEIGHT, MARGIN = 720.0, 380.0, 74.0


@dataclass(frozen=True, slots=True)
class Node:
    """A router on the map."""

    device: Device
    x: float
    y: float


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


@dataclass(frozen=True, slots=True)
class Topology:
    """Everything to draw."""

    spots: list[Spot]
    nodes: list[Node]
    lines: list[Line]


def _middles(sites: list[Site]) -> dict[int, tuple[float, float]]:
    """Where each site is: by its coordinates when all have them, otherwise on a circle."""
    placed = [(s.longitude * math.cos(math.radians(s.latitude)), -s.latitude) for s in sites if s.latitude is not None and s.longitude is not None]
    if len(placed) < len(sites) or len({(round(x, 4), round(y, 4)) for x, y in placed}) < len(sites):
        angles = [2 * math.pi * at / max(1, len(sites)) - math.pi / 2 for at in range(len(sites))]
        placed = [(math.cos(angle), math.sin(angle)) for angle in angles]
    if not placed:
        return {}
    xs, ys = [x for x, _ in placed], [y for _, y in placed]
    wide, high = max(xs) - min(xs), max(ys) - min(ys)
    scale = min((WIDTH - 2 * MARGIN) / (wide or 1e-9), (HEIGHT - 2 * MARGIN) / (high or 1e-9))
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
        radius = 0.0 if len(devices) < 2 else 26.0 + 3.0 * len(devices)
        spots.append(Spot(site, x, y, radius))
        for at, device in enumerate(devices):
            angle = 2 * math.pi * at / len(devices) + math.pi
            nodes[device.id] = Node(device, x + radius * math.cos(angle), y + radius * math.sin(angle))
    lines = []
    for link in overview.links:
        ends = [overview.ports.get(end) for end in (link.a_entity, link.b_entity)]
        if any(end is None or end.device_id not in nodes for end in ends):
            continue
        a, b = (nodes[end.device_id] for end in ends if end is not None)
        load = overview.link_load(link)
        lines.append(Line(link, a, b, load, "load-down" if overview.link_down(link) else load_class(load)))
    return Topology(spots, list(nodes.values()), lines)
