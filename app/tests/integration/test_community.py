"""What only the community edition does: compression, jobs, continuous counts, the way there and back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from uuid import uuid4
from zoneinfo import ZoneInfo

import msgspec
import psycopg
import pytest
from feeder import Feeder, ms
from ispvm.health.platform import read_platform
from ispvm.settings import Settings, Storage
from ispvm.store import edition
from ispvm.store import migrate as migration
from ispvm.store.edition import COMPRESSED
from ispvm.store.migrate import MigrationError, migrate
from ispvm.store.upkeep import upkeep
from ispvm_contract.ingest import Event
from server_world import World

pytestmark = pytest.mark.community
ROUTER, PORT = "EDGE-NTH-1", "sfp28-1"
# Further back than a chunk of rollup_1d is long and compression waits.
LONG_AGO = 45
REFRESH = "policy_refresh_continuous_aggregate"


def with_retention(settings: Settings, **changed: object) -> Settings:
    return msgspec.structs.replace(settings, retention=msgspec.structs.replace(settings.retention, **changed))


@pytest.fixture
def always(settings: Settings) -> Iterator[Settings]:
    """The maintenance window is open all day, but for one minute."""
    changed = with_retention(settings, maintenance_window="00:00-23:59")
    migrate(changed)
    yield changed
    migrate(settings)


def run_job(owner: psycopg.Connection, procedure: str) -> None:
    """The build has no background workers: what its scheduler would start is started here."""
    found = owner.execute(
        "select job_id from timescaledb_information.jobs where proc_name = %s and job_id >= 1000", [procedure]
    ).fetchall()
    ((number,),) = found
    owner.execute(f"call run_job({number})")


def compressed(owner: psycopg.Connection) -> dict[str, int]:
    """How many chunks of each table are compressed."""
    return dict(
        owner.execute(
            "select hypertable_name::text, count(*) filter (where is_compressed) from timescaledb_information.chunks"
            " where hypertable_name = any(%s) group by 1",
            [list(COMPRESSED)],
        ).fetchall()
    )


def written_since(owner: psycopg.Connection) -> int:
    """How many compressed chunks hold rows that are not compressed."""
    row = owner.execute(
        "select count(*) from _timescaledb_catalog.chunk where status & 1 <> 0 and status & (2 | 8) <> 0"
    ).fetchone()
    assert row is not None
    return int(row[0])


def jobs(owner: psycopg.Connection) -> dict[str, tuple[dict[str, object], timedelta, datetime]]:
    rows = owner.execute(
        "select proc_name::text, config, schedule_interval, initial_start from timescaledb_information.jobs"
        " where job_id >= 1000 and proc_name like 'job%'"
    ).fetchall()
    return {name: (config, every, start) for name, config, every, start in rows}


async def fed_long_ago(world: World, days: int, minutes: list[int]) -> datetime:
    """One router's polls of an hour `days` days ago, at these minutes, packed; returns the hour."""
    world.app.state.settings = with_retention(world.settings, raw_days=days + 1)  # how late data may be
    hour = (world.now() - timedelta(days=days)).replace(hour=6, minute=0, second=0)
    feeder = Feeder(world.seed, 60, [ROUTER])
    answer = await world.sent(feeder.batch([hour + timedelta(minutes=m) for m in minutes], sent_at=world.now()))
    assert answer["rejected"] == []
    await world.rolled_up()
    return hour


def incident(world: World, ts: datetime) -> Event:
    return Event(
        uuid4(), ms(ts), "device.api.changed", world.feeder.id(ROUTER), "critical", "device", None, "up", "down"
    )


async def counted(world: World, days: int) -> dict[str, int]:
    body = await world.json("/api/v1/incidents", days=days)
    found = msgspec.convert(body["days"], list[dict[str, object]])
    return {str(day["day"]): int(str(day["total"])) for day in found if day["total"]}


async def hour_of(world: World, hour: datetime) -> dict[str, object]:
    query = {"device": world.feeder.id(ROUTER), "metric": "interface.rx_bps", "key": PORT}
    span = {"from": hour.isoformat(), "to": (hour + timedelta(hours=1)).isoformat()}
    series = await world.json("/api/v1/series", **query, **span)
    return {name: series[name] for name in ("t", "avg", "min", "max", "p95")}


def days(owner: psycopg.Connection, world: World) -> list[tuple[object, ...]]:
    """The world's packed days without what only tells worlds apart, nor who came late."""
    return owner.execute(
        "select e.key, r.metric_id, r.n, r.sum, r.min, r.max, r.p95, r.hour_n, r.hour_mean, r.sketch, s.samples"
        " from rollup_1d r join entity e on e.id = r.entity_id left join sample_day s using (entity_id, metric_id, day)"
        " where r.tenant_id = (select id from tenant where key = %s) order by 1, 2",
        [world.tenant],
    ).fetchall()


async def test_late_data_in_a_compressed_chunk_is_as_right_as_punctual_ones(
    make_world: Callable[[], Awaitable[World]], always: Settings, owner: psycopg.Connection
) -> None:
    early, late = [m for m in range(60) if m % 3], [m for m in range(60) if not m % 3]
    world, punctual = await make_world(), await make_world()
    hour = await fed_long_ago(world, LONG_AGO, early)
    run_job(owner, "job_compression")
    assert compressed(owner)["rollup_1d"] > 0
    assert {row[2] for row in days(owner, world)} == {len(early)}

    await fed_long_ago(world, LONG_AGO, late)

    await fed_long_ago(punctual, LONG_AGO, early + late)
    wanted, series = days(owner, punctual), await hour_of(punctual, hour)
    assert {row[2] for row in wanted} == {60}
    assert (days(owner, world), await hour_of(world, hour)) == (wanted, series)
    # The next night compresses what was written into, and nothing changes.
    assert written_since(owner) > 0
    run_job(owner, "job_compression")
    assert written_since(owner) == 0
    assert (days(owner, world), await hour_of(world, hour)) == (wanted, series)


async def test_a_late_event_in_a_compressed_chunk_is_stored_once_and_counted_after_the_next_refresh(
    world: World, always: Settings, owner: psycopg.Connection
) -> None:
    ago = world.now() - timedelta(days=20)
    first, second = incident(world, ago), incident(world, ago + timedelta(minutes=1))
    before, fresh = incident(world, world.now() - timedelta(days=1)), incident(world, world.now())
    day, yesterday, today = ((world.now() - timedelta(days=n)).date().isoformat() for n in (20, 1, 0))
    await world.sent(world.feeder.batch([world.now()], events=[first, before]))
    assert await counted(world, 30) == {day: 1, yesterday: 1}
    run_job(owner, "job_compression")
    run_job(owner, REFRESH)
    assert compressed(owner)["event"] > 0
    for _ in range(2):  # the same events again in another batch
        await world.sent(world.feeder.batch([world.now()], events=[first, second, fresh]))
    assert world.count("event") == 4
    # What is new counts at once, what is late with the next refresh.
    assert await counted(world, 30) == {day: 1, yesterday: 1, today: 1}
    run_job(owner, REFRESH)
    assert await counted(world, 30) == {day: 2, yesterday: 1, today: 1}


def test_retention_drops_compressed_chunks_and_their_counts(
    settings: Settings, world: World, always: Settings, owner: psycopg.Connection
) -> None:
    owner.execute(
        "insert into event (tenant_id, device_id, ts, id, name, severity, entity_type, new) select id, 1, now() -"
        " make_interval(days => d), gen_random_uuid(), 'device.api.changed', 'info', 'device', 'down'"
        " from tenant, unnest(array[100, 300]) d where key = %s",
        [world.tenant],
    )
    counts = "select sum(n)::int from incident_kept where tenant_id = (select id from tenant where key = %s)"
    run_job(owner, "job_compression")
    run_job(owner, REFRESH)
    assert owner.execute(counts, [world.tenant]).fetchone() == (2,)
    assert upkeep(settings, now=True) in (True, False)  # leaves history to the job
    assert world.count("event") == 2
    run_job(owner, "job_retention")
    run_job(owner, REFRESH)
    assert world.count("event") == 1
    assert owner.execute(counts, [world.tenant]).fetchone() == (1,)


def test_outside_the_window_a_job_does_nothing_and_says_so(
    settings: Settings, world: World, owner: psycopg.Connection
) -> None:
    begin = (datetime.now(UTC) + timedelta(hours=2)).strftime("%H:%M")
    end = (datetime.now(UTC) + timedelta(hours=3)).strftime("%H:%M")
    owner.execute(
        "insert into event (tenant_id, device_id, ts, id, name, severity, entity_type)"
        " select id, 1, now() - interval '400 days', gen_random_uuid(), 'x', 'info', 'device' from tenant"
        " where key = %s",
        [world.tenant],
    )
    assert migrate(with_retention(settings, maintenance_window=f"{begin}-{end}"))
    for procedure in ("job_retention", "job_compression"):
        with pytest.raises(psycopg.errors.RaiseException, match=f"outside the maintenance window {begin}-{end}"):
            run_job(owner, procedure)
    assert world.count("event") == 1
    assert migrate(with_retention(settings, maintenance_window="00:00-23:59"))
    run_job(owner, "job_retention")
    assert world.count("event") == 0
    assert migrate(settings)


def test_jobs_follow_the_settings(settings: Settings, owner: psycopg.Connection) -> None:
    before = jobs(owner)
    changed = with_retention(settings, maintenance_window="23:30-04:15", events_days=90)
    assert [migrate(changed), migrate(changed)] == [True, False]
    after = jobs(owner)
    assert set(after) == set(before) == {"job_retention", "job_compression"}
    for config, every, start in after.values():
        assert config["window"] == "23:30-04:15"
        assert every == timedelta(days=1)
        local = start.astimezone(ZoneInfo(str(config["zone"])))
        assert (local.hour, local.minute, start > datetime.now(UTC)) == (23, 30, True)
    assert after["job_retention"][0]["days"] == {"event": 90, "rollup_1d": 1825, "sample_day": 365}
    assert migrate(settings)
    assert {name: job[0] for name, job in jobs(owner).items()} == {name: job[0] for name, job in before.items()}


async def test_a_job_that_does_not_get_through_is_seen(world: World, owner: psycopg.Connection) -> None:
    """The view that the scheduler keeps is filled by it alone; here is what the page makes of it."""
    found = await read_platform(world.app.state.pool, world.settings, world.now())
    assert [job.name for job in found.jobs] == ["job_compression", "job_retention", REFRESH]
    assert {job.every_s for job in found.jobs} == {300, 86400}
    assert owner


async def test_a_migration_may_change_what_the_views_stand_on(
    settings: Settings, world: World, owner: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = migration.Migration(
        "9999_later.sql",
        "alter table event add column later integer; alter table rollup_1d add column later integer",
    )
    real = migration.migrations()
    monkeypatch.setattr(migration, "migrations", lambda: [*real, later])
    try:
        assert [migrate(settings), migrate(settings)] == [True, False]
        with psycopg.connect(settings.database.dsn) as server:
            assert server.execute("select count(later) from event").fetchone() == (0,)
            assert server.execute("select count(later) from rollup_1d").fetchone() == (0,)
        assert await counted(world, 3) == {}
    finally:
        owner.execute("drop schema ispvm cascade")
        owner.execute("alter table event drop column later; alter table rollup_1d drop column later")
        owner.execute("delete from schema_migration where name = '9999_later.sql'")
        monkeypatch.undo()
        migrate(settings)


def test_without_its_licence_there_is_no_way_on_and_none_back(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A library of the Apache edition cannot be loaded here; what it would answer is put in its place."""
    monkeypatch.setattr(edition, "LICENSE", "select 'apache', '2.19.3'")
    apache = msgspec.structs.replace(settings, storage=Storage(timescaledb_edition="apache"))
    for wanted, words in (
        (settings, "install the community edition"),
        (apache, "cannot read what the community edition"),
    ):
        with pytest.raises(MigrationError, match=words):
            migrate(wanted)


def test_the_server_reaches_no_chunk_of_a_compressed_table(
    world: World, always: Settings, owner: psycopg.Connection
) -> None:
    """Chunks have no policies of their own: a right on one would go round the view."""
    owner.execute(
        "insert into event (tenant_id, device_id, ts, id, name, severity, entity_type) select id, 1,"
        " now() - interval '60 days', gen_random_uuid(), 'x', 'info', 'device' from tenant where key = %s",
        [world.tenant],
    )
    run_job(owner, "job_compression")
    rows = owner.execute(
        "select k.schema_name || '.' || k.table_name from _timescaledb_catalog.chunk k"
        " join _timescaledb_catalog.hypertable h on h.id = k.hypertable_id"
        " where h.table_name = any(%s) or h.compression_state = 2 or h.table_name like '\\_materialized%%'",
        [list(COMPRESSED)],
    ).fetchall()
    chunks = [name for (name,) in rows]
    assert [name for name in chunks if "compress" in name]
    readable = "select name from unnest(%s::text[]) name where has_any_column_privilege('ispvm', name, 'select')"
    assert owner.execute(readable, [chunks]).fetchall() == []


async def test_there_and_back_the_data_are_the_same(
    world: World, settings: Settings, always: Settings, owner: psycopg.Connection
) -> None:
    await fed_long_ago(world, LONG_AGO, list(range(60)))
    await world.sent(world.feeder.batch([world.now()], events=[incident(world, world.now() - timedelta(days=20))]))
    run_job(owner, "job_compression")
    was, seen = days(owner, world), await counted(world, 30)
    assert min(compressed(owner).values()) > 0
    apache = msgspec.structs.replace(settings, storage=Storage(timescaledb_edition="apache"))
    try:
        assert [migrate(apache), migrate(apache)] == [True, False]
        assert max(compressed(owner).values()) == 0
        assert jobs(owner) == {}
        leftovers = (
            "select count(*) from timescaledb_information.hypertables where compression_enabled"
            " union all select count(*) from timescaledb_information.continuous_aggregates"
            " union all select count(*) from pg_namespace where nspname = 'ispvm'"
        )
        assert owner.execute(leftovers).fetchall() == [(0,)] * 3
        secured = (
            "select count(*) from pg_class where oid = any(%s::regclass[]) and relrowsecurity and relforcerowsecurity"
        )
        assert owner.execute(secured, [list(COMPRESSED)]).fetchone() == (2,)
        assert (days(owner, world), await counted(world, 30)) == (was, seen)
    finally:
        assert migrate(settings)
    assert (days(owner, world), await counted(world, 30)) == (was, seen)
