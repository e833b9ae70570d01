"""Interfaces: counters, rates over the interval between two polls, link state."""

from __future__ import annotations

from collections.abc import Callable
from operator import gt, sub
from typing import Any, TypeVar, cast

from ispvm_contract.ingest import Quality, Value

from ispvm_agent.collectors.base import (
    Changes,
    Entity,
    Findings,
    Happening,
    Moment,
    Replies,
    Stateless,
    Table,
    Tier,
    Version,
    filled,
    unique,
)
from ispvm_agent.routeros import values
from ispvm_agent.routeros.commands import SUBSCRIBER_TYPES, Command
from ispvm_agent.routeros.session import Reply

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
_T = TypeVar("_T")


def _rates(before: _Column, now: _Column, interval: float) -> list[Value]:
    """Bits a second; None where a value is missing or no port could carry so much."""
    try:
        rates = [round(moved * 8 / interval) for moved in map(sub, now, before)]
        if min(rates, default=0) >= 0 and max(rates, default=0) <= _MAX_BPS:
            return [*rates]
    except TypeError:  # some are missing
        pass
    return [
        rate
        if old is not None and new is not None and 0 <= (rate := round((new - old) * 8 / interval)) <= _MAX_BPS
        else None
        for old, new in zip(before, now, strict=True)
    ]


def _fallen(before: _Column, now: _Column) -> list[int]:
    """Where a counter is below its last value."""
    try:
        if not any(map(gt, before, now)):  # type: ignore[arg-type]
            return []
    except TypeError:  # some are missing
        pass
    pairs = enumerate(zip(before, now, strict=True))
    return [place for place, (old, new) in pairs if old is not None and new is not None and new < old]


def _text(told: str | None) -> str:
    return values.text({"": told or ""}, "")


def keyed(reply: Reply) -> dict[str, int]:
    """Place of each interface that is published, by the key that every collector calls it by."""
    found: dict[str, int] = {}
    columns = (reply.column(name) for name in ("name", "default-name", "type"))
    for place, (name, default, kind) in enumerate(zip(*columns, strict=True)):
        if _text(name) and _text(kind) not in SUBSCRIBER_TYPES:
            # Somebody may have named a bridge like another port's default name.
            found[unique(_text(default) or _text(name), _text(kind), found)] = place
    return found


def keys_by_name(reply: Reply) -> dict[str, str]:
    """The key of each interface by its present name, which is what other menus call it by."""
    names = reply.column("name")
    return {_text(names[place]): key for key, place in keyed(reply).items()}


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
        self._running: list[bool | None] = []
        self._last: dict[str, tuple[str, list[Any]]] = {}  # by field: what was told, and what that means
        self._changes = Changes("interface.oper.changed", "interface", "warning")
        self._as_told: list[list[str | None]] = []
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
        keys = self._identify(reply, found)
        counters = {metric: self._read(reply, name, values.integers) for metric, name in _COUNTERS.items()}
        before = self._before(keys)
        reset = {place for metric, column in counters.items() for place in _fallen(before[metric], column)}
        running, disabled = (self._read(reply, name, values.booleans) for name in ("running", "disabled"))
        columns: dict[str, list[Value]] = {
            "interface.oper_up": [*running],
            "interface.admin_up": [None if off is None else not off for off in disabled],
            **{metric: [*column] for metric, column in counters.items()},
        }
        if interval:
            for metric, counter in _RATES.items():
                columns[metric] = _rates(before[counter], counters[counter], interval)
                for place in reset:
                    columns[metric][place] = None
        if not moment.rebooted:
            found.events += [
                Happening("interface.counter.reset", "interface", "info", keys[place]) for place in sorted(reset)
            ]
        if running is not self._running or keys is not self._keys:
            words = {True: "up", False: "down", None: None}
            found.events += self._changes.note({key: words[up] for key, up in zip(keys, running, strict=True)})
        self._keys, self._counters, self._running = keys, counters, running
        if seen := filled(columns):
            quality: Quality = "good" if clocks_agree else "estimated"
            found.tables.append(Table("interface", keys, seen, interval, sorted(reset), quality))
        return found

    def _identify(self, reply: Reply, found: Findings) -> list[str]:
        """Keys of the interfaces that are published; new and renamed ones go to the inventory."""
        as_told = [reply.column(name) for name in ("name", "default-name", "type")]
        if as_told == self._as_told:  # nearly always: nothing was added, removed or renamed
            return self._keys
        places = keyed(reply)
        self._as_told, self._places = as_told, [*places.values()]
        for key, place in places.items():
            name, kind = _text(as_told[0][place]), _text(as_told[2][place])
            if self._described.get(key) != (name, kind):
                self._described[key] = (name, kind)
                found.entities.append(Entity("interface", key, name, {"type": kind or None}))
        return [*places]

    def _read(self, reply: Reply, name: str, parse: Callable[[list[str | None]], list[_T]]) -> list[_T]:
        """A field of the published rows, parsed anew only when it is told otherwise than last: most seldom change."""
        column = reply.column(name)
        if len(self._places) != len(column):
            column = [column[place] for place in self._places]
        if None in column:
            return parse(column)
        told, last = "\0".join((str(len(column)), *cast("list[str]", column))), self._last.get(name)
        if last is None or last[0] != told:
            last = self._last[name] = (told, parse(column))
        return last[1]

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
