from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta

import pytest
from ispvm import settings
from ispvm.health import metrics
from ispvm.health.advice import Advice, advise
from ispvm.health.platform import AgentLag, Chunk, Hypertable, Job, Platform, PoolUse, Statement, Table, sum_up
from ispvm.settings import Retention, SettingsError

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
GIB = 1 << 30
RETENTION = Retention()
LANDING = Hypertable("poll_interface", 3, 3 * GIB, 24, GIB, GIB)
HISTORY = Hypertable("sample_day", 53, 365 * GIB // 10, 168, GIB, GIB // 10)
# 16 GiB of memory, of which a quarter is 4; retention drops as much as comes.
FINE = Platform(
    at=NOW,
    memory_bytes=16 * GIB,
    disk_free_bytes=100 * GIB,
    disk_bytes=200 * GIB,
    database_bytes=40 * GIB,
    wal_bytes=GIB,
    max_wal_bytes=GIB,
    last_upkeep=NOW - timedelta(hours=20),
    waiting_hours=100,
    overdue_hours=3,
    oldest_due=NOW - timedelta(seconds=100),
    hypertables=[LANDING, HISTORY],
    tables=[Table("latest_poll", 100_000, 9_000, 5_050, NOW, GIB)],
    statements=[Statement("ispvm", 9, 900.0, 1000.0, 8100.0, "select slow but rare")],
    pools=[PoolUse("ispvm", 4, 0, 0.0, 4, 12)],
    pool_size=16,
    pool_free=12,
)


def change(**values: object) -> Platform:
    return dataclasses.replace(FINE, **values)  # type: ignore[arg-type]


def landing(**values: object) -> Platform:
    return change(hypertables=[dataclasses.replace(LANDING, **values)])  # type: ignore[arg-type]


def only(platform: Platform, *agents: AgentLag) -> Advice:
    (advice,) = advise(platform, RETENTION, list(agents))
    return advice


def job(hours_ago: float | None, **values: object) -> Job:
    last = None if hours_ago is None else NOW - timedelta(hours=hours_ago)
    made = Job("job_retention", 86400.0, last, True, 2, NOW, "outside the window")
    return dataclasses.replace(made, **values)  # type: ignore[arg-type]


def test_a_job_that_is_on_time_or_has_never_been_due_calls_for_nothing() -> None:
    for one in (job(35), job(None, last_failed=False, failures=0), job(0.9, every_s=300.0)):
        assert advise(change(jobs=[one]), RETENTION) == []
    assert only(change(jobs=[job(1.1, every_s=300.0)])).topic == "upkeep"


def test_numbers_that_are_fine_call_for_nothing() -> None:
    assert advise(FINE, RETENTION, [AgentLag("t", "pop", 12.0, 20.0, 0, 0)]) == []


@pytest.mark.parametrize(
    ("platform", "topic", "words"),
    [
        # Five gigabytes where four are allowed: half the interval fits.
        (landing(active_bytes=5 * GIB), "chunks", ["5.0 GiB", "4.0 GiB", "24 h", "timescaledb_chunk_hours: 12"]),
        (landing(active_bytes=30 * GIB), "chunks", ["30.0 GiB", "timescaledb_chunk_hours: 3"]),
        (landing(active_bytes=5 * GIB, interval_h=1), "chunks", ["more memory"]),
        (landing(chunks=1001, interval_h=1), "chunks", ["1001 chunks", "timescaledb_chunk_hours: 2"]),
        (change(disk_free_bytes=9 * GIB), "disk", ["9.0 GiB of 200.0 GiB", "4.5 %"]),
        (change(wal_bytes=2 * GIB + 1), "wal", ["2.0 GiB", "1.0 GiB", "pg_replication_slots"]),
        (change(oldest_due=NOW - timedelta(seconds=121)), "rollup", ["3 hours", "2 min", "ispvm-worker"]),
        (change(last_upkeep=NOW - timedelta(hours=37)), "upkeep", ["37 h", "ispvm-upkeep.timer"]),
        (change(jobs=[job(37)]), "upkeep", ["job_retention", "37 h", "2 failures", "outside the window"]),
        (change(jobs=[job(None)]), "upkeep", ["job_retention", "never succeeded"]),
        (change(pools=[PoolUse("ispvm", 16, 9, 0.5, 20, 0)]), "pool", ["9 clients", "0.5 s", "20 connections"]),
        (change(pool_free=0, pool_waiting=3), "pool", ["3 requests", "16 connections"]),
        (
            change(tables=[Table("latest_poll", 100_000, 10_100, 5_050, NOW, GIB)]),
            "vacuum",
            ["latest_poll", "10100 dead", "9 %", "2.0 times", "2026-11-22 12:00"],
        ),
        (
            change(statements=[Statement("ispvm", 10, 500.0, 900.0, 5000.0, "select\n  1")]),
            "statement",
            ["500 ms", "10 calls", "select 1"],
        ),
    ],
)
def test_each_number_that_is_wrong_is_said_with_what_to_do(platform: Platform, topic: str, words: list[str]) -> None:
    advice = only(platform)
    assert advice.topic == topic
    for word in words:
        assert word in f"{advice.problem} {advice.fix}", advice


@pytest.mark.parametrize(
    "platform",
    [
        landing(active_bytes=4 * GIB),
        dataclasses.replace(landing(active_bytes=500 * GIB), memory_bytes=None),
        landing(chunks=1000, interval_h=1),
        change(disk_free_bytes=None),
        change(disk_free_bytes=10 * GIB, hypertables=[LANDING]),
        change(wal_bytes=2 * GIB),
        change(oldest_due=NOW - timedelta(seconds=120)),
        change(oldest_due=None),
        change(last_upkeep=NOW - timedelta(hours=36)),
        change(last_upkeep=None),
        change(pools=[PoolUse("ispvm", 16, 9, 0.4, 20, 0)]),
        change(pools=[]),
        change(pool_free=1, pool_waiting=3),
        change(tables=[Table("latest_poll", 100_000, 10_099, 5_050, None, GIB)]),
        change(tables=[Table("small", 10, 9_999, 52, None, GIB)]),
        change(statements=[Statement("ispvm", 1000, 499.0, 9000.0, 1.0, "select 1")]),
    ],
)
def test_just_below_calls_for_nothing(platform: Platform) -> None:
    assert advise(platform, RETENTION) == []


def test_a_disk_that_retention_keeps_from_filling_needs_nothing_and_another_fewer_days() -> None:
    young = dataclasses.replace(HISTORY, bytes=5 * GIB, bytes_a_day=GIB)
    # 360 GiB more are still to come before retention drops the first.
    assert advise(change(hypertables=[young], disk_free_bytes=401 * GIB), RETENTION) == []
    advice = only(change(hypertables=[young], disk_free_bytes=20 * GIB))
    assert (advice.topic, advice.severity) == ("disk", "warning")
    assert "full in 20 days" in advice.problem
    assert "20.0 GiB free, 1.0 GiB a day" in advice.problem
    assert "360.0 GiB more" in advice.problem
    assert "ispvm_retention_1m_days: 21 (now 365)" in advice.fix
    assert "344.0 GiB more" in advice.fix
    hopeless = change(hypertables=[dataclasses.replace(HISTORY, name="event", bytes=0, bytes_a_day=GIB)])
    assert "at least 171.2 GiB more" in only(dataclasses.replace(hopeless, disk_free_bytes=11 * GIB)).fix
    urgent = dataclasses.replace(HISTORY, bytes=0, bytes_a_day=2 * GIB)
    assert only(change(hypertables=[urgent], disk_free_bytes=14 * GIB)).severity == "critical"


@pytest.mark.parametrize(
    ("agent", "wrong"),
    [
        (AgentLag("t", "pop", 10.0, 301.0, 10, 0), True),
        (AgentLag("t", "pop", 10.0, 300.0, 10, 0), False),
        (AgentLag("t", "pop", 10.0, 301.0, 9, 0), False),
        (AgentLag("t", "pop", 301.0, 301.0, 10, 0), False),  # offline: said elsewhere
        (AgentLag("t", "pop", None, None, 0, 0), False),
    ],
)
def test_an_agent_whose_batches_do_not_arrive(agent: AgentLag, wrong: bool) -> None:
    found = advise(FINE, RETENTION, [agent])
    assert [advice.topic for advice in found] == (["ingest"] if wrong else [])
    assert all("pop" in advice.problem and "10 wait" in advice.problem for advice in found)


def test_the_urgent_comes_first() -> None:
    found = advise(
        change(
            wal_bytes=9 * GIB, statements=[Statement("ispvm", 10, 501.0, 1.0, 1.0, "x")], last_upkeep=NOW - timedelta(9)
        ),
        RETENTION,
    )
    assert [advice.severity for advice in found] == ["critical", "warning", "info"]


def test_a_chunk_is_judged_by_what_it_will_be_when_full() -> None:
    def chunk(day: int, size: int, hours: int = 24) -> Chunk:
        start = datetime(2026, 11, day, tzinfo=UTC)
        return Chunk("poll_interface", start, start + timedelta(hours=hours), size)

    # Noon: the open chunk is half full. It weighs more than yesterday's.
    (found,) = sum_up([chunk(20, 100), chunk(21, 200), chunk(22, 150)], NOW)
    assert (found.chunks, found.bytes, found.interval_h, found.active_bytes) == (3, 450, 24, 300)
    assert found.bytes_a_day == 150
    # One hour past midnight it says nothing yet: yesterday's counts.
    (found,) = sum_up([chunk(21, 200), chunk(22, 150)], datetime(2026, 11, 22, 1, tzinfo=UTC))
    assert found.active_bytes == 200
    # Only one, and young.
    (found,) = sum_up([chunk(22, 150)], NOW)
    assert (found.active_bytes, found.bytes_a_day) == (300, 300)
    # A chunk of another interval says nothing of this one's.
    (found,) = sum_up([chunk(21, 900), chunk(22, 150, 16)], NOW)
    assert found.active_bytes == 200


def test_metrics_are_text_that_prometheus_reads() -> None:
    text = metrics.text(
        FINE, [AgentLag('t"1', "pop", 12.0, None, 4, 0)], [Advice("warning", "disk", "p", "f")]
    ).decode()
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert 'ispvm_agent_heartbeat_age_seconds{agent="pop",tenant="t\\"1"} 12.0' in lines
    assert not [line for line in lines if line.startswith("ispvm_agent_batch_age")]
    assert 'ispvm_hypertable_bytes{hypertable="poll_interface"} 3.221225472e+09' in lines
    assert 'ispvm_advice{severity="warning",topic="disk"} 1.0' in lines
    assert "ispvm_rollup_lag_seconds 100.0" in lines


def test_the_token_itself_is_no_setting(config: str) -> None:
    settings.parse(f'metrics_token_sha256 = "{"a" * 64}"\n' + config)
    for wrong in ("secret", "A" * 64, "a" * 63):
        with pytest.raises(SettingsError, match="metrics_token_sha256"):
            settings.parse(f'metrics_token_sha256 = "{wrong}"\n' + config)
