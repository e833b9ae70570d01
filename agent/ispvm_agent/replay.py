"""`ispvm-agent replay`: what waits on disk, what was lost or refused (read beside a running agent), and sending now."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import zstandard
from ispvm_contract import ingest
from ispvm_contract.packed import length

_UNIT = "ispvm-agent.service"


def moment(text: str) -> int:
    """Epoch milliseconds of "2026-11-22T14:00", without an offset in UTC; raises ValueError."""
    when = datetime.fromisoformat(text)
    return int((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() * 1000)


def _shown(epoch_ms: int) -> str:
    return datetime.fromtimestamp(epoch_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def describe(body: bytes) -> dict[str, Any]:
    """What is in a stored batch."""
    raw = zstandard.ZstdDecompressor().decompress(body, max_output_size=ingest.MAX_DECOMPRESSED_BYTES)
    batch = msgspec.msgpack.decode(raw, type=ingest.Batch)
    stamps = [poll.ts for poll in batch.polls] + [event.ts for event in batch.events]
    return {
        "from": _shown(min(stamps)),
        "to": _shown(max(stamps)),
        "routers": len({poll.device for poll in batch.polls} | {event.device for event in batch.events}),
        "polls": len(batch.polls),
        "values": sum(length(name, column) for poll in batch.polls for name, column in poll.columns.items()),
        "events": len(batch.events),
    }


def listing(directory: Path, since_ms: int, until_ms: int) -> dict[str, Any]:
    """Waiting batches stored in that time in the order they would be sent, and all gaps and refusals of that time.

    Raises sqlite3.Error when there is no spool or it cannot be read.
    """
    with contextlib.closing(sqlite3.connect(f"file:{directory}/spool.sqlite3?mode=ro", uri=True, timeout=5)) as db:
        span = (since_ms, until_ms)
        waiting = db.execute(
            "select id, created_ms, body from batch where created_ms between ? and ? order by seq", span
        )
        batches = [
            {"id": row[0], "stored": _shown(row[1]), "bytes": len(row[2]), **describe(row[2])} for row in waiting
        ]
        gaps = db.execute(
            "select from_ms, to_ms, batches, bytes, reason from gap where to_ms >= ? and from_ms <= ?", span
        )
        refused = db.execute("select id, at_ms, reason from set_aside where at_ms between ? and ? order by at_ms", span)
        return {
            "waiting": batches,
            "dropped": [
                {"from": _shown(g[0]), "to": _shown(g[1]), "batches": g[2], "bytes": g[3], "reason": g[4]} for g in gaps
            ],
            "refused": [{"id": row[0], "stored": _shown(row[1]), "reason": row[2]} for row in refused],
        }


def show(directory: Path, since: str | None, until: str | None, as_json: bool) -> int:
    """Print `listing`; 1 when the spool cannot be read."""
    try:
        span = (moment(since) if since else 0, moment(until) if until else int(time.time() * 1000))
        found = listing(directory, *span)
    except ValueError as error:
        print(f"{error}; write a time such as 2026-11-22T14:00", file=sys.stderr)
        return 1
    except sqlite3.Error as error:
        print(
            f"the spool in {directory} cannot be read: {error}; run this as root on the agent's host", file=sys.stderr
        )
        return 1
    if as_json:
        print(json.dumps(found, indent=2))
        return 0
    size = sum(batch["bytes"] for batch in found["waiting"])
    print(f"{len(found['waiting'])} batches wait, {size} bytes")
    for batch in found["waiting"]:
        print(f"  {batch['id']} {batch['from']} to {batch['to']}: {batch['polls']} polls of {batch['routers']} "
              f"routers, {batch['values']} values, {batch['events']} events, {batch['bytes']} bytes")  # fmt: skip
    for gap in found["dropped"]:
        print(f"dropped: {gap['batches']} batches of {gap['from']} to {gap['to']}: {gap['reason']}")
    for refusal in found["refused"]:
        print(f"refused: {refusal['id']} of {refusal['stored']}: {refusal['reason']}")
    return 0


def send_now(run: Callable[..., subprocess.CompletedProcess[bytes]] = subprocess.run) -> int:
    """Tell the running agent to try the server now instead of waiting for its next try."""
    command = ["systemctl", "kill", "--kill-whom=main", "--signal=SIGUSR1", _UNIT]
    done = run(command, capture_output=True, check=False)
    if done.returncode != 0:
        print(
            f"{_UNIT} cannot be told: {done.stderr.decode(errors='replace').strip()}; is it running?", file=sys.stderr
        )
        return 1
    print("the agent tries to deliver now; `ispvm-agent status` says how it goes")
    return 0
