"""The router itself: resources, identity, health sensors, clock and NTP."""

from __future__ import annotations

from ispvm_contract.ingest import Value

from ispvm_agent.collectors.base import Findings, Moment, Replies, Stateless, Tier, Version
from ispvm_agent.routeros import values
from ispvm_agent.routeros.commands import Command
from ispvm_agent.routeros.session import Reply

_CLOCK_LOST_BEFORE = 2000  # a router without a battery starts in 1970


def first(reply: Reply) -> values.Row:
    """The only row of a menu that has one; empty when there is none."""
    return reply.rows[0] if reply.rows else {}


def present(metrics: dict[str, Value]) -> dict[str, Value]:
    """Those that have a value."""
    return {name: value for name, value in metrics.items() if value is not None}


class Resource(Stateless):
    """CPU, memory, disk, uptime, version."""

    name = "resource"
    tier: Tier = "fast"
    publishes: tuple[str, ...] = (
        "device.uptime_seconds", "device.cpu_pct", "device.mem_total_bytes", "device.mem_used_bytes",
        "device.disk_free_bytes", "routeros", "architecture", "model",
    )  # fmt: skip

    def ask(self, version: Version) -> tuple[Command, ...]:
        """One row on every version."""
        return (Command.RESOURCE,)

    def publish(self, replies: Replies, moment: Moment) -> Findings:
        """Device metrics, and what the router says of its build."""
        row = first(replies[Command.RESOURCE])
        total, free = values.integer(row, "total-memory"), values.integer(row, "free-memory")
        about = {"routeros": "version", "architecture": "architecture-name", "model": "board-name"}
        found = Findings(about={ours: said for ours, theirs in about.items() if (said := values.text(row, theirs))})
        found.device = present(
            {
                "device.uptime_seconds": moment.uptime,
                "device.cpu_pct": values.number(row, "cpu-load"),
                "device.mem_total_bytes": total,
                "device.mem_used_bytes": None if total is None or free is None else total - free,
                "device.disk_free_bytes": values.integer(row, "free-hdd-space"),
            }
        )
        return found


class Identity(Stateless):
    """The name the router gives itself."""

    name = "identity"
    tier: Tier = "slow"
    publishes: tuple[str, ...] = ("identity",)

    def ask(self, version: Version) -> tuple[Command, ...]:
        """One row."""
        return (Command.IDENTITY,)

    def publish(self, replies: Replies, moment: Moment) -> Findings:
        """Its name, only ever a text."""
        name = values.text(first(replies[Command.IDENTITY]), "name")
        return Findings(about={"identity": name} if name else {})


class Routerboard(Stateless):
    """Model and serial number; virtual routers have neither."""

    name = "routerboard"
    tier: Tier = "slow"
    publishes: tuple[str, ...] = ("model", "serial")

    def ask(self, version: Version) -> tuple[Command, ...]:
        """One row; some virtual builds have no such menu."""
        return (Command.ROUTERBOARD,)

    def publish(self, replies: Replies, moment: Moment) -> Findings:
        """Model and serial number where there are any."""
        row = first(replies[Command.ROUTERBOARD])
        about = {"model": "model", "serial": "serial-number"}
        return Findings(about={ours: said for ours, theirs in about.items() if (said := values.text(row, theirs))})


class Health(Stateless):
    """Temperature and voltage, where the hardware has sensors."""

    name = "health"
    tier: Tier = "medium"
    publishes: tuple[str, ...] = ("device.temp_c", "device.voltage_v")

    def ask(self, version: Version) -> tuple[Command, ...]:
        """One row of named fields on v6, a row a sensor on v7."""
        return (Command.HEALTH_V7,) if version >= (7, 0) else (Command.HEALTH_V6,)

    def publish(self, replies: Replies, moment: Moment) -> Findings:
        """The board's own sensor before the CPU's."""
        ((command, reply),) = replies.items()
        if command is Command.HEALTH_V7:
            row = {r["name"]: r["value"] for r in reply.rows if "name" in r and "value" in r}
        else:
            row = first(reply)
        sensors = ("temperature", "board-temperature", "board-temperature1", "cpu-temperature")
        readings = [reading for sensor in sensors if (reading := values.number(row, sensor)) is not None]
        return Findings(
            device=present(
                {"device.temp_c": readings[0] if readings else None, "device.voltage_v": values.number(row, "voltage")}
            )
        )


class Clock(Stateless):
    """How far the router's clock is off, safe against time zones, with its uncertainty."""

    name = "clock"
    tier: Tier = "slow"
    publishes: tuple[str, ...] = ("device.clock.skew_seconds", "device.clock.uncertainty_seconds")

    def ask(self, version: Version) -> tuple[Command, ...]:
        """One row, resolution one second."""
        return (Command.CLOCK,)

    def publish(self, replies: Replies, moment: Moment) -> Findings:
        """Skew = router minus agent; the printed second is cut off, so half of one is added."""
        reply = replies[Command.CLOCK]
        row = first(reply)
        router = values.date_time(row.get("date"), row.get("time"), row.get("gmt-offset"))
        if router is None or router.year < _CLOCK_LOST_BEFORE:
            return Findings()
        half_trip = reply.midpoint - reply.sent
        skew = router.timestamp() + 0.5 - (reply.midpoint + moment.wall_offset)
        return Findings(
            device=present(
                {
                    "device.clock.skew_seconds": round(skew, 3),
                    "device.clock.uncertainty_seconds": round(half_trip + 1.0, 3),
                }
            )
        )


class Ntp(Stateless):
    """Whether the router's NTP client follows a server."""

    name = "ntp"
    tier: Tier = "slow"
    publishes: tuple[str, ...] = ("device.ntp.synced",)

    def ask(self, version: Version) -> tuple[Command, ...]:
        """v7 says so itself, v6 has to be judged by the age of its last update."""
        return (Command.NTP_V7,) if version >= (7, 0) else (Command.NTP_V6,)

    def publish(self, replies: Replies, moment: Moment) -> Findings:
        """Synchronised or not; absent when the router does not say."""
        ((command, reply),) = replies.items()
        row = first(reply)
        synced: bool | None = None
        if values.boolean(row, "enabled") is False:
            synced = False
        elif command is Command.NTP_V7:
            synced = row["status"] == "synchronized" if "status" in row else None
        elif values.boolean(row, "enabled"):
            age, every = values.duration(row.get("last-update-before")), values.duration(row.get("poll-interval"))
            synced = bool(row.get("active-server")) and age is not None and age < 4 * (every or 900.0)
        return Findings(device=present({"device.ntp.synced": synced}))
