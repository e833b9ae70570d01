"""The spool keeps what it acknowledged, whatever happens to the process."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from ispvm_agent.spool import Spool

HOUR = 3_600_000


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path, max_bytes=1000, max_age_ms=HOUR)


def drain(spool: Spool, live_since_ms: int = 0) -> list[UUID]:
    found = []
    while waiting := spool.next(live_since_ms, most=2):
        for stored in waiting:
            found.append(stored.id)
            spool.delete(stored)
    return found


def test_in_order_and_gone_only_when_deleted(spool: Spool) -> None:
    ids = [uuid4() for _ in range(3)]
    for number, batch in enumerate(ids):
        spool.append([(batch, b"x" * 10)], now_ms=number)
    first, again = spool.next(0), spool.next(0)
    assert first == again
    assert spool.depth().batches == 3
    assert drain(spool) == ids
    assert spool.depth().batches == spool.depth().bytes == 0


def test_live_data_goes_first_then_the_backlog_in_order(spool: Spool) -> None:
    old = [uuid4(), uuid4()]
    live = [uuid4(), uuid4()]
    for number, batch in enumerate(old + live):
        spool.append([(batch, b"x")], now_ms=number * 1000)
    assert drain(spool, live_since_ms=2000) == live + old


def test_size_cap_drops_the_oldest_and_declares_the_gap(spool: Spool) -> None:
    ids = [uuid4() for _ in range(6)]
    for number, batch in enumerate(ids):
        spool.append([(batch, b"x" * 300)], now_ms=number * 1000)
    assert spool.depth().bytes <= 1000
    (gap,) = spool.gaps()
    assert (gap.from_ms, gap.to_ms, gap.batches, gap.bytes, gap.reason) == (0, 2000, 3, 900, "the spool was full")
    assert spool.depth().dropped_batches == 3
    assert drain(spool) == ids[3:]


def test_age_cap_declares_its_own_gap(spool: Spool) -> None:
    spool.append([(uuid4(), b"x")], now_ms=0)
    young = uuid4()
    spool.append([(young, b"x")], now_ms=HOUR + 1)
    (gap,) = spool.gaps()
    assert gap.reason == "older than the spool keeps"
    assert drain(spool) == [young]


def test_deleting_what_was_dropped_meanwhile_changes_nothing(spool: Spool) -> None:
    spool.append([(uuid4(), b"x" * 900)], now_ms=0)
    (in_flight,) = spool.next(0)
    spool.append([(uuid4(), b"x" * 900)], now_ms=1)
    spool.delete(in_flight)
    assert (spool.depth().batches, spool.depth().bytes) == (1, 900)


def test_set_aside_leaves_the_queue_and_is_kept(spool: Spool) -> None:
    bad, good = uuid4(), uuid4()
    spool.append([(bad, b"bad")], now_ms=0)
    spool.append([(good, b"good")], now_ms=1)
    (stored,) = spool.next(0)
    spool.set_aside(stored, "HTTP 422")
    assert spool.depth().set_aside == 1
    assert drain(spool) == [good]


def test_memory_of_collectors(spool: Spool) -> None:
    assert spool.recall("A") == {}
    spool.remember("A", {"ospf": {"expected": {"é": 1}}})
    assert spool.recall("A") == {"ospf": {"expected": {"é": 1}}}


def test_counts_survive_a_restart(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 1000, HOUR)
    spool.append([(uuid4(), b"x" * 7)])
    spool.close()
    depth = Spool(tmp_path, 1000, HOUR).depth()
    assert (depth.batches, depth.bytes) == (1, 7)


def test_a_damaged_file_is_moved_aside_and_declared(tmp_path: Path) -> None:
    (tmp_path / "spool.sqlite3").write_bytes(b"this is not a database" * 100)
    spool = Spool(tmp_path, 1000, HOUR)
    spool.append([(uuid4(), b"x")])
    assert (spool.depth().batches, spool.depth().dropped_batches) == (1, 1)
    assert "damaged" in spool.gaps()[0].reason
    assert (tmp_path / "damaged-spool.sqlite3").exists()


def test_it_is_durable_by_its_settings(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 1000, HOUR)
    assert spool._row("pragma synchronous") == (2,)
    assert spool._row("pragma journal_mode") == ("wal",)


def test_a_batch_that_cannot_be_stored_changes_nothing(spool: Spool) -> None:
    known = uuid4()
    older = uuid4()
    spool.append([(older, b"x" * 500)], now_ms=0)
    spool.append([(known, b"x" * 100)], now_ms=1)
    with pytest.raises(sqlite3.IntegrityError):  # after room was made for it
        spool.append([(known, b"x" * 600)], now_ms=2)
    depth = spool.depth()
    assert (depth.batches, depth.bytes, depth.dropped_batches) == (2, 600, 0)
    assert drain(spool) == [older, known]


def test_a_long_backlog_is_not_searched_for_live_data(spool: Spool) -> None:
    seen: list[str] = []
    spool._db.set_trace_callback(seen.append)
    spool.next(5)
    spool.append([(uuid4(), b"x")])
    spool._db.set_trace_callback(None)
    asked = [statement for statement in seen if "created_ms >" in statement or "created_ms <" in statement]
    assert len(asked) == 3
    for statement in asked:
        plan = " ".join(row[3] for row in spool._db.execute(f"explain query plan {statement}"))
        assert "USING INDEX batch_created" in plan
        assert "TEMP B-TREE" not in plan


_WRITER = """
import sys, uuid
from pathlib import Path
from ispvm_agent.spool import Spool
spool = Spool(Path(sys.argv[1]), 10**9, 10**9)
while True:
    batch = uuid.uuid4()
    spool.append([(batch, batch.bytes * 100)])
    print(batch, flush=True)  # acknowledged
"""


@pytest.mark.parametrize("after", [1, 20, 100])
def test_kill_9_loses_nothing_that_was_acknowledged(tmp_path: Path, after: int) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    writer = subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert writer.stdout is not None
    acknowledged = [UUID(writer.stdout.readline().strip()) for _ in range(after)]
    writer.send_signal(signal.SIGKILL)
    acknowledged += [UUID(line.strip()) for line in writer.stdout if len(line) == 37]
    writer.stdout.close()
    writer.wait()
    with sqlite3.connect(tmp_path / "spool.sqlite3") as db:
        assert db.execute("pragma integrity_check").fetchone() == ("ok",)
    db.close()
    spool = Spool(tmp_path, 10**9, 10**9)
    kept = {}
    for stored in spool.next(0, most=10**6):
        kept[stored.id] = stored.body
    assert set(acknowledged) <= set(kept)
    assert all(body == batch.bytes * 100 for batch, body in kept.items())
