"""What to do about the machine room, computed from its numbers. Pure: numbers in, sentences with these numbers out."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from ispvm.health.platform import AgentLag, Job, Platform, landing_tables
from ispvm.settings import Retention
from ispvm.store.upkeep import LANDING_DAYS

Severity = Literal["critical", "warning", "info"]
# The chunks that are being filled are to stay in memory: a quarter of it, as TimescaleDB's makers advise.
CHUNK_SHARE = 0.25
CHUNK_HOURS = (1, 2, 3, 4, 6, 8, 12, 24)
MOST_CHUNKS = 1_000
DISK_DAYS_WARNING, DISK_DAYS_CRITICAL, DISK_SHARE_CRITICAL = 30, 7, 0.05
# What takes the most room: the samples of each day, of which minute means remain after a while.
HISTORY = "sample_day"
ROLLUP_LAG_S = 120
POOL_WAIT_S = 0.5
SLOW_MS, SLOW_CALLS = 500, 10
DEAD_ROWS = 10_000
MISSED_UPKEEP = timedelta(hours=36)
AGENT_LAG_S, AGENT_BUFFER = 300, 10


@dataclass(frozen=True, slots=True)
class Advice:
    """One thing that is wrong: the numbers that say so, and what to do."""

    severity: Severity
    topic: str
    problem: str
    fix: str


def advise(platform: Platform, retention: Retention, agents: list[AgentLag] | None = None) -> list[Advice]:
    """Everything worth doing, the most urgent first."""
    found = [
        *_chunk_size(platform),
        *_chunk_count(platform),
        *_disk(platform, retention),
        *_dead_rows(platform),
        *_wal(platform),
        *_pools(platform),
        *_rollups(platform),
        *_upkeep(platform),
        *(advice for job in platform.jobs for advice in _job(job, platform.at)),
        *_statements(platform),
        *(advice for agent in agents or [] for advice in _agent(agent)),
    ]
    order: list[Severity] = ["critical", "warning", "info"]
    return sorted(found, key=lambda advice: order.index(advice.severity))


def size(value: float) -> str:
    """Bytes in binary units with one digit."""
    for unit, factor in (("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20)):
        if abs(value) >= factor:
            return f"{value / factor:.1f} {unit}"
    return f"{value / 1024:.0f} KiB"


def _chunk_size(platform: Platform) -> list[Advice]:
    if platform.memory_bytes is None:
        return []
    allowed = platform.memory_bytes * CHUNK_SHARE
    if platform.active_bytes <= allowed:
        return []
    hours = max(one.interval_h for one in platform.hypertables if one.name in landing_tables())
    fitting = [h for h in CHUNK_HOURS if h < hours and platform.active_bytes * h / hours <= allowed]
    problem = (
        f"The chunks being filled have {size(platform.active_bytes)} when full; a quarter of this host's"
        f" {size(platform.memory_bytes)} memory is {size(allowed)}."
    )
    if not fitting:
        return [Advice("warning", "chunks", problem, "No shorter chunk interval helps: give this host more memory.")]
    fix = f"Chunk interval {hours:g} h is too large for this host: set timescaledb_chunk_hours: {fitting[-1]}."
    return [Advice("warning", "chunks", problem, fix)]


def _chunk_count(platform: Platform) -> list[Advice]:
    many = [one for one in platform.hypertables if one.chunks > MOST_CHUNKS]
    found = []
    for one in many:
        problem = (
            f"{one.name} has {one.chunks} chunks of {one.interval_h:g} h; beyond {MOST_CHUNKS} planning gets slow."
        )
        wider = next((h for h in CHUNK_HOURS if one.chunks * one.interval_h / h <= MOST_CHUNKS), CHUNK_HOURS[-1])
        fix = f"Set timescaledb_chunk_hours: {wider}." if one.name in landing_tables() else "Keep it for fewer days."
        found.append(Advice("warning", "chunks", problem, fix))
    return found


def _kept_days(retention: Retention) -> dict[str, int]:
    return {
        **dict.fromkeys(landing_tables(), LANDING_DAYS),
        HISTORY: retention.rollup_1m_days,
        "rollup_1d": retention.rollup_1h_days,
        "event": retention.events_days,
    }


def _disk(platform: Platform, retention: Retention) -> list[Advice]:
    free, whole, days = platform.disk_free_bytes, platform.disk_bytes, platform.disk_days_left
    if free is None or not whole:
        return []
    if free < whole * DISK_SHARE_CRITICAL:
        problem = f"{size(free)} of {size(whole)} is free: {free * 100 / whole:.1f} %."
        return [Advice("critical", "disk", problem, "Make room now: a full disk stops the database.")]
    if days is None or days > DISK_DAYS_WARNING:
        return []
    kept = _kept_days(retention)
    still = sum(max(0, one.bytes_a_day * kept.get(one.name, 0) - one.bytes) for one in platform.hypertables)
    if still <= free * 0.9:
        return []  # retention drops as much as comes before the disk is full
    own = [one for one in platform.hypertables if one.name == HISTORY]
    a_day, held = sum(one.bytes_a_day for one in own), sum(one.bytes for one in own)
    others = still - sum(max(0, one.bytes_a_day * kept[HISTORY] - one.bytes) for one in own)
    fitting = int((free * 0.8 - others + held) / a_day) if a_day else 0
    problem = (
        f"The disk is full in {days:.0f} days: {size(free)} free, {size(platform.bytes_a_day)} a day;"
        f" what retention keeps needs {size(still)} more."
    )
    fix = (
        f"Set ispvm_retention_1m_days: {fitting} (now {kept[HISTORY]}),"
        f" or give the disk {size(still - free * 0.8)} more."
        if 0 < fitting < kept[HISTORY]
        else f"Give the disk at least {size(max(still - free * 0.8, 0))} more."
    )
    return [Advice("critical" if days <= DISK_DAYS_CRITICAL else "warning", "disk", problem, fix)]


def _dead_rows(platform: Platform) -> list[Advice]:
    found = []
    for one in platform.tables:
        # Autovacuum comes at the trigger; twice as many means that it does not get through.
        if one.dead < DEAD_ROWS or one.dead < 2 * one.trigger_at:
            continue
        when = f"was last there {one.last_vacuum:%Y-%m-%d %H:%M} UTC" if one.last_vacuum else "was never there"
        share = one.dead * 100 / max(1, one.live + one.dead)
        problem = (
            f"{one.name}: {one.dead} dead rows ({share:.0f} %), {one.dead / max(1, one.trigger_at):.1f} times what"
            f" calls autovacuum, which {when}."
        )
        fix = f"Look for a transaction that stays open (pg_stat_activity), then: vacuum {one.name}."
        found.append(Advice("warning", "vacuum", problem, fix))
    return found


def _wal(platform: Platform) -> list[Advice]:
    if not platform.max_wal_bytes or platform.wal_bytes <= 2 * platform.max_wal_bytes:
        return []
    problem = f"The write-ahead log has {size(platform.wal_bytes)}; max_wal_size is {size(platform.max_wal_bytes)}."
    fix = "Something holds it: look at pg_replication_slots and at a failing archive_command."
    return [Advice("critical", "wal", problem, fix)]


def _pools(platform: Platform) -> list[Advice]:
    found = []
    for pool in platform.pools:
        if pool.clients_waiting and pool.max_wait_s >= POOL_WAIT_S:
            busy = pool.servers_active
            problem = (
                f"PgBouncer: {pool.clients_waiting} clients of {pool.user} wait, the longest {pool.max_wait_s:.1f} s;"
                f" all {busy} connections are busy."
            )
            fix = "Look at the slowest statements first; with idle processors raise the size in pgbouncer_pools."
            found.append(Advice("warning", "pool", problem, fix))
    if platform.pool_waiting and not platform.pool_free:
        problem = f"{platform.pool_waiting} requests wait for one of the server's {platform.pool_size} connections."
        found.append(Advice("warning", "pool", problem, "Raise server_pool_size when the processors are idle."))
    return found


def _rollups(platform: Platform) -> list[Advice]:
    if platform.rollup_lag_s <= ROLLUP_LAG_S:
        return []
    problem = (
        f"{platform.overdue_hours} hours of devices wait for the rollup, the oldest for"
        f" {platform.rollup_lag_s / 60:.0f} min: charts beyond 24 h lack them."
    )
    return [Advice("warning", "rollup", problem, "See whether it runs: systemctl status ispvm-worker.")]


def _upkeep(platform: Platform) -> list[Advice]:
    if platform.last_upkeep is None or platform.at - platform.last_upkeep <= MISSED_UPKEEP:
        return []
    hours = (platform.at - platform.last_upkeep).total_seconds() / 3600
    problem = f"The last upkeep was {hours:.0f} h ago: nothing older than retention allows is dropped."
    return [Advice("warning", "upkeep", problem, "See why: systemctl status ispvm-upkeep.timer ispvm-upkeep.service.")]


def _job(job: Job, at: datetime) -> list[Advice]:
    # Half a period of grace, so that only a whole missed window counts; an hour for short ones.
    late = max(job.every_s * 1.5, 3600)
    age = (at - job.last_success).total_seconds() if job.last_success else None
    if (age is None and not job.last_failed) or (age is not None and age <= late):
        return []  # not yet due for the first time, or well
    when = "never succeeded" if age is None else f"last succeeded {age / 3600:.0f} h ago"
    problem = f"The job {job.name} {when} ({job.failures} failures). {job.error or ''}".rstrip()
    fix = (
        "It is tried again when the window opens. If it stays: select * from timescaledb_information.job_errors, and"
        " see that timescaledb.max_background_workers is not 0."
    )
    return [Advice("warning", "upkeep", problem, fix)]


def _statements(platform: Platform) -> list[Advice]:
    return [
        Advice(
            "info",
            "statement",
            f"A statement of {one.role} takes {one.mean_ms:.0f} ms on average over {one.calls} calls:"
            f" {' '.join(one.statement.split())[:90]}…",
            "Report it with the table below, if the disk is not just slow.",
        )
        for one in platform.statements
        if one.mean_ms >= SLOW_MS and one.calls >= SLOW_CALLS
    ]


def _agent(agent: AgentLag) -> list[Advice]:
    age = agent.batch_age_s
    if age is None or age <= AGENT_LAG_S:
        return []
    silent = agent.heartbeat_age_s is None or agent.heartbeat_age_s > AGENT_LAG_S
    if silent:
        return []  # offline: the first page says so, and no setting here helps
    if agent.buffer_depth < AGENT_BUFFER:
        return []
    problem = (
        f"Agent {agent.agent} reports, but its last batch came {age / 60:.0f} min ago and {agent.buffer_depth} wait."
    )
    return [
        Advice("warning", "ingest", problem, "Read what the server refuses: journalctl -u ispvm-agent on its host.")
    ]
