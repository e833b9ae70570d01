"""PPP sessions, queues and pools: how many. No subscriber is ever named."""

from __future__ import annotations

from typing import ClassVar

from ispvm_contract.ingest import Value

from ispvm_agent.collectors.base import (
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
    unique,
)
from ispvm_agent.collectors.facts import counted
from ispvm_agent.routeros import values
from ispvm_agent.routeros.commands import Aimed, Command, Question


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


class Queues(Stateless):
    """Simple queues that were configured, all together: names of queues are often customers', so none is asked for."""

    name = "queues"
    tier: Tier = "slow"
    later: tuple[Command, ...] = (Command.QUEUES,)
    publishes: tuple[str, ...] = ("queue.simple.count", "queue.simple.dropped_total", "queue.simple.queued_bytes")
    MOST: ClassVar = 5000  # of more than so many only the count is asked for

    def __init__(self) -> None:
        """How many there are is not known yet."""
        self._count: int | None = None
        self.hurry = False

    def ask(self, version: Version) -> tuple[Question, ...]:
        """How many; and what they drop, once they are known to be few enough."""
        few = self._count is not None and 0 < self._count <= self.MOST
        return (Command.QUEUE_COUNT, Command.QUEUES) if few else (Command.QUEUE_COUNT,)

    def publish(self, replies: Replies, moment: Moment) -> Findings:
        """Sums over all queues that are not disabled."""
        before, self._count = self._count, counted(replies[Command.QUEUE_COUNT])
        self.hurry = before is None and bool(self._count)
        device: dict[str, Value] = {"queue.simple.count": self._count}
        if Command.QUEUES in replies:
            rows = [row for row in replies[Command.QUEUES].rows if not values.boolean(row, "disabled")]
            for metric, field in (("dropped_total", "dropped"), ("queued_bytes", "queued-bytes")):
                told = [sum_ for row in rows if (sum_ := values.both(row.get(field))) is not None]
                device[f"queue.simple.{metric}"] = min(sum(told), (1 << 63) - 1) if told else None
        return Findings(device=present(device))


class Pools(Stateless):
    """How full each address pool is. Who has which address is not asked."""

    name = "pools"
    tier: Tier = "slow"
    later: tuple[Command, ...] = (Command.POOL_USED,)
    publishes: tuple[str, ...] = ("pool.size", "pool.used", "pool.used_pct")
    _MOST: ClassVar = 50  # pools whose use is asked for

    def __init__(self) -> None:
        """The pools are not known yet."""
        self._names: tuple[str, ...] = ()
        self.hurry = False

    def ask(self, version: Version) -> tuple[Question, ...]:
        """Which pools there are, and once that is known the count of used addresses of each."""
        return (Command.POOLS, *(Aimed(Command.POOL_USED, (name,)) for name in self._names))

    def publish(self, replies: Replies, moment: Moment) -> Findings:
        """A table of pools."""
        used = {question.items[0]: counted(reply) for question, reply in replies.items() if isinstance(question, Aimed)}
        pools: dict[str, values.Row] = {}
        for row in replies[Command.POOLS].rows[: self._MOST]:
            # A name that would be changed on its way could not be asked about.
            if (name := row.get("name", "")) and name == values.text(row, "name"):
                pools[unique(name, "again", pools)] = row
        known, self._names = self._names, tuple(pools)
        self.hurry = known != self._names
        sizes = {name: values.addresses(row.get("ranges")) for name, row in pools.items()}
        columns: dict[str, list[Value]] = {
            "pool.size": [*sizes.values()],
            "pool.used": [used.get(name) for name in pools],
            "pool.used_pct": [
                round(100 * count / size, 2) if size and (count := used.get(name)) is not None else None
                for name, size in sizes.items()
            ],
        }
        if not (columns := filled(columns)):
            return Findings()
        entities = [Entity("pool", name, name, {}) for name in pools]
        return Findings(tables=[Table("pool", list(pools), columns)], entities=entities)
