"""A 90-day chart of a random interface: HTTP to HTTP, 600 points asked, uncached and cached."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from typing import Any

from bench import tables
from bench.fleet import Fleet, encode
from bench.machine import BenchError, Machine, Peer, say
from bench.result import Beside, Figure, percentile
from bench.scale import Scale

DAYS = 90
METRIC = "interface.rx_bps"


def run(machine: Machine, scale: Scale) -> Iterator[Figure]:
    """History by replication of one day that the worker made; the copy is compared with the worker on a sample."""
    fleet = Fleet("bench-chart", scale.chart_routers)
    today = int(time.time()) // 86400 * 86400
    database = machine.superuser()
    with machine.without_worker():
        tables.empty(database)
        machine.introduce(fleet, today - 100 * 86400)
        template = fleet.all[0]
        _send_day(machine, fleet, 0, today - 86400, today - 86400)
        machine.roll_up()
        began = time.perf_counter()
        written = tables.replicate(database, fleet.tenant, template.name, METRIC, DAYS)
        say(f"{written:,} rollup rows for {scale.chart_routers * 50:,} interfaces × {DAYS} days"
            f" in {time.perf_counter() - began:.0f} s; upkeep follows")  # fmt: skip
        say(f"upkeep took {machine.upkeep():.0f} s")
        machine.sign_in(fleet.tenant)
        _compare_with_worker(machine, fleet, today)
    draw, peer = random.Random(2), machine.connection()  # noqa: S311

    def parameters() -> dict[str, object]:
        end = today + draw.randrange(3600 * 23) - 86400
        router = draw.choice(fleet.all)
        return {"device": router.uuid, "metric": METRIC, "key": draw.choice(fleet.keys), "max_points": 600,
                "from": _iso(end - 86400 * (DAYS - 1)), "to": _iso(end)}  # fmt: skip

    body, first = machine.get(fleet.tenant, "/api/v1/series", peer, parameters())
    points = sum(value is not None for value in body["avg"])
    if points < 0.95 * (DAYS - 1) * 86400 / body["step_s"]:
        raise BenchError(f"the chart has {points} points of {body['step_s']} s, which are not {DAYS} days")
    cold = [machine.get(fleet.tenant, "/api/v1/series", peer, parameters())[1] for _ in range(scale.chart_requests)]
    same = parameters()
    machine.get(fleet.tenant, "/api/v1/series", peer, same)
    warm = [machine.get(fleet.tenant, "/api/v1/series", peer, same)[1] for _ in range(200)]
    floor = machine.floor(200)
    say(f"ours: uncached p50 {1000 * percentile(cold, 0.5):.2f} ms, cached {1000 * percentile(warm, 0.5):.2f} ms")
    with machine.without_database():
        theirs = _peer(scale, fleet, today, draw)
    note = (
        f"{scale.chart_routers * 50:,} interfaces × {DAYS} days; 600 points asked, {points} of {body['step_s']} s given"
        f"; the first query of all took {1000 * first:.1f} ms; VictoriaMetrics:"
        f" {scale.chart_peer_interfaces} interfaces at 5 min, raw samples, 600 points, caches disabled; limit: /healthz"
    )
    for share, goal in ((0.5, "≤ 4 ms"), (0.95, "≤ 15 ms")):
        yield Figure(
            "chart", f"uncached p{share * 100:.0f}", "ms", [1000 * percentile(cold, share)], goal,
            Beside("VictoriaMetrics query_range", [1000 * percentile(theirs, share)]),
            Beside("empty HTTP answer", [1000 * percentile(floor, share)]), note,
        )  # fmt: skip
    yield Figure(
        "chart", "cached p50", "ms", [1000 * percentile(warm, 0.5)], "≤ 0.5 ms",
        limit=Beside("empty HTTP answer", [1000 * percentile(floor, 0.5)]),
    )  # fmt: skip


def _iso(ts: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(ts))


def _send_day(machine: Machine, fleet: Fleet, number: int, day: int, values_of_day: int) -> None:
    """A day of polls of router `number` at `day`, with the values that router 0 has on `values_of_day`."""
    source = Fleet(fleet.tenant, 1)
    router = fleet.all[number]
    bodies = []
    for first in range(0, 86400, 3600):
        polls = []
        for offset in range(first, first + 3600, 60):
            poll = source.poll(source.all[0], values_of_day + offset)
            poll.device, poll.ts = router.uuid, (day + offset) * 1000
            polls.append(poll)
        bodies.append(encode(fleet.batch(polls, f"day {number}@{day + first}")))
    machine.send_all(fleet.tenant, bodies)


def _compare_with_worker(machine: Machine, fleet: Fleet, today: int) -> None:
    """The same day of another router and another time, made by the worker, must read the same as the replica."""
    sample, day = fleet.all[-1], today - 10 * 86400
    asked: dict[str, object] = {
        "device": sample.uuid, "metric": METRIC, "key": fleet.keys[7], "max_points": 600,
        "from": _iso(day - 30 * 86400), "to": _iso(day + 86400),
    }  # fmt: skip

    def read() -> dict[str, Any]:
        # another range is another cache entry; the buckets of the day are the same
        asked["to"] = _iso(day + 86400 + random.randrange(3600))  # noqa: S311
        body, _ = machine.get(fleet.tenant, "/api/v1/series", None, asked)
        rows = zip(body["t"], body["avg"], body["min"], body["max"], body["p95"], strict=True)
        return {str(row[0]): row for row in rows if day <= row[0] < day + 86400 - body["step_s"]}

    replica = read()
    _send_day(machine, fleet, len(fleet.all) - 1, day, today - 86400)
    machine.roll_up()
    made = read()
    if not replica or any(not _close(made.get(t), row) for t, row in replica.items()):
        raise BenchError("replicated rollups differ from the worker's; `tables.replicate` must follow the layout")
    say(f"replica and worker agree on {len(replica)} buckets of a sample")


def _close(a: Any, b: Any) -> bool:
    return a is not None and all(abs(x - y) <= 1e-6 * max(1, abs(y)) for x, y in zip(a, b, strict=True))


def _peer(scale: Scale, fleet: Fleet, today: int, draw: random.Random) -> list[float]:
    """Seconds of the same question to VictoriaMetrics."""
    small = Fleet("peer", -(-scale.chart_peer_interfaces // 50), interval_s=300)
    with Peer() as peer:
        say(f"loading {scale.chart_peer_interfaces} interfaces × {DAYS} days at 5 min into VictoriaMetrics")
        for day in range(today - DAYS * 86400, today, 86400):
            lines = []
            for router in small.all:
                for ts in range(day, day + 86400, 300):
                    row = zip(small.keys, small.columns(router, ts)[METRIC], strict=True)
                    lines += [f"if,d={router.name},i={key} rx_bps={rate} {ts}000" for key, rate in row]
            peer.write_all([_joined(lines[n::4]) for n in range(4)])
        peer.settle()
        took, link = [], peer.connection()
        for _ in range(scale.chart_requests):
            series = f'if_rx_bps{{d="{draw.choice(small.all).name}",i="{draw.choice(small.keys)}"}}'
            step = DAYS * 86400 // 600
            query = (
                f"union(min_over_time({series}[{step}s]),avg_over_time({series}[{step}s]),"
                f"max_over_time({series}[{step}s]),quantile_over_time(0.95,{series}[{step}s]))"
            )
            end = today - draw.randrange(86400)
            asked = {
                "query": query,
                "start": str(end - DAYS * 86400),
                "end": str(end),
                "step": str(step),
                "nocache": "1",
            }
            answer, seconds = peer.get("/api/v1/query_range", asked, link)
            if not json.loads(answer)["data"]["result"]:
                raise BenchError("the peer found no data")
            took.append(seconds)
    return took


def _joined(lines: list[str]) -> bytes:
    return "\n".join(lines).encode()
