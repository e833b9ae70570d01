"""Menus that tell something of the router itself in one row or one number. Each is an entry of a table, not a class."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ispvm_contract.ingest import Value

from ispvm_agent.collectors.base import Findings, Moment, Replies, Stateless, Tier, Version, present, since
from ispvm_agent.routeros import values
from ispvm_agent.routeros.commands import Command
from ispvm_agent.routeros.session import Reply
from ispvm_agent.routeros.values import Row

ALWAYS: Version = (0, 0)


def first(reply: Reply) -> Row:
    """The only row of a menu that has one; empty when there is none."""
    return reply.rows[0] if reply.rows else {}


def counted(reply: Reply) -> int | None:
    """The number in `!done`."""
    told = reply.ret or ""
    return int(told) if told.isascii() and told.isdigit() and len(told) <= 18 else None


def of(read: Callable[[Row, str], Value], field: str) -> Callable[[Reply], Value]:
    """One field of the only row."""
    return lambda reply: read(first(reply), field)


class Facts(Stateless):
    """The collector of one menu: what each metric is made of, and which of its texts go to the inventory."""

    def __init__(
        self,
        name: str,
        tier: Tier,
        menus: Mapping[Version, Command | None],
        device: Mapping[str, Callable[[Reply], Value]],
        about: Mapping[str, str] | None = None,
    ) -> None:
        """`menus` by the version from which on they exist; `about` from our name of a text to the router's."""
        self.name = name
        self.tier = tier
        self.publishes = (*device, *(about or {}))
        self._menus, self._device, self._about = menus, device, about or {}

    def ask(self, version: Version) -> tuple[Command, ...]:
        """The menu of this version."""
        return since(version, self._menus)

    def publish(self, replies: Replies, moment: Moment) -> Findings:
        """What the router tells; absent is absent."""
        (reply,) = replies.values()
        row = first(reply)
        return Findings(
            device=present({metric: tell(reply) for metric, tell in self._device.items()}),
            about={ours: told for ours, theirs in self._about.items() if (told := values.text(row, theirs))},
        )


def _used_memory(reply: Reply) -> int | None:
    total, free = (values.integer(first(reply), f"{which}-memory") for which in ("total", "free"))
    return None if total is None or free is None else total - free


def _upgrade_pending(reply: Reply) -> bool | None:
    now, then = (first(reply).get(f"{which}-firmware") for which in ("current", "upgrade"))
    return now != then if now and then else None


def _enabled(reply: Reply) -> list[str]:
    """Versions of the packages that are installed and enabled; newer RouterOS also lists what is `available`."""
    off = ("disabled", "available")
    return [values.text(row, "version") for row in reply.rows if not any(values.boolean(row, flag) for flag in off)]


def _logged_in(reply: Reply, *, programs: bool) -> int:
    """API sessions that only grow in number have leaked."""
    return sum((values.text(row, "via") in ("api", "api-ssl", "rest-api")) is programs for row in reply.rows)


def facts() -> dict[str, Facts]:
    """All of them, by name."""
    return {
        menu.name: menu
        for menu in (
            Facts("resource", "fast", {ALWAYS: Command.RESOURCE}, {
                "device.uptime_seconds": lambda reply: values.duration(first(reply).get("uptime")),
                "device.cpu_pct": of(values.number, "cpu-load"),
                "device.mem_total_bytes": of(values.integer, "total-memory"),
                "device.mem_used_bytes": _used_memory,
                "device.disk_free_bytes": of(values.integer, "free-hdd-space"),
            }, {"routeros": "version", "architecture": "architecture-name", "model": "board-name"}),
            Facts("identity", "slow", {ALWAYS: Command.IDENTITY}, {}, {"identity": "name"}),
            # virtual routers have none of it
            Facts("routerboard", "slow", {ALWAYS: Command.ROUTERBOARD},
                  {"device.firmware.upgrade_pending": _upgrade_pending}, {"model": "model", "serial": "serial-number"}),
            Facts("packages", "slow", {ALWAYS: Command.PACKAGES}, {
                "device.packages.enabled": lambda reply: len(_enabled(reply)) or None,
                "device.packages.versions": lambda reply: len(set(_enabled(reply)) - {""}) or None,
            }),
            Facts("device-mode", "slow", {(7, 0): Command.DEVICE_MODE},
                  {"device.flagged": of(values.boolean, "flagged")}),
            Facts("dhcp", "slow", {ALWAYS: Command.DHCP_COUNT}, {"dhcp.leases.active": counted}),
            Facts("connections", "medium", {ALWAYS: Command.CONNECTION_COUNT},
                  {"device.firewall.connections": counted}),
            Facts("users", "slow", {ALWAYS: Command.USERS}, {
                "device.sessions.api": lambda reply: _logged_in(reply, programs=True),
                "device.sessions.people": lambda reply: _logged_in(reply, programs=False),
            }),
        )
    }  # fmt: skip
