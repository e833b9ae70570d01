"""The committed seeds hang together beyond what their types and the contract's check say."""

from __future__ import annotations

from ipaddress import IPv4Network, ip_address

import pytest
from ispvm_contract import seed as seeds
from ispvm_lab.menus import link_address
from ispvm_lab.synthetic import synthetic
from ispvm_lab.traffic import ManualClock
from ispvm_lab.world import World
from lab_clients import SEEDS

NAMES = sorted(path.name for path in SEEDS.glob("*.json"))
ONLY_V7 = ("CCR2116", "CCR2216", "CCR2004", "RB5009")


@pytest.fixture(params=[*NAMES, "synthetic"])
def seed(request: pytest.FixtureRequest) -> seeds.Seed:
    if request.param == "synthetic":
        return synthetic(60, 10, IPv4Network("127.1.0.0/24"), pppoe_sessions=5)
    return seeds.load(SEEDS / str(request.param))


def test_seeds_pass_the_contracts_check(seed: seeds.Seed) -> None:
    assert seeds.check(seed) == []


def test_a_synthetic_seed_has_the_size_asked_for() -> None:
    made = synthetic(1000, 52, IPv4Network("127.1.0.0/16"))
    assert {len(device.interfaces) for device in made.devices} == {52}
    assert (len(made.devices), len(made.links)) == (1000, 999)
    with pytest.raises(ValueError, match=r"--network: 10.0.0.0/30 has 2 addresses, and 9 routers need one each"):
        synthetic(9, 10, IPv4Network("10.0.0.0/30"))
    with pytest.raises(ValueError, match="--interfaces: 3 is too few"):
        synthetic(9, 3, IPv4Network("10.0.0.0/24"))


def test_each_seed_has_a_tenant_of_its_own() -> None:
    assert len({seeds.load(SEEDS / name).tenant.key for name in NAMES}) == len(NAMES)


def test_both_ends_of_an_adjacency_know_each_other(seed: seeds.Seed) -> None:
    world = World(seed, ManualClock(1_790_000_000))
    for router in world.routers.values():
        for ospf in router.ospf:
            assert ospf.remote is not None, (router.name, ospf.spec)
            assert ospf.port is not None, (router.name, ospf.spec)
            assert ospf.port.peer is not None, (router.name, ospf.spec)
            assert ospf.port.peer.router is ospf.remote
            assert link_address(ospf.port.peer) == ospf.spec.address
            own = link_address(ospf.port)
            assert own is not None
            assert abs(int(ip_address(own)) - int(ip_address(ospf.spec.address))) == 1
        for bgp in router.bgp:
            if bgp.remote is not None:
                assert router in [far.remote for far in bgp.remote.bgp], (router.name, bgp.spec.name)


def test_both_ends_of_a_link_say_the_same(seed: seeds.Seed) -> None:
    ports = {(device.name, port.key): port for device in seed.devices for port in device.interfaces}
    seen: set[tuple[str, str]] = set()
    for link in seed.links:
        near, far = (ports[end.device, end.interface] for end in (link.a, link.b))
        assert near.capacity_bps == far.capacity_bps == link.capacity_bps, link.name
        assert near.load_pct == far.load_pct, link.name
        for end in (link.a, link.b):
            assert (end.device, end.interface) not in seen, f"two cables in {end}"
            seen.add((end.device, end.interface))


def test_versions_fit_the_boards(seed: seeds.Seed) -> None:
    for device in seed.devices:
        if device.model.startswith(ONLY_V7):
            assert device.routeros.startswith("7."), device.name


def test_names_and_loopbacks_are_unique(seed: seeds.Seed) -> None:
    for values in ([d.loopback for d in seed.devices], [link.name for link in seed.links], [s.key for s in seed.sites]):
        assert len(set(values)) == len(values)


def test_every_router_but_the_core_needs_something(seed: seeds.Seed) -> None:
    needy = {dependency.child for dependency in seed.dependencies}
    assert {device.name for device in seed.devices if device.role != "core"} <= needy
