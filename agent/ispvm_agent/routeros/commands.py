"""Every command this agent can send to a router, beside the login. There is no other way to a router's socket.

All of them print, or monitor once; none changes anything. An Enum is closed: code that runs later cannot add to it, and
a session accepts nothing else. `.proplist` names each field asked for, so secrets and personal data are never even
requested.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import final

# Sessions of subscribers appear as interfaces; they are neither asked for nor published.
SUBSCRIBER_TYPES = ("pppoe-in", "l2tp-in", "pptp-in", "sstp-in", "ovpn-in", "ppp-in")


def _print(menu: str, *fields: str, where: tuple[str, ...] = ()) -> tuple[str, ...]:
    return (f"{menu}/print", f"=.proplist={','.join(fields)}", *where)


def _count(menu: str, *where: str) -> tuple[str, ...]:
    return (f"{menu}/print", "=count-only=", *where)


def _monitor(command: str, *fields: str) -> tuple[str, ...]:
    return (command, "=once=", f"=.proplist={','.join(fields)}")


_LTE = (
    "status", "registration-status", "current-operator", "access-technology", "data-class",
    "rssi", "rsrp", "rsrq", "sinr",
)  # fmt: skip


class Command(Enum):
    """A print command with the fields it asks for; the value is its words."""

    RESOURCE = _print(
        "/system/resource",
        "uptime", "version", "cpu-load", "free-memory", "total-memory", "free-hdd-space",
        "architecture-name", "board-name",
    )  # fmt: skip
    IDENTITY = _print("/system/identity", "name")
    ROUTERBOARD = _print(
        "/system/routerboard", "routerboard", "model", "serial-number", "current-firmware", "upgrade-firmware"
    )
    PACKAGES = _print("/system/package", "version", "disabled", "available")
    DEVICE_MODE = _print("/system/device-mode", "mode", "flagged")
    HEALTH_V6 = _print(
        "/system/health",
        "temperature", "board-temperature", "board-temperature1", "board-temperature2", "cpu-temperature", "voltage",
        "current", "power-consumption", "fan1-speed", "fan2-speed", "fan3-speed", "fan4-speed",
        "psu1-state", "psu2-state", "psu1-voltage", "psu2-voltage", "psu1-current", "psu2-current",
    )  # fmt: skip
    HEALTH_V7 = _print("/system/health", "name", "value", "type")
    CLOCK = _print("/system/clock", "date", "time", "gmt-offset")
    NTP_V6 = _print(
        "/system/ntp/client", "enabled", "active-server", "last-update-before", "poll-interval", "last-adjustment"
    )
    NTP_V7 = _print("/system/ntp/client", "enabled", "status", "system-offset", "synced-stratum")
    INTERFACES = _print(
        "/interface",
        "name", "default-name", "type", "running", "disabled", "rx-byte", "tx-byte",
        "rx-error", "tx-error", "rx-drop", "tx-drop", "link-downs",
        where=(*(f"?type={kind}" for kind in SUBSCRIBER_TYPES), f"?#{'|' * (len(SUBSCRIBER_TYPES) - 1)}!"),
    )  # fmt: skip
    ETHERNET_PORTS = _print("/interface/ethernet", ".id", "name")
    ETHERNET_MONITOR = _monitor(
        "/interface/ethernet/monitor",
        "name", "status", "rate", "full-duplex", "sfp-rx-power", "sfp-tx-power", "sfp-temperature",
        "sfp-supply-voltage", "sfp-tx-bias-current", "sfp-rx-loss", "sfp-tx-fault",
    )  # fmt: skip
    WIRELESS_CLIENTS = _print("/interface/wireless/registration-table", "interface", "signal-strength")
    WIFI_CLIENTS = _print("/interface/wifi/registration-table", "interface", "signal")
    WIFIWAVE2_CLIENTS = _print("/interface/wifiwave2/registration-table", "interface", "signal")
    CAPSMAN_CLIENTS = _print("/caps-man/registration-table", "interface", "rx-signal")
    LTE_PORTS = _print("/interface/lte", ".id", "name")
    LTE_INFO_V6 = _monitor("/interface/lte/info", *_LTE)
    LTE_MONITOR_V7 = _monitor("/interface/lte/monitor", *_LTE)
    NEIGHBORS = _print("/ip/neighbor", "interface", "identity", "platform", "board", "version", "interface-name")
    NETWATCH_V6 = _print("/tool/netwatch", "host", "status", "disabled")
    NETWATCH_V7 = _print(
        "/tool/netwatch", "name", "host", "type", "port", "status", "disabled", "rtt-avg", "rtt-jitter", "loss-percent"
    )
    BFD_V6 = _print("/routing/bfd/neighbor", "address", "interface", "state")
    BFD_V7 = _print("/routing/bfd/session", "remote-address", "interface", "state", "uptime")
    BGP_PEERS_V6 = _print(
        "/routing/bgp/peer", "name", "remote-address", "remote-as", "state", "uptime", "prefix-count", "disabled"
    )
    BGP_CONNECTIONS_V7 = _print("/routing/bgp/connection", "name", "remote.address", "remote.as", "disabled")
    BGP_SESSIONS_V7 = _print(
        "/routing/bgp/session", "name", "remote.address", "remote.as", "established", "uptime", "prefix-count"
    )
    OSPF_V6 = _print(
        "/routing/ospf/neighbor",
        "router-id", "address", "interface", "state", "adjacency", "dr-address", "backup-dr-address",
    )  # fmt: skip
    OSPF_V7 = _print("/routing/ospf/neighbor", "router-id", "address", "interface", "state", "adjacency")
    HISTORY = _print("/system/history", ".id", "by", "action", "time")
    USERS = _print("/user/active", "via")
    QUEUE_COUNT = _count("/queue/simple", "?dynamic=false")
    QUEUES = _print("/queue/simple", "disabled", "dropped", "queued-bytes", where=("?dynamic=false",))
    POOLS = _print("/ip/pool", "name", "ranges")
    POOL_USED = _count("/ip/pool/used")
    PPP_COUNT = _count("/ppp/active")
    DHCP_COUNT = _count("/ip/dhcp-server/lease", "?status=bound")
    CONNECTION_COUNT = _count("/ip/firewall/connection")

    @property
    def words(self) -> tuple[str, ...]:
        """The sentence as it is sent, without its tag."""
        value: tuple[str, ...] = self.value
        return value

    @property
    def menu(self) -> str:
        """The menu it prints, "/system/resource"; of a monitor command, all of it."""
        return self.words[0].removesuffix("/print")

    @property
    def policies(self) -> str:
        """What the router's user needs for it."""
        return "read and api" if self.words[0].endswith("/print") else "read, api and (on RouterOS 6) test"

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields it asks for; none for a count."""
        for word in self.words:
            if word.startswith("=.proplist="):
                return tuple(word.removeprefix("=.proplist=").split(","))
        return ()


# Commands about some items of the router, and the word that says which.
AIMS = {
    Command.ETHERNET_MONITOR: "=numbers=",
    Command.LTE_INFO_V6: "=number=",
    Command.LTE_MONITOR_V7: "=numbers=",
    Command.POOL_USED: "?pool=",
}
_ITEM_ID = re.compile(r"\*[0-9A-Fa-f]{1,16}")


@final
@dataclass(frozen=True, slots=True)
class Aimed:
    """A command of the list pointed at items that the router itself named: ids like "*1F", or the name of one pool."""

    command: Command
    items: tuple[str, ...]

    @property
    def words(self) -> tuple[str, ...]:
        """The sentence as it is sent; raises ValueError for anything that is not such an item."""
        aim = AIMS.get(self.command)
        if aim is None or not self.items:
            raise ValueError(f"{self.command.name} is not aimed at items")
        if aim.startswith("?"):
            (name,) = self.items
            if not name.isprintable() or len(name) > 255:
                raise ValueError(f"{name!r} is no name")
        elif not all(_ITEM_ID.fullmatch(item) for item in self.items):
            raise ValueError(f"{self.items!r} are no ids")
        first, *rest = self.command.words
        return (first, f"{aim}{','.join(self.items)}", *rest)

    @property
    def menu(self) -> str:
        """The command's menu."""
        return self.command.menu

    @property
    def fields(self) -> tuple[str, ...]:
        """The command's fields."""
        return self.command.fields

    @property
    def policies(self) -> str:
        """The command's policies."""
        return self.command.policies


Question = Command | Aimed
