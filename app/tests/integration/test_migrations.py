"""From every earlier revision to the newest: the same schema as a fresh one, and nothing of what was there is lost."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import msgspec
import psycopg
import pytest
from host_shell import on_host, superuser
from ispvm.series.query import Series, metric_of, read_series
from ispvm.settings import Settings
from ispvm.store.migrate import _apply, migrate, migrations
from ispvm.store.rollup import roll_up

pytestmark = pytest.mark.host
REVISIONS = [m.name[:4] for m in migrations()]
HBA = "/etc/postgresql/17/ispvm/pg_hba.conf"
RULE = 'local "/^scratch_" ispvm_owner peer map=ispvm'
DEVICE = UUID("c0ffee00-0000-4000-8000-000000000001")
Scratch = Callable[[str], Settings]


@pytest.fixture(scope="module")
def scratch(settings: Settings) -> Iterator[Scratch]:
    """Makes databases as the roles make the product's; the owner may connect to them as long as this lasts."""
    made: list[str] = []

    def make(name: str) -> Settings:
        database = f"scratch_{name}"
        superuser(f"drop database if exists {database}; create database {database} owner ispvm_owner;")
        made.append(database)
        superuser(
            "create extension timescaledb; revoke create on schema public from public;"
            f"grant connect on database {database} to ispvm, ispvm_worker;",
            database,
        )
        dsn = settings.database.owner_dsn.replace("dbname=ispvm", f"dbname={database}")
        return msgspec.structs.replace(settings, database=msgspec.structs.replace(settings.database, owner_dsn=dsn))

    on_host("sed", "-i", f"1i {RULE}", HBA)
    superuser("select pg_reload_conf();")
    try:
        yield make
    finally:
        on_host("sed", "-i", "/scratch_/d", HBA)
        superuser("select pg_reload_conf();" + "".join(f"drop database {name} with (force);" for name in made))


def dsn_name(settings: Settings) -> str:
    return str(psycopg.conninfo.conninfo_to_dict(settings.database.owner_dsn)["dbname"])


def schema(settings: Settings) -> list[str]:
    """The dump of everything of the product's own, an object each, sorted: pg_dump's own order depends on the data."""
    arguments = ("--schema-only", "--schema=public", dsn_name(settings))
    dump = on_host("runuser", "-u", "postgres", "--", "pg_dump", *arguments)
    objects = dump.partition("\n--\n-- PostgreSQL database dump complete")[0]
    return sorted(objects.split("\n--\n-- Name: ")[1:])


def stop_at(settings: Settings, revision: str) -> None:
    """What the release of that revision made."""
    with psycopg.connect(settings.database.owner_dsn, autocommit=True) as connection:
        _apply(connection, [m for m in migrations() if m.name[:4] <= revision])


@pytest.fixture(scope="module")
def fresh(scratch: Scratch) -> list[str]:
    made = scratch("fresh")
    migrate(made)
    return schema(made)


# 60 samples of 100, 101, … 159 in one hour of two days: of the first only the history is left, which the release of
# revision 0003 packed; of the second there are the polls, which nobody has rolled up yet.
GONE, KEPT = datetime(2026, 3, 1, 6, tzinfo=UTC), datetime(2026, 3, 10, 6, tzinfo=UTC)
SAMPLES = [100.0 + n for n in range(60)]
PACKED = Path(__file__).with_name("history_0003.sql")


def polls(at: datetime) -> str:
    """One router with one interface and an hour of its polls, as revision 0002 keeps them."""
    return f"""
    insert into tenant (key, name) values ('old', 'Old');
    insert into site (tenant_id, key, name) select id, 'pop', 'PoP' from tenant;
    insert into device (tenant_id, uuid, site_id, name, address)
        select tenant_id, '{DEVICE}', id, 'r1', '10.0.0.1' from site;
    insert into entity (tenant_id, device_id, type, key, name, capacity_bps)
        select tenant_id, id, 'interface', 'ether1', 'ether1', 1000000000 from device;
    insert into entity_set (tenant_id, device_id, type, name, entities)
        select tenant_id, device_id, 'interface', '00000000000000aa', array[id] from entity;
    insert into poll_interface (tenant_id, device_id, ts, set_id, interval_s, source, rx_bps, rx_bytes_total)
        select tenant_id, device_id, timestamptz '{at}' + make_interval(mins => n), id, 60, 'routeros_api',
               array[100 + n]::real[], array[1000 + n]::bigint[]
        from entity_set, generate_series(0, 59) as n;
    insert into rollup_dirty (tenant_id, device_id, type, hour, due)
        select tenant_id, id, 'interface', '{at}', now() from device;
    """


async def read(settings: Settings, start: datetime, end: datetime) -> Series:
    """What the API would answer."""
    async with await psycopg.AsyncConnection.connect(settings.database.owner_dsn) as connection:
        await connection.execute(
            "select set_config('ispvm.tenant', (select id::text from tenant where key = 'old'), true)"
        )
        return await read_series(connection, DEVICE, metric_of("interface.rx_bps"), "ether1", start, end, 600)


def check_hour(series: Series, hour: datetime, error: float) -> None:
    """The hour's samples are in the series, in buckets of whatever width, and nothing else is."""
    begin = hour.timestamp()
    found: list[tuple[int, list[float | None]]] = [
        (t, row)
        for t, *row in zip(series.t, series.avg, series.min, series.max, series.p95, strict=True)
        if t < begin + 3600 and t + series.step_s > begin
    ]
    assert found
    for t, row in found:
        part = [v for n, v in enumerate(SAMPLES) if t <= begin + 60 * n < t + series.step_s]
        wanted = [sum(part) / len(part), min(part), max(part), sorted(part)[math.ceil(0.95 * len(part)) - 1]]
        assert row == [pytest.approx(value, rel=error) for value in wanted], (series.resolution, t)


@pytest.mark.parametrize("revision", REVISIONS[:-1])
async def test_step_by_step_makes_the_same_schema_and_loses_nothing(
    scratch: Scratch, fresh: list[str], revision: str
) -> None:
    settings = scratch(f"from_{revision}")
    stop_at(settings, revision)
    with psycopg.connect(settings.database.owner_dsn) as connection:
        if revision >= "0002":
            connection.execute(polls(KEPT).encode())
        if revision >= "0003":
            connection.execute(PACKED.read_bytes())

    assert migrate(settings)

    assert schema(settings) == fresh
    assert not migrate(settings)
    if revision < "0002":
        return
    async with await psycopg.AsyncConnection.connect(settings.database.owner_dsn, autocommit=True) as rolling:
        while await roll_up(rolling, all_marks=True):
            pass
        rows = await rolling.execute("select count(*), sum(rx_bytes_total) from sample_interface")
        assert await rows.fetchone() == (60, sum(1000 + n for n in range(60)))
    day = timedelta(days=1)
    for hour in [KEPT, GONE] if revision >= "0003" else [KEPT]:
        near = await read(settings, hour - day, hour + day)
        far = await read(settings, hour - 400 * day, hour + day)
        assert (near.resolution, far.resolution) == ("raw", "1d")
        check_hour(near, hour, error=1e-6)
        check_hour(far, hour, error=5e-3)


def test_a_different_schema_is_seen(scratch: Scratch, fresh: list[str]) -> None:
    """The comparison can fail: one index more, one right less."""
    settings = scratch("different")
    migrate(settings)
    for statement in ("create index on device (address)", "revoke select on tenant from ispvm"):
        with psycopg.connect(settings.database.owner_dsn) as connection:
            connection.execute(statement.encode())
        different = schema(settings)
        assert different != fresh
        fresh = different
