"""One hour of one router that arrives 30 days late: when it is right in the rollups, and what was touched for it."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

from bench import tables
from bench.fleet import Fleet, encode
from bench.machine import BenchError, Machine, say
from bench.result import Figure
from bench.scale import Scale

METRIC = "interface.rx_bps"


def run(machine: Machine, scale: Scale) -> Iterator[Figure]:
    """First with the worker held, to count; then with the worker as it always runs, to time."""
    fleet = Fleet("bench-late", 10)
    hour = int(time.time()) // 3600 * 3600 - 30 * 86400
    database = machine.superuser()
    tables.empty(database)
    with machine.without_worker():
        machine.introduce(fleet, hour - 86400)
        say("the hours around are there and rolled up")
        around = [ts for ts in range(hour - 6 * 3600, hour + 6 * 3600, 60) if not hour <= ts < hour + 3600]
        for batch in fleet.batches(around):
            machine.send(fleet.tenant, encode(batch))
        machine.roll_up()
        machine.sign_in(fleet.tenant)
        since = tables.mark(database)
        machine.send(fleet.tenant, _hour(fleet, 0, hour))
        dirty = tables.dirty_hours(database)
        machine.roll_up()
        touched = tables.touched_since(database, since)
        buckets = {(device, at) for _, device, at in touched}
        say(f"{dirty} dirty, {len(buckets)} touched, {sum(touched.values())} rollup rows")
    seconds = [_timed(machine, fleet, number, hour) for number in range(1, 1 + min(scale.late_rounds, 9))]
    yield Figure(
        "late", "device-hour 30 days late, commit to rollup", "s", seconds, "≤ 1 s",
        remark="3,000 interface rows in one batch; seen by asking the API for a range that only rollups answer",
    )  # fmt: skip
    yield Figure(
        "late", "device-buckets touched, of those dirty", "ratio", [len(buckets) / dirty], "1",
        remark=f"{sum(touched.values())} rollup rows were written for {dirty} dirty hour",
    )  # fmt: skip


def _hour(fleet: Fleet, number: int, hour: int) -> bytes:
    polls = [fleet.poll(fleet.all[number], ts) for ts in range(hour, hour + 3600, 60)]
    return encode(fleet.batch(polls, f"late {number}@{hour}"))


def _timed(machine: Machine, fleet: Fleet, number: int, hour: int) -> float:
    """Seconds from the 200 until a range of 48 h shows the hour."""
    peer = machine.connection()
    machine.send(fleet.tenant, _hour(fleet, number, hour), peer)
    began = time.perf_counter()
    while True:
        # another end is another cache entry
        end = hour + 86400 + random.randrange(3600)  # noqa: S311
        asked = {"device": fleet.all[number].uuid, "metric": METRIC, "key": fleet.keys[0], "max_points": 600,
                 "from": _iso(hour - 86400), "to": _iso(end)}  # fmt: skip
        body, _ = machine.get(fleet.tenant, "/api/v1/series", peer, asked)
        inside = [v for t, v in zip(body["t"], body["avg"], strict=True) if hour <= t < hour + 3600]
        if inside and None not in inside:
            return time.perf_counter() - began
        if time.perf_counter() - began > 60:
            raise BenchError("the late hour was not in the rollups within a minute")


def _iso(ts: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(ts))
