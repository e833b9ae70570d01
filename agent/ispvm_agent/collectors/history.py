"""Who changed the router's configuration, when, and what kind of change; never the content."""

from __future__ import annotations

from typing import Any

from ispvm_agent.collectors.base import Findings, Happening, Moment, Replies, Stateless, Tier, Version
from ispvm_agent.routeros import values
from ispvm_agent.routeros.commands import Command

_MAX_EVENTS = 50  # a script that changes thousands of things is one story


class History(Stateless):
    """New entries of the router's undo history."""

    name = "history"
    tier: Tier = "slow"
    publishes: tuple[str, ...] = ("config.changed.detected",)

    def __init__(self) -> None:
        """What is there at the first look is not news."""
        self._known: set[str] | None = None

    def ask(self, version: Version) -> tuple[Command, ...]:
        """About a hundred rows, on every version."""
        return (Command.HISTORY,)

    def publish(self, replies: Replies, moment: Moment) -> Findings:
        """An event for each entry that was not there before.

        An entry is known by id, user and action: its time is printed differently from the next day on. After a reboot
        ids may be others, so what is there then is not news either.
        """
        entries = {
            " ".join(values.text(row, name) for name in (".id", "by", "action")): row
            for row in replies[Command.HISTORY].rows
        }
        known = None if moment.rebooted else self._known
        fresh = [] if known is None else [row for entry, row in entries.items() if entry not in known]
        self._known = set(entries)
        said = [
            f"{values.text(row, 'by') or 'somebody'}: {values.text(row, 'action')} ({values.text(row, 'time')})"[:255]
            for row in fresh[:_MAX_EVENTS]
        ]
        if len(fresh) > _MAX_EVENTS:
            said.append(f"and {len(fresh) - _MAX_EVENTS} more changes")
        return Findings(events=[Happening("config.changed.detected", "device", "info", new=text) for text in said])

    def learned(self) -> dict[str, Any]:
        """The known entries, so that changes made while the agent was off are noticed."""
        return {} if self._known is None else {"known": sorted(self._known)}

    def restore(self, learned: dict[str, Any]) -> None:
        """Go on where the agent left off."""
        self._known = set(learned["known"])
