"""Batches on disk until the server has them. Crash-safe: SQLite in WAL mode, synchronous=FULL.

What has to be dropped, because the spool is full or a batch too old, is written into a gap ledger first.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

_SCHEMA = """
create table if not exists batch (
    seq integer primary key autoincrement, id text not null unique, created_ms integer not null, body blob not null
);
create index if not exists batch_created on batch (created_ms);
create table if not exists set_aside (
    id text primary key, at_ms integer not null, reason text not null, body blob not null
);
create table if not exists gap (
    seq integer primary key, from_ms integer not null, to_ms integer not null,
    batches integer not null, bytes integer not null, reason text not null
);
create table if not exists memory (router text primary key, body text not null);
"""
_BATCHES = "select seq, id, created_ms, body from batch where created_ms"
_OLDEST = "order by created_ms, seq limit ?"
_MAX_SET_ASIDE = 100
Encoded = tuple[UUID, bytes]  # a batch's id, and the batch as it will be sent


@dataclass(frozen=True, slots=True)
class Stored:
    """A batch as it will be sent: `body` is compressed and never encoded again."""

    seq: int
    id: UUID
    created_ms: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Gap:
    """Data lost by declaration: between which moments (epoch ms), how much, and why."""

    from_ms: int
    to_ms: int
    batches: int
    bytes: int
    reason: str


@dataclass(frozen=True, slots=True)
class Depth:
    """What waits to be sent."""

    batches: int = 0
    bytes: int = 0
    oldest_ms: int | None = None
    dropped_batches: int = 0
    set_aside: int = 0


class Spool:
    """The spool of one agent. Not for use from several threads at a time."""

    def __init__(self, directory: Path, max_bytes: int, max_age_ms: int) -> None:
        """Open or create the spool in `directory`; raises OSError or sqlite3.Error.

        A file that is damaged beyond opening is moved aside: the agent goes on, and the ledger says so.
        """
        directory.mkdir(parents=True, exist_ok=True)
        self.max_bytes = max_bytes
        self.max_age_ms = max_age_ms
        path = directory / "spool.sqlite3"
        try:
            self._open(path)
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):  # the disk or its rights are at fault, not the file
                raise
            self._db.close()
            for suffix in ("", "-wal", "-shm"):
                damaged = directory / f"spool.sqlite3{suffix}"
                if damaged.exists():
                    damaged.replace(directory / f"damaged-spool.sqlite3{suffix}")
            self._open(path)
            now = int(time.time() * 1000)
            self._db.execute("insert into gap values (null, ?, ?, 1, 0, ?)", (now, now, f"spool file damaged: {error}"))

    def _open(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.execute("pragma journal_mode = wal")
        self._db.execute("pragma synchronous = full")
        self._db.execute("pragma journal_size_limit = 16777216")
        self._db.executescript(_SCHEMA)
        self._count()

    def close(self) -> None:
        """Close the file; everything appended is in it already."""
        self._db.close()

    def _count(self) -> None:
        self._batches, self._bytes = self._row("select count(*), coalesce(sum(length(body)), 0) from batch")

    def _row(self, sql: str, *values: object) -> Any:
        return self._db.execute(sql, values).fetchone()

    def append(self, batches: Sequence[Encoded], now_ms: int | None = None) -> None:
        """Store batches; they are on disk when this returns. The oldest go first when space or age demand it.

        Raises sqlite3.Error when the disk does not take them; then nothing has changed.
        """
        now_ms = int(time.time() * 1000) if now_ms is None else now_ms
        try:
            with self._db:
                self._db.execute("begin immediate")
                for batch_id, body in batches:
                    self._append(batch_id, body, now_ms)
        except sqlite3.Error:
            self._count()
            raise

    def _append(self, batch_id: UUID, body: bytes, now_ms: int) -> None:
        self._drop(
            "older than the spool keeps",
            self._db.execute(
                "select seq, created_ms, length(body) from batch where created_ms < ? order by created_ms",
                (now_ms - self.max_age_ms,),
            ).fetchall(),
        )
        if self._bytes + len(body) > self.max_bytes:
            excess, doomed = self._bytes + len(body) - self.max_bytes, []
            for row in self._db.execute("select seq, created_ms, length(body) from batch order by seq"):
                if excess <= 0:
                    break
                doomed.append(row)
                excess -= row[2]
            self._drop("the spool was full", doomed)
        self._db.execute("insert into batch (id, created_ms, body) values (?, ?, ?)", (str(batch_id), now_ms, body))
        self._batches += 1
        self._bytes += len(body)

    def _drop(self, reason: str, doomed: list[tuple[int, int, int]]) -> None:
        """Delete batches (seq, created_ms, bytes) and declare the gap; adjoining ones become one entry."""
        if not doomed:
            return
        count, size = len(doomed), sum(row[2] for row in doomed)
        first, last = min(row[1] for row in doomed), max(row[1] for row in doomed)
        self._db.executemany("delete from batch where seq = ?", [(row[0],) for row in doomed])
        previous = self._row("select seq, reason, to_ms from gap order by seq desc limit 1")
        if previous is not None and previous[1] == reason and first - previous[2] < 60_000:
            self._db.execute(
                "update gap set to_ms = max(to_ms, ?), batches = batches + ?, bytes = bytes + ? where seq = ?",
                (last, count, size, previous[0]),
            )
        else:
            self._db.execute(
                "insert into gap (from_ms, to_ms, batches, bytes, reason) values (?, ?, ?, ?, ?)",
                (first, last, count, size, reason),
            )
        self._batches -= count
        self._bytes -= size

    def next(self, live_since_ms: int, most: int = 1) -> list[Stored]:
        """What to send next, at most so many: batches made since `live_since_ms`, then the oldest of the backlog."""
        rows = self._db.execute(f"{_BATCHES} >= ? {_OLDEST}", (live_since_ms, most)).fetchall()
        rows += self._db.execute(f"{_BATCHES} < ? {_OLDEST}", (live_since_ms, most - len(rows)))
        return [Stored(seq, UUID(batch_id), created_ms, body) for seq, batch_id, created_ms, body in rows]

    def delete(self, stored: Stored) -> None:
        """The server has it. No effect if it was dropped meanwhile.

        Not synced by itself: after a power cut the batch may be sent again, which the server's ledger makes harmless.
        """
        self._db.execute("pragma synchronous = normal")
        try:
            self._delete(stored)
        finally:
            self._db.execute("pragma synchronous = full")

    def _delete(self, stored: Stored) -> None:
        if self._db.execute("delete from batch where seq = ?", (stored.seq,)).rowcount:
            self._batches -= 1
            self._bytes -= len(stored.body)

    def set_aside(self, stored: Stored, reason: str) -> None:
        """The server will never take it: keep it for inspection (the newest hundred), out of the queue."""
        with self._db:
            self._db.execute("begin immediate")
            self._db.execute(
                "insert or replace into set_aside values (?, ?, ?, ?)",
                (str(stored.id), stored.created_ms, reason, stored.body),
            )
            self._db.execute(
                "delete from set_aside where id not in (select id from set_aside order by at_ms desc limit ?)",
                (_MAX_SET_ASIDE,),
            )
            self._delete(stored)

    def depth(self) -> Depth:
        """How much waits, and what was lost so far."""
        (oldest,) = self._row("select min(created_ms) from batch")
        (dropped,) = self._row("select coalesce(sum(batches), 0) from gap")
        (aside,) = self._row("select count(*) from set_aside")
        return Depth(self._batches, self._bytes, oldest, dropped, aside)

    def gaps(self) -> list[Gap]:
        """The ledger, oldest first."""
        return [Gap(*row) for row in self._db.execute("select from_ms, to_ms, batches, bytes, reason from gap")]

    def remember(self, router: str, body: dict[str, Any]) -> None:
        """Keep what a router's collectors have learned, across restarts."""
        self._db.execute("insert or replace into memory values (?, ?)", (router, json.dumps(body)))

    def recall(self, router: str) -> dict[str, Any]:
        """What was kept for a router; empty if nothing."""
        row = self._row("select body from memory where router = ?", router)
        body: dict[str, Any] = json.loads(row[0]) if row else {}
        return body
