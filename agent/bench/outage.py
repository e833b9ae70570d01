"""An outage of the server, then the replay, with kill -9 of both sides: nothing lost, nothing doubled, live on time.

1. Fill: HOURS of polls of ROUTERS x INTERFACES go through the real outbox into the real spool, at speed; the process is
   killed at random points and begins again. What it had acknowledged must be in the spool.
2. Drain: the real agent polls all routers live and delivers both to a receiver with a ledger; agent and receiver are
   killed at random points and started again.
Exit code 1 when a batch is lost, a poll doubled, the drain is late or live data is.

    python agent/bench/outage.py [--hours 1] [--routers 1000] [--interfaces 50] [--kills 3] [--seed 1]
"""

from __future__ import annotations

import argparse
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import cast

from field import Field
from ispvm_agent.outbox import GATHER_SECONDS, Outbox
from ispvm_agent.spool import Spool
from ispvm_contract import ingest
from ispvm_contract.identity import device_id

POLL_SECONDS = 60
LIVE_SECONDS = 30.0  # from the poll to the receiver, while the backlog is delivered


@cache
def columns_of(device: int, variant: int, interfaces: int) -> dict[str, list[ingest.Value]]:
    """Ten metrics of each interface of a router. Few variants, made once: what is measured is not how they are made."""
    places, step = range(interfaces), 1_700_000_000 + variant * POLL_SECONDS
    return {
        "interface.oper_up": [True] * interfaces,
        "interface.admin_up": [True] * interfaces,
        "interface.rx_bytes_total": [step * (1_000_003 + device + place) for place in places],
        "interface.tx_bytes_total": [step * (331_013 + device + place) for place in places],
        "interface.rx_errors_total": [717] * interfaces,
        "interface.tx_errors_total": [0] * interfaces,
        "interface.rx_discards_total": [239] * interfaces,
        "interface.tx_discards_total": [0] * interfaces,
        "interface.rx_bps": [8 * (1_000_003 + device + place) for place in places],
        "interface.tx_bps": [8 * (331_013 + device + place) for place in places],
    }


def fill(directory: Path, routers: int, interfaces: int, begin_ms: int, steps: range) -> None:
    """Append batches, print the step and id of each once it is on disk. Ends when all is done, or by kill -9."""
    spool = Spool(directory, 10**10, 10**10)
    with ThreadPoolExecutor(1) as disk:
        outbox = Outbox(ingest.Agent("bench", "0"), spool, disk)
    keys = [f"ether{number}" for number in range(interfaces)]
    every = int(POLL_SECONDS / GATHER_SECONDS)
    for step in steps:
        ts = begin_ms + int(step * GATHER_SECONDS * 1000)
        for device in range(step % every, routers, every):
            identity, columns = device_id("bench", f"R{device}"), columns_of(device, step // every % 4, interfaces)
            outbox.add(ingest.Poll(identity, ts, "interface", columns, None, float(POLL_SECONDS)), keys)
            outbox.add(ingest.Poll(identity, ts, "device", {"device.api.up": [True], "device.cpu_pct": [7]}))
        batches = outbox.take()
        spool.append(batches, ts)
        for batch_id, _ in batches:
            print(step, batch_id.hex, flush=True)
    spool.close()


def fill_with_kills(options: argparse.Namespace, directory: Path) -> set[bytes]:
    """Run `fill` until it is through, killing it at random points; returns the ids it had acknowledged."""
    steps = int(options.hours * 3600 / GATHER_SECONDS)
    begin_ms = int((time.time() - options.hours * 3600 - 120) * 1000)
    kills = sorted(random.sample(range(steps), options.kills))
    acknowledged: set[bytes] = set()
    step = 0
    while step < steps:
        command = [sys.executable, __file__, "--fill", str(directory), str(begin_ms), str(step), str(steps),
                   str(options.routers), str(options.interfaces)]  # fmt: skip
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603
        assert process.stdout is not None  # noqa: S101
        for line in cast("Iterator[str]", process.stdout):
            if not line.endswith("\n"):
                break
            done, batch = line.split()
            step = int(done) + 1
            acknowledged.add(bytes.fromhex(batch))
            if kills and step > kills[0]:
                kills.pop(0)
                process.kill()
        process.stdout.close()
        if process.wait() not in (0, -9):
            raise RuntimeError("the fill has failed")
        if process.returncode == 0:
            break
        # The step after the last acknowledged one may be on disk or not; a real agent would not repeat it either.
        step += 1
    return acknowledged


def spooled(directory: Path) -> tuple[set[bytes], int, int]:
    """Ids that wait, their bytes, and how many were dropped."""
    with closing(sqlite3.connect(f"file:{directory}/spool.sqlite3?mode=ro", uri=True, timeout=30)) as db:
        rows = db.execute("select id, length(body) from batch").fetchall()
        (dropped,) = db.execute("select coalesce(sum(batches), 0) from gap").fetchone()
    return {bytes.fromhex(row[0].replace("-", "")) for row in rows}, sum(row[1] for row in rows), dropped


def backlog(directory: Path, before_ms: int) -> int:
    """How many batches of before `before_ms` still wait."""
    with closing(sqlite3.connect(f"file:{directory}/spool.sqlite3?mode=ro", uri=True, timeout=30)) as db:
        return int(db.execute("select count(*) from batch where created_ms < ?", (before_ms,)).fetchone()[0])


def drain(field: Field, options: argparse.Namespace) -> tuple[float, list[float]]:
    """Deliver the backlog while polling live, with kills; returns how long it took, and when agents were started."""
    state = field.directory / "state"
    field.start_routers()
    receiver, agent = field.start_receiver(), field.start_agent()
    began = time.time()
    starts = [began]
    total = backlog(state, int(began * 1000))
    kill_at = sorted((random.uniform(0, total) for _ in range(2 * options.kills)), reverse=True)  # noqa: S311
    while left := backlog(state, int(began * 1000)):
        if time.time() - began > options.drain_minutes * 60 + 60:
            break
        if kill_at and left < kill_at[0]:
            kill_at.pop(0)
            if len(kill_at) % 2:
                field.stop(agent)
                agent = field.start_agent()
                starts.append(time.time())
            else:
                field.stop(receiver)
                receiver = field.start_receiver()
        if agent.poll() is not None:
            raise RuntimeError((field.directory / "agent.log").read_text()[-2000:])
        time.sleep(0.2)
    took = time.time() - began
    time.sleep(options.live_seconds)  # what was polled live towards the end arrives
    field.stop(agent, signal.SIGTERM)
    return took, starts


def main() -> int:
    """Fill, drain, judge."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--hours", type=float, default=1)
    parser.add_argument("--routers", type=int, default=1000)
    parser.add_argument("--interfaces", type=int, default=50)
    parser.add_argument("--kills", type=int, default=3, help="of the fill, of the agent and of the receiver, each")
    parser.add_argument("--drain-minutes", type=float, default=15)
    parser.add_argument("--live-seconds", type=float, default=10, help="how long to poll on after the drain")
    parser.add_argument("--fast-seconds", type=float, default=30, help="of the live polls")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    random.seed(options.seed)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        began = time.time()
        acknowledged = fill_with_kills(options, directory / "state")
        waiting, size, dropped = spooled(directory / "state")
        rows = options.hours * 3600 / POLL_SECONDS * options.routers * (options.interfaces + 1)
        print(f"fill: {options.hours:g} h, {options.routers} routers x {options.interfaces} interfaces, {rows:,.0f} "
              f"rows, {time.time() - began:.0f} s; {len(waiting)} batches, {size / rows:.1f} bytes a row")  # fmt: skip
        field = Field(directory, options.routers, options.interfaces, options.fast_seconds)
        try:
            took, starts = drain(field, options)
        finally:
            field.close()
        left, _, dropped_later = spooled(directory / "state")
        with closing(sqlite3.connect(directory / "ledger.sqlite3")) as ledger:
            stored = {row[0] for row in ledger.execute("select id from batch")}
            (doubled,) = ledger.execute("select count(*) from doubled").fetchone()
            live = ledger.execute(
                "select (b.at_ms - m.ts) / 1000.0 from moment m join batch b on b.id = m.batch"
                " where m.entity_type = 'device' and m.ts > ? order by 1", (int(starts[0] * 1000),)
            ).fetchall()  # fmt: skip
            polled = ledger.execute(
                "select device, ts / 1000.0 from moment where entity_type = 'device' and ts > ? order by 1, 2",
                (int(starts[0] * 1000),),
            ).fetchall()
    lost = len((waiting | acknowledged) - stored - left)
    late = sum(
        second[1] - first[1] > 1.5 * options.fast_seconds and not any(first[1] < at < second[1] for at in starts)
        for first, second in pairwise(polled)
        if first[0] == second[0]
    )
    slowest = live[-1][0] if live else float("inf")
    median = live[len(live) // 2][0] if live else float("inf")
    print(f"drain: {took:.0f} s for {len(waiting)} batches, agent started {len(starts)} times; lost {lost}, doubled "
          f"{doubled}, dropped {dropped + dropped_later}")  # fmt: skip
    print(f"live meanwhile: {len(live)} polls, {late} late; from poll to receiver median {median:.1f} s, "
          f"slowest {slowest:.1f} s")  # fmt: skip
    print("CPU seconds: " + ", ".join(f"{kind} {seconds:.0f}" for kind, seconds in field.used.items()))
    faults = {
        "batches were lost": lost + dropped + dropped_later,
        "polls were doubled": doubled,
        "the drain was late": took > options.drain_minutes * 60,
        "live polls were late": late or not live,
        "live data was late": slowest > LIVE_SECONDS + 2 * options.fast_seconds * (len(starts) > 1),
    }
    for fault in (fault for fault, found in faults.items() if found):
        print(fault, file=sys.stderr)
    return int(any(faults.values()))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--fill"]:
        _, _, where, begin, first, last, count, ports = sys.argv
        fill(Path(where), int(count), int(ports), int(begin), range(int(first), int(last)))
    else:
        sys.exit(main())
