"""Batches over HTTP to their durable commit, against binary COPY of the same rows and against VictoriaMetrics."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from bench import tables
from bench.fleet import Fleet, encode, values_of
from bench.machine import DATABASE, Machine, Peer, say
from bench.result import Beside, Figure, percentile
from bench.scale import Scale

CONNECTIONS = 4
ROUTERS = 80  # one batch a moment


def run(machine: Machine, scale: Scale) -> Iterator[Figure]:
    """Rounds of our path and of COPY in turn, then the peer alone on the machine."""
    fleet = Fleet("bench-ingest", ROUTERS)
    begin = int(time.time()) // 86400 * 86400 - 2 * 86400
    database = machine.superuser()
    tables.empty(database)
    with machine.without_worker():
        machine.introduce(fleet, begin - 3600)
        batches = list(fleet.batches(range(begin, begin + 60 * scale.ingest_moments, 60)))
        values, bodies = sum(map(values_of, batches)), [encode(batch) for batch in batches]
        say(f"{len(bodies)} batches, {values:,} values, {sum(map(len, bodies)) / values:.2f} bytes a value on the wire")
        ours, copied, took = [], [], []
        used: dict[str, list[float]] = {unit: [] for unit in DATABASE}
        pieces: list[bytes] = []
        for number in range(scale.rounds):
            tables.empty(database)
            before, began = machine.cpu_ms(), time.perf_counter()
            took += machine.send_all(fleet.tenant, bodies, CONNECTIONS)
            ours.append(values / (time.perf_counter() - began))
            for unit, now in machine.cpu_ms().items():
                used[unit].append((now - before[unit]) / len(bodies))
            pieces = pieces or tables.copy_out(database, "poll_interface")
            best = max(_copy(machine, pieces, values, connections) for connections in (1, CONNECTIONS))
            copied.append(best)
            say(f"round {number + 1}: ours {ours[-1]:,.0f}, COPY {copied[-1]:,.0f} values/s")
    lines = [fleet.influx(batch) for batch in batches]
    peers = []
    with machine.without_database():
        for number in range(scale.rounds):
            with Peer() as peer:
                peers.append(values / peer.write_all(lines, CONNECTIONS))
            say(f"round {number + 1}: VictoriaMetrics {peers[-1]:,.0f} values/s")
    yield Figure(
        "ingest", "HTTP to durable commit through PgBouncer", "values/s", ours,
        "≥ 60 % of COPY, ≥ 2× VictoriaMetrics", Beside("VictoriaMetrics /write", peers),
        Beside("binary COPY, same table", copied),
        f"{CONNECTIONS} connections, {len(bodies)} batches of {ROUTERS} routers × 50 interfaces × 11 values,"
        " the worker stopped; COPY as superuser (row-level security refuses it to everybody else), one"
        f" transaction a batch, the better of one and {CONNECTIONS} connections, synchronous_commit on; VictoriaMetrics"
        " acknowledges before fsync",
    )  # fmt: skip
    yield Figure("ingest", "one batch, p50", "ms", [1000 * percentile(took, 0.5)], remark="all connections busy")
    yield Figure("ingest", "one batch, p95", "ms", [1000 * percentile(took, 0.95)])
    for unit, rounds in used.items():
        yield Figure("ingest", f"CPU of one batch, {unit}", "ms", rounds, remark="of this unit alone")


def _copy(machine: Machine, pieces: Sequence[bytes], values: int, connections: int) -> float:
    """Values a second of COPY alone."""
    links = [machine.superuser() for _ in range(connections)]
    tables.empty_landing(links[0])

    def work(first: int) -> None:
        for piece in pieces[first::connections]:
            tables.copy_in(links[first], "poll_interface", piece)

    began = time.perf_counter()
    with ThreadPoolExecutor(connections) as pool:
        list(pool.map(work, range(connections)))
    took = time.perf_counter() - began
    for link in links:
        link.close()
    return values / took
