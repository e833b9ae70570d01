"""Generated history: the same each time, plausible, and consistent along links and through incidents."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from ispvm.inventory.simulation import INCIDENT_DAYS, World
from ispvm_contract.seed import Device, Link, Seed, load

SEEDS = Path(__file__).parents[2] / "seeds"
NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
QUIET = next(d for n in range(1, 40) if not World(load(SEEDS / "demo_small.json"), NOW).incidents(
    d := NOW.date() - timedelta(days=n)))  # fmt: skip


@pytest.fixture
def seed() -> Seed:
    return load(SEEDS / "demo_small.json")


@pytest.fixture
def world(seed: Seed) -> World:
    return World(seed, NOW)


def test_the_same_bundle_makes_the_same_history(seed: Seed, world: World) -> None:
    other = World(load(SEEDS / "demo_small.json"), NOW).day(QUIET, NOW)
    for thing, metrics in world.day(QUIET, NOW).items():
        for name, samples in metrics.items():
            assert np.array_equal(samples.values, other[thing][name].values), (thing, name)


def test_a_link_receives_what_its_other_end_sends(seed: Seed, world: World) -> None:
    day = world.day(QUIET, NOW)
    for link in seed.links:
        a, b = ((end.device, "interface", end.interface) for end in (link.a, link.b))
        assert np.array_equal(day[a]["interface.tx_bps"].values, day[b]["interface.rx_bps"].values)
        assert day[a]["interface.tx_bps"].values.max() <= 0.97 * link.capacity_bps


def test_a_day_has_its_evening_and_a_night_without_gaps(world: World) -> None:
    rx = world.day(QUIET, NOW)["EDGE-NTH-1", "interface", "sfp28-1"]["interface.rx_bps"]
    assert len(rx.seconds) == 1440
    hours = rx.values.reshape(24, 60).mean(axis=1)
    assert hours.argmax() in range(18, 23)
    assert hours.argmin() in range(2, 9)
    assert 1.5 < hours.max() / hours.min() < 4


def test_the_last_day_ends_where_measuring_begins(world: World) -> None:
    day = world.day(NOW.date(), NOW)
    assert day["CORE-NTH-1", "device", ""]["device.up"].seconds[-1] == 12 * 3600 - 60


def incident(world: World, kind: type[Device | Link]) -> tuple[date, Device | Link]:
    days = [NOW.date() - timedelta(days=n) for n in range(1, 20 * INCIDENT_DAYS)]
    return next((d, what) for d in days for what, _, _ in world.incidents(d) if isinstance(what, kind))


def test_a_router_without_power_answers_nothing_and_its_neighbours_lose_the_carrier(world: World) -> None:
    on, router = incident(world, Device)
    day = world.day(on, NOW)
    ((_, begin, end),) = world.incidents(on)
    dark = round((end - begin) / 60)
    up = day[router.name, "device", ""]["device.up"]
    assert (len(up.values), (up.values == 0).sum()) == (1440, dark)
    for (device, kind, _), metrics in day.items():
        if device == router.name and kind == "interface":
            assert len(metrics["interface.rx_bps"].values) == 1440 - dark  # absence is not zero
    events = list(world.events(on))
    assert {e.new for e in events if e.name == "device.reachable.changed"} == {"down", "up"}
    for event in events:
        if event.name == "interface.oper.changed":
            port = day[event.device, "interface", str(event.key)]
            assert (port["interface.oper_up"].values == 0).sum() == dark
            assert port["interface.rx_bps"].values.min() == 0


def test_a_link_that_is_cut_is_down_at_both_ends(world: World) -> None:
    on, link = incident(world, Link)
    assert isinstance(link, Link)
    day = world.day(on, NOW)
    a, b = (day[end.device, "interface", end.interface]["interface.oper_up"].values for end in (link.a, link.b))
    assert np.array_equal(a, b)
    assert 12 <= (a == 0).sum() < 75


def test_incidents_are_few(world: World) -> None:
    days = [NOW.date() - timedelta(days=n) for n in range(28)]
    assert 3 <= sum(len(world.incidents(d)) for d in days) <= 5
