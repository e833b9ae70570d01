"""The whole NOC summary, uncached, while data come in."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

from bench import tables
from bench.fleet import Fleet, encode
from bench.machine import Machine, say
from bench.result import Beside, Figure, percentile
from bench.scale import Scale

PATIENCE = 120.0


def run(machine: Machine, scale: Scale) -> Iterator[Figure]:
    """Ask until enough answers were computed anew: `at` says when an answer was made."""
    fleet = Fleet("bench-tiles", scale.tiles_routers)
    tables.empty(machine.superuser())
    machine.introduce(fleet, int(time.time()) - 60)
    machine.sign_in(fleet.tenant)
    stop = threading.Event()
    sent: list[float] = []
    feeding = threading.Thread(target=_feed, args=(machine, fleet, stop, sent))
    feeding.start()
    try:
        made: list[float] = []
        cached: list[float] = []
        last = ""
        peer = machine.connection()
        deadline = time.monotonic() + PATIENCE
        while len(made) < scale.tiles_requests and time.monotonic() < deadline:
            body, took = machine.get(fleet.tenant, "/api/v1/summary", peer)
            (cached if body["at"] == last else made).append(took)
            last = body["at"]
            stop.wait(0.1)
    finally:
        stop.set()
        feeding.join()
    counts = ", ".join(f"{count} {state}" for state, count in body["counts"].items() if count)
    say(f"{len(made)} summaries made anew of {len(made) + len(cached)} asked; {counts}; {len(sent)} batches meanwhile")
    floor = Beside("empty HTTP answer", [1000 * percentile(machine.floor(100), 0.5)])
    note = (
        f"{scale.tiles_routers:,} routers × 50 interfaces; `/api/v1/summary`; {len(sent)} batches of 90 routers came in"
        f" meanwhile, {1000 * percentile(sent or [0], 0.5):.0f} ms each (p50); uncached is an answer whose `at` is new"
    )
    yield Figure(
        "tiles", "NOC summary, uncached p50", "ms", [1000 * percentile(made, 0.5)], "≤ 20 ms", limit=floor, remark=note
    )
    yield Figure("tiles", "NOC summary, uncached p95", "ms", [1000 * percentile(made, 0.95)])
    if cached:
        yield Figure("tiles", "NOC summary, cached p50", "ms", [1000 * percentile(cached, 0.5)], limit=floor)


def _feed(machine: Machine, fleet: Fleet, stop: threading.Event, sent: list[float]) -> None:
    """Every router every minute, spread evenly, as 1,000 routers would come: in batches of one agent's size."""
    peer = machine.connection()
    pause = 60 * fleet.per_batch / max(fleet.routers, 1000)
    number = 0
    while not stop.is_set():
        for first in range(0, fleet.routers, fleet.per_batch):
            now = int(time.time())
            some = fleet.all[first : first + fleet.per_batch]
            number += 1
            body = encode(fleet.batch([fleet.poll(router, now) for router in some], f"feed {number}@{now}"))
            began = time.perf_counter()
            machine.send(fleet.tenant, body, peer)
            sent.append(time.perf_counter() - began)
            if stop.wait(pause):
                return
