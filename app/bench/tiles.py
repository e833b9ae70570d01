"""The whole NOC summary, uncached, while data come in."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from bench import tables
from bench.fleet import Fleet, encode
from bench.machine import BenchError, Machine, UnixHTTP, say
from bench.result import Beside, Figure, percentile
from bench.scale import Scale

PATIENCE = 300.0
PAUSE = 0.1


def run(machine: Machine, scale: Scale) -> Iterator[Figure]:
    """Ask often a server that keeps nothing; then the real one, whose answers live ten seconds, until enough were made
    anew: `at` says when an answer was made.
    """
    fleet = Fleet("bench-tiles", scale.tiles_routers)
    tables.empty(machine.superuser())
    machine.introduce(fleet, int(time.time()) - 60)
    machine.sign_in(fleet.tenant)
    stop = threading.Event()
    sent: list[float] = []
    with ThreadPoolExecutor(1) as pool:
        feeding = pool.submit(_feed, machine, fleet, stop, sent)
        try:
            with machine.uncached() as peer:
                often, often_floor = _ask(machine, fleet, scale.tiles_often, peer, feeding)
            seldom, floor = _ask(machine, fleet, scale.tiles_seldom, machine.connection(), feeding)
        finally:
            stop.set()
        feeding.result()
    if len(often.made) < scale.tiles_often or len(seldom.made) < scale.tiles_seldom:
        raise BenchError(f"only {len(often.made)} and {len(seldom.made)} summaries were made within {PATIENCE:.0f} s")
    counts = ", ".join(f"{count} {state}" for state, count in seldom.counts.items() if count)
    say(f"{len(often.made)} and {len(seldom.made)} summaries made anew; {counts}; {len(sent)} batches meanwhile")
    note = (
        f"{scale.tiles_routers:,} routers × 50 interfaces; `/api/v1/summary`; meanwhile {len(sent)} batches of"
        f" {fleet.per_batch} routers came in, {_ms(sent):.0f} ms each (p50)"
    )
    cold = "then little of what an answer needs is left in the processor's caches, not even of an empty one's"
    for asked, empty, how, remark in (
        (often, often_floor, "five times a second", note),
        (seldom, floor, "every ten seconds", cold),
    ):
        limit = Beside("empty HTTP answer", [_ms(empty)])
        what = f"NOC summary, uncached, asked {how}"
        yield Figure("tiles", f"{what}, p50", "ms", [_ms(asked.made)], "≤ 20 ms", limit=limit, remark=remark)
        yield Figure("tiles", f"{what}, p95", "ms", [_ms(asked.made, 0.95)], limit=limit)
    yield Figure("tiles", "NOC summary, cached, p50", "ms", [_ms(seldom.cached)], limit=limit)


def _ms(seconds: list[float], share: float = 0.5) -> float:
    return 1000 * percentile(seconds, share)


@dataclass(slots=True)
class Asked:
    """Seconds of the answers that were made anew, and of those that were kept; the last one's counts."""

    made: list[float] = field(default_factory=list)
    cached: list[float] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)


def _ask(
    machine: Machine, fleet: Fleet, enough: int, peer: UnixHTTP, feeding: Future[None]
) -> tuple[Asked, list[float]]:
    """Summaries until `enough` were made anew, and empty answers that are as far from the answer before them."""
    asked, floor, last = Asked(), [], ""
    deadline = time.monotonic() + PATIENCE
    while len(asked.made) < enough and time.monotonic() < deadline and not feeding.done():
        body, took = machine.get(fleet.tenant, "/api/v1/summary", peer)
        (asked.cached if body["at"] == last else asked.made).append(took)
        last, asked.counts = body["at"], body["counts"]
        time.sleep(PAUSE)
        floor += machine.floor(1, peer)
        time.sleep(PAUSE)
    return asked, floor


def _feed(machine: Machine, fleet: Fleet, stop: threading.Event, sent: list[float]) -> None:
    """Every router every minute, or as many polls as 1,000 routers send, spread evenly; and the agent's heartbeat."""
    pause = 60 * fleet.per_batch / max(fleet.routers, 1000)
    while not stop.is_set():
        for batch in fleet.batches([int(time.time())], devices=True):
            machine.live(fleet.tenant, fleet.heartbeat(int(time.time())))
            body = encode(batch)
            began = time.perf_counter()
            machine.send(fleet.tenant, body)
            sent.append(time.perf_counter() - began)
            if stop.wait(pause):
                return
