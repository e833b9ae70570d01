"""Interfaces: counters, rates over the interval between two polls, link state."""

from __future__ import annotations

from itertools import repeat

from ispvm_contract.ingest import Quality, Value

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
_RATES = {"interface.rx_bps": "interface.rx_bytes_total", "interface.tx_bps": "interface.tx_bytes_total"}
_MAX_BPS = 10**14
_CLOCK_TOLERANCE = 2.5  # seconds by which uptime, printed in whole seconds, may differ from our interval
_Column = list[int | None]


def _rate(old: int | None, new: int | None, interval: float) -> int | None:
    """Bits a second; None where a value is missing or no port could carry so much."""
    if old is None or new is None:
        return None
    rate = round((new - old) * 8 / interval)
    return rate if 0 <= rate <= _MAX_BPS else None


def keyed(rows: list[values.Row]) -> dict[str, tuple[int, values.Row]]:
    """Place and row of each interface that is published, by the key that every collector calls it by."""
    found: dict[str, tuple[int, values.Row]] = {}
    for place, row in enumerate(rows):
        name, kind = values.text(row, "name"), values.text(row, "type")
        if name and kind not in SUBSCRIBER_TYPES:
            # Somebody may have named a bridge like another port's default name.
            found[unique(values.text(row, "default-name") or name, kind, found)] = (place, row)
    return found


def keys_by_name(rows: list[values.Row]) -> dict[str, str]:
    """The key of each interface by its present name, which is what other menus call it by."""
    return {values.text(row, "name"): key for key, (_, row) in keyed(rows).items()}


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
        self._keys: list[str] = []
        self._counters: dict[str, _Column] = {}
        self._running: dict[str, bool | None] = {}
        self._as_told: list[tuple[str | None, ...]] = []
        self._places: list[int] = []  # of the published rows among all
        self._described: dict[str, tuple[str, str]] = {}
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
        interval, clocks_agree = self._interval(reply.midpoint, moment)
        found = Findings()
        keys, rows = self._identify(reply.rows, found)
        counters = {metric: [values.integer(row, name) for row in rows] for metric, name in _COUNTERS.items()}
        before = self._before(keys)
        reset = {
            place
            for metric, column in counters.items()
            for place, (old, new) in enumerate(zip(before[metric], column, strict=True))
            if old is not None and new is not None and new < old
        }
        running = [values.boolean(row, "running") for row in rows]
        disabled = [values.boolean(row, "disabled") for row in rows]
        columns: dict[str, list[Value]] = {
            "interface.oper_up": [*running],
            "interface.admin_up": [None if off is None else not off for off in disabled],
            **{metric: [*column] for metric, column in counters.items()},
        }
        if interval:
            for metric, counter in _RATES.items():
                rates = map(_rate, before[counter], counters[counter], repeat(interval))
                columns[metric] = [None if place in reset else rate for place, rate in enumerate(rates)]
        if not moment.rebooted:
            found.events += [
                Happening("interface.counter.reset", "interface", "info", keys[place]) for place in sorted(reset)
            ]
        self._note_links(found, dict(zip(keys, running, strict=True)))
        self._keys, self._counters = keys, counters
        seen = {metric: column for metric, column in columns.items() if any(value is not None for value in column)}
        if seen:
            quality: Quality = "good" if clocks_agree else "estimated"
            found.tables.append(Table("interface", keys, seen, interval, sorted(reset), quality))
        return found

    def _identify(self, rows: list[values.Row], found: Findings) -> tuple[list[str], list[values.Row]]:
        """Keys of the interfaces that are published, and their rows; new and renamed ones go to the inventory."""
        as_told: list[tuple[str | None, ...]] = [
            (row.get("name"), row.get("default-name"), row.get("type")) for row in rows
        ]
        if as_told == self._as_told:  # nearly always: nothing was added, removed or renamed
            return self._keys, [rows[place] for place in self._places]
        by_key = keyed(rows)
        self._as_told, self._places = as_told, [place for place, _ in by_key.values()]
        for key, (_, row) in by_key.items():
            name, kind = values.text(row, "name"), values.text(row, "type")
            if self._described.get(key) != (name, kind):
                self._described[key] = (name, kind)
                found.entities.append(Entity("interface", key, name, {"type": kind or None}))
        return list(by_key), [row for _, row in by_key.values()]

    def _before(self, keys: list[str]) -> dict[str, _Column]:
        """The last poll's counters in the order of `keys`; None for an interface that was not there."""
        if keys == self._keys:
            return self._counters or {metric: [] for metric in _COUNTERS}
        places = {key: place for place, key in enumerate(self._keys)}
        return {
            metric: [None if (place := places.get(key)) is None else self._counters[metric][place] for key in keys]
            for metric in _COUNTERS
        }

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

    def _note_links(self, found: Findings, running: dict[str, bool | None]) -> None:
        words = {True: "up", False: "down"}
        for key, now in running.items():
            before = self._running.get(key)
            if now is not before and before is not None and now is not None:
                event = Happening("interface.oper.changed", "interface", "warning", key, words[before], words[now])
                found.events.append(event)
        self._running = running
