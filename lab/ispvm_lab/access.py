"""What customers hang on, and what routers watch: radios, modems, pools, queues, BFD, netwatch. More of `menus.py`."""

from __future__ import annotations

from collections.abc import Iterator
from math import sin, tau

from . import formats
from .formats import Version, duration
from .menus import V7, Menu, Row, Rows, View
from .traffic import between, fraction
from .world import Port, Router, mac

WIFI: Version = (7, 13, 0)  # the new drivers' menu moved, and the old drivers became a package of their own
BFD_AGAIN: Version = (7, 11, 0)
NETWATCH_TYPES: Version = (7, 5, 0)
STATIC_QUEUES = 12


def _id(number: int) -> str:
    return f"*{number:X}"


def ports_of(router: Router, *types: str) -> list[Port]:
    """The router's interfaces of these types, as the seed has them."""
    return [port for port in router.ports.values() if port.spec.type in types]


# Radios


def _clients(view: View, port: Port) -> Iterator[tuple[int, float]]:
    """Number and signal of each client: more of them in the evening, each at its own distance."""
    if not port.running:
        return
    router = view.router
    evening = 0.5 + 0.5 * sin(tau * (router.clock.hours(view.now) - 14) / 24)
    count = int(between(4, 40, router.name, port.index, "clients") * (0.5 + 0.5 * evening))
    for number in range(count):
        seedling = (router.name, port.index, number, "signal")
        fading = 2.5 * sin(tau * (view.now / 240 + fraction(*seedling, "phase")))
        yield number, between(-84, -48, *seedling) + fading


def _station(view: View, port: Port, number: int) -> Row:
    return {
        ".id": _id(0x1000 * (port.index + 1) + number),
        "interface": port.spec.key,
        "mac-address": mac(0x6C3B6B << 24 | port.index << 12 | number),
        "uptime": duration(between(600, 90000, view.router.name, port.index, number, "up")),
        "last-ip": f"10.20.{port.index}.{number & 255}",
    }


def _wireless(view: View) -> Rows:
    """The old drivers: signal with its rate, bytes as a pair."""
    for port in ports_of(view.router, "wlan"):
        for number, signal in _clients(view, port):
            yield _station(view, port, number) | {
                "radio-name": f"client-{number}",
                "ap": "false",
                "tx-rate": "130Mbps-20MHz/2S",
                "rx-rate": "117Mbps-20MHz/2S",
                "bytes": "123456,654321",
                "signal-strength": f"{signal:.0f}@6Mbps",
                "tx-signal-strength": f"{signal + 3:.0f}",
                "signal-to-noise": f"{signal + 100:.0f}",
            }


def _wifi(view: View) -> Rows:
    """The new drivers: signal and rates are numbers."""
    for port in ports_of(view.router, "wifi"):
        for number, signal in _clients(view, port):
            yield _station(view, port, number) | {
                "ssid": "isp",
                "signal": f"{signal:.0f}",
                "tx-rate": "866700000",
                "rx-rate": "780000000",
                "bytes": "123456,654321",
                "authorized": "true",
            }


def _capsman(view: View) -> Rows:
    for port in ports_of(view.router, "cap"):
        for number, signal in _clients(view, port):
            yield _station(view, port, number) | {
                "ssid": "isp",
                "rx-signal": f"{signal:.0f}",
                "tx-rate": "130Mbps-20MHz/2S",
                "rx-rate": "117Mbps-20MHz/2S",
                "bytes": "123456,654321",
            }


# LTE


def _lte(view: View) -> Rows:
    for port in ports_of(view.router, "lte"):
        yield {
            ".id": _id(port.index + 1),
            "name": port.spec.key,
            "default-name": port.spec.key,
            "mtu": "1500",
            "apn-profiles": "default",
            "network-mode": "lte",
            "running": formats.yes(port.running),
            "disabled": formats.yes(not port.enabled),
        }


def lte_monitor(view: View, port: Port) -> Row:
    """What `monitor` (v7) and `info` (v6) say of a modem, the numbers of its SIM card among it."""
    seedling = (port.router.name, port.index, "lte")
    fading = 3 * sin(tau * (view.now / 1700 + fraction(*seedling)))
    rsrp = between(-108, -82, *seedling) + fading
    row = {
        "pin-status": "ok",
        "registration-status": "registered" if port.running else "searching",
        "functionality": "full",
        "current-operator": "Example Mobile",
        "access-technology": "Evolved 3G (LTE)" if not port.router.v7 else "LTE",
        "imei": "356938035643809",
        "imsi": "001010123456789",
        "uicc": "8900000000000000000",
    }
    if not port.running:
        return row
    return row | {
        "session-uptime": duration(view.now - port.up_at),
        "rssi": f"{rsrp + 27:.0f}{'' if port.router.v7 else 'dBm'}",
        "rsrp": f"{rsrp:.0f}{'' if port.router.v7 else 'dBm'}",
        "rsrq": f"{-8 + fading / 2:.1f}{'' if port.router.v7 else 'dB'}",
        "sinr": f"{14 + 2 * fading:.0f}{'' if port.router.v7 else 'dB'}",
    }


# Addresses and queues


def _ranges(router: Router) -> dict[str, str]:
    """The ranges of each pool, somewhat larger than what is used of it."""
    found = {}
    if router.spec.pppoe_sessions:
        high = router.spec.pppoe_sessions * 5 // 4 + 10
        found["pppoe"] = f"100.64.0.0-100.{64 + (high >> 16)}.{high >> 8 & 255}.{high & 255}"
    if router.spec.dhcp_leases:
        found["dhcp"] = f"10.10.0.0/{32 - max(6, (router.spec.dhcp_leases * 2).bit_length())}"
    return found


def _pools(view: View) -> Rows:
    for number, (name, ranges) in enumerate(_ranges(view.router).items(), start=1):
        yield {".id": _id(number), "name": name, "ranges": ranges}


def _pool_used(view: View) -> Rows:
    """Each address in use, with the name of who uses it."""
    router = view.router
    for subscriber in router.subscribers(view.now):
        yield {
            ".id": _id(subscriber.session),
            "pool": "pppoe",
            "address": subscriber.line.address,
            "owner": "PPP",
            "info": subscriber.line.name,
        }
    for index in range(router.spec.dhcp_leases):
        yield {
            ".id": _id(0x500000 + index),
            "pool": "dhcp",
            "address": f"10.10.{index >> 8}.{index & 255}",
            "owner": "DHCP",
            "info": mac(0x02A1B2 << 24 | index),
        }


def _queues(view: View) -> Rows:
    """Some configured queues, named after customers as people do; and a dynamic one for each PPPoE session."""
    router = view.router
    if not router.spec.pppoe_sessions and not router.spec.dhcp_leases:
        return
    for number in range(STATIC_QUEUES):
        age = router.uptime(view.now)
        drops = int(age * between(0, 0.02, router.name, number, "drops"))
        yield {
            ".id": _id(number + 1),
            "name": f"customer {number}",
            "target": f"10.30.{number}.0/24",
            "max-limit": "20000000/100000000",
            "bytes": f"{int(age * 1e4)}/{int(age * 1e5)}",
            "rate": "80000/800000",
            "queued-bytes": f"0/{int(1500 * fraction(router.name, number, int(view.now / 30)))}",
            "dropped": f"{drops // 9}/{drops}",
            "dynamic": "false",
            "disabled": formats.yes(number == STATIC_QUEUES - 1),
        }
    for subscriber in router.subscribers(view.now):
        yield {
            ".id": _id(0xA00000 + subscriber.session % 0xFFFFF),
            "name": f"<pppoe-{subscriber.line.name}>",
            "target": f"{subscriber.line.address}/32",
            "max-limit": "20000000/100000000",
            "bytes": "0/0",
            "rate": "0/0",
            "queued-bytes": "0/0",
            "dropped": "0/0",
            "dynamic": "true",
            "disabled": "false",
        }


# What the router itself watches


def _bfd_neighbours(view: View) -> Rows:
    """v6: a session an OSPF neighbour."""
    for ospf in view.router.ospf:
        yield {
            ".id": _id(ospf.index + 1),
            "interface": ospf.spec.interface,
            "address": ospf.spec.address,
            "state": "up" if ospf.established(view.now) else "down",
        }


def _bfd_sessions(view: View) -> Rows:
    """v7, from the version on in which BFD came back."""
    for ospf in view.router.ospf:
        up = ospf.established(view.now)
        row = {
            ".id": _id(ospf.index + 1),
            "remote-address": ospf.spec.address,
            "interface": ospf.spec.interface,
            "state": "up" if up else "down",
            "state-changes": str(1 + ospf.changes),
            "multihop": "false",
        }
        yield row | ({"uptime": formats.fine_duration(view.now - ospf.ready)} if up else {})


def _netwatch(view: View) -> Rows:
    """A host for each OSPF neighbour's loopback. Just after a boot nothing is known yet."""
    router = view.router
    for number, ospf in enumerate(router.ospf, start=1):
        host = ospf.spec.router_id
        up = ospf.established(view.now) and host not in router.unreached
        row = {".id": _id(number), "host": host, "interval": "1m", "timeout": "1s"}
        measured = router.version >= NETWATCH_TYPES and number % 2 == 1
        if router.version >= NETWATCH_TYPES:
            row |= {"type": "icmp" if measured else "simple", "name": ""}
        since = router.wall_clock(ospf.since)
        unknown = router.uptime(view.now) < 60
        row |= {
            "status": "unknown" if unknown else "up" if up else "down",
            "since": formats.date_time(since, router.version),
            "disabled": "false",
        }
        if measured and not unknown:
            trip = between(0.4, 9, router.name, host, "rtt")
            lost = 0.0 if up else 100.0
            row |= {"sent-count": "10", "loss-percent": f"{lost:g}"}
            row |= {"rtt-avg": f"{trip * 1000:.0f}us", "rtt-jitter": f"{trip * 90:.0f}us"} if up else {}
        yield row


def _device_mode(view: View) -> Rows:
    router = view.router
    row = {"mode": "advanced" if router.version >= (7, 17, 0) else "enterprise"}
    if router.v7:
        row |= {"container": "no", "scheduler": "yes", "fetch": "yes", "bandwidth-test": "yes"}
        row |= {"flagged": "yes" if router.flagged else "no", "flagging-enabled": "yes", "attempt-count": "0"}
    yield row


def _old_drivers(router: Router) -> bool:
    return router.version < WIFI or bool(ports_of(router, "wlan", "cap"))


MENUS: dict[str, Menu] = {
    "/interface/wireless/registration-table": Menu(_wireless, only=_old_drivers),
    "/caps-man/registration-table": Menu(_capsman, only=_old_drivers),
    "/interface/wifi/registration-table": Menu(_wifi, since=WIFI),
    "/interface/wifiwave2/registration-table": Menu(
        _wifi, since=V7, until=WIFI, only=lambda router: bool(ports_of(router, "wifi"))
    ),
    "/interface/lte": Menu(_lte),
    "/ip/pool": Menu(_pools),
    "/ip/pool/used": Menu(_pool_used),
    "/queue/simple": Menu(_queues),
    "/routing/bfd/neighbor": Menu(_bfd_neighbours, until=V7),
    "/routing/bfd/session": Menu(_bfd_sessions, since=BFD_AGAIN),
    "/tool/netwatch": Menu(_netwatch),
    "/system/device-mode": Menu(_device_mode),
}
