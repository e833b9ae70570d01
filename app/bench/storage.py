"""Bytes a value on disk, with all indexes and toast: just landed, and after the worker and upkeep did their work."""

from __future__ import annotations

import time
from collections.abc import Iterator

from bench import tables
from bench.fleet import Fleet, encode, values_of
from bench.machine import Machine, Peer, say
from bench.result import Beside, Figure
from bench.scale import Scale


def run(machine: Machine, scale: Scale) -> Iterator[Figure]:
    """One whole day, three days ago, so that it is closed for everything that waits for a closed day."""
    fleet = Fleet("bench-bytes", scale.storage_routers)
    begin = int(time.time()) // 86400 * 86400 - 3 * 86400
    database = machine.superuser()
    values, lines = 0, []
    with machine.without_worker():
        tables.empty(database)
        machine.introduce(fleet, begin)
        say("one day of polls")
        hour: list[bytes] = []
        for ts in range(begin + 60, begin + 86400, 60 * 20):
            # as an agent that had been offline sends it: polls of 20 minutes a batch
            for router in fleet.all:
                batch = fleet.batch([fleet.poll(router, ts + 60 * n) for n in range(20) if ts + 60 * n < begin + 86400],
                                    f"{router.number}@{ts}")  # fmt: skip
                values += values_of(batch)
                hour.append(encode(batch))
                lines.append(fleet.influx(batch))
        machine.send_all(fleet.tenant, hour)
        tables.settle(database)
        landing = tables.raw_size(database)
        say(f"landed: {landing / values:.2f} bytes a value; the worker and upkeep follow")
        seconds = machine.roll_up()
        machine.upkeep()
        tables.settle(database)
        kept, rollups = tables.raw_size(database), tables.sizes(database, "rollup_")
    with machine.without_database(), Peer() as peer:
        peer.write_all(lines)
        peer.settle()
        theirs = peer.bytes()
    beside = Beside("VictoriaMetrics, merged", [theirs / values])
    what = f"{values:,} values of {scale.storage_routers} routers × 50 interfaces × 11 metrics × a day at 60 s"
    note = (
        f"{what}; counted: every byte of the hypertables with indexes and toast over the number of values sent;"
        " counters and states are kept exactly, rates as float4; VictoriaMetrics: data and indexdb after force_merge"
    )
    yield Figure("bytes", "landing, as it arrives", "B/value", [landing / values], "≤ 6", beside, remark=note)
    yield Figure("bytes", "polls kept, after worker and upkeep", "B/value", [kept / values], "≤ 2", beside)
    yield Figure(
        "bytes",
        "rollups beside them",
        "B/value",
        [rollups / values],
        remark="rollups per value sent; the peer has none",
    )
    yield Figure("bytes", "worker, whole day", "values/s", [values / seconds])
