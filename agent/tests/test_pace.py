"""Politeness: budgets, a busy router, and the way back."""

from __future__ import annotations

import pytest
from ispvm_agent.config import Polling
from ispvm_agent.pace import LAST_STEP, Cost, Pace


class Clock:
    """Polls every thirty seconds."""

    def __init__(self, **polling: int) -> None:
        self.pace = Pace(Polling(**polling))
        self.now = 1000.0
        self.changes: list[int] = []

    def poll(self, times: int = 1, ms: float = 20, size: int = 10_000, cpu: int | None = 10) -> int:
        for _ in range(times):
            self.now += 30
            if self.pace.note(self.now, ms, size, cpu, {"interfaces": Cost(54, size, ms)}):
                self.changes.append(self.pace.step)
        return self.pace.step


def test_an_ordinary_router_is_never_slowed() -> None:
    clock = Clock()
    assert clock.poll(1000, ms=200, size=100_000, cpu=60) == 0
    assert clock.changes == []
    ms, size = clock.pace.per_minute(clock.now)
    assert ms == pytest.approx(400, rel=0.1)  # two polls a minute
    assert size == pytest.approx(200_000, rel=0.1)
    assert clock.pace.per_minute(clock.now + 1500)[1] < 2000
    assert clock.pace.costs == {"interfaces": Cost(54, 100_000, 200)}


def test_over_the_budget_slower_tiers_go_first_and_it_says_so() -> None:
    clock = Clock(budget_kilobytes_per_minute=100)
    assert clock.poll(2, size=200_000) == 0  # one large answer is none too many
    assert clock.poll(1, size=200_000) == 1
    assert clock.pace.reason.endswith("bytes a minute are over the budget of 100,000: without the tiers slow, daily")
    assert [tier for tier in ("fast", "medium", "slow", "daily") if clock.pace.allows(tier)] == ["fast", "medium"]
    clock.poll(2, size=200_000)
    assert not clock.pace.allows("medium")
    assert clock.pace.allows("fast")
    clock.poll(2, size=200_000)
    assert clock.pace.step == LAST_STEP
    assert "every second fast poll" in clock.pace.reason
    assert [clock.pace.sits_out() for _ in range(4)] == [True, False, True, False]


def test_time_has_a_budget_of_its_own() -> None:
    assert Clock(budget_ms_per_minute=100).poll(200, ms=60) > 0
    assert Clock(budget_ms_per_minute=100).poll(200, ms=45) == 0


def test_a_busy_cpu_slows_after_three_polls_and_lets_go_with_hysteresis() -> None:
    clock = Clock(cpu_percent=80)
    assert clock.poll(2, cpu=95) == 0
    clock.poll(1, cpu=20)
    assert clock.poll(2, cpu=95) == 0  # one quiet poll begins the count anew
    assert clock.poll(1, cpu=95) == 1
    assert clock.pace.reason.startswith("the router's CPU was at 80 % or more for 3 polls")
    assert clock.poll(40, cpu=70) == 1  # neither busy nor calm
    assert clock.poll(9, cpu=30) == 1
    assert clock.poll(3, cpu=30) == 0
    assert clock.pace.reason == ""


def test_a_relapse_waits_longer() -> None:
    clock = Clock(cpu_percent=80)
    calm: list[int] = []
    for _ in range(4):
        clock.poll(3, cpu=95)
        polls = 0
        while clock.pace.step:
            clock.poll(1, cpu=5)
            polls += 1
        calm.append(polls)
    assert calm[0] < calm[1] < calm[2] < calm[3] <= 121


def test_a_router_that_tells_no_load_is_not_taken_for_busy() -> None:
    assert Clock().poll(100, cpu=None) == 0
