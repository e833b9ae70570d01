"""Every fault, by what a client sees on the wire."""

from __future__ import annotations

import asyncio
import socket
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import librouteros
import pytest
from ispvm_lab.faults import KINDS
from lab_clients import TIMEOUT, Net, Raw, wrapped
from librouteros.exceptions import ConnectionClosed, FatalError, TrapError

CORE, EDGE, HARBOUR, AGG, OLD, ACCESS = (
    "CORE-NTH-1",
    "EDGE-NTH-1",
    "CORE-HBR-1",
    "AGG-HBR-1",
    "AGG-HIL-1",
    "ACCESS-HIL-1",
)


async def one(net: Net, router: str, path: str, *words: str) -> dict[str, Any]:
    rows = await net.ask(router, path, *words)
    assert len(rows) == 1
    row: dict[str, Any] = rows[0]
    return row


async def port_row(net: Net, router: str, name: str) -> dict[str, Any]:
    return await one(net, router, "/interface/print", f"?name={name}")


async def test_stall_inside_a_sentence_until_cleared(net: Net) -> None:
    client = await net.raw(CORE)
    fault = await net.lab.faults.add("stall", CORE, {"menu": "/system/resource", "after": "30"})
    client.send("/system/resource/print")
    assert len(await client.reader.readexactly(30)) == 30
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(client.reader.read(1), 0.2)
    await net.lab.faults.clear(fault.id)
    rest = await asyncio.wait_for(client.reader.readuntil(b"\x05!done\x00"), TIMEOUT)
    assert b"=board-name=CCR2216" in rest
    client.close()


async def test_stall_of_one_menu_leaves_others_alone(net: Net) -> None:
    async with net.lab.faults.during("stall", CORE, menu="/interface"):
        assert (await one(net, CORE, "/system/identity/print")) == {"name": CORE}


async def test_drip_sends_a_few_bytes_at_a_time(net: Net) -> None:
    client = await net.raw(CORE)
    async with net.lab.faults.during("drip", CORE, bytes="3", every="0.05"):
        client.send("/system/identity/print")
        pieces = [await asyncio.wait_for(client.reader.read(100), TIMEOUT) for _ in range(3)]
        assert max(map(len, pieces)) <= 3
    rest = b"".join(pieces) + await client.reader.readuntil(b"\x05!done\x00")
    assert rest == b"\x03!re\x10=name=CORE-NTH-1\x00\x05!done\x00"
    client.close()


async def test_reset_in_the_middle_of_a_reply(net: Net) -> None:
    client = await net.raw(CORE)
    await net.lab.faults.add("reset", CORE, {"menu": "/interface", "after": "25"})
    client.send("/interface/print")
    with pytest.raises(ConnectionResetError):
        await client.end()
    client.close()


async def test_garbage_is_no_sentence(net: Net) -> None:
    def run() -> None:
        api = net.connect(CORE)
        try:
            list(api("/interface/print"))
        finally:
            api.close()

    async with net.lab.faults.during("garbage", CORE):
        with pytest.raises(librouteros.exceptions.ProtocolError):
            await asyncio.to_thread(run)


async def test_fatal_ends_the_connection(net: Net) -> None:
    async with net.lab.faults.during("fatal", CORE, menu="/interface", text="out of memory"):
        with pytest.raises(FatalError, match="out of memory"):
            await net.ask(CORE, "/interface/print")
    assert len(await net.ask(CORE, "/interface/print")) == 4


async def test_trap_after_some_rows_leaves_the_connection_usable(net: Net) -> None:
    client = await net.raw(CORE)
    async with net.lab.faults.during("trap", CORE, menu="/interface", rows="2", message="failure", category="5"):
        reply = await client.talk("/interface/print", ".tag=t")
    assert [sentence[0] for sentence in reply] == ["!re", "!re", "!trap", "!done"]
    assert reply[2] == ["!trap", "=category=5", "=message=failure", ".tag=t"]
    assert (await client.rows("/system/identity/print")) == [{"name": CORE}]
    client.close()


async def test_wrong_password_fault(net: Net) -> None:
    async with net.lab.faults.during("password", "*"):
        with pytest.raises(TrapError, match=r"invalid user name or password \(6\)"):
            await net.ask(CORE, "/system/identity/print")
    assert await one(net, CORE, "/system/identity/print")


async def test_too_many_sessions_close_without_a_word(net: Net) -> None:
    async with net.lab.faults.during("sessions", CORE):
        client = await net.raw(CORE, login=False)
        assert await client.end() == b""
        client.close()
        with pytest.raises(ConnectionClosed):
            await net.ask(CORE, "/system/identity/print")


async def test_leaked_sessions_run_into_the_limit(net: Net) -> None:
    clients = [await net.raw(CORE) for _ in range(20)]
    late = await net.raw(CORE, login=False)
    assert await late.end() == b""
    rows = await clients[0].rows("/user/active/print")
    assert len(rows) == 20
    for client in (*clients, late):
        client.close()


async def test_no_certificate_means_anonymous_tls_only(net: Net) -> None:
    def anonymous(sock: socket.socket) -> ssl.SSLSocket:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers("ADH:@SECLEVEL=0")
        return wrapped(context, sock)

    def run() -> tuple[Any, ...]:
        port = net.port(CORE, secure=True)
        api = librouteros.connect("127.0.0.1", "ispvm", net.password, port=port, timeout=TIMEOUT, ssl_wrapper=anonymous)
        try:
            return tuple(api("/system/identity/print"))
        finally:
            api.close()

    async with net.lab.faults.during("no-certificate", CORE):
        assert await asyncio.to_thread(run) == ({"name": CORE},)
        with pytest.raises(ssl.SSLError):
            await net.ask(CORE, "/system/identity/print", secure=True)
    assert await net.ask(CORE, "/system/identity/print", secure=True) == [{"name": CORE}]


@pytest.mark.parametrize(("codepage", "word"), [("latin-1", "Zürich"), ("cp1252", "– 5 €"), ("utf-8", "узел")])
async def test_texts_in_a_codepage(net: Net, codepage: str, word: str) -> None:
    async with net.lab.faults.during("encoding", CORE, codepage=codepage, names="yes"):
        comment = (await net.ask(CORE, "/interface/print"))[0]["comment"]
        identity = (await one(net, CORE, "/system/identity/print"))["name"]
        name = (await net.ask(CORE, "/interface/print"))[0]["name"]
    for text in (comment, identity, name):
        assert word in text.encode("latin-1").decode(codepage)


async def test_fields_that_are_not_there(net: Net) -> None:
    async with net.lab.faults.during("missing-fields", CORE):
        row = await port_row(net, CORE, "sfp28-1")
        assert not {"rx-error", "rx-drop", "l2mtu"} & set(row)
        assert row["rx-byte"] > 0
    assert "rx-error" in await port_row(net, CORE, "sfp28-1")


async def test_another_time_zone(net: Net) -> None:
    def instant(row: dict[str, Any]) -> datetime:
        sign, hours, minutes = row["gmt-offset"][0], row["gmt-offset"][1:3], row["gmt-offset"][4:]
        offset = timedelta(hours=int(hours), minutes=int(minutes)) * (-1 if sign == "-" else 1)
        return datetime.fromisoformat(f"{row['date']}T{row['time']}+00:00") - offset

    async with net.lab.faults.during("time-zone", CORE):
        row = await one(net, CORE, "/system/clock/print")
        assert (row["time-zone-name"], row["gmt-offset"]) == ("America/St_Johns", "-03:30")
        assert abs(instant(row) - datetime.now(UTC)) < timedelta(seconds=3)


async def test_huge_table(net: Net) -> None:
    client = await net.raw(ACCESS)
    async with net.lab.faults.during("huge", ACCESS, menu="/ip/dhcp-server/lease", rows="5000"):
        assert await client.talk("/ip/dhcp-server/lease/print", "=count-only=") == [["!done", "=ret=5000"]]
        rows = await client.rows("/ip/dhcp-server/lease/print", "=.proplist=.id,address")
    assert len({row[".id"] for row in rows}) == 5000
    client.close()


async def test_down_is_silence_and_dead_links(net: Net) -> None:
    lasting = await net.raw(OLD)
    fault = await net.lab.faults.add("down", OLD)
    lasting.send("/system/identity/print")
    with pytest.raises(asyncio.TimeoutError):  # nothing, not even an end
        await asyncio.wait_for(lasting.reader.read(1), 0.2)
    with pytest.raises(asyncio.TimeoutError):  # not even an answer to SYN
        await asyncio.wait_for(asyncio.open_connection("127.0.0.1", net.port(OLD)), 0.3)
    assert (await port_row(net, ACCESS, "ether1"))["running"] is False
    assert await net.ask(ACCESS, "/routing/ospf/neighbor/print") == []
    assert (net.state / "dark-addresses").read_text() == "10.89.77.105\n"
    await net.lab.faults.clear(fault.id)
    with pytest.raises(ConnectionResetError):
        await lasting.end()
    assert (await one(net, OLD, "/system/resource/print"))["uptime"] in {"0s", "1s", "2s"}
    assert (await port_row(net, ACCESS, "ether1"))["running"] is True
    assert (net.state / "dark-addresses").read_text() == ""
    lasting.close()


async def test_down_with_closed_ports(net: Net) -> None:
    lasting = await net.raw(OLD)
    async with net.lab.faults.during("down", OLD, mode="refuse"):
        with pytest.raises(ConnectionResetError):
            await lasting.end()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", net.port(OLD))
    assert await one(net, OLD, "/system/identity/print") == {"name": OLD}
    lasting.close()


async def test_reboot_drops_connections_and_starts_from_zero(net: Net) -> None:
    lasting = await net.raw(CORE)
    before = await port_row(net, CORE, "sfp28-1")
    fault = await net.lab.faults.add("reboot", CORE, {"seconds": "0.2"})
    with pytest.raises(ConnectionResetError):
        await lasting.end()
    await asyncio.wait_for(fault.cleared.wait(), TIMEOUT)
    after = await port_row(net, CORE, "sfp28-1")
    assert after["rx-byte"] < before["rx-byte"] / 1000
    assert (await one(net, CORE, "/system/resource/print"))["uptime"] in {"0s", "1s", "2s"}
    assert await net.ask(CORE, "/routing/bgp/session/print") == []  # not yet
    assert "CORE-NTH-1" in net.lab.memory.boots
    lasting.close()


async def test_counter_reset_without_a_reboot(net: Net) -> None:
    before, other = await port_row(net, CORE, "sfp28-1"), await port_row(net, CORE, "sfp28-2")
    await net.lab.faults.add("counter-reset", CORE, {"interface": "sfp28-1"})
    after, later = await port_row(net, CORE, "sfp28-1"), await port_row(net, CORE, "sfp28-2")
    assert after["rx-byte"] < before["rx-byte"] / 1000
    assert later["rx-byte"] >= other["rx-byte"]
    assert len((await one(net, CORE, "/system/resource/print"))["uptime"]) > 3


async def test_clock_jump_and_lost_clock(net: Net) -> None:
    date = (await one(net, CORE, "/system/clock/print"))["date"]
    async with net.lab.faults.during("clock-jump", CORE, seconds="-172800"):
        assert (await one(net, CORE, "/system/clock/print"))["date"] < date
        assert (await one(net, CORE, "/system/ntp/client/print"))["status"] == "waiting"
    async with net.lab.faults.during("clock-jump", OLD, lost="yes"):
        assert (await one(net, OLD, "/system/clock/print"))["date"] in {"jan/01/1970", "dec/31/1969"}
        assert "active-server" not in await one(net, OLD, "/system/ntp/client/print")
    assert (await one(net, CORE, "/system/clock/print"))["date"] == date


async def test_link_down_is_seen_at_both_ends(net: Net) -> None:
    async with net.lab.faults.during("link-down", OLD, interface="ether2"):
        near, far = await port_row(net, OLD, "ether2"), await port_row(net, ACCESS, "ether1")
        assert near["running"] is far["running"] is False
        assert near["link-downs"] == far["link-downs"] == 1
        assert near["last-link-down-time"][3] == "/"
        monitor = await one(net, ACCESS, "/interface/ethernet/monitor", "=numbers=ether1", "=once=")
        assert monitor["status"] == "no-link"
        assert "rate" not in monitor
        again = await port_row(net, OLD, "ether2")
        assert (again["rx-byte"], again["tx-byte"]) == (near["rx-byte"], near["tx-byte"])
    assert (await port_row(net, ACCESS, "ether1"))["running"] is True


async def test_link_flap_counts_link_downs(net: Net) -> None:
    fault = await net.lab.faults.add("link-flap", OLD, {"interface": "ether2", "every": "0.1"})
    async with asyncio.timeout(TIMEOUT):
        while (await port_row(net, ACCESS, "ether1"))["link-downs"] < 3:
            pass
    await net.lab.faults.clear(fault.id)
    assert (await port_row(net, ACCESS, "ether1"))["running"] is True


async def test_disabled_interface_is_down_for_the_far_end_too(net: Net) -> None:
    async with net.lab.faults.during("interface-disabled", OLD, interface="ether2"):
        assert (await port_row(net, OLD, "ether2"))["disabled"] is True
        assert (await port_row(net, ACCESS, "ether1"))["running"] is False
    assert (await net.ask(OLD, "/system/history/print"))[0]["action"].endswith("ether2")


async def test_congestion_fills_the_link_and_drops(net: Net) -> None:
    async def drops() -> int:
        return int((await port_row(net, CORE, "sfp28-2"))["tx-queue-drop"])

    before = await drops()
    async with net.lab.faults.during("congestion", CORE, interface="sfp28-2", pct="96"):
        (near,) = await net.ask(CORE, "/interface/monitor-traffic", "=interface=sfp28-2", "=once=")
        (far,) = await net.ask(HARBOUR, "/interface/monitor-traffic", "=interface=sfp-sfpplus2", "=once=")
        assert 0.9e10 < near["tx-bits-per-second"] < 1e10
        assert far["rx-bits-per-second"] == pytest.approx(near["tx-bits-per-second"], rel=0.01)
        assert await drops() > before


async def test_errors_rise_while_the_fault_lasts(net: Net) -> None:
    async with net.lab.faults.during("errors", CORE, interface="sfp28-2", share="0.05"):
        first = await port_row(net, CORE, "sfp28-2")
        await asyncio.sleep(0.1)
        second = await port_row(net, CORE, "sfp28-2")
    share = (second["rx-error"] - first["rx-error"]) / (second["rx-packet"] - first["rx-packet"])
    assert share == pytest.approx(0.05, rel=0.01)


async def test_bgp_loss_on_v7_leaves_a_row_without_established(net: Net) -> None:
    async with net.lab.faults.during("bgp-loss", EDGE, peer="meridian-v4"):
        lost, kept = await net.ask(EDGE, "/routing/bgp/session/print")
        assert (lost["name"], "established" in lost, "uptime" in lost) == ("meridian-v4-1", False, False)
        assert kept["established"] is True
        assert len(await net.ask(EDGE, "/routing/bgp/connection/print")) == 2


async def test_bgp_loss_is_seen_at_both_ends(net: Net) -> None:
    async with net.lab.faults.during("bgp-loss", EDGE, peer="rr-core-nth-1"):
        sessions = await net.ask(CORE, "/routing/bgp/session/print")
        assert {row["name"] for row in sessions if "established" in row} == {"core-hbr-1-1"}


async def test_ospf_loss_takes_the_row_away(net: Net) -> None:
    async with net.lab.faults.during("ospf-loss", CORE, neighbor="10.255.0.22"):
        assert {row["router-id"] for row in await net.ask(CORE, "/routing/ospf/neighbor/print")} == {
            "10.255.0.11",
            "10.255.0.2",
        }
        assert "10.255.0.1" not in {row["router-id"] for row in await net.ask(OLD, "/routing/ospf/neighbor/print")}
    (watch,) = [row for row in await net.ask(CORE, "/tool/netwatch/print") if row["host"] == "10.255.0.22"]
    assert watch["status"] == "down"  # the way back takes seconds


async def test_pppoe_mass_disconnect(net: Net) -> None:
    async def count(client: Raw) -> int:
        ((_, word),) = await client.talk("/ppp/active/print", "=count-only=")
        return int(word.removeprefix("=ret="))

    client = await net.raw(ACCESS)
    before = await count(client)
    assert 320 <= before <= 412
    async with net.lab.faults.during("pppoe-drop", ACCESS, keep_pct="10"):
        assert await count(client) == pytest.approx(before / 10, abs=2)
        rows = await client.rows("/ppp/active/print")
        assert {row["uptime"] for row in rows} <= {"0s", "1s", "2s"}
    async with net.lab.faults.during("pppoe-drop", ACCESS, keep_pct="10", recover="0.2"):
        async with asyncio.timeout(TIMEOUT):
            while await count(client) < before - 2:
                pass
    client.close()


async def test_sensor(net: Net) -> None:
    async with net.lab.faults.during("sensor", CORE, name="psu2-state", value="fail"):
        values = {row["name"]: row["value"] for row in await net.ask(CORE, "/system/health/print")}
        assert (values["psu1-state"], values["psu2-state"]) == ("ok", "fail")
    async with net.lab.faults.during("sensor", OLD, name="temperature", value="91"):
        assert (await one(net, OLD, "/system/health/print"))["temperature"] == 91


async def test_config_change_shows_who(net: Net) -> None:
    await net.lab.faults.add("config-change", CORE, {"by": "kim", "action": "changed route"})
    newest = (await net.ask(CORE, "/system/history/print"))[0]
    assert (newest["by"], newest["action"]) == ("kim", "changed route")
    assert net.lab.faults.faults == {}  # it is over


async def test_one_of_two_outages_ends(net: Net) -> None:
    down = await net.lab.faults.add("down", CORE, {"mode": "refuse"})
    reboot = await net.lab.faults.add("reboot", CORE, {"seconds": "0.1"})
    await asyncio.wait_for(reboot.cleared.wait(), TIMEOUT)
    assert not net.lab.world.router(CORE).powered
    with pytest.raises(ValueError, match="down: f1 is the same fault; clear that first"):
        await net.lab.faults.add("down", CORE)
    await net.lab.faults.clear(down.id)
    assert await one(net, CORE, "/system/identity/print") == {"name": CORE}


async def test_many_changes_at_once(net: Net) -> None:
    routers = list(net.lab.stations)
    for _ in range(3):
        modes = zip(routers, ["refuse", "silent"] * 3, strict=True)
        adding = [net.lab.faults.add("down", name, {"mode": mode}) for name, mode in modes]
        faults = await asyncio.gather(*adding)
        await asyncio.gather(*(net.lab.faults.clear(fault.id) for fault in faults))
    for name in routers:
        assert await one(net, name, "/system/identity/print") == {"name": name}


async def test_faults_end_by_themselves(net: Net) -> None:
    fault = await net.lab.faults.add("password", CORE, seconds=0.05)
    await asyncio.wait_for(fault.cleared.wait(), TIMEOUT)
    assert await one(net, CORE, "/system/identity/print")
    assert net.lab.faults.faults == {}


@pytest.mark.parametrize(
    ("kind", "router", "params", "complaint"),
    [
        ("earthquake", CORE, {}, "kind: no fault 'earthquake'"),
        ("password", "CORE-1", {}, "router: no 'CORE-1' in seed"),
        ("down", "*", {}, "router: down is for one router at a time"),
        ("link-down", CORE, {"interface": "ether9"}, "interface: no 'ether9' on CORE-NTH-1"),
        ("stall", CORE, {"after": "soon"}, "after: 'soon' is not a number"),
        ("down", CORE, {"mode": "loud"}, "mode: 'loud' is not one of silent, refuse"),
        ("password", CORE, {"menu": "/x"}, "menu: password has no such parameter"),
        ("bgp-loss", CORE, {"peer": "nobody"}, "peer: CORE-NTH-1 has no BGP peer 'nobody'"),
        ("ospf-loss", CORE, {"neighbor": "1.1.1.1"}, "neighbor: CORE-NTH-1 has no OSPF neighbour"),
    ],
)
async def test_what_cannot_be_is_refused(
    net: Net, kind: str, router: str, params: dict[str, str], complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        await net.lab.faults.add(kind, router, params)
    assert net.lab.faults.faults == {}


def test_every_kind_has_a_test() -> None:
    source = Path(__file__).read_text()
    assert [name for name in KINDS if source.count(f'"{name}", ') + source.count(f'during("{name}"') == 0] == []


async def test_light_fades_and_goes(net: Net) -> None:
    ask = ("/interface/ethernet/monitor", "=numbers=sfp28-2", "=once=")
    usual = float((await one(net, CORE, *ask))["sfp-rx-power"])
    async with net.lab.faults.during("optics", CORE, interface="sfp28-2", rx_power="-21"):
        row = await one(net, CORE, *ask)
        assert (float(row["sfp-rx-power"]), row["status"], row["sfp-rx-loss"]) == (-21, "link-ok", False)
    async with net.lab.faults.during("optics", CORE, interface="sfp28-2"):
        row = await one(net, CORE, *ask)
        assert (float(row["sfp-rx-power"]), row["status"], row["sfp-rx-loss"]) == (-40, "no-link", True)
    row = await one(net, CORE, *ask)
    assert float(row["sfp-rx-power"]) == pytest.approx(usual, abs=0.01)
    with pytest.raises(ValueError, match="no optical module"):
        await net.lab.faults.add("optics", CORE, {"interface": "ether1"})


async def test_netwatch_down_of_one_host(net: Net) -> None:
    hosts = [row["host"] for row in await net.ask(CORE, "/tool/netwatch/print")]
    async with net.lab.faults.during("netwatch-down", CORE, host=hosts[0]):
        states = {row["host"]: row["status"] for row in await net.ask(CORE, "/tool/netwatch/print")}
    assert states == dict.fromkeys(hosts, "up") | {hosts[0]: "down"}
    with pytest.raises(ValueError, match="host"):
        await net.lab.faults.add("netwatch-down", CORE, {"host": "192.0.2.1"})


async def test_monitor_without_the_policy_test_on_v6_only(net: Net) -> None:
    async with net.lab.faults.during("no-test-policy", "*"):
        with pytest.raises(TrapError, match="not enough permissions"):
            await net.ask(OLD, "/interface/ethernet/monitor", "=numbers=ether1", "=once=")
        assert await net.ask(CORE, "/interface/ethernet/monitor", "=numbers=ether1", "=once=")


async def test_a_flagged_router(net: Net) -> None:
    async with net.lab.faults.during("flagged", CORE):
        assert (await one(net, CORE, "/system/device-mode/print"))["flagged"] is True
    assert (await one(net, CORE, "/system/device-mode/print"))["flagged"] is False
