"""What every collector is: which commands to send, and what to make of the replies. No collector knows another."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from ispvm_contract.ingest import Quality, Severity, Value

from ispvm_agent.routeros.commands import Command, Question
from ispvm_agent.routeros.session import Reply

Tier = Literal["fast", "medium", "slow"]
Version = tuple[int, int]
Attributes = dict[str, str | float | int | bool | None]
Replies = Mapping[Question, Reply]


@dataclass(frozen=True, slots=True)
class Moment:
    """When a poll happened. Clock values are monotonic seconds, `wall_offset` added to one gives UTC epoch seconds."""

    wall_offset: float
    uptime: float | None = None
    rebooted: bool = False

    def epoch_ms(self, clock: float) -> int:
        """UTC milliseconds of a monotonic time."""
        return int((clock + self.wall_offset) * 1000)


@dataclass(slots=True)
class Table:
    """Values of one entity type: `columns` are as long as `keys`. See `ingest.Poll`."""

    entity_type: str
    keys: list[str]
    columns: dict[str, list[Value]]
    interval_s: float | None = None
    reset: list[int] = field(default_factory=list)
    quality: Quality = "good"


@dataclass(frozen=True, slots=True)
class Happening:
    """Something that changed: a registry event without the identifiers that the poller adds."""

    name: str
    entity_type: str
    severity: Severity
    key: str | None = None
    old: str | None = None
    new: str | None = None


@dataclass(frozen=True, slots=True)
class Entity:
    """An entity inside the router, for the inventory."""

    entity_type: str
    key: str
    name: str
    attributes: Attributes


def unique(key: str, hint: str, taken: Container[str]) -> str:
    """A key nobody has yet: `key`, or the like of "ether1 (bridge)" when something else is called the same."""
    if key in taken:
        key = f"{key[:120]} ({hint[:120]})"
    while key in taken:
        key += "'"
    return key


@dataclass(slots=True)
class Findings:
    """What one poll found out about one router; absent is None or not there, never 0."""

    device: dict[str, Value] = field(default_factory=dict)
    about: dict[str, str] = field(default_factory=dict)  # fields of DevicePatch
    tables: list[Table] = field(default_factory=list)
    events: list[Happening] = field(default_factory=list)
    entities: list[Entity] = field(default_factory=list)

    def merge(self, other: Findings) -> None:
        """Add what another collector found."""
        self.device.update(other.device)
        self.about.update(other.about)
        self.tables += other.tables
        self.events += other.events
        self.entities += other.entities


class Collector(Protocol):
    """One topic of one router. Instances live as long as the router's poller and may keep what they need to compare."""

    name: str
    tier: Tier
    publishes: tuple[str, ...]  # registry metrics and events, and fields of DevicePatch
    later: tuple[Command, ...]  # asked beside those of `ask`, once the first replies allow it
    hurry: bool  # what the last replies told lets it ask the real question: take it along at the next poll

    def ask(self, version: Version) -> tuple[Question, ...]:
        """The commands for this RouterOS version; all of them answered, or `publish` is not called.

        None when this version has nothing of the kind.
        """

    def publish(self, replies: Replies, moment: Moment) -> Findings:
        """What the replies say."""

    def learned(self) -> dict[str, Any]:
        """What must survive a restart of the agent, as JSON; empty for most."""

    def restore(self, learned: dict[str, Any]) -> None:
        """Take back what `learned` gave."""


def since(version: Version, menus: Mapping[Version, Command | None]) -> tuple[Command, ...]:
    """The command of a version: of the newest entry that is not newer; none before the first, or where it is None."""
    known = [command for first, command in sorted(menus.items()) if first <= version]
    return (known[-1],) if known and known[-1] is not None else ()


def present(metrics: dict[str, Value]) -> dict[str, Value]:
    """Those that have a value."""
    return {name: value for name, value in metrics.items() if value is not None}


def filled(columns: dict[str, list[Value]]) -> dict[str, list[Value]]:
    """Those in which anything has a value."""
    return {name: column for name, column in columns.items() if any(value is not None for value in column)}


class Changes:
    """What was told of each key the last time; a key that is new, gone or told nothing is no change."""

    def __init__(self, event: str, entity_type: str, severity: Severity) -> None:
        """The event to make of a change."""
        self._event, self._type, self._severity = event, entity_type, severity
        self._before: dict[str, str] = {}

    def note(self, told: Mapping[str, str | None]) -> list[Happening]:
        """An event for each key that tells something else than before."""
        now = {key: word for key, word in told.items() if word is not None}
        before, self._before = self._before, now
        return [
            Happening(self._event, self._type, self._severity, key, before[key], word)
            for key, word in now.items()
            if before.get(key, word) != word
        ]


class Stateless:
    """What most collectors have in common: nothing that must survive a restart, no hurry, one round of questions."""

    hurry = False
    later: tuple[Command, ...] = ()

    def learned(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def restore(self, learned: dict[str, Any]) -> None:
        """Nothing to take back."""
