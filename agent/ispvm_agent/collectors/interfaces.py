"""Interfaces: counters, rates over the interval between two polls, link state."""

from __future__ import annotations

from ispvm_contract.ingest import Value

from ispvm_agent.collectors.base import (
    Entity,
    Findings,
    Happening,
    Moment,
    Replies,
    Stateless,
    Table,
    Tier,
    Version,
    unique,
)
from ispvm_agent.routeros import values
from ispvm_agent.routeros.commands import SUBSCRIBER_TYPES, Command

_COUNTERS = {
    "interface.rx_bytes_total": "rx-byte",
    "interface.tx_bytes_total": "tx-byte",
    "interface.rx_errors_total": "rx-error",
    "interface.tx_errors_total": "tx-error",
    "interface.rx_discards_total": "rx-drop",
    "interface.tx_discards_total": "tx-drop",
    "interface.link_downs_total": "link-downs",
}
_RATES = {"interface.rx_bps": 0, "interface.tx_bps": 1}  # position of the byte counter among _COUNTERS
_Counts = tuple[int | None, ...]
_MAX_BPS = 10**14
_CLOCK_TOLERANCE = 2.5  # seconds by which uptime, printed in whole seconds, may differ from our interval


def _rate(old: int | None, new: int | None, interval: float | None) -> int | None:
    """Bits a second; None where a value is missing or no port could carry so much."""
    if old is None or new is None or not interval:
        return None
    rate = round((new - old) * 8 / interval)
    return rate if rate <= _MAX_BPS else None


class Interfaces(Stateless):
    """All interfaces except those of subscriber sessions."""

    name = "interfaces"
    tier: Tier = "fast"
    publishes: tuple[str, ...] = (
        "interface.oper_up", "interface.admin_up", *_RATES, *_COUNTERS,
        "interface.oper.changed", "interface.counter.reset",
    )  # fmt: skip

    def __init__(self) -> None:
        """Nothing to compare with yet."""
        self._counts: dict[str, _Counts] = {}
        self._running: dict[str, bool | None] = {}
        self._at: float | None = None
        self._uptime: float | None = None

    def ask(self, version: Version) -> tuple[Command, ...]:
        """One command on every version."""
        return (Command.INTERFACES,)

    def publish(self, replies: Replies, moment: Moment) -> Findings:
        """A table of all interfaces in the router's order.

        A counter below its last value was reset: rates of that interval are None and the interface is named in `reset`.
        """
        reply = replies[Command.INTERFACES]
        interval, quality_good = self._interval(reply.midpoint, moment)
        found = Findings()
        keys: list[str] = []
        reset: list[int] = []
        columns: dict[str, list[Value]] = {
            name: [] for name in ("interface.oper_up", "interface.admin_up", *_RATES, *_COUNTERS)
        }
        counts_now: dict[str, _Counts] = {}
        running_now: dict[str, bool | None] = {}
        for row in reply.rows:
            name, kind = values.text(row, "name"), values.text(row, "type")
            if not name or kind in SUBSCRIBER_TYPES:
                continue
            # Somebody may have named a bridge like another port's default name.
            key = unique(values.text(row, "default-name") or name, kind, counts_now)
            counts = tuple(values.integer(row, field) for field in _COUNTERS.values())
            before = self._counts.get(key)
            backwards = before is not None and any(
                old is not None and new is not None and new < old for old, new in zip(before, counts, strict=True)
            )
            if backwards:
                reset.append(len(keys))
                if not moment.rebooted:
                    found.events.append(Happening("interface.counter.reset", "interface", "info", key))
            for metric, position in _RATES.items():
                old = before[position] if before is not None and not backwards else None
                columns[metric].append(_rate(old, counts[position], interval))
            for metric, count in zip(_COUNTERS, counts, strict=True):
                columns[metric].append(count)
            running, disabled = values.boolean(row, "running"), values.boolean(row, "disabled")
            columns["interface.oper_up"].append(running)
            columns["interface.admin_up"].append(None if disabled is None else not disabled)
            self._note_link(found, key, running)
            keys.append(key)
            counts_now[key], running_now[key] = counts, running
            found.entities.append(Entity("interface", key, name, {"type": kind or None}))
        self._counts, self._running = counts_now, running_now
        seen = {metric: column for metric, column in columns.items() if any(v is not None for v in column)}
        if seen:
            found.tables.append(
                Table("interface", keys, seen, interval, reset, "good" if quality_good else "estimated")
            )
        return found

    def _interval(self, midpoint: float, moment: Moment) -> tuple[float | None, bool]:
        """Seconds since the last poll, and whether our clock and the router's agree on them.

        Ours is finer; where they disagree (the router stood still, or its time runs differently) the router's counts.
        """
        before_at, before_uptime = self._at, self._uptime
        self._at, self._uptime = midpoint, moment.uptime
        if before_at is None or midpoint <= before_at or moment.rebooted:
            return None, True
        interval = midpoint - before_at
        if moment.uptime is None or before_uptime is None or moment.uptime <= before_uptime:
            return interval, True
        by_router = moment.uptime - before_uptime
        agree = abs(by_router - interval) <= _CLOCK_TOLERANCE
        return (interval if agree else by_router), agree

    def _note_link(self, found: Findings, key: str, running: bool | None) -> None:
        before = self._running.get(key)
        if before is not None and running is not None and before != running:
            old, new = ("up" if before else "down"), ("up" if running else "down")
            found.events.append(Happening("interface.oper.changed", "interface", "warning", key, old, new))
