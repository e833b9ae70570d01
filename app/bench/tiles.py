"""The whole NOC summary, uncached, while data come in."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from bench import tables
from bench.fleet import Fleet, encode
from bench.machine import Machine, say
from bench.result import Beside, Figure, percentile
from bench.scale import Scale

PATIENCE = 300.0  # an answer lives ten seconds
PAUSE = 0.1


def run(machine: Machine, scale: Scale) -> Iterator[Figure]:
    """Ask until enough answers were computed anew: `at` says when an answer was made."""
    fleet = Fleet("bench-tiles", scale.tiles_routers)
    tables.empty(machine.superuser())
    machine.introduce(fleet, int(time.time()) - 60)
    machine.sign_in(fleet.tenant)
    stop = threading.Event()
    sent: list[float] = []
    made: list[float] = []
    cached: list[float] = []
    floor: list[float] = []
    last = ""
    with ThreadPoolExecutor(1) as pool:
        feeding = pool.submit(_feed, machine, fleet, stop, sent)
        try:
            peer = machine.connection()
            deadline = time.monotonic() + PATIENCE
            while len(made) < scale.tiles_requests and time.monotonic() < deadline and not feeding.done():
                body, took = machine.get(fleet.tenant, "/api/v1/summary", peer)
                (cached if body["at"] == last else made).append(took)
                last = body["at"]
                stop.wait(PAUSE)
                # As far from the answer before it as the summary: a machine that has just slept is slower.
                floor += machine.floor(1, peer)
                stop.wait(PAUSE)
        finally:
            stop.set()
        feeding.result()
    counts = ", ".join(f"{count} {state}" for state, count in body["counts"].items() if count)
    say(f"{len(made)} summaries made anew of {len(made) + len(cached)} asked; {counts}; {len(sent)} batches meanwhile")
    limit = Beside("empty HTTP answer", [1000 * percentile(floor, 0.5)])
    note = (
        f"{scale.tiles_routers:,} routers × 50 interfaces; `/api/v1/summary`; uncached is an answer whose `at` is new;"
        f" meanwhile {len(sent)} batches of {fleet.per_batch} routers came in,"
        f" {1000 * percentile(sent or [0], 0.5):.0f} ms each (p50)"
    )
    yield Figure(
        "tiles", "NOC summary, uncached p50", "ms", [1000 * percentile(made, 0.5)], "≤ 20 ms", limit=limit, remark=note
    )
    yield Figure("tiles", "NOC summary, uncached p95", "ms", [1000 * percentile(made, 0.95)])
    if cached:
        yield Figure("tiles", "NOC summary, cached p50", "ms", [1000 * percentile(cached, 0.5)], limit=limit)


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
