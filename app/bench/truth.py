"""The 95th percentile that the API gives, against the exact one of every sample that was sent."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from ispvm_contract.ingest import Poll

from bench import tables
from bench.fleet import Fleet, encode
from bench.machine import BenchError, Machine, say
from bench.result import Figure, percentile
from bench.scale import Scale

METRIC = "interface.rx_bps"
INTERVAL = 30  # the default of the product; two samples a minute
RANGES = {"24 h": 1, "7 d": 7, "30 d": 30, "90 d": 90}


def run(machine: Machine, scale: Scale) -> Iterator[Figure]:
    """One router with a few interfaces, polled every 30 s for months; every bucket of every chart is checked."""
    fleet = Fleet("bench-truth", 1, interfaces=4, interval_s=INTERVAL)
    end = int(time.time()) // 86400 * 86400
    begin = end - scale.truth_days * 86400
    with machine.without_worker():
        tables.empty(machine.superuser())
        machine.introduce(fleet, begin - 86400)
        samples: dict[str, tuple[list[int], list[float]]] = {key: ([], []) for key in fleet.keys}
        bodies, live = [], list[Poll]()
        for day in range(begin, end, 21600):
            polls = [fleet.poll(fleet.all[0], ts) for ts in range(day, day + 21600, INTERVAL)]
            for poll in polls:
                for key, value in zip(fleet.keys, poll.columns[METRIC], strict=True):
                    samples[key][0].append(poll.ts // 1000)
                    samples[key][1].append(float(value or 0))
            if day + 21600 >= end:
                # the newest come one by one, as live data do: the server learns the polling interval from them
                live, polls = polls[-2:], polls[:-2]
            bodies.append(encode(fleet.batch(polls, f"quarter {day}")))
        say(f"{scale.truth_days} days of {len(fleet.keys)} interfaces every {INTERVAL} s")
        machine.send_all(fleet.tenant, bodies)
        for poll in live:
            machine.send(fleet.tenant, encode(fleet.batch([poll], f"live {poll.ts}")))
        say(f"the worker took {machine.roll_up():.0f} s")
        machine.sign_in(fleet.tenant)
        for name, days in RANGES.items():
            if days <= scale.truth_days:
                yield from _errors(machine, fleet, samples, name, end - days * 86400, end)
        yield _billing(machine, fleet, samples)


def _errors(
    machine: Machine, fleet: Fleet, samples: dict[str, tuple[list[int], list[float]]], name: str, begin: int, end: int
) -> Iterator[Figure]:
    """The error of every bucket of a fine and of the coarsest chart of one range."""
    errors: list[float] = []
    buckets = 0
    for key, (times, values) in samples.items():
        for points in (600, 60, 1):
            asked = {"device": fleet.all[0].uuid, "metric": METRIC, "key": key, "max_points": points,
                     "from": _iso(begin), "to": _iso(end)}  # fmt: skip
            body, _ = machine.get(fleet.tenant, "/api/v1/series", None, asked)
            for t, p95 in zip(body["t"], body["p95"], strict=True):
                first, last = max(t, begin), min(t + body["step_s"], end)
                part = values[bisect_left(times, first) : bisect_left(times, last)]
                if not part:
                    continue
                if p95 is None:
                    raise BenchError(f"{name}: no p95 at {t}, where {len(part)} samples are")
                exact = percentile(part, 0.95)
                errors.append(100 * abs(p95 - exact) / exact)
                buckets += 1
    say(f"{name}: {buckets} buckets, worst error {max(errors):.4f} %")
    note = (
        "against the nearest-rank 95th percentile of every sample of the bucket; 600, 60 and 1 points asked of each of"
        f" {len(fleet.keys)} interfaces polled every {INTERVAL} s, noise 12 % on a daily curve of ± 40 %"
    )
    yield Figure("truth", f"{name}, worst bucket of {buckets}", "%", [max(errors)], "≤ 0.5 %", remark=note)
    yield Figure("truth", f"{name}, mean", "%", [sum(errors) / len(errors)])


def _billing(machine: Machine, fleet: Fleet, samples: dict[str, tuple[list[int], list[float]]]) -> Figure:
    """The error of the month's report: five-minute means of the samples, nearest rank, this month and the last."""
    today = datetime.now(UTC)
    months = [today.strftime("%Y-%m"), (today.replace(day=1) - timedelta(days=1)).strftime("%Y-%m")]
    errors: list[float] = []
    for month in months:
        asked = {"month": month, "device": fleet.all[0].uuid}
        body, _ = machine.get(fleet.tenant, "/api/v1/reports/p95", None, asked)
        first, last = (datetime.fromisoformat(body[name]).timestamp() for name in ("start", "until"))
        for line in body["lines"]:
            times, values = samples[line["key"]]
            slots: dict[int, list[float]] = defaultdict(list)
            for ts, value in zip(times, values, strict=True):
                if first <= ts < last:
                    slots[ts // 300].append(value)
            if slots:
                exact = percentile([sum(part) / len(part) for part in slots.values()], 0.95)
                errors.append(100 * abs(line["received"]["p95_bps"] - exact) / exact)
    say(f"billing: {len(errors)} months of an interface, worst error {max(errors):.4f} %")
    return Figure(
        "truth", f"monthly billing, worst of {len(errors)}", "%", [max(errors)], "≤ 0.05 %",
        remark=f"billing: five-minute means of received traffic, {' and '.join(months)} as far as samples reach",
    )  # fmt: skip


def _iso(ts: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(ts))
