"""How the machine room of the appliance does: chunks, tables, WAL, pools, statements, disk. All tenants together;
nothing here shows a tenant's data.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import psycopg
from psycopg import AsyncConnection
from psycopg.conninfo import make_conninfo
from psycopg.rows import class_row, dict_row

from ispvm.settings import Settings
from ispvm.store.columns import landing_types, table
from ispvm.store.pool import Pool

STATEMENT_MS = 5_000
MOST_TABLES, MOST_STATEMENTS = 10, 10


@dataclass(frozen=True, slots=True)
class Chunk:
    """One chunk of a hypertable."""

    hypertable: str
    range_start: datetime
    range_end: datetime
    bytes: int


@dataclass(frozen=True, slots=True)
class Hypertable:
    """Chunks of one hypertable summed up: `active_bytes` is what the newest chunk has when it is full."""

    name: str
    chunks: int
    bytes: int
    interval_h: float
    active_bytes: int
    bytes_a_day: int


@dataclass(frozen=True, slots=True)
class Table:
    """A table (or chunk) with dead rows; autovacuum comes when there are more than `trigger_at`."""

    name: str
    live: int
    dead: int
    trigger_at: int
    last_vacuum: datetime | None
    bytes: int


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement of the product with its times in milliseconds, constants taken out."""

    role: str
    calls: int
    mean_ms: float
    max_ms: float
    total_ms: float
    statement: str


@dataclass(frozen=True, slots=True)
class PoolUse:
    """A PgBouncer pool: clients that work and wait, the longest wait, connections to PostgreSQL in use and idle."""

    user: str
    clients_active: int
    clients_waiting: int
    max_wait_s: float
    servers_active: int
    servers_idle: int


@dataclass(frozen=True, slots=True)
class AgentLag:
    """Since when an agent has not been heard, in seconds (None: never), and what it keeps."""

    tenant: str
    agent: str
    heartbeat_age_s: float | None
    batch_age_s: float | None
    buffer_depth: int
    dropped_batches: int


@dataclass(frozen=True, slots=True)
class Job:
    """One of the community edition's jobs: how often it is due, and how it went."""

    name: str
    every_s: float
    last_success: datetime | None
    last_failed: bool
    failures: int
    next_start: datetime | None
    error: str | None


@dataclass(frozen=True, slots=True)
class Platform:
    """Everything at one moment. Disk and memory are None where they cannot be read."""

    at: datetime
    memory_bytes: int | None = None
    disk_free_bytes: int | None = None
    disk_bytes: int | None = None
    database_bytes: int = 0
    wal_bytes: int = 0
    max_wal_bytes: int = 0
    last_upkeep: datetime | None = None
    waiting_hours: int = 0
    overdue_hours: int = 0
    oldest_due: datetime | None = None
    hypertables: list[Hypertable] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    statements: list[Statement] = field(default_factory=list)
    jobs: list[Job] = field(default_factory=list)
    pools: list[PoolUse] = field(default_factory=list)
    pool_size: int = 0
    pool_free: int = 0
    pool_waiting: int = 0

    @property
    def rollup_lag_s(self) -> float:
        """How long the oldest hour that is due has been waiting; 0 when none is."""
        return max(0.0, (self.at - self.oldest_due).total_seconds()) if self.oldest_due else 0.0

    @property
    def active_bytes(self) -> int:
        """The chunks that polls are being written to, full. History is written once a day's hour, in order."""
        return sum(one.active_bytes for one in self.hypertables if one.name in landing_tables())

    @property
    def bytes_a_day(self) -> int:
        """Growth without retention."""
        return sum(one.bytes_a_day for one in self.hypertables)

    @property
    def disk_days_left(self) -> float | None:
        """Days until the disk is full if nothing were dropped; None when unknown or nothing grows."""
        if self.disk_free_bytes is None or not self.bytes_a_day:
            return None
        return self.disk_free_bytes / self.bytes_a_day


def landing_tables() -> set[str]:
    """The hypertables whose chunk interval is a setting."""
    return {table(entity_type) for entity_type in landing_types()}


# A chunk that is younger says too little of what it will become.
_LEAST_FILLED = 0.1


def sum_up(chunks: Sequence[Chunk], now: datetime) -> list[Hypertable]:
    """Hypertables of their chunks, in the order of their names."""
    by_name: dict[str, list[Chunk]] = {}
    for chunk in chunks:
        by_name.setdefault(chunk.hypertable, []).append(chunk)
    return [_sum_up_one(name, sorted(own, key=lambda c: c.range_start), now) for name, own in sorted(by_name.items())]


def _sum_up_one(name: str, chunks: list[Chunk], now: datetime) -> Hypertable:
    open_ones = [c for c in chunks if c.range_start <= now < c.range_end]
    closed = [c for c in chunks if c.range_end <= now]
    newest = (open_ones or closed or chunks)[-1]
    length = newest.range_end - newest.range_start
    sizes = [c.bytes for c in closed[-1:] if c.range_end - c.range_start == length]
    rates = []
    if open_ones:
        filled = (now - newest.range_start) / length
        if filled >= _LEAST_FILLED or not closed:
            sizes.append(max(newest.bytes, round(newest.bytes / max(filled, _LEAST_FILLED))))
            rates.append(newest.bytes / max(now - newest.range_start, timedelta(hours=1)).total_seconds())
    week = [c for c in closed if c.range_end > now - timedelta(days=7)] or closed[-1:]
    if week:
        span = sum((c.range_end - c.range_start).total_seconds() for c in week)
        rates = [sum(c.bytes for c in week) / span]
    return Hypertable(
        name,
        len(chunks),
        sum(c.bytes for c in chunks),
        length.total_seconds() / 3600,
        max(sizes, default=newest.bytes),
        round(max(rates, default=0.0) * 86400),
    )


async def read_platform(pool: Pool, settings: Settings, now: datetime) -> Platform:
    """Ask the database, the pool and the host."""
    async with pool.connection() as connection, connection.transaction():
        await connection.execute("select set_config('statement_timeout', %s, true)", [str(STATEMENT_MS)])
        row = await (
            await connection.cursor(row_factory=dict_row).execute("select * from upkeep_database()")
        ).fetchone()
        assert row is not None  # noqa: S101  # an aggregate has one row
        chunks = await (
            await connection.cursor(row_factory=class_row(Chunk)).execute("select * from upkeep_chunks()")
        ).fetchall()
        tables = await (
            await connection.cursor(row_factory=class_row(Table)).execute(
                "select * from upkeep_tables(%s)", [MOST_TABLES]
            )
        ).fetchall()
        jobs = await (
            await connection.cursor(row_factory=class_row(Job)).execute("select * from upkeep_jobs()")
        ).fetchall()
        statements = await (
            await connection.cursor(row_factory=class_row(Statement)).execute(
                "select * from upkeep_statements(%s)", [MOST_STATEMENTS]
            )
        ).fetchall()
    free, size = _disk(row.pop("data_directory"))
    stats = pool.get_stats()
    return Platform(
        at=now,
        memory_bytes=_memory(),
        disk_free_bytes=free,
        disk_bytes=size,
        hypertables=sum_up(chunks, now),
        tables=[one for one in tables if one.dead],
        statements=statements,
        jobs=jobs,
        pools=await _pgbouncer(settings),
        pool_size=stats.get("pool_max", 0),
        pool_free=stats.get("pool_available", 0) + stats.get("pool_max", 0) - stats.get("pool_size", 0),
        pool_waiting=stats.get("requests_waiting", 0),
        **row,
    )


async def read_agents(pool: Pool) -> list[AgentLag]:
    """Agents of all tenants, for /metrics."""
    async with pool.connection() as connection:
        cursor = await connection.cursor(row_factory=class_row(AgentLag)).execute("select * from upkeep_agents()")
        return await cursor.fetchall()


async def _pgbouncer(settings: Settings) -> list[PoolUse]:
    """What PgBouncer's console says of the pools; nothing when there is none (a direct connection)."""
    try:
        async with await AsyncConnection.connect(
            make_conninfo(settings.database.dsn, dbname="pgbouncer", connect_timeout=2), autocommit=True
        ) as console:
            rows = await (await console.cursor(row_factory=dict_row).execute("show pools")).fetchall()
    except psycopg.OperationalError:
        return []
    return [
        PoolUse(
            str(row["user"]),
            int(row["cl_active"]),
            int(row["cl_waiting"]),
            float(row["maxwait"]) + float(row["maxwait_us"]) / 1e6,
            int(row["sv_active"]),
            int(row["sv_idle"]),
        )
        for row in rows
        if row["database"] != "pgbouncer"
    ]


def _disk(directory: str) -> tuple[int | None, int | None]:
    """Free and all bytes of the file system that holds the database; None when it is not on this host."""
    try:
        found = os.statvfs(directory)
    except OSError:
        return None, None
    return found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return None
