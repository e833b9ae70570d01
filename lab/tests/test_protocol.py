"""The protocol as clients meet it: login, tags, queries, counts, cancel, traps; and what 6.49 and 7.x answer."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ispvm_contract import seed as seeds
from ispvm_lab import formats
from ispvm_lab.query import QueryError, matches
from ispvm_lab.wire import FramingError, encode_row, encode_sentence, encode_word, read_sentence
from lab_clients import TIMEOUT, Net, Raw
from librouteros.exceptions import TrapError
from librouteros.protocol import decode_length, encode_length
from librouteros.query import Key, Or

EDGE, CORE, AGG, OLD, ACCESS = "EDGE-NTH-1", "CORE-NTH-1", "AGG-HBR-1", "AGG-HIL-1", "ACCESS-HIL-1"


# Framing


@pytest.mark.parametrize("length", [0, 1, 0x7F, 0x80, 0x3FFF, 0x4000, 0x1FFFFF, 0x200000])
def test_lengths_as_librouteros_writes_them(length: int) -> None:
    prefix = encode_word(b"x" * length)[: -length or None]
    assert prefix == encode_length(length)
    assert decode_length(prefix) == length


async def _read(data: bytes) -> list[list[bytes]]:
    reader = asyncio.StreamReader()
    reader.feed_data(data)
    reader.feed_eof()
    sentences = []
    while (words := await read_sentence(reader)) is not None:
        sentences.append(words)
    return sentences


@given(st.lists(st.lists(st.binary(min_size=1, max_size=300), min_size=1, max_size=4), max_size=4))
def test_sentences_survive(sentences: list[list[bytes]]) -> None:
    assert asyncio.run(_read(b"".join(encode_sentence(*words) for words in sentences))) == sentences


@pytest.mark.parametrize("data", [b"\xff", b"\x05abc", b"\xf0\xff\xff\xff\xff", b"\x02ab"])
async def test_broken_framing(data: bytes) -> None:
    with pytest.raises(FramingError):
        await _read(data)


async def test_a_row_is_a_sentence() -> None:
    tail = encode_word(b".tag=7")
    (words,) = await _read(encode_row({"name": "ether1", "comment": "x" * 200}, tail))
    assert words == [b"!re", b"=name=ether1", b"=comment=" + b"x" * 200, b".tag=7"]


# Login


@pytest.mark.parametrize("router", [EDGE, OLD])
@pytest.mark.parametrize("secure", [False, True])
async def test_plain_login_on_both_ports(net: Net, router: str, secure: bool) -> None:
    assert await net.ask(router, "/system/identity/print", secure=secure) == [{"name": router}]


async def test_wrong_password_and_user(net: Net) -> None:
    client = await net.raw(CORE, login=False)
    for user, password in (("ispvm", "wrong"), ("admin", net.password), ("ispvm", "")):
        assert await client.talk("/login", f"=name={user}", f"=password={password}") == [
            ["!trap", "=message=invalid user name or password (6)"],
            ["!done"],
        ]
    assert await client.talk("/system/identity/print") == [["!fatal", "not logged in"]]
    assert await client.end() == b""
    client.close()
    log = [row["message"] for row in await net.ask(CORE, "/log/print")]
    assert "login failure for user admin from 127.0.0.1 via api" in log


def _before_6_43(seed: seeds.Seed) -> None:
    seed.devices[-1].routeros = "6.42.12"


@pytest.mark.parametrize("change_seed", [_before_6_43])
async def test_challenge_before_6_43(net: Net) -> None:
    def run(password: str) -> list[dict[str, Any]]:
        api = net.connect(ACCESS, old=True, password=password)
        try:
            return list(api("/system/identity/print"))
        finally:
            api.close()

    assert await asyncio.to_thread(run, net.password) == [{"name": ACCESS}]
    with pytest.raises(TrapError, match="invalid user name"):
        await asyncio.to_thread(run, "wrong")
    client = await net.raw(ACCESS, login=False)
    ((done, challenge),) = await client.talk("/login", "=name=ispvm", f"=password={net.password}")
    assert (done, len(challenge)) == ("!done", len("=ret=") + 32)  # an old router answers the new way so
    client.close()


async def test_quit(net: Net) -> None:
    client = await net.raw(CORE)
    assert await client.talk("/quit") == [["!fatal", "session terminated on request"]]
    assert await client.end() == b""
    client.close()


# Commands


async def test_tags_are_on_every_sentence_and_commands_overlap(net: Net) -> None:
    client = await net.raw(CORE)
    client.send("/interface/monitor-traffic", "=interface=ether1", ".tag=slow")
    client.send("/system/identity/print", ".tag=quick")
    seen: dict[str, list[str]] = {"slow": [], "quick": []}
    while "!done" not in seen["quick"]:
        words = await client.sentence()
        seen[words[-1].removeprefix(".tag=")].append(words[0])
    assert seen["quick"] == ["!re", "!done"]
    assert "!done" not in seen["slow"]
    client.send("/cancel", "=tag=slow", ".tag=end")
    replies = [await client.sentence() for _ in range(3)]
    assert replies == [
        ["!trap", "=category=2", "=message=interrupted", ".tag=slow"],
        ["!done", ".tag=slow"],
        ["!done", ".tag=end"],
    ]
    client.close()


async def test_many_tags_at_once(net: Net) -> None:
    client = await net.raw(ACCESS)
    for number in range(20):
        client.send("/interface/print", "=.proplist=name", f".tag={number}")
    rows: dict[str, int] = {}
    ends = 0
    while ends < 20:
        words = await client.sentence()
        ends += words[0] == "!done"
        rows[words[-1]] = rows.get(words[-1], 0) + (words[0] == "!re")
    assert len(rows) == 20
    assert len(set(rows.values())) == 1
    client.close()


async def test_proplist_in_order_and_empty_rows(net: Net) -> None:
    client = await net.raw(CORE)
    assert await client.talk("/system/resource/print", "=.proplist=platform,board-name") == [
        ["!re", "=platform=MikroTik", "=board-name=CCR2216-1G-12XS-2XQ"],
        ["!done"],
    ]
    assert await client.talk("/interface/print", "=.proplist=nothing", "?name=ether1") == [["!re"], ["!done"]]
    client.close()


@pytest.mark.parametrize(("router", "ending"), [(CORE, ["!empty", "!done"]), (EDGE, ["!done"]), (OLD, ["!done"])])
async def test_no_rows(net: Net, router: str, ending: list[str]) -> None:
    client = await net.raw(router)  # 7.18.2, 7.16.2 and 6.49.17
    assert [words[0] for words in await client.talk("/interface/print", "?name=none")] == ending
    client.close()


async def test_count_only(net: Net) -> None:
    client = await net.raw(ACCESS)
    for path in ("/ppp/active", "/ip/dhcp-server/lease", "/ip/firewall/connection"):
        ((done, count),) = await client.talk(f"{path}/print", "=count-only=")
        rows = await client.rows(f"{path}/print", "=.proplist=.id")
        assert done == "!done"
        assert int(count.removeprefix("=ret=")) == pytest.approx(len(rows), abs=2)
    ((_, bound),) = await client.talk("/ip/dhcp-server/lease/print", "=count-only=", "?status=bound")
    assert 25 <= int(bound.removeprefix("=ret=")) <= 38
    assert await client.talk("/ppp/active/print", "=count-only=", "?name=none") == [["!done", "=ret=0"]]
    client.close()


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["/no/such/print"], "no such command prefix"),
        (["/routing/bgp/peer/print"], "no such command prefix"),  # 7.x
        (["/routing/print"], "no such command"),
        (["/interface/explode"], "no such command"),
        (["/interface/print", "=colour=blue"], "unknown parameter"),
        (["/interface/set", "=.id=*1", "=disabled=yes"], "not enough permissions (9)"),
        (["/system/reboot"], "not enough permissions (9)"),
        (["/interface/ethernet/monitor", "=numbers=ether77", "=once="], "no such item"),
    ],
)
async def test_traps_end_with_done(net: Net, command: list[str], message: str) -> None:
    client = await net.raw(CORE)
    assert await client.talk(*command) == [["!trap", f"=message={message}"], ["!done"]]
    assert await client.rows("/system/identity/print") == [{"name": CORE}]
    client.close()


# Queries


ROW = {"name": "ether1", "type": "ether", "mtu": "1500", "running": "true"}


@pytest.mark.parametrize(
    ("queries", "passes"),
    [
        (["name"], True),
        (["-name"], False),
        (["-comment"], True),
        (["name=ether1"], True),
        (["=name=ether1"], True),
        (["name=ether2"], False),
        ([">mtu=900"], True),
        (["<mtu=900"], False),
        (["running=yes"], True),
        (["disabled=false"], True),
        (["dynamic=true"], False),
        (["type=ether", "type=vlan", "#|"], True),
        (["type=ether", "type=vlan", "#&"], False),
        (["type=vlan", "#!"], True),
        (["type=vlan", "type=vpn", "#|!"], True),
        (["name=ether1", "type=vlan"], False),
        (["name=ether1", "type=vlan", "#1"], True),
        ([], True),
    ],
)
def test_queries(queries: list[str], passes: bool) -> None:
    assert matches(ROW, queries) is passes


@pytest.mark.parametrize("queries", [["#|"], ["name", "#&"], ["=name"], ["name", "#x"], [""]])
def test_bad_queries(queries: list[str]) -> None:
    with pytest.raises(QueryError):
        matches(ROW, queries)


async def test_librouteros_queries(net: Net) -> None:
    name = Key("name")

    def run() -> list[Any]:
        api = net.connect(ACCESS)
        try:
            query = api.path("interface").select(name).where(Or(name == "ether3", name == "ether4"))
            return [row["name"] for row in query]
        finally:
            api.close()

    assert await asyncio.to_thread(run) == ["ether3", "ether4"]


# Menus


V6_INTERFACE = {
    *(".id", "actual-mtu", "default-name", "disabled", "l2mtu", "last-link-up-time", "link-downs", "mac-address"),
    *("mtu", "name", "running", "tx-queue-drop", "type"),
    *(f"fp-{way}-{what}" for way in ("rx", "tx") for what in ("byte", "packet")),
    *(f"{way}-{what}" for way in ("rx", "tx") for what in ("byte", "packet", "error", "drop")),
}


async def test_interface_fields_by_version(net: Net) -> None:
    old, new = [await net.ask(router, "/interface/print", "?name=ether1") for router in (OLD, CORE)]
    assert set(old[0]) - {"comment", "max-l2mtu"} == V6_INTERFACE
    assert set(new[0]) - {"comment", "max-l2mtu"} == V6_INTERFACE | {"dynamic", "fp-rps-drop", "vrf"}


async def test_pppoe_sessions_are_dynamic_interfaces(net: Net) -> None:
    everything = await net.ask(ACCESS, "/interface/print", "=.proplist=name,type")
    kept = await net.ask(ACCESS, "/interface/print", "=.proplist=name", "?dynamic=false")
    assert len(everything) > 300
    assert [row["name"] for row in kept] == ["ether1", "ether2", "ether3", "ether4", "wlan1", "lte1"]
    assert {row["type"] for row in everything} == {"ether", "wlan", "lte", "pppoe-in"}


async def test_ethernet_speed_moved_to_monitor_in_v7(net: Net) -> None:
    old, new = [await net.ask(router, "/interface/ethernet/print") for router in (OLD, CORE)]
    assert old[0]["speed"] == "10Gbps"
    assert not {"speed", "full-duplex"} & set(new[0])
    light, copper, management = await net.ask(
        AGG, "/interface/ethernet/monitor", "=numbers=sfp-sfpplus1,ether5,ether1", "=once="
    )
    assert light["rate"] == "10Gbps"
    assert -10 < float(light["sfp-rx-power"]) < -2
    assert copper["rate"] == "1Gbps"
    assert "sfp-rx-power" not in copper
    assert management["status"] == "link-ok"


async def test_health_is_a_row_in_v6_and_rows_in_v7(net: Net) -> None:
    (old,) = await net.ask(OLD, "/system/health/print")
    assert 15 < old["temperature"] < 70
    assert float(old["voltage"]) == pytest.approx(24, abs=0.5)
    new = await net.ask(CORE, "/system/health/print")
    assert {row["type"] for row in new} == {"C", "RPM", "V", ""}
    assert all(set(row) == {".id", "name", "value", "type"} for row in new)


def _virtual(seed: seeds.Seed) -> None:
    for device in seed.devices:
        device.model = "CHR"


@pytest.mark.parametrize("change_seed", [_virtual])
async def test_virtual_machines_have_no_board(net: Net) -> None:
    assert await net.ask(CORE, "/system/health/print") == []
    assert await net.ask(OLD, "/system/health/print") == [{"state": "disabled", "state-after-reboot": "disabled"}]
    assert await net.ask(CORE, "/system/routerboard/print") == [{"routerboard": False}]
    (new,), (old,) = [await net.ask(router, "/system/resource/print") for router in (CORE, OLD)]
    assert "cpu-frequency" in old
    assert "cpu-frequency" not in new


def _every_version(seed: seeds.Seed) -> None:
    for device, version in zip(seed.devices, ["7.24rc2", "7.20.1", "7.9.2", "7.10", "6.49.10", "6.48.6"], strict=True):
        device.routeros = version


@pytest.mark.parametrize("change_seed", [_every_version])
async def test_dates_and_services_by_version(net: Net) -> None:
    dates = [(await net.ask(router, "/system/clock/print"))[0]["date"] for router in net.lab.stations]
    assert ["-" in date for date in dates] == [True, True, False, True, False, False]
    services = await net.ask(EDGE, "/ip/service/print")
    live = [row for row in services if row.get("dynamic")]
    assert [(row["name"], row["connection"]) for row in live] == [("api", True)]
    (connection, *_) = await net.ask(CORE, "/routing/bgp/connection/print")
    assert connection["instance"] == "bgp-instance-1"


async def test_routing_by_version(net: Net) -> None:
    with pytest.raises(TrapError, match="no such command prefix"):
        await net.ask(OLD, "/routing/bgp/session/print")
    (session, inside) = await net.ask(EDGE, "/routing/bgp/session/print")
    assert (session["name"], session["remote.address"], session["local.role"]) == (
        "meridian-v4-1",
        "198.51.100.1",
        "ebgp",
    )
    assert session["prefix-count"] == pytest.approx(948213, rel=0.001)
    assert (inside["local.role"], inside["remote.as"]) == ("ibgp", 64512)
    for router, fields in ((OLD, {"adjacency", "dr-address"}), (CORE, {"adjacency", "area", "timeout"})):
        neighbours = await net.ask(router, "/routing/ospf/neighbor/print")
        assert len(neighbours) == 3
        assert all(row["state"] == "Full" and fields <= set(row) for row in neighbours)


def _bgp_on_v6(seed: seeds.Seed) -> None:
    old = next(device for device in seed.devices if device.name == OLD)
    old.bgp_peers = [seeds.BgpPeer(name="transit", remote_address="203.0.113.9", remote_as=64501, prefixes_in=500)]


@pytest.mark.parametrize("change_seed", [_bgp_on_v6])
async def test_bgp_on_v6_keeps_its_row(net: Net) -> None:
    (peer,) = await net.ask(OLD, "/routing/bgp/peer/print")
    assert (peer["state"], peer["established"]) == ("established", True)
    assert peer["prefix-count"] == pytest.approx(500, abs=1)
    async with net.lab.faults.during("bgp-loss", OLD, peer="transit"):
        (peer,) = await net.ask(OLD, "/routing/bgp/peer/print")
        assert (peer["state"], peer["established"]) == ("active", False)
        assert not {"uptime", "prefix-count"} & set(peer)


async def test_every_menu_answers_on_every_router(net: Net) -> None:
    from ispvm_lab.catalogue import MENUS

    for name, station in net.lab.stations.items():
        client = await net.raw(name)
        for path, menu in MENUS.items():
            if path == "/ip/route" or not menu.exists(station.router):
                continue
            reply = await client.talk(f"{path}/print")
            assert {words[0] for words in reply} <= {"!re", "!empty", "!done"}, path
        client.close()


async def test_a_table_of_a_million_routes_can_be_cancelled(net: Net) -> None:
    client: Raw = await net.raw(EDGE)
    ((_, count),) = await client.talk("/ip/route/print", "=count-only=")
    assert count == "=ret=948373"
    client.send("/ip/route/print", "=.proplist=.id", ".tag=r")
    assert (await client.sentence())[0] == "!re"
    client.send("/cancel", "=tag=r", ".tag=c")
    async with asyncio.timeout(TIMEOUT):
        while (words := await client.sentence())[0] == "!re":
            pass
    assert words == ["!trap", "=category=2", "=message=interrupted", ".tag=r"]
    client.close()


# Formats


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (49.9, "49s"), (900, "15m"), (1034769, "1w4d23h26m9s"), (6351681, "10w3d12h21m21s")],
)
def test_durations(seconds: float, text: str) -> None:
    assert formats.duration(seconds) == text


@pytest.mark.parametrize(("seconds", "text"), [(4.07, "4s70ms"), (-0.029, "-29ms"), (749.74, "12m29s740ms"), (0, "0s")])
def test_fine_durations(seconds: float, text: str) -> None:
    assert formats.fine_duration(seconds) == text


def test_log_times() -> None:
    noon = 1_689_768_000  # 2023-07-19 12:00:00
    assert formats.log_time(noon, noon + 60, (6, 49, 10)) == "12:00:00"
    assert formats.log_time(noon, noon + 86400, (6, 49, 10)) == "jul/19 12:00:00"
    assert formats.log_time(noon, noon + 86400 * 300, (7, 9, 0)) == "jul/19/2023 12:00:00"
    assert formats.log_time(noon, noon, (7, 18, 2)) == "2023-07-19 12:00:00"


@pytest.mark.parametrize(("text", "version"), [("7.16.2", (7, 16, 2)), ("6.49", (6, 49, 0)), ("7.24rc2", (7, 24, 0))])
def test_versions(text: str, version: formats.Version) -> None:
    assert formats.version(text) == version
    with pytest.raises(ValueError, match="is no RouterOS version"):
        formats.version(f"v{text}")


def _odd_names(seed: seeds.Seed) -> None:
    before, after = seed.devices[0].name, "../Zürich/" + "x" * 90
    seed.devices[0].name = after
    for link in seed.links:
        for end in (link.a, link.b):
            end.device = after if end.device == before else end.device
    for dependency in seed.dependencies:
        dependency.child = after if dependency.child == before else dependency.child


@pytest.mark.parametrize("change_seed", [_odd_names])
async def test_any_name_will_do(net: Net) -> None:
    name = next(iter(net.lab.stations))
    (row,) = await net.ask(name, "/system/identity/print", secure=True)
    assert row["name"].encode("latin-1").decode() == name


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.binary(max_size=60), min_size=1, max_size=5))
async def test_no_client_can_break_a_router(net: Net, blobs: list[bytes]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", net.port(CORE))
    writer.write(b"".join(blobs))
    writer.write_eof()
    await asyncio.wait_for(reader.read(), TIMEOUT)
    writer.close()


async def test_no_logged_in_client_can_break_a_router(net: Net) -> None:
    client = await net.raw(CORE)
    for words in (["/"], ["print"], ["//print"], ["/interface/print", "="], ["/interface/print", "?"], ["/interface/"]):
        assert (await client.talk(*words))[-1] == ["!done"]
    client.writer.write(encode_sentence(b"/interface/print", b"=.proplist=\xff\xfe", b".tag=\xe4"))
    assert (await client.reply())[-1] == ["!done", ".tag=\xe4"]
    client.close()
