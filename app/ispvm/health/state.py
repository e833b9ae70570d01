"""The state of a router, and the sentence that proves it. Pure: evidence in, state out, the same everywhere."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from ispvm_contract.ingest import HEARTBEAT_SECONDS

# So many missed heartbeats make an agent offline, so many missed polls a router stale.
MISSED = 3
# A router polled at an unknown interval is taken to be polled this often.
DEFAULT_INTERVAL_SECONDS = 60.0
LEAST_INTERVAL_SECONDS = 30.0


class State(StrEnum):
    """Exactly one of these per router."""

    UP = "up"
    DEGRADED = "degraded"
    DOWN = "down"
    AGENT_OFFLINE = "agent-offline"
    STALE = "stale"
    NEVER = "never-seen"


# What needs somebody comes first.
URGENCY = [State.DOWN, State.DEGRADED, State.AGENT_OFFLINE, State.STALE, State.NEVER, State.UP]


def worst(states: Iterable[State]) -> State | None:
    """The most urgent of some states; None of none."""
    return min(states, key=URGENCY.index, default=None)


LABELS = {
    State.UP: "Up",
    State.DEGRADED: "Degraded",
    State.DOWN: "Down",
    State.AGENT_OFFLINE: "Unknown: agent offline",
    State.STALE: "Unknown: stale",
    State.NEVER: "Never seen",
}

# The same in one or two words, for beside the evidence.
BRIEF = {**LABELS, State.AGENT_OFFLINE: "Agent offline", State.STALE: "Stale"}


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that is known of a router's health.

    `up` is the answer of the probes and `api_up` that of the management API, each None when never told; `interval_s` is
    the time between polls; `agent_says` is the agent's own word for its last attempt ("ok", "timeout", "auth" …).
    """

    agent: str | None = None
    agent_heartbeat: datetime | None = None
    last_poll: datetime | None = None
    interval_s: float | None = None
    up: bool | None = None
    up_at: datetime | None = None
    api_up: bool | None = None
    api_at: datetime | None = None
    agent_says: str | None = None
    agent_detail: str = ""


@dataclass(frozen=True, slots=True)
class Health:
    """A state with its evidence."""

    state: State
    evidence: str

    @property
    def label(self) -> str:
        """The state for people."""
        return LABELS[self.state]


def ago(moment: datetime, now: datetime) -> str:
    """How long ago, in one or two units."""
    seconds = max(0, int((now - moment).total_seconds()))
    if seconds < 90:
        return f"{seconds} s ago"
    if seconds < 5400:
        return f"{seconds // 60} min ago"
    if seconds < 172800:
        return f"{seconds // 3600} h ago"
    return f"{seconds // 86400} days ago"


def agent_offline(heartbeat: datetime | None, now: datetime) -> bool:
    """Whether an agent has missed too many heartbeats."""
    return heartbeat is None or now - heartbeat > timedelta(seconds=HEARTBEAT_SECONDS * MISSED)


def health(e: Evidence, now: datetime) -> Health:
    """The one state of a router. What cannot be known is said to be unknown, and never shown as up or down."""
    if e.last_poll is None:
        return Health(State.NEVER, "Nothing has ever arrived from this router.")
    if e.agent is not None and agent_offline(e.agent_heartbeat, now):
        since = f"last reported {ago(e.agent_heartbeat, now)}" if e.agent_heartbeat else "has never reported"
        return Health(State.AGENT_OFFLINE, f"Agent {e.agent} {since}; the last poll is from {ago(e.last_poll, now)}.")
    interval = max(e.interval_s or DEFAULT_INTERVAL_SECONDS, LEAST_INTERVAL_SECONDS)
    if now - e.last_poll > timedelta(seconds=interval * MISSED):
        why = f" The agent says: {_attempt(e)}." if e.agent_says and e.agent_says != "ok" else ""
        return Health(State.STALE, f"Last poll {ago(e.last_poll, now)}, expected every {interval:.0f} s.{why}")
    api_up = e.api_up if e.api_up is not None else (e.agent_says == "ok" if e.agent_says else None)
    detail = f" ({_attempt(e)})" if e.agent_says and e.agent_says != "ok" else ""
    if e.up is False and not api_up:
        return Health(State.DOWN, f"No answer to ping{_at(e.up_at, now)}; the API does not answer either{detail}.")
    if e.up is False:
        return Health(State.DEGRADED, f"The API answers, ping does not{_at(e.up_at, now)}.")
    if api_up is False:
        ping = f"ping answers{_at(e.up_at, now)}" if e.up else "no probe says whether the router itself is up"
        return Health(State.DEGRADED, f"API-only down: the API does not answer{detail}, {ping}.")
    answers = "Ping and API answer" if e.up and api_up else "Ping answers" if e.up else "The API answers"
    return Health(State.UP, f"{answers}; last poll {ago(e.last_poll, now)}.")


def _at(moment: datetime | None, now: datetime) -> str:
    return f" (asked {ago(moment, now)})" if moment else ""


def _attempt(e: Evidence) -> str:
    return f"{e.agent_says}: {e.agent_detail}" if e.agent_detail else str(e.agent_says)
