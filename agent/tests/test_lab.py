"""The real agent against the RouterOS emulator, run as a process of its own: both versions, and faults on command."""

from __future__ import annotations

import ast
import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, ClassVar, cast

import msgspec
import pytest
from agent_fakes import taken
from ispvm_agent import config, reports
from ispvm_agent.outbox import Outbox
from ispvm_agent.poller import Poller
from ispvm_agent.probes import Prober
from ispvm_agent.routeros import session
from ispvm_contract import ingest
from ispvm_contract.identity import device_id
from ispvm_contract.registry import registry

SEED = Path(__file__).parents[2] / "seeds" / "demo_small.json"
# A loopback address of this process's own, so that two test runs do not meet.
HOST = f"127.{os.getpid() >> 16 & 127}.{os.getpid() >> 8 & 255}.{os.getpid() & 255 | 1}"
PORT = 28860
POLLING = config.Polling(fast_seconds=1, medium_seconds=1, slow_seconds=1)
V6, V7 = "AGG-HIL-1", "CORE-NTH-1"


class Lab:
    """A running emulator."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.devices: list[dict[str, Any]] = json.loads(SEED.read_text())["devices"]
        self.environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-m", "ispvm_lab", "serve", "--seed", str(SEED), "--state", str(state)]
        self.process = subprocess.Popen(
            [*command, "--listen-override", f"{HOST}:{PORT}"],
            env=self.environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        assert "listening" in self.process.stdout.readline()

    @property
    def password(self) -> str:
        return (self.state / "router-password").read_text().strip()

    def router(self, name: str, **more: Any) -> config.Router:
        place = [device["name"] for device in self.devices].index(name)
        tls: dict[str, Any] = {"port": PORT + 2 * place + 1, "tls": "ca", "ca_file": str(self.state / "routers-ca.crt")}
        return config.Router(name=name, site="s", address=HOST, user="ispvm", credential="c", **(tls | more))

    def plain(self, name: str) -> config.Router:
        router = self.router(name)
        return self.router(name, port=router.port - 1, tls="off", ca_file=None)

    async def ask(self, **request: Any) -> None:
        reader, writer = await asyncio.open_unix_connection(self.state / "control.sock")
        writer.write(json.dumps(request).encode() + b"\n")
        answer = json.loads(await reader.readline())
        writer.close()
        assert answer["ok"], answer

    async def fault(self, kind: str, router: str, **params: str) -> None:
        await self.ask(command="add", kind=kind, router=router, params=params)

    async def clear(self) -> None:
        await self.ask(command="clear")

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(10)
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    lab = Lab(tmp_path_factory.mktemp("lab"))
    yield lab
    lab.stop()


@pytest.fixture
async def lab(emulator: Lab, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Lab]:
    monkeypatch.setattr(session.Session.run, "__defaults__", (1.0,))
    yield emulator
    for rig in Rig.made:
        rig.poller.close()
    Rig.made.clear()
    await emulator.clear()


class Rig:
    """A poller whose polls are called by hand."""

    made: ClassVar[list[Rig]] = []

    def __init__(self, lab: Lab, router: config.Router, password: str | None = None) -> None:
        self.made.append(self)
        self.outbox = Outbox(ingest.Agent("a", "0"), cast("Any", None), cast("Any", None))
        self.prober = Prober([router.address], 1, lambda address, old, new: None)
        self.events: list[ingest.Event] = []
        device = device_id("demo", router.name)
        self.poller = Poller(
            router, device, password or lab.password, POLLING, self.outbox, self.prober, lambda name, learned: None
        )

    async def poll(self) -> dict[str, ingest.Poll]:
        self.poller._due = dict.fromkeys(self.poller._due, 0.0)
        self.poller._next_try = 0.0
        await self.poller.poll()
        batches = taken(self.outbox)
        self.events = [event for batch in batches for event in batch.events]
        self.sets = {name: keys for batch in batches for name, keys in batch.sets.items()}
        self.polls = [poll for batch in batches for poll in batch.polls]
        # Of the two tables about interfaces, the one with the counters.
        return {poll.entity_type: poll for poll in self.polls if "interface.link_bps" not in poll.columns}

    async def poll_by_columns(self, metric: str) -> ingest.Poll:
        """Poll once; of what came, the part that has a metric (there are two about interfaces)."""
        self.poller._due = dict.fromkeys(self.poller._due, 0.0)
        await self.poller.poll()
        batches = taken(self.outbox)
        self.sets = {name: keys for batch in batches for name, keys in batch.sets.items()}
        return next(poll for batch in batches for poll in batch.polls if metric in poll.columns)

    def by_key(self, poll: ingest.Poll, metric: str) -> dict[str, ingest.Value]:
        assert poll.set is not None
        return dict(zip(self.sets[poll.set], poll.columns[metric], strict=True))

    @property
    def state(self) -> str:
        return self.poller.summary.state


@pytest.mark.parametrize("name", [V6, V7])
async def test_every_collector_works(lab: Lab, name: str) -> None:
    report = await reports.examine(lab.router(name), lab.password)
    assert report["state"] == "ok"
    assert [name for name, verdict in report["collectors"].items() if not verdict["ok"]] == []
    rig = Rig(lab, lab.router(name))
    await rig.poll()
    await rig.poll()  # ports and pools are known now, and the second poll asks about them
    polls = await rig.poll()
    published = {metric for poll in rig.polls for metric in poll.columns}
    assert published <= set(registry().metrics)
    assert {"interface.link_bps", "optics.rx_power_dbm", "sensor.fan_rpm", "sensor.ok", "netwatch.up", "neighbor.up",
            "device.sessions.api"} <= published  # fmt: skip
    assert {"device.cpu_pct", "device.temp_c", "device.ntp.synced", "device.clock.skew_seconds", "interface.rx_bps",
            "ospf.neighbor.up", "pppoe.sessions.active", "dhcp.leases.active"} <= published  # fmt: skip
    assert set(rig.by_key(polls["ospf_neighbor"], "ospf.neighbor.up").values()) == {True}


async def test_pools_and_queues(lab: Lab) -> None:
    rig = Rig(lab, lab.router("ACCESS-HIL-1"))
    await rig.poll()
    polls = await rig.poll()
    assert polls["device"].columns["queue.simple.count"] == [12]  # not those of 400 sessions
    assert (polls["device"].columns["queue.simple.dropped_total"][0] or 0) > 0
    share = rig.by_key(polls["pool"], "pool.used_pct")
    assert set(share) == {"pppoe", "dhcp"}
    assert all(isinstance(value, float) and 20 < value < 100 for value in share.values())


async def test_radio_and_modem(lab: Lab) -> None:
    rig = Rig(lab, lab.router("ACCESS-HIL-1"))
    for _ in range(3):  # which there are, which ids they have, how they are
        polls = await rig.poll()
    assert (rig.by_key(polls["radio"], "radio.clients")["wlan1"] or 0) > 0
    assert -90 < (rig.by_key(polls["radio"], "radio.signal_worst_dbm")["wlan1"] or 0) < -40
    assert rig.by_key(polls["lte"], "lte.registered") == {"lte1": True}
    assert -120 < (rig.by_key(polls["lte"], "lte.rsrp_dbm")["lte1"] or 0) < -70


async def test_plain_api_works_too(lab: Lab) -> None:
    rig = Rig(lab, lab.plain(V7))
    assert "interface" in await rig.poll()


@pytest.mark.parametrize("kind", ["stall", "drip", "reset", "garbage", "fatal"])
async def test_broken_replies_to_one_menu_end_the_connection_and_are_said(lab: Lab, kind: str) -> None:
    rig = Rig(lab, lab.router(V7))
    await rig.poll()
    await lab.fault(kind, V7, menu="/system/resource")
    down = await rig.poll()
    assert down["device"].columns["device.api.up"] == [False]
    assert set(down) == {"device"}
    expected = {"stall": "timeout", "drip": "timeout", "reset": "refused", "garbage": "protocol", "fatal": "refused"}
    assert rig.state == expected[kind]
    await lab.clear()
    back = await rig.poll()
    assert back["device"].columns["device.api.up"] == [True]
    assert "interface" in back


async def test_a_stalled_menu_costs_only_its_collector(lab: Lab) -> None:
    rig = Rig(lab, lab.router(V7))
    await rig.poll()
    await lab.fault("stall", V7, menu="/routing/ospf/neighbor", after="0")
    for _ in range(2):
        polls = await rig.poll()
        assert polls["device"].columns["device.api.up"] == [True]
        assert "interface" in polls
        assert "ospf_neighbor" not in polls
    assert list(rig.poller.summary.disabled_collectors) == ["ospf"]


async def test_traps_on_one_menu(lab: Lab) -> None:
    rig = Rig(lab, lab.router(V6))
    await lab.fault("trap", V6, menu="/system/routerboard", message="no such command")
    polls = await rig.poll()
    assert {"device", "interface", "ospf_neighbor"} <= set(polls)
    assert list(rig.poller.summary.disabled_collectors) == ["routerboard"]


async def test_password_and_sessions(lab: Lab) -> None:
    wrong = Rig(lab, lab.router(V7), password="wrong")
    await wrong.poll()
    assert wrong.state == "auth"
    await lab.fault("sessions", V7)
    full = Rig(lab, lab.plain(V7))
    await full.poll()
    assert full.state == "refused"


async def test_anonymous_tls_only_where_allowed(lab: Lab) -> None:
    await lab.fault("no-certificate", V7)
    refused = Rig(lab, lab.router(V7))
    await refused.poll()
    assert refused.state in {"refused", "protocol"}  # a reset or an alert, whichever comes first
    assert "certificate" in refused.poller.summary.detail or "TLS" in refused.poller.summary.detail
    allowed = Rig(lab, lab.router(V7, tls="anonymous", ca_file=None))
    assert "interface" in await allowed.poll()


async def test_names_in_a_codepage(lab: Lab) -> None:
    await lab.fault("encoding", V7, codepage="cp1252", names="yes")
    rig = Rig(lab, lab.router(V7))
    await rig.poll()
    assert rig.state == "ok"
    assert "Zürich – 5 €" in rig.poller._about["identity"]


async def test_huge_tables_are_counted_not_read(lab: Lab) -> None:
    await lab.fault("huge", V7, menu="/ip/firewall/connection", rows="20000")
    rig = Rig(lab, lab.router(V7))
    polls = await rig.poll()
    connections = polls["device"].columns["device.firewall.connections"][0]
    assert isinstance(connections, int)
    assert connections >= 20000
    size = polls["device"].columns["device.poll.bytes"][0]
    assert isinstance(size, int)
    assert size < 10_000


async def test_counter_reset_gives_no_spike(lab: Lab) -> None:
    rig = Rig(lab, lab.router(V7))
    await rig.poll()
    await lab.fault("counter-reset", V7)
    polls = await rig.poll()
    interfaces = polls["interface"]
    assert len(interfaces.reset) == len(rig.sets[interfaces.set or ""])
    assert set(interfaces.columns.get("interface.rx_bps", [None])) == {None}
    assert {event.name for event in rig.events} == {"interface.counter.reset"}


async def test_a_configuration_change_is_an_event_with_who_and_what(lab: Lab) -> None:
    for name in (V6, V7):
        rig = Rig(lab, lab.router(name))
        await rig.poll()
        await lab.fault("config-change", name, by="alice", action="changed filter rule")
        await rig.poll()
        (event,) = rig.events
        assert event.name == "config.changed.detected"
        assert (event.new or "").startswith("alice: changed filter rule (")


async def test_light_and_link_speed(lab: Lab) -> None:
    rig = Rig(lab, lab.router(V7))
    await rig.poll()
    polls = await rig.poll_by_columns("optics.rx_power_dbm")
    assert rig.by_key(polls, "interface.link_bps")["sfp28-2"] == 10_000_000_000
    usual = rig.by_key(polls, "optics.rx_power_dbm")
    assert usual["ether1"] is None  # no module, so nothing; not 0
    assert isinstance(usual["sfp28-2"], float)
    await lab.fault("optics", V7, interface="sfp28-2", rx_power="-21.5")
    assert rig.by_key(await rig.poll_by_columns("optics.rx_power_dbm"), "optics.rx_power_dbm")["sfp28-2"] == -21.5
    await lab.clear()


async def test_a_dark_uplink(lab: Lab) -> None:
    rig = Rig(lab, lab.router("EDGE-NTH-1"))
    await rig.poll()
    await lab.fault("optics", "EDGE-NTH-1", interface="sfp28-1")
    dark = await rig.poll_by_columns("optics.rx_power_dbm")
    assert rig.by_key(dark, "optics.rx_power_dbm")["sfp28-1"] == -40
    assert rig.by_key(dark, "optics.rx_loss")["sfp28-1"] is True
    assert rig.by_key(dark, "interface.link_bps")["sfp28-1"] is None


async def test_without_the_policy_test_only_the_monitor_is_left_out_and_the_fix_is_said(lab: Lab) -> None:
    rig = Rig(lab, lab.router(V6))
    await lab.fault("no-test-policy", V6)
    await rig.poll()
    polls = await rig.poll()
    assert {"interface", "sensor", "ospf_neighbor"} <= set(polls)
    (name,) = rig.poller.summary.disabled_collectors
    assert name == "ethernet"
    assert "needs the policies read, api and (on RouterOS 6) test" in rig.poller.summary.disabled_collectors[name]
    report = await reports.examine(lab.router(V6), lab.password)
    assert [name for name, verdict in report["collectors"].items() if "policies" in verdict.get("fix", "")] == [
        "ethernet"
    ]


@pytest.mark.parametrize("name", [V6, V7])
async def test_a_power_supply_fails(lab: Lab, name: str) -> None:
    rig = Rig(lab, lab.router(name))
    assert rig.by_key((await rig.poll())["sensor"], "sensor.ok")["psu2-state"] is True
    await lab.fault("sensor", name, name="psu2-state", value="fail")
    await lab.fault("sensor", name, name="fan1-speed", value="0")
    sensors = (await rig.poll())["sensor"]
    assert rig.by_key(sensors, "sensor.ok")["psu2-state"] is False
    assert rig.by_key(sensors, "sensor.fan_rpm")["fan1-speed"] == 0
    assert [(event.name, event.key, event.old, event.new) for event in rig.events] == [
        ("sensor.state.changed", "psu2-state", "ok", "fail")
    ]


async def test_netwatch_down(lab: Lab) -> None:
    rig = Rig(lab, lab.router(V7))
    states = rig.by_key((await rig.poll())["netwatch"], "netwatch.up")
    host = next(iter(states))
    await lab.fault("netwatch-down", V7, host=host.split()[0])
    assert rig.by_key((await rig.poll())["netwatch"], "netwatch.up") == states | {host: False}
    assert [(event.name, event.old, event.new) for event in rig.events] == [("netwatch.changed", "up", "down")]


async def test_a_flagged_router_and_leaked_sessions(lab: Lab) -> None:
    rig = Rig(lab, lab.router(V7))
    assert (await rig.poll())["device"].columns["device.flagged"] == [False]
    await lab.fault("flagged", V7)
    others = [Rig(lab, lab.router(V7)) for _ in range(3)]
    for other in others:
        await other.poll()
    device = (await rig.poll())["device"].columns
    assert device["device.flagged"] == [True]
    assert device["device.sessions.api"] == [4]


@pytest.mark.parametrize("menu", ["/tool/netwatch", "/ip/pool", "/queue/simple", "/interface/ethernet", "/ip/neighbor"])
async def test_a_menu_that_is_missing_costs_its_own_collector(lab: Lab, menu: str) -> None:
    rig = Rig(lab, lab.router(V7))
    await lab.fault("trap", V7, menu=menu, message="no such command prefix")
    polls = await rig.poll()
    assert {"device", "interface", "ospf_neighbor", "bgp_peer", "sensor"} <= set(polls)
    ((name, reason),) = rig.poller.summary.disabled_collectors.items()
    assert menu in reason
    assert name in {"netwatch", "pools", "queues", "ethernet", "neighbors"}


async def test_a_huge_queue_table_is_only_counted(lab: Lab) -> None:
    await lab.fault("huge", V7, menu="/queue/simple", rows="20000")
    rig = Rig(lab, lab.router(V7))
    await rig.poll()
    device = (await rig.poll())["device"].columns
    assert device["queue.simple.count"] == [20000]
    assert "queue.simple.dropped_total" not in device
    assert rig.state == "ok"


async def test_no_subscriber_leaves_the_site(lab: Lab) -> None:
    """Everything that a router with subscribers says, as it would be sent, holds none of their names or addresses."""
    rig = Rig(lab, lab.router("ACCESS-HIL-1"))
    sent = ""
    for _ in range(3):
        rig.poller._due = dict.fromkeys(rig.poller._due, 0.0)
        await rig.poller.poll()
        sent += msgspec.json.encode(taken(rig.outbox)).decode()
    assert "pool.used" in sent
    for secret in (
        "user0",
        "pppoe-user",
        "100.64.",
        "10.10.",
        "customer",
        "0C:C4:7A",
        "02:A1:B2",
        "host-",
        "6C:3B:6B",
        "10.20.",
        "client-",
        "356938035643809",
        "001010123456789",
    ):
        assert secret not in sent


async def test_clock_jump_and_lost_clock(lab: Lab) -> None:
    rig = Rig(lab, lab.router(V7))
    await lab.fault("clock-jump", V7, seconds="3600")
    skew = (await rig.poll())["device"].columns["device.clock.skew_seconds"][0]
    assert skew == pytest.approx(3600, abs=5)
    await lab.clear()
    await lab.fault("clock-jump", V7, lost="yes")
    lost = (await rig.poll())["device"].columns
    assert "device.clock.skew_seconds" not in lost
    assert lost["device.clock.lost"] == [True]


async def test_link_bgp_and_ospf_loss_are_seen_with_their_events(lab: Lab) -> None:
    rig = Rig(lab, lab.router(V7))
    before = await rig.poll()
    port = next(iter(rig.by_key(before["interface"], "interface.oper_up")))
    peers = rig.by_key(before["bgp_peer"], "bgp.peer.up")
    neighbors = rig.by_key(before["ospf_neighbor"], "ospf.neighbor.up")
    assert set(peers.values()) == set(neighbors.values()) == {True}
    await lab.fault("link-down", V7, interface=port)
    await lab.fault("bgp-loss", V7)
    await lab.fault("ospf-loss", V7)
    async with asyncio.timeout(15):
        after, happened = await rig.poll(), list(rig.events)
        while len({event.name for event in happened}) < 5:
            await asyncio.sleep(0.2)
            after = await rig.poll()
            happened += rig.events
    assert rig.by_key(after["interface"], "interface.oper_up")[port] is False
    assert set(rig.by_key(after["bgp_peer"], "bgp.peer.up").values()) == {False}
    assert rig.by_key(after["bgp_peer"], "bgp.peer.up").keys() == peers.keys()
    assert rig.by_key(after["ospf_neighbor"], "ospf.neighbor.up") == dict.fromkeys(neighbors, False)
    assert {event.name for event in happened} == {
        "interface.oper.changed", "bgp.peer.state.changed", "ospf.neighbor.state.changed", "bfd.session.changed",
        "netwatch.changed",
    }  # fmt: skip


# The rest of the lab's faults; those that leave routing unsettled for some seconds come last.


async def test_no_rows_are_an_empty_answer_and_no_fault(lab: Lab) -> None:
    """7.18 and later answer `!empty` where there is nothing, as here in the pools of a core router."""
    rig = Rig(lab, lab.router(V7))
    polls = await rig.poll()
    assert rig.poller._version == (7, 18)
    assert "pool" not in polls
    assert rig.poller.summary.disabled_collectors == {}


async def test_missing_fields_are_absent_and_cost_nothing_else(lab: Lab) -> None:
    await lab.fault("missing-fields", V7, menu="/interface", fields="rx-error,rx-drop,running")
    rig = Rig(lab, lab.router(V7))
    columns = (await rig.poll())["interface"].columns
    assert not {"interface.rx_errors_total", "interface.rx_discards_total", "interface.oper_up"} & set(columns)
    assert {"interface.tx_errors_total", "interface.rx_bytes_total"} <= set(columns)
    assert rig.poller.summary.disabled_collectors == {}


async def test_another_time_zone_is_no_skew(lab: Lab) -> None:
    await lab.fault("time-zone", V7)
    rig = Rig(lab, lab.router(V7))
    assert (await rig.poll())["device"].columns["device.clock.skew_seconds"][0] == pytest.approx(0, abs=3)


async def test_congestion_and_errors_are_counted(lab: Lab) -> None:
    rig = Rig(lab, lab.router(V7))
    await lab.fault("congestion", V7, interface="sfp28-1", pct="97")
    await lab.fault("errors", V7, interface="sfp28-1", share="0.5")
    before = rig.by_key((await rig.poll())["interface"], "interface.rx_errors_total")
    async with asyncio.timeout(10):
        while True:
            now = (await rig.poll())["interface"]
            rate = rig.by_key(now, "interface.tx_bps")["sfp28-1"]
            if rate and (rig.by_key(now, "interface.rx_errors_total")["sfp28-1"] or 0) > (before["sfp28-1"] or 0):
                break
    assert rate > 0.8 * rig.by_key(await rig.poll_by_columns("interface.link_bps"), "interface.link_bps")["sfp28-1"]  # type: ignore[operator]


async def test_most_sessions_end_at_once(lab: Lab) -> None:
    rig = Rig(lab, lab.router("ACCESS-HIL-1"))
    before = (await rig.poll())["device"].columns["pppoe.sessions.active"][0]
    await lab.fault("pppoe-drop", "ACCESS-HIL-1", keep_pct="5")
    columns = (await rig.poll())["device"].columns
    assert isinstance(before, int)
    assert columns["pppoe.sessions.active"][0] == pytest.approx(before * 0.05, abs=2)
    assert (columns["pppoe.sessions.churn_per_min"][0] or 0) > before


async def test_somebody_disables_a_port(lab: Lab) -> None:
    rig = Rig(lab, lab.router("EDGE-NTH-1"))
    await rig.poll()
    await lab.fault("interface-disabled", "EDGE-NTH-1", interface="sfp28-1")
    polls = await rig.poll()
    assert rig.by_key(polls["interface"], "interface.admin_up")["sfp28-1"] is False
    assert rig.by_key(polls["interface"], "interface.oper_up")["sfp28-1"] is False
    assert "config.changed.detected" in {event.name for event in rig.events}


async def test_every_flap_is_an_event_or_a_count(lab: Lab) -> None:
    rig = Rig(lab, lab.router("EDGE-NTH-1"))
    downs = rig.by_key((await rig.poll())["interface"], "interface.link_downs_total")["sfp28-1"]
    await lab.fault("link-flap", "EDGE-NTH-1", interface="sfp28-1", every="0.2")
    happened: list[ingest.Event] = []
    async with asyncio.timeout(10):
        while len(happened) < 2:
            interfaces = (await rig.poll())["interface"]
            happened += [event for event in rig.events if event.name == "interface.oper.changed"]
    assert {event.key for event in happened} == {"sfp28-1"}
    assert (rig.by_key(interfaces, "interface.link_downs_total")["sfp28-1"] or 0) > (downs or 0)


async def test_a_reboot_is_said_and_gives_no_spike(lab: Lab) -> None:
    rig = Rig(lab, lab.router("ACCESS-HIL-1"))
    await rig.poll()
    await lab.fault("reboot", "ACCESS-HIL-1", seconds="0.2")
    happened: list[ingest.Event] = []
    async with asyncio.timeout(15):
        while "device.rebooted" not in {event.name for event in happened}:
            polls = await rig.poll()
            happened += rig.events
    assert "interface.rx_bps" not in polls["interface"].columns
    assert "interface.counter.reset" not in {event.name for event in happened}  # the reboot says it all
    assert "netwatch.up" not in (polls["netwatch"].columns if "netwatch" in polls else {})  # unknown is not down


async def test_without_power(lab: Lab) -> None:
    rig = Rig(lab, lab.router("ACCESS-HIL-1"))
    await rig.poll()
    await lab.fault("down", "ACCESS-HIL-1", mode="refuse")
    assert (await rig.poll())["device"].columns["device.api.up"] == [False]
    assert rig.state in {"refused", "unreachable"}
    assert "device.api.changed" in {event.name for event in rig.events}


def asserted(source: str) -> set[str]:
    """The kinds of fault that a test of this source sets and then asserts something about."""
    found = set[str]()
    for test in ast.parse(source).body:
        if not isinstance(test, ast.AsyncFunctionDef) or not any(
            isinstance(node, ast.Assert) for node in ast.walk(test)
        ):
            continue
        for call in ast.walk(test):
            if isinstance(call, ast.Call) and ast.unparse(call.func) == "lab.fault":
                # a name is a parameter of the test: its values stand in the decorator
                named = [call.args[0]] if isinstance(call.args[0], ast.Constant) else test.decorator_list
                found |= {str(n.value) for part in named for n in ast.walk(part) if isinstance(n, ast.Constant)}
    return found


def test_every_fault_of_the_lab_has_an_asserted_outcome_here() -> None:
    """Read from the lab's own list: a new kind of fault needs a test in this file."""
    command = [sys.executable, "-m", "ispvm_lab", "fault", "kinds"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    told = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    kinds = {line.split()[0] for line in told.splitlines() if re.match(r"[a-z]", line)}
    # test_password_and_sessions gives a wrong one instead
    assert kinds - asserted(Path(__file__).read_text()) == {"password"}


def test_a_fault_without_an_asserted_outcome_would_be_missed() -> None:
    test = 'async def test_it(lab):\n    await lab.fault("down", "R")\n'
    assert asserted(test) == set()
    assert asserted(test + "    assert await poll() is None\n") == {"down"}
