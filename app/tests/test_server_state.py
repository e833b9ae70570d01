from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from ispvm.health.state import BRIEF, LABELS, Evidence, State, ago, health

NOW = datetime(2026, 11, 22, 3, 0, tzinfo=UTC)


def before(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


GOOD = Evidence(
    agent="pop",
    agent_heartbeat=before(10),
    last_poll=before(12),
    interval_s=30,
    up=True,
    up_at=before(12),
    api_up=True,
    api_at=before(12),
    agent_says="ok",
)


@pytest.mark.parametrize(
    ("change", "state", "sentence"),
    [
        ({}, State.UP, "Ping and API answer; last poll 12 s ago."),
        ({"up": None}, State.UP, "The API answers; last poll 12 s ago."),
        ({"api_up": None, "agent_says": None}, State.UP, "Ping answers; last poll 12 s ago."),
        ({"last_poll": None}, State.NEVER, "Nothing has ever arrived from this router."),
        (
            {"agent_heartbeat": before(46)},
            State.AGENT_OFFLINE,
            "Agent pop last reported 46 s ago; the last poll is from 12 s ago.",
        ),
        (
            {"agent_heartbeat": None},
            State.AGENT_OFFLINE,
            "Agent pop has never reported; the last poll is from 12 s ago.",
        ),
        ({"agent_heartbeat": before(45)}, State.UP, "Ping and API answer; last poll 12 s ago."),
        ({"last_poll": before(91)}, State.STALE, "Last poll 1 min ago, expected every 30 s."),
        (
            {"last_poll": before(300), "agent_says": "auth", "agent_detail": "wrong password"},
            State.STALE,
            "Last poll 5 min ago, expected every 30 s. The agent says: auth: wrong password.",
        ),
        (
            {"up": False, "api_up": False},
            State.DOWN,
            "No answer to ping (asked 12 s ago); the API does not answer either.",
        ),
        (
            {"up": False, "api_up": None, "agent_says": "timeout"},
            State.DOWN,
            "No answer to ping (asked 12 s ago); the API does not answer either (timeout).",
        ),
        ({"up": False}, State.DEGRADED, "The API answers, ping does not (asked 12 s ago)."),
        ({"api_up": False}, State.DEGRADED, "API-only down: the API does not answer, ping answers (asked 12 s ago)."),
        (
            {"api_up": None, "agent_says": "auth"},
            State.DEGRADED,
            "API-only down: the API does not answer (auth), ping answers (asked 12 s ago).",
        ),
        (
            {"up": None, "api_up": False},
            State.DEGRADED,
            "API-only down: the API does not answer, no probe says whether the router itself is up.",
        ),
    ],
)
def test_each_evidence_has_one_state_and_says_why(change: dict[str, object], state: State, sentence: str) -> None:
    found = health(replace(GOOD, **change), NOW)  # type: ignore[arg-type]
    assert (found.state, found.evidence) == (state, sentence)


def test_an_offline_agent_never_makes_a_router_down() -> None:
    gone = replace(GOOD, agent_heartbeat=before(3600), last_poll=before(3600), up=False, api_up=False)
    assert health(gone, NOW).state is State.AGENT_OFFLINE


def test_every_state_has_its_words() -> None:
    assert set(LABELS) == set(BRIEF) == set(State)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "0 s ago"), (89, "89 s ago"), (90, "1 min ago"), (5400, "1 h ago"), (172800, "2 days ago")],
)
def test_ago(seconds: float, text: str) -> None:
    assert ago(before(seconds), NOW) == text
