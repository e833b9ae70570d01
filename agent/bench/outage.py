"""An outage of the server, then the replay, with kill -9 of both sides: nothing lost, nothing doubled, live on time.

1. Fill: HOURS of polls of ROUTERS x INTERFACES go through the real outbox into the real spool, at speed; the process is
   killed at random points and begins again. What it had acknowledged must be in the spool.
2. Drain: the real agent polls all routers live and delivers both to a receiver with a ledger; agent and receiver are
   killed at random points and started again. With --appliance the receiver is the appliance that site.yml has installed
   on a test host, and its server, PgBouncer and PostgreSQL are what is killed.
Exit code 1 when a batch is lost, a poll missing or doubled, the drain is late or live data is.

    python agent/bench/outage.py [--hours 1] [--routers 1000] [--interfaces 50] [--kills 3] [--appliance ADDRESS]
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
from uuid import UUID

import msgspec
import zstandard
from appliance import Appliance
from field import Field
from ispvm_agent import __version__
from ispvm_agent.outbox import GATHER_SECONDS, Outbox
from ispvm_agent.spool import Spool
from ispvm_contract import ingest
from ispvm_contract.identity import device_id
from receiver import Batch

POLL_SECONDS = 60
LIVE_SECONDS = 30.0  # from the poll to the receiver, while the backlog is delivered


@cache
def columns_of(device: int, variant: int, interfaces: int) -> dict[str, ingest.Column]:
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


def polls_in(body: bytes) -> int:
    """How many polls a batch as it is stored holds."""
    raw = zstandard.ZstdDecompressor().decompress(body, max_output_size=ingest.MAX_DECOMPRESSED_BYTES)
    return len(msgspec.msgpack.decode(raw, type=Batch).polls)


def fill(directory: Path, routers: int, interfaces: int, begin_ms: int, steps: range) -> None:
    """Append batches; once on disk print step, id and polls of each. Ends when all is done, or by kill -9."""
    spool = Spool(directory, 10**10, 10**10)
    with ThreadPoolExecutor(1) as disk:
        outbox = Outbox(ingest.Agent("bench", __version__), spool, disk)
    keys = [f"ether{number}" for number in range(interfaces)]
    every = int(POLL_SECONDS / GATHER_SECONDS)
    for step in steps:
        ts = begin_ms + int(step * GATHER_SECONDS * 1000)
        for device in range(step % every, routers, every):
            identity, columns = device_id("bench", f"R{device}"), columns_of(device, step // every % 4, interfaces)
            outbox.describe(
                ingest.DevicePatch(identity, f"R{device}", "s", "192.0.2.1"),
                [ingest.EntityPatch(identity, "interface", key, key) for key in keys],
            )
            outbox.add(ingest.Poll(identity, ts, "interface", columns, None, float(POLL_SECONDS)), keys)
            outbox.add(ingest.Poll(identity, ts, "device", {"device.api.up": [True], "device.cpu_pct": [7]}))
        batches = outbox.take()
        spool.append(batches, ts)
        for batch_id, body in batches:
            outbox.confirm(batch_id)  # before the outage the server knew the routers; here their first batch tells
            print(step, batch_id.hex, polls_in(body), flush=True)
    spool.close()


def fill_with_kills(options: argparse.Namespace, directory: Path) -> dict[bytes, int]:
    """Run `fill` until it is through, killing it at random points; returns the polls of what it acknowledged, by id."""
    steps = int(options.hours * 3600 / GATHER_SECONDS)
    begin_ms = int((time.time() - options.hours * 3600 - 120) * 1000)
    kills = sorted(random.sample(range(steps), options.kills))
    acknowledged: dict[bytes, int] = {}
    step = 0
    while step < steps:
        command = [sys.executable, __file__, "--fill", str(directory), str(begin_ms), str(step), str(steps),
                   str(options.routers), str(options.interfaces)]  # fmt: skip
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603
        assert process.stdout is not None  # noqa: S101
        for line in cast("Iterator[str]", process.stdout):
            if not line.endswith("\n"):
                break
            done, batch, polls = line.split()
            step = int(done) + 1
            acknowledged[bytes.fromhex(batch)] = int(polls)
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


def spooled(directory: Path, known: dict[bytes, int]) -> tuple[dict[bytes, int], int, int]:
    """Polls of each batch that waits, by id (what is `known` is not read); their bytes; how many were dropped."""
    with closing(sqlite3.connect(f"file:{directory}/spool.sqlite3?mode=ro", uri=True, timeout=30)) as db:
        found, size = {}, 0
        for name, length in db.execute("select id, length(body) from batch"):
            batch = UUID(name).bytes
            (body,) = (
                (b"",) if batch in known else db.execute("select body from batch where id = ?", (name,)).fetchone()
            )
            found[batch] = known[batch] if batch in known else polls_in(body)
            size += length
        (dropped,) = db.execute("select coalesce(sum(batches), 0) from gap").fetchone()
    return found, size, dropped


def backlog(directory: Path, before_ms: int) -> int:
    """How many batches of before `before_ms` still wait."""
    with closing(sqlite3.connect(f"file:{directory}/spool.sqlite3?mode=ro", uri=True, timeout=30)) as db:
        return int(db.execute("select count(*) from batch where created_ms < ?", (before_ms,)).fetchone()[0])


def drain(field: Field, options: argparse.Namespace) -> tuple[float, list[float]]:
    """Deliver the backlog while polling live, with kills; returns how long it took, and when agents were started."""
    state = field.directory / "state"
    field.start_routers()
    field.start_receiver()
    agent = field.start_agent()
    began = time.time()
    starts = [began]
    total = backlog(state, int(began * 1000))
    kill_at = sorted((random.uniform(0, total) for _ in range(2 * options.kills)), reverse=True)  # noqa: S311
    while (left := backlog(state, int(began * 1000))) or kill_at:  # a small backlog is gone before the last kill
        if time.time() - began > options.drain_minutes * 60 + 60:
            break
        if kill_at and left < kill_at[0]:
            kill_at.pop(0)
            if len(kill_at) % 2:
                field.stop(agent)
                agent = field.start_agent()
                starts.append(time.time())
            else:
                field.kill_receiver()
        if agent.poll() is not None:
            raise RuntimeError((field.directory / "agent.log").read_text()[-2000:])
        field.look()
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
    parser.add_argument("--appliance", metavar="ADDRESS", help="of a test host with the appliance")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    random.seed(options.seed)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        began = time.time()
        acknowledged = fill_with_kills(options, directory / "state")
        waiting, size, dropped = spooled(directory / "state", acknowledged)
        rows = options.hours * 3600 / POLL_SECONDS * options.routers * (options.interfaces + 1)
        print(f"fill: {options.hours:g} h, {options.routers} routers x {options.interfaces} interfaces, {rows:,.0f} "
              f"rows, {time.time() - began:.0f} s; {len(waiting)} batches, {size / rows:.1f} bytes a row",
              flush=True)  # fmt: skip
        fleet = directory, options.routers, options.interfaces, options.fast_seconds
        field = Appliance(options.appliance, *fleet) if options.appliance else Field(*fleet)
        try:
            took, starts = drain(field, options)
            found = field.delivered(starts[0])
        finally:
            field.close()
        left, _, dropped_later = spooled(directory / "state", waiting)
    lost = len((waiting.keys() | acknowledged.keys()) - found.batches - left.keys())
    missing = sum(polls for batch, polls in waiting.items() if batch not in left) - found.polls
    late = sum(
        second[1] - first[1] > 1.5 * options.fast_seconds and not any(first[1] < at < second[1] for at in starts)
        for first, second in pairwise(found.live)
        if first[0] == second[0]
    )
    slowest = found.delays[-1] if found.delays else float("inf")
    median = found.delays[len(found.delays) // 2] if found.delays else float("inf")
    print(f"drain: {took:.0f} s for {len(waiting)} batches, agent started {len(starts)} times; lost {lost}, doubled "
          f"{found.doubled}, dropped {dropped + dropped_later}; polls missing {missing}")  # fmt: skip
    print(f"live meanwhile: {len(found.live)} polls, {late} late; from poll to receiver median {median:.1f} s, "
          f"slowest {slowest:.1f} s")  # fmt: skip
    print("CPU seconds: " + ", ".join(f"{kind} {seconds:.0f}" for kind, seconds in field.used.items()))
    faults = {
        "batches were lost": lost + dropped + dropped_later,
        "polls are missing": missing,
        "polls were doubled": found.doubled,
        "the drain was late": took > options.drain_minutes * 60,
        "live polls were late": late or not found.live,
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
