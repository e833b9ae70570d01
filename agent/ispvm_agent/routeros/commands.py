"""Every command this agent can send to a router, beside the login. There is no other way to a router's socket.

All of them print; none changes anything. An Enum is closed: code that runs later cannot add to it, and a session
accepts nothing else. `.proplist` names each field asked for, so secrets and personal data are never even requested.
"""

from __future__ import annotations

from enum import Enum

# Sessions of subscribers appear as interfaces; they are neither asked for nor published.
SUBSCRIBER_TYPES = ("pppoe-in", "l2tp-in", "pptp-in", "sstp-in", "ovpn-in", "ppp-in")


def _print(menu: str, *fields: str, where: tuple[str, ...] = ()) -> tuple[str, ...]:
    return (f"{menu}/print", f"=.proplist={','.join(fields)}", *where)


def _count(menu: str, *where: str) -> tuple[str, ...]:
    return (f"{menu}/print", "=count-only=", *where)


class Command(Enum):
    """A print command with the fields it asks for; the value is its words."""

    RESOURCE = _print(
        "/system/resource",
        "uptime", "version", "cpu-load", "free-memory", "total-memory", "free-hdd-space",
        "architecture-name", "board-name",
    )  # fmt: skip
    IDENTITY = _print("/system/identity", "name")
    ROUTERBOARD = _print("/system/routerboard", "routerboard", "model", "serial-number")
    HEALTH_V6 = _print("/system/health", "temperature", "board-temperature", "cpu-temperature", "voltage")
    HEALTH_V7 = _print("/system/health", "name", "value", "type")
    CLOCK = _print("/system/clock", "date", "time", "gmt-offset")
    NTP_V6 = _print("/system/ntp/client", "enabled", "active-server", "last-update-before", "poll-interval")
    NTP_V7 = _print("/system/ntp/client", "enabled", "status")
    INTERFACES = _print(
        "/interface",
        "name", "default-name", "type", "running", "disabled", "rx-byte", "tx-byte",
        "rx-error", "tx-error", "rx-drop", "tx-drop", "link-downs",
        where=(*(f"?type={kind}" for kind in SUBSCRIBER_TYPES), f"?#{'|' * (len(SUBSCRIBER_TYPES) - 1)}!"),
    )  # fmt: skip
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
        """The menu it prints, "/system/resource"."""
        return self.words[0].removesuffix("/print")

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields it asks for; none for a count."""
        for word in self.words:
            if word.startswith("=.proplist="):
                return tuple(word.removeprefix("=.proplist=").split(","))
        return ()
