"""The field sets: what each menu answers, for RouterOS 6.49 and 7.x. Where each is from stands in the room's README."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface
from math import sin, tau

from . import formats
from .formats import Version, duration, yes
from .traffic import between, fraction
from .world import CACHED_SESSION_SECONDS, DARK_DBM, OSPF_SECONDS, PACKET_BITS, Bgp, Ospf, Passed, Port, Router, mac

Row = dict[str, str]
Rows = Iterator[Row]
V7: Version = (7, 0, 0)
NEVER: Version = (99, 0, 0)


@dataclass(frozen=True, slots=True)
class Session:
    """An API login, as `/user/active` shows it."""

    id: int
    user: str
    peer: str
    via: str
    since: float


@dataclass(frozen=True, slots=True)
class View:
    """What a menu is asked with: the router, the moment, and who is logged in."""

    router: Router
    now: float
    sessions: tuple[Session, ...] = ()


@dataclass(frozen=True, slots=True)
class Menu:
    """One menu: where its rows come from, how many there are (where that is quicker told), who has it."""

    rows: Callable[[View], Rows]
    count: Callable[[View], int] | None = None
    since: Version = (0, 0, 0)
    until: Version = NEVER
    only: Callable[[Router], bool] | None = None

    def exists(self, router: Router) -> bool:
        """Whether this router, of its version and with its interfaces, has the menu."""
        return self.since <= router.version < self.until and (self.only is None or self.only(router))


def _id(number: int) -> str:
    return f"*{number:X}"


# /system


def _resource(view: View) -> Rows:
    router, now = view.router, view.now
    board = router.model
    row = {
        "uptime": duration(router.uptime(now)),
        "version": f"{router.spec.routeros} ({'stable' if router.v7 else 'long-term'})",
        "build-time": "2024-11-26 12:09:40" if router.version >= (7, 10, 0) else "Jul/19/2022 11:25:54",
    }
    if not board.virtual:
        row["factory-software"] = "7.1" if router.v7 else "6.44.6"
    row |= {
        "free-memory": str(router.free_memory(now)),
        "total-memory": str(board.memory),
        "cpu": board.cpu,
        "cpu-count": str(board.cores),
    }
    if not (router.v7 and board.virtual):
        row["cpu-frequency"] = str(board.megahertz)
    row |= {
        "cpu-load": str(round(router.load(now))),
        "free-hdd-space": str(int(board.flash * between(0.5, 0.8, router.name, "flash")) // 4096 * 4096),
        "total-hdd-space": str(board.flash),
        "write-sect-since-reboot": str(int(router.uptime(now) / 90) + 200),
        "write-sect-total": str(int((now - 1.6e9) / 200)),
    }
    if not board.virtual:
        row["bad-blocks"] = "0"
    yield row | {"architecture-name": board.architecture, "board-name": board.name, "platform": "MikroTik"}


def _identity(view: View) -> Rows:
    yield {"name": view.router.name}


def _routerboard(view: View) -> Rows:
    board = view.router.model
    if board.virtual:
        yield {"routerboard": "false"}
        return
    version = view.router.spec.routeros
    yield {
        "routerboard": "true",
        "board-name": board.name,
        "model": board.name,
        "serial-number": f"{int(fraction(view.router.name, 'serial') * (1 << 48)):012X}",
        "firmware-type": "al64" if board.architecture == "arm64" else board.architecture,
        "factory-firmware": "7.1" if view.router.v7 else "6.44.6",
        "current-firmware": version,
        "upgrade-firmware": version,
    }


def _sensors(view: View) -> Iterator[tuple[str, str, str]]:
    """Name, value and unit of each sensor of the board."""
    router, now = view.router, view.now
    board = router.model
    if board.virtual:
        return
    heat = router.temperature(now)
    flutter = sin(tau * (now / 29 + fraction(router.name, "fan")))
    yield "temperature", f"{heat - 6:.0f}", "C"
    yield "cpu-temperature", f"{heat + 4:.0f}", "C"
    for fan in range(1, board.fans + 1):
        yield f"fan{fan}-speed", f"{3200 + 40 * heat + 60 * flutter + 30 * fan:.0f}", "RPM"
    if board.supplies:
        for supply in range(1, board.supplies + 1):
            yield f"psu{supply}-state", "ok", ""
    yield "voltage", f"{24.1 + 0.1 * flutter:.1f}", "V"


def _health(view: View) -> Rows:
    shown = view.router.sensors
    if view.router.v7:
        for number, (name, value, unit) in enumerate(_sensors(view), start=13):
            yield {".id": _id(number), "name": name, "value": shown.get(name, value), "type": unit}
    elif view.router.model.virtual:
        yield {"state": "disabled", "state-after-reboot": "disabled"}
    else:
        yield {name: shown.get(name, value) for name, value, _ in _sensors(view)}


def _clock(view: View) -> Rows:
    at = view.router.wall_clock(view.now)
    yield {
        "time": f"{formats.moment(at):%H:%M:%S}",
        "date": formats.date(at, view.router.version),
        "time-zone-autodetect": "false",
        "time-zone-name": view.router.zone.name,
        "gmt-offset": formats.gmt_offset(view.router.zone.seconds),
        "dst-active": "false",
    }


def _ntp_client(view: View) -> Rows:
    router, now = view.router, view.now
    lost = any(router.clock_jumps.values())
    if router.v7:
        row = {
            "enabled": "true",
            "mode": "unicast",
            "servers": "10.255.0.1",
            "vrf": "main",
            "freq-drift": f"{between(-20, 20, router.name, 'drift'):.3f} PPM",
            "status": "waiting" if lost else "synchronized",
        }
        if not lost:
            row |= {
                "synced-server": "10.255.0.1",
                "synced-stratum": "3",
                "system-offset": f"{router.skew:.3f} ms",
            }
        yield row
        return
    row = {"enabled": "true", "primary-ntp": "10.255.0.1", "secondary-ntp": "0.0.0.0", "server-dns-names": ""}  # noqa: S104
    row["mode"] = "unicast"
    if not lost:
        row |= {
            "poll-interval": "15m",
            "active-server": "10.255.0.1",
            "last-update-from": "10.255.0.1",
            "last-update-before": formats.fine_duration(now % 900),
            "last-adjustment": formats.fine_duration(router.skew / 20),
        }
    yield row


_PACKAGES_V6 = ("routeros", "advanced-tools", "dhcp", "mpls", "ppp", "routing", "security", "system")


def _packages(view: View) -> Rows:
    router = view.router
    names = ("routeros",) if router.v7 else _PACKAGES_V6
    for number, name in enumerate(names, start=1):
        row = {".id": _id(number), "name": name, "version": router.spec.routeros}
        if router.v7:
            row |= {"build-time": "2024-11-26 12:09:40", "size": "13434880", "available": "false"}
        else:
            row |= {"build-time": "Jul/19/2022 11:25:54", "bundle": "" if name == "routeros" else "routeros"}
        yield row | {"scheduled": "", "disabled": "false"}


def _license(view: View) -> Rows:
    if view.router.model.virtual:
        yield {"system-id": "emulated", "level": "p1"}
    else:
        yield {"software-id": "EMUL-0000", "nlevel": "6", "features": ""}


def _history(view: View) -> Rows:
    router = view.router
    for entry in reversed(router.history):
        row = {
            ".id": _id(entry.id),
            "action": entry.message,
            "by": entry.by,
            "policy": "write",
            "time": formats.log_time(entry.at, view.now, router.version),
            "undoable": "true",
        }
        yield row | ({"undo": "", "redo": "", "trace": ""} if router.v7 else {})


def _log(view: View) -> Rows:
    router = view.router
    shift = router.wall_clock(view.now) - view.now
    for entry in router.log:
        row = {
            ".id": _id(entry.id),
            "time": formats.log_time(entry.at + shift, view.now + shift, router.version),
            "topics": entry.topics,
            "message": entry.message,
        }
        yield row | ({"extra-info": ""} if router.v7 else {})


# /interface


def _counters(passed: Passed) -> Row:
    received, sent = int(passed.rx_bits / 8), int(passed.tx_bits / 8)
    rx_packets, tx_packets = int(passed.rx_bits / PACKET_BITS), int(passed.tx_bits / PACKET_BITS)
    return {
        "rx-byte": str(received),
        "tx-byte": str(sent),
        "rx-packet": str(rx_packets),
        "tx-packet": str(tx_packets),
        "rx-drop": str(int(passed.rx_errors / 3)),
        "tx-drop": "0",
        "tx-queue-drop": str(int(passed.tx_drops)),
        "rx-error": str(int(passed.rx_errors)),
        "tx-error": "0",
        "fp-rx-byte": str(received),
        "fp-tx-byte": str(sent),
        "fp-rx-packet": str(rx_packets),
        "fp-tx-packet": str(tx_packets),
    }


def _interfaces(view: View) -> Rows:
    router, now = view.router, view.now
    shift = router.wall_clock(now) - now
    for port in router.ports.values():
        row = {
            ".id": _id(port.index + 1),
            "name": port.spec.key,
            "default-name": port.spec.key,
            "type": interface_type(port),
            "mtu": "1500",
            "actual-mtu": "1500",
            "l2mtu": "1584",
            "max-l2mtu": "9586",
            "mac-address": port.mac,
            "link-downs": str(port.downs),
        }
        if port.down_at is not None:
            row["last-link-down-time"] = formats.date_time(port.down_at + shift, router.version)
        if port.running or port.down_at is not None:
            row["last-link-up-time"] = formats.date_time(port.up_at + shift, router.version)
        row |= _counters(port.passed(now))
        if router.v7:
            row |= {"fp-rps-drop": "0", "vrf": "main", "dynamic": "false"}
        row |= {"running": yes(port.running), "disabled": yes(not port.enabled)}
        if port.spec.comment:
            row["comment"] = port.spec.comment
        yield row
    yield from _pppoe_interfaces(view)


def interface_type(port: Port) -> str:
    """As the version calls it: the new radio drivers had another name before 7.13."""
    older = port.spec.type == "wifi" and port.router.version < (7, 13, 0)
    return "wifiwave2" if older else port.spec.type


def _pppoe_interfaces(view: View) -> Rows:
    """Every PPPoE session is a dynamic interface as well, with its user's name in the interface's."""
    for subscriber in view.router.subscribers(view.now):
        heavy = subscriber.line.rate * subscriber.uptime
        yield {
            ".id": _id(0xF00000 + subscriber.session % 0xFFFFF),
            "name": f"<pppoe-{subscriber.line.name}>",
            "type": "pppoe-in",
            "mtu": "1480",
            "actual-mtu": "1480",
            "link-downs": "0",
            "last-link-up-time": formats.date_time(
                view.router.wall_clock(view.now) - subscriber.uptime, view.router.version
            ),
            **_counters(Passed(heavy * 0.1, heavy, 0.0, 0.0)),
            "dynamic": "true",
            "running": "true",
            "disabled": "false",
        }


def _is_ethernet(port: Port) -> bool:
    return port.spec.type == "ether"


def _ethernet(view: View) -> Rows:
    router = view.router
    for port in filter(_is_ethernet, router.ports.values()):
        row = {
            ".id": _id(port.index + 1),
            "name": port.spec.key,
            "default-name": port.spec.key,
            "mtu": "1500",
            "l2mtu": "1584",
            "mac-address": port.mac,
            "orig-mac-address": port.mac,
            "arp": "enabled",
            "arp-timeout": "auto",
            "loop-protect": "default",
            "loop-protect-status": "off",
            "auto-negotiation": "true",
        }
        if router.v7:
            row |= {"bandwidth": "unlimited/unlimited", "rx-flow-control": "off", "tx-flow-control": "off"}
        else:
            row |= {
                "speed": formats.speed(port.spec.capacity_bps),
                "full-duplex": "true",
                "advertise": "10M-half,10M-full,100M-half,100M-full,1000M-full",
                "cable-settings": "default",
            }
        passed = port.passed(view.now)
        row |= {"driver-rx-byte": str(int(passed.rx_bits / 8)), "driver-tx-byte": str(int(passed.tx_bits / 8))}
        yield row | {"running": yes(port.running), "disabled": yes(not port.enabled), "switch": "switch1"}


def ethernet_monitor(view: View, port: Port) -> Row:
    """What `/interface/ethernet/monitor` says of one port: the negotiated rate and, of an optical module, its light."""
    row = {"name": port.spec.key, "status": "link-ok" if port.running else "no-link", "auto-negotiation": "done"}
    if port.running:
        row |= {"rate": formats.speed(port.spec.capacity_bps), "full-duplex": "true"}
    if not port.spec.key.startswith(("sfp", "qsfp")):
        return row
    seedling = (port.router.name, port.index)
    given = port.light
    dark = not port.running or (given is not None and given <= DARK_DBM)
    row |= {
        "sfp-module-present": "true",
        "sfp-rx-loss": yes(dark),
        "sfp-tx-fault": "false",
        "sfp-type": "SFP-or-SFP+",
        "sfp-connector-type": "LC",
        "sfp-vendor-name": "MikroTik",
        "sfp-vendor-part-number": "S+31DLC10D",
        "sfp-vendor-serial": f"EM{int(fraction(*seedling, 'sfp') * 1e8):08d}",
    }
    if port.peer is None and "uplink:true" not in port.spec.tags:
        return row  # a direct-attach cable: nothing to measure
    drift = 0.15 * sin(tau * (view.now / 5400 + fraction(*seedling)))
    heat = port.router.temperature(view.now) - 4 + between(-2, 2, *seedling, "warm")
    light = given if given is not None else between(-9, -3, *seedling, "rx") + drift
    return row | {
        "sfp-wavelength": "1310.00",
        "sfp-temperature": f"{heat:.0f}",
        "sfp-supply-voltage": f"{between(3.25, 3.33, *seedling, 'volt'):.3f}",
        "sfp-tx-bias-current": f"{between(28, 36, *seedling, 'bias') + drift:.0f}",
        "sfp-tx-power": f"{between(-2.5, -0.5, *seedling, 'tx') + drift / 2:.3f}",
        "sfp-rx-power": "-40.000" if dark else f"{light:.3f}",
    }


def traffic_monitor(view: View, port: Port) -> Row:
    """What `/interface/monitor-traffic` says of one port: the rates of this moment."""
    received, sent = port.rates(view.now)
    return {
        "name": port.spec.key,
        "rx-packets-per-second": str(int(received / PACKET_BITS)),
        "rx-bits-per-second": str(int(received)),
        "rx-drops-per-second": "0",
        "rx-errors-per-second": "0",
        "tx-packets-per-second": str(int(sent / PACKET_BITS)),
        "tx-bits-per-second": str(int(sent)),
        "tx-drops-per-second": "0",
        "tx-errors-per-second": "0",
    }


# /ip


def link_address(port: Port) -> str | None:
    """The port's own address on its link: the far router's neighbour address. None when the seed has none."""
    if port.peer is None:
        return None
    for ospf in port.peer.router.ospf:
        if ospf.port is port.peer and ospf.spec.router_id == port.router.spec.loopback:
            return ospf.spec.address
    return None


def link_length(address: str, port: Port) -> int:
    """31 when both ends are in one /31, else 30."""
    far = link_address(port.peer) if port.peer is not None else None
    return 31 if far is not None and int(IPv4Address(address)) ^ int(IPv4Address(far)) == 1 else 30


def management_port(router: Router) -> Port | None:
    """The port the router is managed through: the one that says so, else the first."""
    ports = list(router.ports.values())
    return next((port for port in ports if "management" in port.spec.comment), ports[0] if ports else None)


def _addresses(view: View) -> Rows:
    router = view.router
    management = management_port(router)
    found = [(router.spec.loopback, 32, "lo"), (router.spec.address, 24, management.spec.key if management else "lo")]
    own = ((link_address(port), port) for port in router.ports.values())
    found += [(address, link_length(address, port), port.spec.key) for address, port in own if address is not None]
    for number, (address, length, interface) in enumerate(found, start=1):
        row = {
            ".id": _id(number),
            "address": f"{address}/{length}",
            "network": str(IPv4Interface(f"{address}/{length}").network.network_address),
            "interface": interface,
            "actual-interface": interface,
            "invalid": "false",
            "dynamic": "false",
            "disabled": "false",
        }
        yield row | ({"slave": "false"} if router.version >= (7, 15, 0) else {})


def _leases_bound(view: View) -> int:
    evening = 0.5 + 0.5 * sin(tau * (view.router.clock.hours(view.now) - 13) / 24)
    return int(view.router.spec.dhcp_leases * (0.7 + 0.3 * evening))


def _leases(view: View) -> Rows:
    router = view.router
    bound = _leases_bound(view)
    for index in range(router.spec.dhcp_leases):
        age = (view.now + 3600 * fraction(router.name, index, "lease")) % 3600
        row = {
            ".id": _id(0x100 + index),
            "address": f"10.10.{index >> 8}.{index & 255}",
            "mac-address": mac(0x02A1B2 << 24 | index),
            "address-lists": "",
            "server": "dhcp1",
            "dhcp-option": "",
            "status": "bound" if index < bound else "waiting",
            "last-seen": duration(age),
        }
        if index < bound:
            row |= {
                "expires-after": duration(7200 - age),
                "active-address": row["address"],
                "active-mac-address": row["mac-address"],
                "active-server": "dhcp1",
                "host-name": str(1000 + index) if index % 5 == 0 else f"host-{index}",
            }
        yield row | {"radius": "false", "dynamic": yes(index % 9 != 0), "blocked": "false", "disabled": "false"}


def _neighbours(view: View) -> Rows:
    router = view.router
    number = 0
    for port in router.ports.values():
        if port.peer is None or not port.running:
            continue
        far = port.peer.router
        number += 1
        row = {
            ".id": _id(number),
            "interface": port.spec.key,
            "address": link_address(port.peer) or far.spec.address,
            "address4": link_address(port.peer) or far.spec.address,
            "mac-address": port.peer.mac,
            "identity": far.name,
            "platform": "MikroTik",
            "version": f"{far.spec.routeros} ({'stable' if far.v7 else 'long-term'})",
            "unpack": "none",
            "age": duration(view.now % 60),
            "uptime": duration(far.uptime(view.now)),
            "software-id": "EMUL-0000",
            "board": far.spec.model,
            "ipv6": "false",
            "system-caps": "bridge,router",
            "system-caps-enabled": "bridge,router",
        }
        if number % 4:  # some neighbours do not tell theirs
            row["interface-name"] = port.peer.spec.key
        yield row


def _connection_count(view: View) -> int:
    carried = sum(sum(port.rates(view.now)) for port in view.router.ports.values())
    return int(carried / 4e6) + 30


def _connections(view: View) -> Rows:
    for index in range(_connection_count(view)):
        yield {
            ".id": _id(index + 1),
            "protocol": "tcp",
            "src-address": f"100.64.{index >> 8 & 255}.{index & 255}:{1024 + index % 60000}",
            "dst-address": "203.0.113.10:443",
            "timeout": "23h59m",
        }


_SERVICES = {
    "telnet": 23,
    "ftp": 21,
    "www": 80,
    "ssh": 22,
    "www-ssl": 443,
    "api": 8728,
    "winbox": 8291,
    "api-ssl": 8729,
}


def _services(view: View) -> Rows:
    router = view.router
    plain = {
        "telnet": 23,
        "ftp": 21,
        "www": 80,
        "ssh": 22,
        "www-ssl": 443,
        "api": 8728,
        "winbox": 8291,
        "api-ssl": 8729,
    }
    for number, (name, port) in enumerate(plain.items()):
        row = {".id": _id(number), "name": name, "port": str(port), "address": "", "certificate": "none"}
        if router.v7:
            row |= {"vrf": "main", "max-sessions": "20"}
        row |= {"invalid": "false", "disabled": yes(not name.startswith("api"))}
        yield row | ({"dynamic": "false"} if router.version >= (7, 24, 0) else {})
    if router.version < (7, 24, 0):
        return
    for session in view.sessions:
        secure = session.via == "api-ssl"
        yield {
            ".id": _id(0x1000 + session.id),
            "name": session.via,
            "port": str(8729 if secure else 8728),
            "proto": "tcp",
            "dynamic": "true",
            "connection": "true",
            "local": f"{router.spec.address}:{8729 if secure else 8728}",
            "remote": session.peer,
        }


def _users(view: View) -> Rows:
    for session in view.sessions:
        yield {
            ".id": _id(session.id),
            "when": formats.date_time(view.router.wall_clock(session.since), view.router.version),
            "name": session.user,
            "address": session.peer.rpartition(":")[0],
            "via": session.via,
            "group": "ispvm-ro",
            "radius": "false",
        }


def _route_count(view: View) -> int:
    return 40 + sum(bgp.spec.prefixes_in for bgp in view.router.bgp if bgp.established(view.now))


def _routes(view: View) -> Rows:
    router = view.router
    for index in range(_route_count(view)):
        row = {
            ".id": _id(0x80000000 + index),
            "dst-address": f"{1 + (index >> 16) % 223}.{index >> 8 & 255}.{index & 255}.0/24",
            "gateway": "10.0.0.0",
            "distance": "20",
        }
        yield row | ({"immediate-gw": "10.0.0.0%sfp28-1"} if router.v7 else {"gateway-status": "10.0.0.0 reachable"})


# /routing


def _state_while_down(adjacency: Bgp, now: float) -> str:
    """The connect attempts of a session that cannot be: mostly active, at times opensent or idle."""
    return ("active", "active", "opensent", "idle", "active")[int((now - adjacency.since) / 7) % 5]


def _local_address(router: Router, bgp: Bgp) -> str:
    return router.spec.loopback if bgp.remote is not None else "198.51.100.2"


def _bgp_peers(view: View) -> Rows:
    """v6: one row a configured peer, whatever its state."""
    router, now = view.router, view.now
    for bgp in router.bgp:
        up = bgp.established(now)
        row = {
            ".id": _id(bgp.index),
            "name": bgp.spec.name,
            "instance": "default",
            "remote-address": bgp.spec.remote_address,
            "remote-as": str(bgp.spec.remote_as),
            "tcp-md5-key": "",
            "nexthop-choice": "default",
            "multihop": "false",
            "route-reflect": "false",
            "hold-time": "3m",
            "ttl": "default",
            "in-filter": "",
            "out-filter": "",
            "address-families": "ip",
            "default-originate": "never",
            "remove-private-as": "false",
            "as-override": "false",
            "passive": "false",
            "use-bfd": "false",
        }
        if up:
            row |= {
                "remote-id": bgp.remote.spec.loopback if bgp.remote else bgp.spec.remote_address,
                "local-address": _local_address(router, bgp),
                "uptime": duration(now - bgp.ready),
                "prefix-count": str(_prefixes(bgp, now)),
                "updates-sent": str(200 + int((now - bgp.ready) / 50)),
                "updates-received": str(bgp.spec.prefixes_in + int((now - bgp.ready) / 9)),
                "withdrawn-sent": "0",
                "withdrawn-received": str(int((now - bgp.ready) / 90)),
                "remote-hold-time": "3m",
                "used-hold-time": "3m",
                "used-keepalive-time": "1m",
                "refresh-capability": "true",
                "as4-capability": "true",
            }
        yield row | {
            "state": "established" if up else _state_while_down(bgp, now),
            "established": yes(up),
            "disabled": "false",
        }


def _prefixes(bgp: Bgp, now: float) -> int:
    """A table fills within a minute of the session coming up, and then breathes a little."""
    full = bgp.spec.prefixes_in * (1 + 0.0005 * sin(tau * now / 3100))
    return int(full * min(1.0, (now - bgp.ready) / 60))


def _bgp_connections(view: View) -> Rows:
    """v7: what is configured."""
    router = view.router
    for bgp in router.bgp:
        inside = bgp.spec.remote_as == router.local_as
        row = {
            ".id": _id(bgp.index + 1),
            "name": bgp.spec.name,
            "remote.address": f"{bgp.spec.remote_address}/32",
            "remote.as": str(bgp.spec.remote_as),
            "local.address": _local_address(router, bgp),
            "local.role": "ibgp" if inside else "ebgp",
            "as": str(router.local_as),
            "router-id": router.spec.loopback,
            "routing-table": "main",
            "templates": "default",
            "connect": "true",
            "listen": "true",
        }
        if router.version >= (7, 20, 0):
            row["instance"] = "bgp-instance-1"
            del row["as"], row["router-id"]
        yield row | {"inactive": "false", "dynamic": "false", "disabled": "false"}


def _bgp_sessions(view: View) -> Rows:
    """v7: the sessions there are. A lost one stays as a row without `established` for some time and then is gone."""
    router, now = view.router, view.now
    for bgp in router.bgp:
        up = bgp.established(now)
        if not up and (bgp.ready <= router.booted or bgp.up or now - bgp.since > CACHED_SESSION_SECONDS):
            continue
        remote = bgp.remote.spec.loopback if bgp.remote else bgp.spec.remote_address
        row = {
            ".id": _id(0x2800000 + bgp.index),
            "name": f"{bgp.spec.name}-1",
            "remote.address": bgp.spec.remote_address,
            "remote.as": str(bgp.spec.remote_as),
            "remote.id": remote,
            "remote.capabilities": "mp,rr,gr,as4",
            "remote.afi": "ip",
            "remote.messages": str(int(max(0.0, now - bgp.ready) / 9) + bgp.spec.prefixes_in // 50),
            "remote.bytes": str(bgp.spec.prefixes_in * 60),
            "remote.eor": "ip",
            "local.role": "ibgp" if bgp.spec.remote_as == router.local_as else "ebgp",
            "local.address": _local_address(router, bgp),
            "local.as": str(router.local_as),
            "local.id": router.spec.loopback,
            "local.capabilities": "mp,rr,gr,as4",
            "local.afi": "ip",
            "local.messages": str(int(max(0.0, now - bgp.ready) / 50) + 200),
            "local.bytes": str(20000),
            "output.procid": str(20 + bgp.index),
            "input.procid": str(20 + bgp.index),
            "input.last-notification": "ffffffffffffffffffffffffffffffff0015030601",
            "hold-time": "3m",
            "keepalive-time": "1m",
        }
        if up:
            row |= {
                "uptime": f"{formats.fine_duration(now - bgp.ready)}",
                "last-started": formats.date_time(router.wall_clock(bgp.ready), router.version),
                "prefix-count": str(_prefixes(bgp, now)),
                "established": "true",
            }
        else:
            row |= {
                "output.last-notification": "ffffffffffffffffffffffffffffffff0015030400",
                "last-stopped": formats.date_time(router.wall_clock(bgp.since), router.version),
                "prefix-count": "0",
            }
        yield row


def _ospf_state(ospf: Ospf, now: float) -> str | None:
    """The way to Full takes some seconds; before and without it there is no row at all."""
    if ospf.established(now):
        return "Full"
    if not ospf.up:
        return None
    left = (ospf.ready - now) / OSPF_SECONDS
    return None if left > 0.7 else "Init" if left > 0.5 else "ExStart" if left > 0.25 else "Loading"


def _ospf_neighbours(view: View) -> Rows:
    router, now = view.router, view.now
    for ospf in router.ospf:
        state = _ospf_state(ospf, now)
        if state is None:
            continue
        row = {
            ".id": _id(ospf.index + 1),
            "instance": "default",
            "router-id": ospf.spec.router_id,
            "address": ospf.spec.address,
            "interface": ospf.spec.interface,
        }
        if router.v7:
            row |= {"area": "backbone", "priority": "128", "timeout": duration(31 + now % 9), "dynamic": "true"}
        else:
            row |= {
                "priority": "1",
                "dr-address": "0.0.0.0",  # noqa: S104
                "backup-dr-address": "0.0.0.0",  # noqa: S104
                "ls-retransmits": "0",
                "ls-requests": "0",
                "db-summaries": "0",
            }
        row |= {"state": state, "state-changes": str(5 + ospf.changes)}
        yield row | ({"adjacency": duration(now - ospf.ready)} if state == "Full" else {})


def _ospf_interfaces(view: View) -> Rows:
    """Where OSPF is configured: what a client can expect neighbours on."""
    router = view.router
    for ospf in router.ospf:
        row = {".id": _id(ospf.index + 1), "cost": "10", "priority": "1"}
        if router.v7:
            row |= {"name": ospf.spec.interface, "area": "backbone", "type": "ptp", "state": "ptp", "dynamic": "true"}
        else:
            row |= {"interface": ospf.spec.interface, "network-type": "point-to-point", "state": "point-to-point"}
        yield row


# /ppp


def _ppp_active(view: View) -> Rows:
    for subscriber in view.router.subscribers(view.now):
        row = {
            ".id": _id(subscriber.session),
            "name": subscriber.line.name,
            "service": "pppoe",
            "caller-id": subscriber.line.caller_id,
            "address": subscriber.line.address,
            "uptime": duration(subscriber.uptime),
            "encoding": "",
            "session-id": f"0x{subscriber.session:X}",
        }
        if view.router.v7:
            row |= {"limit-bytes-in": "0", "limit-bytes-out": "0"}
        yield row | {"radius": "true"}


MENUS: dict[str, Menu] = {
    "/system/resource": Menu(_resource),
    "/system/identity": Menu(_identity),
    "/system/routerboard": Menu(_routerboard),
    "/system/health": Menu(_health),
    "/system/clock": Menu(_clock),
    "/system/ntp/client": Menu(_ntp_client),
    "/system/package": Menu(_packages),
    "/system/license": Menu(_license),
    "/system/history": Menu(_history),
    "/log": Menu(_log),
    "/interface": Menu(_interfaces),
    "/interface/ethernet": Menu(_ethernet),
    "/ip/address": Menu(_addresses),
    "/ip/dhcp-server/lease": Menu(_leases, count=lambda view: view.router.spec.dhcp_leases),
    "/ip/neighbor": Menu(_neighbours),
    "/ip/firewall/connection": Menu(_connections, count=_connection_count),
    "/ip/route": Menu(_routes, count=_route_count),
    "/ip/service": Menu(_services),
    "/routing/bgp/peer": Menu(_bgp_peers, until=V7),
    "/routing/bgp/connection": Menu(_bgp_connections, since=V7),
    "/routing/bgp/session": Menu(_bgp_sessions, since=V7),
    "/routing/ospf/neighbor": Menu(_ospf_neighbours),
    "/routing/ospf/interface": Menu(_ospf_interfaces, until=V7),
    "/routing/ospf/interface-template": Menu(_ospf_interfaces, since=V7),
    "/ppp/active": Menu(_ppp_active, count=lambda view: view.router.subscribers_wanted(view.now)),
    "/user/active": Menu(_users),
}
