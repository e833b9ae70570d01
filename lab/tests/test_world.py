"""Traffic and state over time, on a clock that stands still until told."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ispvm_contract import seed as seeds
from ispvm_lab.traffic import DAY, ManualClock, flow
from ispvm_lab.world import CACHED_SESSION_SECONDS, World
from lab_clients import SEEDS

START = 1_790_000_000.0


def world(speed: float = 1.0, start: float = START) -> tuple[World, ManualClock]:
    clock = ManualClock(start, speed)
    return World(seeds.load(SEEDS / "demo_small.json"), clock), clock


@given(
    mean=st.floats(1e3, 1e11), capacity=st.floats(1e6, 1e11), speed=st.sampled_from([1, 60, 1440]), at=st.floats(0, 1e7)
)
def test_rates_stay_between_nothing_and_the_capacity(mean: float, capacity: float, speed: float, at: float) -> None:
    made = flow(mean, capacity, ManualClock(START, speed), "x")
    assert 0 < made.rate(START + at) <= capacity


def test_the_integral_of_the_rate_is_the_volume() -> None:
    made = flow(4e9, 1e10, ManualClock(START), "x")
    for begin, length in ((0, 30), (5000, 60), (86400 * 40, 300)):
        steps = 3000
        width = length / steps
        total = sum(made.rate(START + begin + (step + 0.5) * width) for step in range(steps)) * width
        volume = made.volume(START + begin + length) - made.volume(START + begin)
        assert volume == pytest.approx(total, rel=1e-6)


def test_the_evening_is_busy_and_the_night_is_not() -> None:
    midnight = START - START % DAY
    made = flow(4e9, 1e10, ManualClock(midnight), "x")

    def carried(first_hour: int, last_hour: int) -> float:
        return made.volume(midnight + last_hour * 3600) - made.volume(midnight + first_hour * 3600)

    evening, night = carried(19, 22), carried(3, 6)
    assert evening > 1.7 * night
    hurried = flow(4e9, 1e10, ManualClock(midnight, 24), "x")  # a day in an hour
    assert hurried.rate(midnight + 20.5 * 150) > 1.5 * hurried.rate(midnight + 5 * 150)


def test_both_ends_of_a_link_agree_and_counters_only_grow() -> None:
    lab, clock = world()
    ports = [port for router in lab.routers.values() for port in router.ports.values()]
    before = {port: port.passed(clock.now()) for port in ports}
    for _ in range(100):
        clock.advance(1.7)
        after = {port: port.passed(clock.now()) for port in ports}
        for port in ports:
            assert after[port].rx_bits > before[port].rx_bits
            assert after[port].tx_bits > before[port].tx_bits
            assert after[port].rx_errors >= before[port].rx_errors
            if port.peer is not None:
                sent = after[port].tx_bits - before[port].tx_bits
                received = after[port.peer].rx_bits - before[port.peer].rx_bits
                assert sent == pytest.approx(received, rel=1e-6)
        before = after


def test_a_poll_after_a_cut_shows_exactly_the_time_up() -> None:
    lab, clock = world()
    port = lab.port("CORE-NTH-1", "sfp28-2")
    start, began = port.passed(clock.now()).tx_bits, clock.now()
    clock.advance(10)
    lab.cut("CORE-NTH-1", "sfp28-2", "test")
    sent = port.tx.volume(clock.now()) - port.tx.volume(began)
    clock.advance(100)
    assert port.passed(clock.now()).tx_bits - start == pytest.approx(sent)
    assert port.peer is not None
    assert (port.running, port.peer.running, port.downs) == (False, False, 1)
    lab.mend("CORE-NTH-1", "sfp28-2", "test")
    mended = clock.now()
    clock.advance(5)
    sent += port.tx.volume(clock.now()) - port.tx.volume(mended)
    assert port.passed(clock.now()).tx_bits - start == pytest.approx(sent)


def test_two_causes_of_a_cut_need_two_mends() -> None:
    lab, _ = world()
    for cause in ("a", "b"):
        lab.cut("CORE-NTH-1", "sfp28-2", cause)
    lab.mend("CORE-NTH-1", "sfp28-2", "a")
    assert not lab.port("CORE-HBR-1", "sfp-sfpplus2").running
    lab.mend("CORE-NTH-1", "sfp28-2", "b")
    assert lab.port("CORE-HBR-1", "sfp-sfpplus2").running


def test_bgp_inside_survives_a_detour_but_not_an_island() -> None:
    lab, _ = world()
    edge = lab.router("EDGE-NTH-1")
    outside, inside = edge.bgp
    lab.cut("EDGE-NTH-1", "sfp28-2", "x")  # the direct link; the way over the harbour is left
    assert inside.up
    lab.cut("EDGE-NTH-1", "sfp28-3", "x")
    assert (inside.up, outside.up) == (False, True)
    assert not lab.router("CORE-NTH-1").bgp[0].up
    lab.cut("EDGE-NTH-1", "sfp28-1", "x")
    assert not outside.up


def test_adjacencies_come_back_one_after_the_other_after_a_boot() -> None:
    lab, clock = world()
    core = lab.router("CORE-NTH-1")
    lab.power_off(core.name, "x")
    clock.advance(60)
    assert all(not ospf.up for ospf in lab.router("EDGE-NTH-1").ospf if ospf.remote is core)
    lab.power_on(core.name, "x")
    ready = [bgp.ready - clock.now() for bgp in core.bgp]
    assert ready == [5, 10]
    assert not core.ospf[0].established(clock.now())
    clock.advance(11)
    assert all(adjacency.established(clock.now()) for adjacency in (*core.bgp, *core.ospf))
    assert core.uptime(clock.now()) == 11


def test_a_lost_v7_session_is_shown_for_some_time() -> None:
    from ispvm_lab.menus import MENUS, View

    lab, clock = world()
    edge = lab.router("EDGE-NTH-1")
    lab.lose([edge.bgp[0]], "x")

    def names() -> list[str]:
        return [row["name"] for row in MENUS["/routing/bgp/session"].rows(View(edge, clock.now()))]

    clock.advance(CACHED_SESSION_SECONDS - 1)
    assert names() == ["meridian-v4-1", "rr-core-nth-1-1"]
    clock.advance(2)
    assert names() == ["rr-core-nth-1-1"]


def test_the_same_seed_is_the_same_world() -> None:
    (first, clock), (second, _) = world(), world()
    at = clock.now() + 12345
    for name, router in first.routers.items():
        other = second.routers[name]
        assert (router.booted, router.load(at), router.subscribers(at)) == (
            other.booted,
            other.load(at),
            other.subscribers(at),
        )
        for key, port in router.ports.items():
            assert port.passed(at) == other.ports[key].passed(at)


def test_cpu_and_heat_follow_the_traffic() -> None:
    midnight = START - START % DAY
    lab, _ = world(start=midnight)
    router = lab.router("AGG-HIL-1")

    def mean(values: list[float]) -> float:
        return sum(values) / len(values)

    night, evening = ([midnight + hour * 3600 + minute * 60 for minute in range(60)] for hour in (4, 20))
    assert mean([router.load(at) for at in evening]) > mean([router.load(at) for at in night]) + 2
    assert mean([router.temperature(at) for at in evening]) > mean([router.temperature(at) for at in night])
    assert all(1 <= router.load(at) <= 100 for at in (*night, *evening))


def test_subscribers_follow_the_day_and_redial() -> None:
    midnight = START - START % DAY
    lab, _ = world(start=midnight)
    router = lab.router("ACCESS-HIL-1")
    counts = [router.subscribers_wanted(midnight + hour * 3600) for hour in range(24)]
    assert max(counts) == counts[20] or max(counts) == counts[21]
    assert min(counts) >= 0.79 * 412
    now = midnight + 72000
    ages = [subscriber.uptime for subscriber in router.subscribers(now)]
    assert len(set(ages)) > 300
    later = [subscriber.uptime for subscriber in router.subscribers(now + 3600)]
    assert any(new < old for old, new in zip(ages, later, strict=False))


def test_boots_outlive_a_restart() -> None:
    seed = seeds.load(SEEDS / "demo_small.json")
    booted = START - 77
    restarted = World(seed, ManualClock(START), {"CORE-NTH-1": booted})
    assert restarted.router("CORE-NTH-1").uptime(START) == 77
    assert restarted.port("CORE-NTH-1", "sfp28-1").passed(START).rx_bits < 1e10 * 77


def test_a_thousand_routers_are_wired_quickly() -> None:
    small = seeds.load(SEEDS / "demo_small.json")
    devices, links = [], []
    for copy in range(170):
        for device in small.devices:
            renamed = msgspec.structs.replace(device, name=f"{device.name}-{copy}", address=f"{copy}.{device.address}")
            devices.append(msgspec.structs.replace(renamed, loopback=f"{copy}.{device.loopback}"))
        for link in small.links:
            ends = [seeds.End(f"{end.device}-{copy}", end.interface) for end in (link.a, link.b)]
            links.append(msgspec.structs.replace(link, name=f"{link.name}-{copy}", a=ends[0], b=ends[1]))
    lab = World(msgspec.structs.replace(small, devices=devices, links=links), ManualClock(START))
    assert len(lab.routers) == 1020
    lab.power_off("CORE-NTH-1-169", "x")
    down = [port for router in lab.routers.values() for port in router.ports.values() if not port.running]
    assert len(down) == 7  # its own four and the far ends of three links


def test_the_as_of_a_router_is_what_its_peers_call_it() -> None:
    seed = seeds.load(SEEDS / "demo_small.json")
    edge, core = seed.devices[:2]
    edge.bgp_peers[1].remote_as = 65001  # the core is in another AS
    lab = World(seed, ManualClock(START))
    assert lab.router(core.name).local_as == 65001
    assert lab.router(edge.name).local_as == 64512
    assert lab.router("AGG-HBR-1").local_as == 64512  # no BGP


def test_a_restarted_emulator_brings_a_rebooted_router_up_in_order() -> None:
    seed = seeds.load(SEEDS / "demo_small.json")
    clock = ManualClock(START)
    lab = World(seed, clock, {"CORE-NTH-1": START + 100})
    clock.advance(1000)
    core = lab.router("CORE-NTH-1")
    for adjacency in (*core.bgp, *core.ospf):
        assert core.booted < adjacency.ready <= core.booted + 300
