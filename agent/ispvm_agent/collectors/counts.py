"""Sessions, leases and connections, counted by the router: no subscriber is ever listed."""

from __future__ import annotations

from ispvm_agent.collectors.base import Findings, Moment, Replies, Stateless, Tier, Version
from ispvm_agent.routeros.commands import Command
from ispvm_agent.routeros.session import Reply


def counted(reply: Reply) -> int | None:
    """The number in `!done`."""
    return int(reply.ret) if reply.ret is not None and reply.ret.isascii() and reply.ret.isdigit() else None


class PppSessions(Stateless):
    """Active PPP sessions and how fast their number changes."""

    name = "ppp"
    tier: Tier = "medium"
    publishes: tuple[str, ...] = ("pppoe.sessions.active", "pppoe.sessions.churn_per_min")

    def __init__(self) -> None:
        """No count to compare with yet."""
        self._before: tuple[float, int] | None = None

    def ask(self, version: Version) -> tuple[Command, ...]:
        """A count."""
        return (Command.PPP_COUNT,)

    def publish(self, replies: Replies, moment: Moment) -> Findings:
        """The count, and its change per minute once there are two."""
        reply = replies[Command.PPP_COUNT]
        found, count = Findings(), counted(reply)
        if count is None:
            return found
        found.device["pppoe.sessions.active"] = count
        if self._before is not None and reply.midpoint > self._before[0]:
            minutes = (reply.midpoint - self._before[0]) / 60
            found.device["pppoe.sessions.churn_per_min"] = round(abs(count - self._before[1]) / minutes, 2)
        self._before = (reply.midpoint, count)
        return found


class DhcpLeases(Stateless):
    """Bound DHCP leases."""

    name = "dhcp"
    tier: Tier = "slow"
    publishes: tuple[str, ...] = ("dhcp.leases.active",)

    def ask(self, version: Version) -> tuple[Command, ...]:
        """A count."""
        return (Command.DHCP_COUNT,)

    def publish(self, replies: Replies, moment: Moment) -> Findings:
        """The count."""
        count = counted(replies[Command.DHCP_COUNT])
        return Findings(device={} if count is None else {"dhcp.leases.active": count})


class Connections(Stateless):
    """Tracked connections of the firewall."""

    name = "connections"
    tier: Tier = "medium"
    publishes: tuple[str, ...] = ("device.firewall.connections",)

    def ask(self, version: Version) -> tuple[Command, ...]:
        """A count."""
        return (Command.CONNECTION_COUNT,)

    def publish(self, replies: Replies, moment: Moment) -> Findings:
        """The count."""
        count = counted(replies[Command.CONNECTION_COUNT])
        return Findings(device={} if count is None else {"device.firewall.connections": count})
