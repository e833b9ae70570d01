"""The router's health sensors, its clock and NTP."""

from __future__ import annotations

from ispvm_contract.ingest import Value

from ispvm_agent.collectors.base import (
    Changes,
    Entity,
    Findings,
    Moment,
    Replies,
    Stateless,
    Table,
    Tier,
    Version,
    filled,
    present,
    since,
)
from ispvm_agent.collectors.facts import ALWAYS, first
from ispvm_agent.routeros import values
from ispvm_agent.routeros.commands import Command

_CLOCK_LOST_BEFORE = 2000  # a router without a battery starts in 1970


# What a sensor measures: by the unit that v7 gives it, else by the end of its name.
_UNITS = {
    "C": "sensor.temp_c",
    "RPM": "sensor.fan_rpm",
    "V": "sensor.voltage_v",
    "A": "sensor.current_a",
    "W": "sensor.power_w",
}
_ENDINGS = {
    "temperature": "C", "temperature1": "C", "temperature2": "C", "-speed": "RPM", "voltage": "V", "current": "A",
    "power-consumption": "W",
}  # fmt: skip


class Health(Stateless):
    """Every sensor of the board: temperatures, fans, voltages, and whether the power supplies are well."""

    name = "health"
    tier: Tier = "medium"
    publishes: tuple[str, ...] = (
        "device.temp_c", "device.voltage_v", "sensor.ok", *_UNITS.values(), "sensor.state.changed",
    )  # fmt: skip

    def __init__(self) -> None:
        """No states to compare with yet."""
        self._changes = Changes("sensor.state.changed", "sensor", "critical")

    def ask(self, version: Version) -> tuple[Command, ...]:
        """One row of named fields on v6, a row a sensor on v7."""
        return since(version, {ALWAYS: Command.HEALTH_V6, (7, 0): Command.HEALTH_V7})

    def publish(self, replies: Replies, moment: Moment) -> Findings:
        """A table of sensors; the router's own temperature is the board's sensor before the CPU's."""
        ((command, reply),) = replies.items()
        units: dict[str, str] = {}
        if command is Command.HEALTH_V7:
            row = {n: r["value"] for r in reply.rows if (n := values.text(r, "name")) and "value" in r}
            units = {values.text(r, "name"): r.get("type", "") for r in reply.rows}
        else:
            row = first(reply)
        sensors = ("temperature", "board-temperature", "board-temperature1", "cpu-temperature")
        readings = [reading for sensor in sensors if (reading := values.number(row, sensor)) is not None]
        found = Findings(
            device=present(
                {"device.temp_c": readings[0] if readings else None, "device.voltage_v": values.number(row, "voltage")}
            )
        )
        states = {name: values.text(row, name) for name in row if name.endswith("-state") and values.text(row, name)}
        columns: dict[str, list[Value]] = {
            "sensor.ok": [states[name] == "ok" if name in states else None for name in row]
        }
        for unit, metric in _UNITS.items():
            columns[metric] = [
                values.number(row, name) if (units.get(name) or _unit_of(name)) == unit else None for name in row
            ]
        if columns := filled(columns):
            found.tables.append(Table("sensor", list(row), columns))
            found.entities += [Entity("sensor", name, name, {}) for name in row]
        found.events = self._changes.note(states)
        return found


def _unit_of(name: str) -> str:
    return next((unit for ending, unit in _ENDINGS.items() if name.endswith(ending)), "")


class Clock(Stateless):
    """How far the router's clock is off, safe against time zones, with its uncertainty."""

    name = "clock"
    tier: Tier = "slow"
    publishes: tuple[str, ...] = (
        "device.clock.skew_seconds", "device.clock.uncertainty_seconds", "device.clock.lost",
    )  # fmt: skip

    def ask(self, version: Version) -> tuple[Command, ...]:
        """One row, resolution one second."""
        return (Command.CLOCK,)

    def publish(self, replies: Replies, moment: Moment) -> Findings:
        """Skew = router minus agent; the printed second is cut off, so half of one is added."""
        reply = replies[Command.CLOCK]
        row = first(reply)
        router = values.date_time(row.get("date"), row.get("time"), row.get("gmt-offset"))
        if router is None:
            return Findings()
        if router.year < _CLOCK_LOST_BEFORE:
            return Findings(device={"device.clock.lost": True})
        half_trip = reply.midpoint - reply.sent
        skew = router.timestamp() + 0.5 - (reply.midpoint + moment.wall_offset)
        return Findings(
            device=present(
                {
                    "device.clock.skew_seconds": round(skew, 3),
                    "device.clock.uncertainty_seconds": round(half_trip + 1.0, 3),
                    "device.clock.lost": False,
                }
            )
        )


class Ntp(Stateless):
    """Whether the router's NTP client follows a server, and how well."""

    name = "ntp"
    tier: Tier = "slow"
    publishes: tuple[str, ...] = ("device.ntp.synced", "device.ntp.offset_ms", "device.ntp.stratum")

    def ask(self, version: Version) -> tuple[Command, ...]:
        """v7 says so itself, v6 has to be judged by the age of its last update."""
        return since(version, {ALWAYS: Command.NTP_V6, (7, 0): Command.NTP_V7})

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
        offset = values.leading(row.get("system-offset"))
        if offset is None and (adjusted := values.duration(row.get("last-adjustment"))) is not None:
            offset = round(adjusted * 1000, 3)
        return Findings(
            device=present(
                {
                    "device.ntp.synced": synced,
                    "device.ntp.offset_ms": offset if synced else None,
                    "device.ntp.stratum": values.integer(row, "synced-stratum") if synced else None,
                }
            )
        )
