"""Politeness: what polling one router costs, and how it slows down when that is too much or the router is busy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import exp

from ispvm_agent.config import Polling

_MEMORY_SECONDS = 300.0  # how long cost counts: what is older than this has a weight of less than 1/e
_BUSY_POLLS = 3  # in a row, until a high CPU load counts
_CALM_PERCENT = 20  # below the limit, until it counts as calm again
_PATIENCE_SECONDS = 300.0  # of calm until one step is taken back; doubles each time it did not last
_MAX_PATIENCE = 3600.0
# What is left out at each step, slowest first; at the last one only every second fast poll remains.
STEPS: tuple[tuple[str, ...], ...] = ((), ("slow", "daily"), ("medium", "slow", "daily"))
LAST_STEP = len(STEPS)


@dataclass(slots=True)
class Cost:
    """What one collector cost at its last poll: of the wire, and of the router's time as seen from here."""

    rows: int
    bytes: int
    ms: float


@dataclass(slots=True)
class Pace:
    """How fast one router may be asked. Steps up at once when a limit is passed, back down one by one after calm."""

    polling: Polling
    step: int = 0
    reason: str = ""  # why `step` is not 0, for people
    costs: dict[str, Cost] = field(default_factory=dict)
    _ms: float = 0.0  # spent, fading
    _bytes: float = 0.0
    _at: float = 0.0
    _busy: int = 0
    _calm_since: float | None = None
    _changed: float = 0.0
    _patience: float = _PATIENCE_SECONDS
    _sat_out: bool = False

    def allows(self, tier: str) -> bool:
        """Whether a tier is asked at this step."""
        return tier not in STEPS[min(self.step, LAST_STEP - 1)]

    def sits_out(self) -> bool:
        """Whether to leave out this fast poll: every second one at the last step."""
        self._sat_out = self.step == LAST_STEP and not self._sat_out
        return self._sat_out

    def per_minute(self, now: float) -> tuple[float, int]:
        """Milliseconds and bytes a minute, of about the last five minutes."""
        share = 60 / _MEMORY_SECONDS * exp((self._at - now) / _MEMORY_SECONDS)
        return self._ms * share, int(self._bytes * share)

    def note(self, now: float, ms: float, size: int, cpu: int | None, costs: Mapping[str, Cost]) -> bool:
        """One poll has ended at `now` (monotonic seconds); returns whether the step has changed."""
        fading = exp((self._at - now) / _MEMORY_SECONDS)
        self._ms, self._bytes, self._at = self._ms * fading + ms, self._bytes * fading + size, now
        self.costs.update(costs)
        limit = self.polling.cpu_percent
        self._busy = self._busy + 1 if cpu is not None and cpu >= limit else 0
        trouble, calm = self._judge(now, cpu, limit)
        self._calm_since = None if not calm else now if self._calm_since is None else self._calm_since
        if trouble and self.step < LAST_STEP and (not self.step or now - self._changed >= 60):
            if self.step == 0:
                relapse = now - self._changed < 2 * self._patience and self._changed > 0
                self._patience = min(_MAX_PATIENCE, self._patience * 2) if relapse else _PATIENCE_SECONDS
            return self._to(self.step + 1, now, trouble)
        if self.step and self._calm_since is not None and now - self._calm_since >= self._patience:
            self._calm_since = now
            return self._to(self.step - 1, now, self.reason.partition(":")[0])
        return False

    def _judge(self, now: float, cpu: int | None, limit: int) -> tuple[str, bool]:
        """What is wrong, "" if nothing, and whether all is calm; between the two lies hysteresis."""
        ms, size = self.per_minute(now)
        budgets = (
            (ms, self.polling.budget_ms_per_minute, "ms"),
            (size, self.polling.budget_kilobytes_per_minute * 1000, "bytes"),
        )
        for spent, budget, unit in budgets:
            if spent > budget:
                return f"{spent:,.0f} {unit} a minute are over the budget of {budget:,}", False
        if self._busy >= _BUSY_POLLS:
            return f"the router's CPU was at {limit} % or more for {self._busy} polls", False
        return "", (cpu is None or cpu <= limit - _CALM_PERCENT) and not self._busy

    def _to(self, step: int, now: float, why: str) -> bool:
        left_out = ", ".join(STEPS[min(step, LAST_STEP - 1)])
        half = "; every second fast poll is left out too" if step == LAST_STEP else ""
        self.step, self._changed, self._busy = step, now, 0
        self.reason = f"{why}: without the tiers {left_out}{half}" if step else ""
        return True
