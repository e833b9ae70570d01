from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from uuid import UUID

import pytest
from ispvm.health.state import State
from ispvm.series.overview import Device, Link, Overview, Port, Site
from ispvm.web.topology import HEIGHT, MAX_NAMED, WIDTH, lay_out


def device(number: int, site: int) -> Device:
    return Device(
        number, UUID(int=number), site, None, f"R{number}", "core", "10.0.0.1", "MikroTik", None, None, None, None, []
    )


def port(number: int, owner: int, values: Mapping[str, float | bool], capacity: int | None = 1000) -> Port:
    return Port(number, owner, f"ether{number}", f"ether{number}", capacity, [], {}, dict(values))


def overview(sites: list[Site], devices: list[Device], ports: list[Port], links: list[Link]) -> Overview:
    now = datetime(2026, 11, 22, tzinfo=UTC)
    return Overview(now, {s.id: s for s in sites}, {}, {d.id: d for d in devices}, {p.id: p for p in ports}, links)


@pytest.mark.parametrize("place", [(54.6, -5.9), (0.0, 0.0), None])
@pytest.mark.parametrize("routers", [1, 2, 8, 40])
@pytest.mark.parametrize("count", [1, 2, 12])
def test_everything_is_inside_the_picture(place: tuple[float, float] | None, routers: int, count: int) -> None:
    sites = [
        Site(n, f"s{n}", f"S{n}", place[0] + n / 10 if place else None, place[1] - n / 7 if place else None)
        for n in range(1, count + 1)
    ]
    devices = [device(n, 1 + n % count) for n in range(1, routers + 1)]
    found = lay_out(overview(sites, devices, [], []))
    assert len(found.nodes) == routers
    for x, y in [(n.x, n.y) for n in found.nodes] + [(s.x, s.y) for s in found.spots]:
        assert 0 <= x <= WIDTH
        assert 0 <= y <= HEIGHT
    assert all(node.named == (routers <= MAX_NAMED) for node in found.nodes if count == 1)


def test_nothing_to_draw_is_an_empty_picture() -> None:
    found = lay_out(overview([], [], [], []))
    assert (found.spots, found.nodes, found.lines) == ([], [], [])


@pytest.mark.parametrize(
    ("a", "b", "load", "css"),
    [
        ({"rx_bps": 100.0, "tx_bps": 10.0}, {}, 10.0, "load-low"),
        ({"rx_bps": 100.0}, {"tx_bps": 800.0}, 80.0, "load-high"),
        ({"tx_bps": 950.0}, {}, 95.0, "load-full"),
        ({}, {}, None, "load-none"),
        ({"rx_bps": 100.0, "oper_up": True}, {"oper_up": False}, None, "load-down"),
    ],
)
def test_a_link_has_the_load_of_its_busier_direction(
    a: dict[str, float | bool], b: dict[str, float | bool], load: float | None, css: str
) -> None:
    ports = [port(1, 1, a), port(2, 2, b)]
    link = Link(1, "a--b", 1, 2, 1000, "fiber")
    found = lay_out(overview([Site(1, "s", "S", None, None)], [device(1, 1), device(2, 1)], ports, [link]))
    (line,) = found.lines
    assert (line.load, line.css) == (load, css)


def test_the_busiest_ports_come_first_and_unknown_ones_not_at_all() -> None:
    ports = [
        port(1, 1, {"rx_bps": 100.0}),
        port(2, 1, {"tx_bps": 900.0}),
        port(3, 1, {}),
        port(4, 1, {"rx_bps": 5.0}, None),
    ]
    found = overview([], [device(1, 1)], ports, [])
    assert [(pct, p.id) for pct, p in found.busiest()] == [(90.0, 2), (10.0, 1)]
    assert found.counts() == {**dict.fromkeys(State, 0), State.NEVER: 1}
