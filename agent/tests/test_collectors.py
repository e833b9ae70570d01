"""What collectors make of replies, without a network."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ispvm_agent.collectors import catalogue
from ispvm_agent.collectors.base import Collector, Findings, Happening, Moment, Table, Version
from ispvm_agent.collectors.bgp import STATES as BGP_STATES
from ispvm_agent.collectors.bgp import Bgp, peers_v7
from ispvm_agent.collectors.counts import Pools, PppSessions, Queues
from ispvm_agent.collectors.facts import facts
from ispvm_agent.collectors.history import History
from ispvm_agent.collectors.interfaces import Interfaces
from ispvm_agent.collectors.listings import BFD, NETWATCH, Listed
from ispvm_agent.collectors.ospf import FORGET_SECONDS, Ospf
from ispvm_agent.collectors.ospf import STATES as OSPF_STATES
from ispvm_agent.collectors.ports import Ethernet, Lte, Neighbors, radios
from ispvm_agent.collectors.system import Clock, Health, Ntp
from ispvm_agent.reports import commands_of as may_ask
from ispvm_agent.routeros.commands import Aimed, Command, Question
from ispvm_agent.routeros.session import Reply
from ispvm_contract.registry import registry

V6, V7 = (6, 49), (7, 22)


def answer(*rows: dict[str, str], sent: float = 0.0, took: float = 0.0, ret: str | None = None) -> Reply:
    return Reply(sent=sent, rows=list(rows), ret=ret, done=sent + took)


def publish(
    collector: Collector, *replies: Reply, version: tuple[int, int] = V7, moment: Moment | None = None
) -> Findings:
    commands = collector.ask(version)
    return collector.publish(dict(zip(commands, replies, strict=True)), moment or Moment(wall_offset=time.time()))


def column(table: Table, name: str) -> dict[str, Any]:
    return dict(zip(table.keys, table.columns[name], strict=True))


def port(name: str, rx: int | None = 0, tx: int | None = 0, **more: str) -> dict[str, str]:
    row = {"name": name, "type": "ether", "running": "true", "disabled": "false", **more}
    return row | {k: str(v) for k, v in {"rx-byte": rx, "tx-byte": tx}.items() if v is not None}


# all of them


def test_everything_published_is_declared_and_in_the_registry() -> None:
    known = registry()
    facts = {"routeros", "architecture", "model", "identity", "serial"}
    for collector in catalogue():
        for name in collector.publishes:
            assert name in known.metrics or name in known.events or name in facts, name
            if name in known.metrics:
                assert "routeros_api" in known.metrics[name].sources


NONSENSE = (
    "", "9" * 30, "9" * 400 + "w", "a\0b", "x" * 300, "true", "no", "1", "-5", "ether1", "established", "7.2", "1w2d",
    "ü", "Full", "*1", "wlan", "lte", "up", "10Gbps", "1/2", "-62@1Mbps", "10.0.0.1-10.0.0.9", "psu1-state", "fail",
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([V6, (7, 5), V7]), st.integers(0, 1 << 32))
def test_no_collector_breaks_on_rows_of_nonsense(version: tuple[int, int], number: int) -> None:
    """Any field may be missing or hold any text; what is published is declared, of the right type, never invented."""
    known, chance = registry(), Random(number)
    for collector in catalogue():
        for at in (1.0, 31.0, 61.0):
            replies: dict[Question, Reply] = {}
            for question in collector.ask(version):
                assert (question.command if isinstance(question, Aimed) else question) in may_ask(collector)
                assert question.words  # nothing that a router says makes a command that may not be sent
                rows = [
                    {name: chance.choice(NONSENSE) for name in question.fields if chance.random() < 0.8}
                    for _ in range(chance.randrange(5))
                ]
                replies[question] = answer(*filter(None, rows), sent=at, took=0.1, ret=chance.choice((None, *NONSENSE)))
            if not replies:
                continue
            found = collector.publish(replies, Moment(wall_offset=1e9, uptime=at))
            assert set(found.device) | set(found.about) <= set(collector.publishes)
            assert None not in found.device.values()
            described = {(entity.entity_type, entity.key) for entity in found.entities}
            for table in found.tables:
                assert set(table.columns) <= set(collector.publishes)
                assert len(set(table.keys)) == len(table.keys)
                assert {len(values) for values in table.columns.values()} == {len(table.keys)}
                assert table.entity_type == "interface" or {(table.entity_type, k) for k in table.keys} <= described
                for name, values in table.columns.items():
                    assert known.metrics[name].entity_type == table.entity_type
                    assert all(0 < len(key) <= 255 and key.isprintable() for key in table.keys)
                    assert msgspec.msgpack.encode(values)
                    for value in values:
                        assert known.metrics[name].type != "bool" or value is None or isinstance(value, bool)
            assert {event.name for event in found.events} <= set(collector.publishes)


# interfaces


def test_rates_over_the_interval() -> None:
    collector = Interfaces()
    first = publish(collector, answer(port("ether1", 1000, 500), sent=0), moment=Moment(0, uptime=100)).tables[0]
    assert "interface.rx_bps" not in first.columns
    second = publish(collector, answer(port("ether1", 4750, 500), sent=30), moment=Moment(0, uptime=130)).tables[0]
    assert second.interval_s == 30
    assert column(second, "interface.rx_bps") == {"ether1": 1000}
    assert column(second, "interface.tx_bps") == {"ether1": 0}
    assert second.reset == []
    assert second.quality == "good"


def test_absent_counters_stay_absent() -> None:
    collector = Interfaces()
    publish(collector, answer(port("ether1", None, 5), sent=0), moment=Moment(0, uptime=1))
    table = publish(collector, answer(port("ether1", None, 10), sent=8), moment=Moment(0, uptime=9)).tables[0]
    assert "interface.rx_bps" not in table.columns
    assert "interface.rx_errors_total" not in table.columns
    assert column(table, "interface.tx_bps") == {"ether1": 5}


def test_a_decrease_is_a_reset_of_that_interface_only() -> None:
    collector = Interfaces()
    publish(collector, answer(port("ether1", 1000, 10), port("ether2", 1000, 10)), moment=Moment(0, uptime=1))
    found = publish(
        collector, answer(port("ether1", 999, 20), port("ether2", 2000, 20), sent=10), moment=Moment(0, uptime=11)
    )
    table = found.tables[0]
    assert table.reset == [0]
    assert column(table, "interface.rx_bps") == {"ether1": None, "ether2": 800}
    assert column(table, "interface.tx_bps") == {"ether1": None, "ether2": 8}
    assert found.events == [Happening("interface.counter.reset", "interface", "info", "ether1")]


def test_a_reboot_gives_no_rates_and_no_flood_of_reset_events() -> None:
    collector = Interfaces()
    publish(collector, answer(port("ether1", 1000, 10)), moment=Moment(0, uptime=500))
    found = publish(collector, answer(port("ether1", 5, 5), sent=60), moment=Moment(0, uptime=20, rebooted=True))
    assert found.tables[0].interval_s is None
    assert found.tables[0].reset == [0]
    assert found.events == []


def test_a_port_that_vanished_and_returned_gives_no_spike() -> None:
    collector = Interfaces()
    for at, rows in (
        (0, [port("ether1", 10), port("lte1", 10)]),
        (10, [port("ether1", 20)]),
        (20, [port("ether1", 30), port("lte1", 10**12)]),
    ):
        found = publish(collector, answer(*rows, sent=at), moment=Moment(0, uptime=at + 1))
    assert column(found.tables[0], "interface.rx_bps") == {"ether1": 8, "lte1": None}


def test_where_the_clocks_disagree_the_routers_counts_and_it_is_said() -> None:
    collector = Interfaces()
    publish(collector, answer(port("ether1", 0), sent=0), moment=Moment(0, uptime=100))
    table = publish(collector, answer(port("ether1", 1000), sent=30), moment=Moment(0, uptime=110)).tables[0]
    assert table.interval_s == 10
    assert table.quality == "estimated"


def test_key_is_the_default_name_and_stays_unique() -> None:
    rows = [port("uplink") | {"default-name": "ether1"}, port("ether1", type="bridge"), port("no")]
    found = publish(Interfaces(), answer(*rows))
    assert found.tables[0].keys == ["ether1", "ether1 (bridge)", "no"]
    assert next((entity.key, entity.name) for entity in found.entities) == ("ether1", "uplink")


def test_subscriber_interfaces_are_left_out() -> None:
    found = publish(Interfaces(), answer(port("ether1"), port("<pppoe-jane>", type="pppoe-in")))
    assert found.tables[0].keys == ["ether1"]
    assert all("jane" not in entity.name for entity in found.entities)


def test_link_change_is_an_event() -> None:
    collector = Interfaces()
    publish(collector, answer(port("ether1")))
    found = publish(collector, answer(port("ether1", running="false"), sent=30))
    assert found.events == [Happening("interface.oper.changed", "interface", "warning", "ether1", "up", "down")]


# bgp


def test_bgp_v6() -> None:
    found = publish(
        Bgp(),
        answer(
            {"name": "a", "remote-address": "192.0.2.1", "remote-as": "64500", "state": "established", "uptime": "1m",
             "prefix-count": "5", "disabled": "false"},
            {"name": "b", "remote-address": "192.0.2.2", "state": "opensent", "disabled": "false"},
            {"name": "c", "remote-address": "192.0.2.3", "disabled": "true", "state": "idle"},
        ),
        version=V6,
    )  # fmt: skip
    table = found.tables[0]
    assert column(table, "bgp.peer.up") == {"a": True, "b": False, "c": None}
    assert column(table, "bgp.peer.state")["b"] == BGP_STATES.index("opensent")
    assert column(table, "bgp.peer.prefixes_in") == {"a": 5, "b": None, "c": None}
    assert column(table, "bgp.peer.uptime_seconds") == {"a": 60, "b": None, "c": None}
    assert found.entities[0].attributes == {"remote_address": "192.0.2.1", "remote_as": 64500}


def test_bgp_v7_joins_sessions_with_what_is_configured() -> None:
    connections = [
        {"name": "up", "remote.address": "192.0.2.1/32", "remote.as": "64500"},
        {"name": "gone", "remote.address": "192.0.2.2"},
        {"name": "cached", "remote.address": "192.0.2.3"},
        {"name": "off", "remote.address": "192.0.2.4", "disabled": "true"},
        {"name": "listener", "remote.address": "198.51.100.0/24"},
        {"name": "up-2", "remote.address": "192.0.2.9"},
    ]
    sessions = [
        {"name": "up-1", "remote.address": "192.0.2.1", "established": "true", "uptime": "5s", "prefix-count": "3"},
        {"name": "cached-1", "remote.address": "192.0.2.3", "prefix-count": "0"},
        {"name": "off-1", "remote.address": "192.0.2.4", "established": "true"},
        {"name": "listener-1", "remote.address": "198.51.100.7", "established": "true"},
        {"name": "up-2-1", "remote.address": "192.0.2.9", "established": "true"},
    ]
    peers = {peer.name: peer for peer in peers_v7(connections, sessions)}
    assert {name: peer.state for name, peer in peers.items()} == {
        "up": "established", "gone": "idle", "cached": "idle", "off": None, "listener-1": "established",
        "up-2": "established",
    }  # fmt: skip
    assert peers["up"].prefixes_in == 3
    assert peers["up"].remote_as == 64500
    assert peers["cached"].prefixes_in is None


def test_bgp_v7_join_does_not_depend_on_session_names_alone() -> None:
    connections = [
        {"name": "a", "remote.address": "192.0.2.1"},  # two connections to one address: names decide
        {"name": "b", "remote.address": "192.0.2.1/32"},
        {"name": "c", "remote.address": "2001:db8::1/128"},
    ]
    sessions = [
        {"name": "b-1", "remote.address": "192.0.2.1", "established": "true"},
        {"name": "a-1", "remote.address": "192.0.2.1"},
        {"name": "anything", "remote.address": "2001:db8::1", "established": "true"},
    ]
    states = {peer.name: peer.state for peer in peers_v7(connections, sessions)}
    assert states == {"a": "idle", "b": "established", "c": "established"}


def test_bgp_change_is_an_event_and_a_disabled_peer_none() -> None:
    collector = Bgp()
    connection = {"name": "a", "remote.address": "192.0.2.1"}
    session = {"name": "a-1", "remote.address": "192.0.2.1", "established": "true"}
    publish(collector, answer(connection), answer(session))
    lost = publish(collector, answer(connection), answer())
    assert lost.events == [Happening("bgp.peer.state.changed", "bgp_peer", "critical", "a", "established", "idle")]
    disabled = publish(collector, answer(connection | {"disabled": "true"}), answer())
    assert disabled.events == []


# ospf


def neighbor(state: str = "Full", **more: str) -> dict[str, str]:
    return {"router-id": "10.255.0.2", "address": "10.0.0.2", "interface": "ether1", "state": state} | more


def test_ospf_neighbour_that_vanishes_is_down_until_it_returns() -> None:
    collector = Ospf()
    key = "10.255.0.2@ether1"
    up = publish(collector, answer(neighbor(adjacency="1h"))).tables[0]
    assert column(up, "ospf.neighbor.up") == {key: True}
    assert column(up, "ospf.neighbor.uptime_seconds") == {key: 3600}
    lost = publish(collector, answer(sent=60))
    assert column(lost.tables[0], "ospf.neighbor.up") == {key: False}
    assert column(lost.tables[0], "ospf.neighbor.state") == {key: OSPF_STATES.index("down")}
    assert column(lost.tables[0], "ospf.neighbor.uptime_seconds") == {key: None}
    assert [(event.old, event.new) for event in lost.events] == [("full", "down")]
    assert [(e.old, e.new) for e in publish(collector, answer(neighbor(), sent=120)).events] == [("down", "full")]


def test_ospf_expectation_survives_a_restart_and_is_forgotten_after_a_week() -> None:
    before = Ospf()
    publish(before, answer(neighbor()))
    after = Ospf()
    after.restore(before.learned())
    assert column(publish(after, answer()).tables[0], "ospf.neighbor.up") == {"10.255.0.2@ether1": False}
    later = publish(after, answer(), moment=Moment(wall_offset=time.time() + FORGET_SECONDS + 1))
    assert later.tables == []


@pytest.mark.parametrize(
    ("row", "version", "up"),
    [
        (neighbor("2-Way", **{"dr-address": "10.0.0.8", "backup-dr-address": "10.0.0.9"}), V6, True),
        (neighbor("2-Way", **{"dr-address": "10.0.0.2", "backup-dr-address": "10.0.0.9"}), V6, False),
        (neighbor("TwoWay"), V7, True),
        (neighbor("ExStart"), V7, False),
        (neighbor("Strange"), V7, None),
    ],
)
def test_ospf_two_way(row: dict[str, str], version: tuple[int, int], up: bool | None) -> None:
    table = publish(Ospf(), answer(row), version=version).tables[0]
    assert column(table, "ospf.neighbor.up") == {"10.255.0.2@ether1": up}


def test_router_without_ospf_publishes_nothing() -> None:
    assert publish(Ospf(), answer()) == Findings()


# counts


def test_counts() -> None:
    collector = PppSessions()
    assert publish(collector, answer(ret="800", sent=0)).device == {"pppoe.sessions.active": 800}
    assert publish(collector, answer(ret="740", sent=120)).device == {
        "pppoe.sessions.active": 740, "pppoe.sessions.churn_per_min": 30.0,
    }  # fmt: skip
    assert publish(facts()["dhcp"], answer(ret="0")).device == {"dhcp.leases.active": 0}
    assert publish(facts()["connections"], answer(ret=None)).device == {}
    assert publish(facts()["connections"], answer(ret="many")).device == {}


# history


def entry(number: int, action: str = "changed ip address", time: str = "14:27:01") -> dict[str, str]:
    return {".id": f"*{number:X}", "by": "admin", "action": action, "time": time}


def said(found: Findings) -> list[str | None]:
    return [event.new for event in found.events]


def test_history_tells_new_changes_once() -> None:
    collector = History()
    assert publish(collector, answer(entry(1), entry(2))).events == []
    added = publish(collector, answer(entry(1), entry(2), entry(3, "changed <script>\0 settings")))
    assert said(added) == ["admin: changed <script> settings (14:27:01)"]
    tomorrow = answer(entry(1, time="jul/19 14:27:01"), entry(3, "changed <script>\0 settings"))
    assert said(publish(collector, tomorrow)) == []


def test_history_across_reboot_and_restart() -> None:
    collector = History()
    publish(collector, answer(entry(1)))
    rebooted = publish(collector, answer(entry(1, "renumbered")), moment=Moment(0, uptime=5, rebooted=True))
    assert said(rebooted) == []
    assert said(publish(collector, answer(entry(1, "renumbered"), entry(2)))) == [
        "admin: changed ip address (14:27:01)"
    ]
    after = History()
    after.restore(collector.learned())
    assert said(publish(after, answer(entry(1, "renumbered"), entry(2), entry(3)))) == [
        "admin: changed ip address (14:27:01)"
    ]


def test_history_of_a_busy_script_is_cut() -> None:
    collector = History()
    publish(collector, answer())
    assert said(publish(collector, answer(*map(entry, range(120)))))[-1] == "and 70 more changes"


# system


def test_resource() -> None:
    row = {
        "uptime": "1m",
        "version": "7.22.2 (stable)",
        "cpu-load": "7",
        "free-memory": "600",
        "total-memory": "1000",
        "board-name": "CHR",
    }
    found = publish(facts()["resource"], answer(row))
    assert found.device == {
        "device.uptime_seconds": 60.0, "device.cpu_pct": 7.0,
        "device.mem_total_bytes": 1000, "device.mem_used_bytes": 400,
    }  # fmt: skip
    assert found.about == {"routeros": "7.22.2 (stable)", "model": "CHR"}


def test_identity_and_routerboard() -> None:
    assert publish(facts()["identity"], answer({"name": "no"})).about == {"identity": "no"}
    assert publish(facts()["routerboard"], answer({"routerboard": "false"})).about == {}
    assert publish(facts()["routerboard"], answer({"model": "RB5009", "serial-number": "123"})).about == {
        "model": "RB5009",
        "serial": "123",
    }


def test_health_of_both_kinds() -> None:
    readings = {"psu1-state": "fail", "cpu-temperature": "51", "voltage": "24.1"}
    rows = [{"name": name, "value": value, "type": ""} for name, value in readings.items()]
    assert publish(Health(), answer(*rows)).device == {"device.temp_c": 51.0, "device.voltage_v": 24.1}
    v6 = {"voltage": "24.1", "temperature": "35", "cpu-temperature": "60"}
    assert publish(Health(), answer(v6), version=V6).device == {"device.temp_c": 35.0, "device.voltage_v": 24.1}
    assert publish(Health(), answer({"state": "enabled"}), version=V6).device == {}
    assert publish(Health(), answer()).device == {}


@pytest.mark.parametrize(("offset", "shift"), [("+03:00", 3.0), ("-03:30", -3.5), ("+00:00", 0.0)])
@pytest.mark.parametrize("style", ["%Y-%m-%d", "%b/%d/%Y"])
def test_clock_skew_is_zone_safe(offset: str, shift: float, style: str) -> None:
    now = datetime(2026, 3, 29, 1, 30, 10, tzinfo=UTC)
    local = now + timedelta(hours=shift) + timedelta(seconds=42)
    row = {"date": local.strftime(style).lower(), "time": local.strftime("%H:%M:%S"), "gmt-offset": offset}
    found = publish(Clock(), answer(row, sent=5.0, took=0.2), moment=Moment(wall_offset=now.timestamp() - 5.1))
    assert found.device == {
        "device.clock.skew_seconds": 42.5, "device.clock.uncertainty_seconds": 1.1, "device.clock.lost": False,
    }  # fmt: skip


def test_a_lost_clock_is_said_and_an_unreadable_one_is_unknown() -> None:
    assert publish(Clock(), answer({"date": "jan/02/1970", "time": "00:00:05", "gmt-offset": "+00:00"})).device == {
        "device.clock.lost": True
    }
    assert publish(Clock(), answer({"date": "?", "time": "00:00:05", "gmt-offset": "+00:00"})).device == {}


NTP_V6 = {"enabled": "yes", "active-server": "10.0.0.1", "poll-interval": "15m"}


@pytest.mark.parametrize(
    ("row", "version", "synced"),
    [
        ({"enabled": "true", "status": "synchronized"}, V7, True),
        ({"enabled": "true", "status": "waiting"}, V7, False),
        ({"enabled": "false", "status": "stopped"}, V7, False),
        ({"enabled": "true"}, V7, None),
        (NTP_V6 | {"last-update-before": "12m29s740ms"}, V6, True),
        (NTP_V6 | {"last-update-before": "2h"}, V6, False),
        ({"enabled": "yes"}, V6, False),
        ({}, V6, None),
    ],
)  # fmt: skip
def test_ntp(row: dict[str, str], version: tuple[int, int], synced: bool | None) -> None:
    expected = {} if synced is None else {"device.ntp.synced": synced}
    assert publish(Ntp(), answer(row), version=version).device == expected


def test_every_command_belongs_to_a_collector() -> None:
    asked = {question for collector in catalogue() for question in may_ask(collector)}
    assert asked == set(Command)


# ports


INTERFACES = [port("ether1"), port("uplink") | {"default-name": "sfp1"}]


def rounds(
    collector: Collector, told: dict[str, list[dict[str, str]] | str], times: int = 2, version: Version = V7
) -> Findings:
    """What is published once the collector has asked so often; `told` by menu, a text is a count."""
    found = Findings()
    for _ in range(times):
        replies: dict[Question, Reply] = {}
        for question in collector.ask(version):
            said = told.get(question.menu, [])
            replies[question] = answer(ret=said) if isinstance(said, str) else answer(*said)
        found = collector.publish(replies, Moment(0.0))
    return found


PORTS: dict[str, list[dict[str, str]] | str] = {
    "/interface": INTERFACES,
    "/interface/ethernet": [{".id": "*1", "name": "ether1"}, {".id": "*A", "name": "uplink"}],
}


def test_light_is_absent_where_no_module_measures() -> None:
    told: dict[str, list[dict[str, str]] | str] = PORTS | {
        "/interface/ethernet/monitor": [
            {"name": "ether1", "status": "no-link"},
            {
                "name": "uplink",
                "rate": "2.5Gbps",
                "full-duplex": "true",
                "sfp-rx-power": "-7.412",
                "sfp-rx-loss": "false",
            },
        ]
    }
    collector = Ethernet()
    assert rounds(collector, told, times=1).tables == []
    assert collector.hurry  # it knows the ports now and need not wait for the next slow turn
    (table,) = rounds(collector, told, times=1).tables
    assert not collector.hurry
    assert column(table, "interface.link_bps") == {"ether1": None, "sfp1": 2_500_000_000}
    assert column(table, "optics.rx_power_dbm") == {"ether1": None, "sfp1": -7.412}
    assert "optics.tx_power_dbm" not in table.columns  # nobody tells it: absent, not 0


def test_monitored_ports_are_named_by_id_only() -> None:
    collector = Ethernet()
    strange: list[dict[str, str]] = [{".id": "*1"}, {".id": "*2,*3"}, {".id": "ether1"}, {".id": "*"}, {"name": "x"}]
    rounds(collector, {"/interface/ethernet": strange}, times=1)
    assert collector.ask(V7)[2:] == (Aimed(Command.ETHERNET_MONITOR, ("*1",)),)


@pytest.mark.parametrize(
    ("name", "kind", "version", "menu", "row"),
    [
        ("wireless", "wlan", V6, "/interface/wireless/registration-table", {"signal-strength": "-62@1Mbps"}),
        ("wifi", "wifiwave2", (7, 5), "/interface/wifiwave2/registration-table", {"signal": "-62"}),
        ("wifi", "wifi", V7, "/interface/wifi/registration-table", {"signal": "-62"}),
        ("capsman", "cap", V6, "/caps-man/registration-table", {"rx-signal": "-62"}),
    ],
)
def test_clients_of_radios_are_counted(name: str, kind: str, version: Version, menu: str, row: dict[str, str]) -> None:
    collector = next(radio for radio in radios() if radio.name == name)
    told: dict[str, list[dict[str, str]] | str] = {
        "/interface": [port("r1") | {"type": kind}, port("r2") | {"type": kind}, port("ether1")],
        menu: [row | {"interface": "r1"}, row | {"interface": "r1", next(iter(row)): "-70"}],
    }
    assert collector.ask(version) == (Command.INTERFACES,)
    (table,) = rounds(collector, told, version=version).tables
    assert column(table, "radio.clients") == {"r1": 2, "r2": 0}
    assert column(table, "radio.signal_dbm") == {"r1": -66, "r2": None}
    assert column(table, "radio.signal_worst_dbm") == {"r1": -70, "r2": None}


def test_a_router_without_radios_is_not_asked_about_clients() -> None:
    stacks: list[Collector] = [*radios(), Lte()]
    for collector in stacks:
        rounds(collector, {"/interface": [port("ether1")]})
        assert collector.ask(V7) == (Command.INTERFACES,)
        assert not collector.hurry


@pytest.mark.parametrize(("version", "unit"), [(V6, "dBm"), (V7, "")])
def test_lte_signal(version: Version, unit: str) -> None:
    monitor = {"registration-status": "registered", "current-operator": "Op", "rsrp": f"-95{unit}", "sinr": "11"}
    told: dict[str, list[dict[str, str]] | str] = {
        "/interface": [port("lte1") | {"type": "lte"}],
        "/interface/lte": [{".id": "*7", "name": "lte1"}],
        "/interface/lte/info": [monitor],
        "/interface/lte/monitor": [monitor],
    }
    found = rounds(Lte(), told, times=3, version=version)
    assert found.tables[0].columns == {"lte.registered": [True], "lte.rsrp_dbm": [-95.0], "lte.sinr_db": [11.0]}
    assert found.entities[0].attributes == {"operator": "Op", "technology": None}


def test_neighbours_are_links_only() -> None:
    told: dict[str, list[dict[str, str]] | str] = {
        "/interface": [port("ether1"), port("ether2"), port("ether3")],
        "/ip/neighbor": [
            {"interface": "ether1,bridge", "identity": "CORE\0 2", "interface-name": "sfp1"},
            {"interface": "ether2", "identity": "Smith, J."},
            {"interface": "ether2", "identity": "Jones"},
            {"interface": "<pppoe-smith>", "identity": "Smith"},
        ],
    }
    collector = Neighbors()
    found = rounds(collector, told, times=1)
    assert found.device == {"device.neighbors": 4}
    assert [(e.key, e.name, e.attributes["remote_interface"]) for e in found.entities] == [("ether1", "CORE 2", "sfp1")]
    gone = rounds(collector, told | {"/ip/neighbor": []}, times=1)
    assert column(gone.tables[0], "neighbor.up") == {"ether1": False}
    assert rounds(collector, {"/interface": [port("ether2")], "/ip/neighbor": []}, times=1).tables == []


# listings


def test_netwatch_unknown_is_not_down() -> None:
    collector = Listed(NETWATCH)
    rows = [
        {"host": "192.0.2.1", "status": "up", "disabled": "false"},
        {"host": "192.0.2.1", "type": "icmp", "status": "down", "rtt-avg": "9ms445us", "loss-percent": "20"},
        {"host": "192.0.2.2", "status": "unknown"},
        {"host": "192.0.2.3", "status": "down", "disabled": "true"},
        {"name": "dns", "host": "192.0.2.4", "type": "dns", "status": "up"},
    ]
    (table,) = publish(collector, answer(*rows)).tables
    assert column(table, "netwatch.up") == {
        "192.0.2.1": True, "192.0.2.1 icmp": False, "192.0.2.2": None, "192.0.2.3": None, "dns": True,
    }  # fmt: skip
    assert column(table, "netwatch.rtt_ms")["192.0.2.1 icmp"] == 9.445
    changed = publish(collector, answer({"host": "192.0.2.1", "status": "down"}, {"host": "192.0.2.2", "status": "up"}))
    assert changed.events == [Happening("netwatch.changed", "netwatch", "warning", "192.0.2.1", "up", "down")]


def test_bfd_is_in_v6_and_again_from_7_11_on() -> None:
    collector = Listed(BFD)
    assert [collector.ask(version) for version in (V6, (7, 10), (7, 11))] == [
        (Command.BFD_V6,), (), (Command.BFD_V7,),
    ]  # fmt: skip
    row = {"address": "10.0.0.1", "interface": "ether1", "state": "up"}
    (table,) = publish(collector, answer(row), version=V6).tables
    assert table.columns == {"bfd.session.up": [True]}


# counts and sums


def test_queues_are_summed_unless_there_are_too_many() -> None:
    rows = [{"dropped": "1/20", "queued-bytes": "0/1500"}, {"dropped": "5/0", "disabled": "true"}, {"dropped": "?"}]
    collector = Queues()
    replies: dict[Question, Reply] = {Command.QUEUE_COUNT: answer(ret="3"), Command.QUEUES: answer(*rows)}
    first = collector.publish({Command.QUEUE_COUNT: answer(ret="3")}, Moment(0.0))
    assert first.device == {"queue.simple.count": 3}
    assert collector.hurry
    assert collector.ask(V7) == tuple(replies)
    assert collector.publish(replies, Moment(0.0)).device == {
        "queue.simple.count": 3, "queue.simple.dropped_total": 21, "queue.simple.queued_bytes": 1500,
    }  # fmt: skip
    collector.publish(replies | {Command.QUEUE_COUNT: answer(ret=str(Queues.MOST + 1))}, Moment(0.0))
    assert collector.ask(V7) == (Command.QUEUE_COUNT,)


def test_how_full_a_pool_is() -> None:
    told: dict[str, list[dict[str, str]] | str] = {
        "/ip/pool": [
            {"name": "a", "ranges": "10.0.0.1-10.0.0.100,10.1.0.0/24"},
            {"name": "b", "ranges": "?"},
            {"name": "a\0"},
        ],
        "/ip/pool/used": "89",
    }
    (table,) = rounds(Pools(), told).tables
    assert column(table, "pool.size") == {"a": 356, "b": None}
    assert column(table, "pool.used") == {"a": 89, "b": 89}
    assert column(table, "pool.used_pct") == {"a": 25.0, "b": None}


def test_sessions_by_way_of_login() -> None:
    ways = [{"via": way} for way in ("api", "api-ssl", "winbox", "rest-api", "ssh")]
    assert publish(facts()["users"], answer(*ways)).device == {"device.sessions.api": 3, "device.sessions.people": 2}


# the board


def test_sensors_of_v6_by_name_and_of_v7_by_unit() -> None:
    v6 = {
        "temperature": "41",
        "fan1-speed": "3200",
        "psu1-state": "ok",
        "psu2-state": "fail",
        "power-consumption": "28.1",
    }
    units = {"temperature": "C", "fan1-speed": "RPM", "power-consumption": "W"}
    v7 = [{"name": name, "value": value, "type": units.get(name, "")} for name, value in v6.items()]
    for version, rows in ((V6, [v6]), (V7, v7)):
        found = publish(Health(), answer(*rows), version=version)
        (table,) = found.tables
        assert table.columns == {
            "sensor.ok": [None, None, True, False, None],
            "sensor.temp_c": [41, None, None, None, None],
            "sensor.fan_rpm": [None, 3200, None, None, None],
            "sensor.power_w": [None, None, None, None, 28.1],
        }
        assert found.device["device.temp_c"] == 41


def test_firmware_packages_and_mode() -> None:
    board = {"model": "x", "current-firmware": "7.16", "upgrade-firmware": "7.18"}
    assert publish(facts()["routerboard"], answer(board)).device == {"device.firmware.upgrade_pending": True}
    assert publish(facts()["routerboard"], answer({"routerboard": "false"})).device == {}
    packages = [
        {"version": "7.16"},
        {"version": "7.15"},
        {"version": "7.16", "available": "true"},
        {"disabled": "true"},
    ]
    assert publish(facts()["packages"], answer(*packages)).device == {
        "device.packages.enabled": 2,
        "device.packages.versions": 2,
    }
    assert facts()["device-mode"].ask(V6) == ()
    assert publish(facts()["device-mode"], answer({"mode": "home", "flagged": "yes"})).device == {
        "device.flagged": True
    }
    assert publish(facts()["device-mode"], answer({"mode": "home"})).device == {}


@pytest.mark.parametrize(
    ("version", "row", "device"),
    [
        (V7, {"enabled": "true", "status": "synchronized", "system-offset": "-0.512 ms", "synced-stratum": "3"},
         {"device.ntp.synced": True, "device.ntp.offset_ms": -0.512, "device.ntp.stratum": 3}),
        (V6, NTP_V6 | {"last-update-before": "1m", "last-adjustment": "-29ms481us"},
         {"device.ntp.synced": True, "device.ntp.offset_ms": -29.481}),
        (V7, {"enabled": "true", "status": "waiting", "system-offset": "5"}, {"device.ntp.synced": False}),
    ],
)  # fmt: skip
def test_ntp_details(version: Version, row: dict[str, str], device: dict[str, Any]) -> None:
    assert publish(Ntp(), answer(row), version=version).device == device
