"""A whole day of a network, faster than real time: does anything grow that should not?"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from bench import tables
from bench.fleet import Fleet, encode
from bench.machine import Machine, say
from bench.result import Beside, Figure, percentile
from bench.scale import Scale

WORKERS = 2


def run(machine: Machine, scale: Scale) -> Iterator[Figure]:
    """Hour by hour: an hour's batches one after another, then the worker, as it would have come."""
    fleet = Fleet("bench-day", scale.day_routers)
    begin = int(time.time()) // 3600 * 3600 - 24 * 3600
    database = machine.superuser()
    tables.empty(database)
    took: list[list[float]] = []
    worker: list[float] = []
    dead: list[float] = []
    with machine.without_worker():
        machine.introduce(fleet, begin - 60)
        for hour in range(24):
            peer = machine.connection()  # an idle one is closed while the worker works
            times: list[float] = []
            for body in _ahead(fleet, range(begin + hour * 3600, begin + hour * 3600 + 3600, 60)):
                began = time.perf_counter()
                machine.send(fleet.tenant, body, peer)
                times.append(1000 * (time.perf_counter() - began))
            took.append(times)
            worker.append(machine.roll_up(WORKERS))
            gone, live = tables.dead_tuples(database)
            dead.append(gone / max(1, gone + live) * 100)
            say(f"hour {hour + 1:2}: batch p50 {percentile(times, 0.5):.1f} ms, p95 {percentile(times, 0.95):.1f} ms,"
                f" worker {worker[-1]:.1f} s, dead rows {dead[-1]:.1f} %")  # fmt: skip
        count, indexes = tables.chunks(database)
    note = (
        f"{scale.day_routers:,} routers × 50 interfaces × 60 s; batches one at a time on one connection,"
        f" {WORKERS} workers after each hour, to be done sooner; limit: the same in the first hour"
    )
    for share in (0.5, 0.95):
        yield Figure(
            "day", f"one batch in the last hour, p{share * 100:.0f}", "ms", [percentile(took[-1], share)],
            "flat: 1.0 × the first hour", limit=Beside("first hour", [percentile(took[0], share)]), remark=note,
        )  # fmt: skip
    yield Figure(
        "day", f"{WORKERS} workers for the last hour", "s", worker[-1:], limit=Beside("first hour", worker[:1]),
        remark="a real hour has 3,600 s",
    )  # fmt: skip
    yield Figure("day", "dead rows, after each hour", "%", dead, "bounded")
    yield Figure("day", "chunks", "", [count])
    memory = _memory_mb(machine)
    yield Figure(
        "day", "indexes of the chunks written to, of memory", "%", [indexes / (1 << 20) / memory * 100], "≤ 25 %",
        remark=f"memory is what the appliance was given, {memory} MB (ispvm_memory_mb)",
    )  # fmt: skip


def _ahead(fleet: Fleet, times: Sequence[int]) -> Iterator[bytes]:
    """Encoded batches, the next of which is made while one is sent: making them takes as long as storing them."""
    batches = fleet.batches(times, devices=True)

    def following() -> bytes | None:
        batch = next(batches, None)
        return encode(batch) if batch else None

    with ThreadPoolExecutor(1) as pool:
        ahead = pool.submit(following)
        while (body := ahead.result()) is not None:
            ahead = pool.submit(following)
            yield body


def _memory_mb(machine: Machine) -> int:
    """What the formulas of the roles were given: shared_buffers is a quarter of it."""
    row = machine.superuser().execute("select setting::bigint * 8192 / 1048576 * 4 from pg_settings"
                                      " where name = 'shared_buffers'").fetchone()  # fmt: skip
    return int(row[0]) if row else 0
