"""Traffic that any two polls agree on: a rate in closed form, whose integral is the counter.

A rate is a mean times one plus a few sines: a day's curve, a week's, and three short ones that look like noise. The
integral is exact, so a counter needs no ticking, costs nothing between polls, and its two ends never disagree.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from math import cos, pi, sin, tau
from time import time

DAY = 86400.0
CREST_HOUR = 19.5  # of the day's first wave; the second one moves the peak to the late evening


def fraction(*names: object) -> float:
    """A number in [0, 1) that depends on the names alone: the same today and on any machine."""
    text = "\x1f".join(map(str, names)).encode()
    return int.from_bytes(blake2b(text, digest_size=7).digest(), "big") / (1 << 56)


def between(low: float, high: float, *names: object) -> float:
    """A number in [low, high) that depends on the names alone."""
    return low + (high - low) * fraction(*names)


class Clock:
    """The world's time in seconds since 1970.

    `speed` is how fast the *day* passes: at 60 a day's traffic curve takes 24 minutes. Uptimes, counters and the
    routers' own clocks always run in real seconds, so that the rates a client computes stay true.
    """

    def __init__(self, origin: float, speed: float = 1.0) -> None:
        """At `origin` the hurried day and the real one agree."""
        self.origin = origin
        self.speed = speed

    def now(self) -> float:
        """The present."""
        return time()

    def hours(self, at: float) -> float:
        """The hour of the (possibly hurried) day in [0, 24)."""
        return ((self.origin + (at - self.origin) * self.speed) % DAY) / 3600


class ManualClock(Clock):
    """A clock that stands until it is told to go on."""

    def __init__(self, origin: float, speed: float = 1.0) -> None:
        """Stand at `origin`."""
        super().__init__(origin, speed)
        self.at = origin

    def now(self) -> float:
        """The present."""
        return self.at

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.at += seconds


@dataclass(frozen=True, slots=True)
class Flow:
    """Traffic in one direction: `mean` bit/s and waves of (share, radians a second, phase at the origin)."""

    mean: float
    origin: float
    waves: tuple[tuple[float, float, float], ...]

    def rate(self, at: float) -> float:
        """Bit/s at a moment; always above zero when the mean is."""
        elapsed = at - self.origin
        return self.mean * (1.0 + sum(share * sin(speed * elapsed + phase) for share, speed, phase in self.waves))

    def volume(self, at: float) -> float:
        """Bits since the origin (negative before it): the exact integral of the rate, up to a constant."""
        elapsed = at - self.origin
        return self.mean * (
            elapsed - sum(share / speed * cos(speed * elapsed + phase) for share, speed, phase in self.waves)
        )


def flow(mean: float, capacity: float, clock: Clock, *names: object) -> Flow:
    """A flow around `mean` bit/s that stays under 97 % of `capacity`; `names` make it this flow and no other."""
    ceiling = 0.97 * capacity
    mean = min(mean, ceiling)
    hour = clock.hours(clock.origin) + between(-0.5, 0.5, *names, "peak")
    start = tau * (hour - CREST_HOUR) / 24 + pi / 2
    day = tau / DAY * clock.speed
    waves = [
        (0.40, day, start),
        (0.12, 2 * day, 2 * start - pi / 2 - 1.22),
        (0.04, day / 7, tau * fraction(*names, "week")),
        *(
            (
                share,
                tau / between(shortest, 1.6 * shortest, *names, shortest),
                tau * fraction(*names, shortest, "phase"),
            )
            for share, shortest in ((0.05, 900), (0.04, 190), (0.03, 41))
        ),
    ]
    swing = sum(share for share, _, _ in waves)
    scale = min(1.0, (ceiling / mean - 1.0) / swing) if mean > 0 else 1.0
    return Flow(mean, clock.origin, tuple((share * scale, speed, phase) for share, speed, phase in waves))
