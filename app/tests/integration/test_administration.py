from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import msgspec
import psycopg
import pytest
from ispvm import cli
from ispvm.inventory.agents import ensure_tenant
from ispvm.inventory.seeds import SeedRefusedError, apply_to
from ispvm.settings import Settings
from ispvm.store import migrate as migration
from ispvm.store.columns import columns, landing_types
from ispvm.store.migrate import MigrationError, migrate
from ispvm.store.upkeep import upkeep
from server_world import World


def run(config_file: Path, *arguments: str) -> int:
    return cli.main(["--config", str(config_file), *arguments])


def test_migrating_again_changes_nothing(config_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(config_file, "migrate") == 0
    assert capsys.readouterr().out.splitlines()[-1] == "unchanged"


def test_every_metric_can_be_read_as_plain_rows(settings: Settings, owner: psycopg.Connection) -> None:
    assert settings
    for kind in landing_types():
        rows = owner.execute(
            "select attname from pg_attribute where attrelid = %s::regclass and attnum > 0", [f"sample_{kind}"]
        )
        assert {c.name for c in columns(kind).values()} <= {name for (name,) in rows}


def test_another_chunk_interval_is_a_change(settings: Settings) -> None:
    other = msgspec.structs.replace(settings, storage=msgspec.structs.replace(settings.storage, chunk_hours=12))
    assert [migrate(other), migrate(other), migrate(settings), migrate(settings)] == [True, False, True, False]


def test_an_edited_or_unknown_migration_is_refused(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    real = migration.migrations()
    edited = [*real[:-1], migration.Migration(real[-1].name, real[-1].text + "-- edited")]
    monkeypatch.setattr(migration, "migrations", lambda: edited)
    with pytest.raises(MigrationError, match="was edited after it was applied"):
        migrate(settings)
    monkeypatch.setattr(migration, "migrations", lambda: real[:-1])
    with pytest.raises(MigrationError, match="install a newer release"):
        migrate(settings)


@pytest.mark.host
def test_an_edition_that_is_not_installed_is_refused(config_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config_file.write_text(config_file.read_text().replace('edition = "apache"', 'edition = "community"'))
    assert run(config_file, "migrate") == 3
    said = capsys.readouterr().err
    assert "storage.timescaledb_edition is community, but this database runs TimescaleDB 2." in said
    assert "timescaledb.license = 'apache'" in said


def test_production_never_becomes_anything_else(owner: psycopg.Connection, world: World) -> None:
    with owner.transaction(force_rollback=True):
        owner.execute("update deployment set environment = 'production'")
        with pytest.raises(MigrationError, match="marked production, which never changes"):
            migration._record_environment(owner, "demo")
        with pytest.raises(SeedRefusedError, match="production database"):
            apply_to(owner, world.seed)
        for statement in ("update deployment set environment = 'demo'", "delete from deployment"):
            with pytest.raises(psycopg.errors.RestrictViolation), owner.transaction():
                owner.execute(statement)


def test_a_database_with_seeds_never_becomes_production(owner: psycopg.Connection, world: World) -> None:
    with owner.transaction(force_rollback=True), pytest.raises(MigrationError, match=r"seeded demo data"):
        migration._record_environment(owner, "production")
    assert world.tenant


def test_a_seed_in_a_production_configuration_exits_with_3(
    config_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config_file.write_text(config_file.read_text().replace('"demo"', '"production"'))
    seed = Path(__file__).parents[3] / "seeds" / "demo_small.json"
    assert run(config_file, "seed", "apply", str(seed)) == 3
    assert "refused: environment is production" in capsys.readouterr().err


async def test_a_seed_applied_again_changes_nothing_even_after_agents_spoke(
    world: World, owner: psycopg.Connection
) -> None:
    batch = world.feeder.batch([world.now()])
    for device in batch.inventory_patch.devices:
        device.model, device.routeros = "CHR", "7.99"
    await world.sent(batch)
    with owner.transaction():
        assert apply_to(owner, world.seed) is False
    world.seed.devices[0].interfaces[0].capacity_bps = 1000
    with owner.transaction():
        assert apply_to(owner, world.seed) is True
    models = {d["model"] for d in (await world.devices()).values()}
    assert models == {"CHR"}


def test_the_first_tenant_is_the_operators(owner: psycopg.Connection) -> None:
    with owner.transaction(force_rollback=True):
        # an appliance without tenants: an empty table of the same shape before the real one
        owner.execute("create temp table tenant (like tenant including all)")
        first, second = (ensure_tenant(owner, key)[0] for key in ("isp", "customer"))
        rows = owner.execute("select id, operator from tenant").fetchall()
    assert dict(rows) == {first: True, second: False}


async def test_seeds_keep_out_of_a_tenant_with_real_routers(world: World, owner: psycopg.Connection) -> None:
    owner.execute("update tenant set seeded = false where key = %s", [world.tenant])
    world.seed.devices = world.seed.devices[1:]
    with pytest.raises(SeedRefusedError, match="holds 1 routers that are not of this bundle"):
        apply_to(owner, world.seed)


@pytest.mark.parametrize(("text", "words"), [("{", "seed.json"), ('{"schema_version": 1}', "missing required field")])
def test_a_broken_seed_is_an_error_that_says_where(
    config_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, words: str
) -> None:
    path = tmp_path / "seed.json"
    path.write_text(text)
    assert run(config_file, "seed", "apply", str(path)) == 2
    assert words in capsys.readouterr().err


def test_an_absent_seed_is_an_error(config_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(config_file, "seed", "apply", "/nonexistent.json") == 2
    assert "/nonexistent.json" in capsys.readouterr().err


def test_enrolment_says_what_is_wrong(config_file: Path, world: World, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["agent", "enroll", "--tenant", world.tenant, "--site", "north"]
    assert run(config_file, *common, "--name", "x", "--token-sha256", "abc") == 2
    assert "--token-sha256" in capsys.readouterr().err
    assert run(config_file, *common, "--name", " ", "--token-sha256", "a" * 64) == 2
    assert "--name" in capsys.readouterr().err
    assert run(config_file, "agent", "revoke", "--tenant", world.tenant, "--name", "nobody") == 2
    assert "no agent 'nobody'" in capsys.readouterr().err
    assert run(config_file, "agent", "list") == 0
    assert f"{world.tenant}\tpop\tharbour,hill,north\tnever\tactive" in capsys.readouterr().out


def test_two_agents_cannot_share_a_token(config_file: Path, world: World, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["agent", "enroll", "--tenant", world.tenant, "--site", "north", "--token-sha256"]
    token = f"{abs(hash(world.tenant)):064x}"
    assert run(config_file, *common, token, "--name", "one") == 0
    assert run(config_file, *common, token, "--name", "two") == 2
    assert "another agent uses this token" in capsys.readouterr().err


def test_login_links_say_what_is_missing(
    settings: Settings, world: World, config_file: Path, owner: psycopg.Connection, capsys: pytest.CaptureFixture[str]
) -> None:
    owner.execute("insert into tenant (key, name) values ('second', 'Second') on conflict do nothing")
    assert run(config_file, "login-link", "--user", f"new-{world.tenant}") == 2
    assert "say which with --tenant" in capsys.readouterr().err
    assert run(config_file, "login-link", "--valid-minutes", "0") == 2
    assert "--valid-minutes 0" in capsys.readouterr().err
    assert run(config_file, "login-link", "--user", "bad name", "--tenant", world.tenant) == 2
    assert "--user 'bad name'" in capsys.readouterr().err
    assert run(config_file, "login-link", "--user", f"op-{world.tenant}") == 0
    assert capsys.readouterr().out.startswith(f"{settings.public_url}/login/one-time/")


async def test_a_link_can_make_people_of_other_roles(
    world: World, config_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    user = f"wall-{world.tenant}"
    assert run(config_file, "login-link", "--user", user, "--tenant", world.tenant, "--role", "readonly") == 0
    link = capsys.readouterr().out.strip().removeprefix(world.settings.public_url)
    assert (await world.client.post(link)).status_code == 303
    page = (await world.client.get("/account")).text
    assert f"ReadOnly of Tenant {world.tenant}" in page


def test_upkeep_drops_what_retention_no_longer_keeps(settings: Settings, owner: psycopg.Connection) -> None:
    upkeep(settings, now=True)
    owner.execute(
        "insert into poll_device (tenant_id, device_id, ts, source) values (1, 1, now() - interval '300 days', 'x')"
    )
    owner.execute(
        "insert into event (tenant_id, device_id, ts, id, name, severity, entity_type)"
        " values (1, 1, now() - interval '300 days', gen_random_uuid(), 'x', 'info', 'device')"
    )
    assert upkeep(settings, now=True) is True
    # the community edition's jobs drop the history
    tables = ("poll_device", "event") if settings.storage.timescaledb_edition == "apache" else ("poll_device",)
    for table in tables:
        assert owner.execute(f"select count(*) from {table} where ts < now() - interval '200 days'").fetchone() == (0,)
    assert upkeep(settings, now=True) is False


def test_upkeep_waits_for_its_window(settings: Settings, owner: psycopg.Connection) -> None:
    later = (datetime.now().astimezone() + timedelta(hours=2)).strftime("%H:%M")
    end = (datetime.now().astimezone() + timedelta(hours=3)).strftime("%H:%M")
    closed = msgspec.structs.replace(
        settings, retention=msgspec.structs.replace(settings.retention, maintenance_window=f"{later}-{end}")
    )
    runs = owner.execute("select count(*) from upkeep_run").fetchone()
    assert upkeep(closed) is False
    assert owner.execute("select count(*) from upkeep_run").fetchone() == runs


def test_a_missed_window_is_caught_up_and_said(
    settings: Settings, owner: psycopg.Connection, capfd: pytest.CaptureFixture[str]
) -> None:
    upkeep(settings, now=True)
    assert "catching up" not in "".join(capfd.readouterr())
    owner.execute("update upkeep_run set ended_at = ended_at - interval '40 hours'")
    owner.execute(
        "insert into poll_device (tenant_id, device_id, ts, source) values (1, 4, now() - interval '600 days', 'x')"
    )
    assert upkeep(settings, now=True) is True
    said = "".join(capfd.readouterr())
    assert "catching up: the last upkeep was long ago" in said
    assert '"hours": 40' in said
    old = "select count(*) from poll_device where ts < now() - interval '590 days'"
    assert owner.execute(old).fetchone() == (0,)


@pytest.mark.host
def test_a_chunk_that_is_read_is_not_dropped_under_its_reader(
    settings: Settings, owner: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ispvm.store.upkeep.LOCK_TIMEOUT", "200ms")
    owner.execute(
        "insert into poll_device (tenant_id, device_id, ts, source) values (1, 2, now() - interval '400 days', 'x')"
    )
    old = "select count(*) from poll_device where ts < now() - interval '390 days'"
    with psycopg.connect(settings.database.owner_dsn) as reader:
        assert reader.execute(old).fetchone() == (1,)
        upkeep(settings, now=True)
        assert reader.execute(old).fetchone() == (1,)
    assert upkeep(settings, now=True) is True
    assert owner.execute(old).fetchone() == (0,)


def test_landing_rows_that_are_not_packed_yet_stay(settings: Settings, owner: psycopg.Connection) -> None:
    owner.execute(
        "insert into poll_device (tenant_id, device_id, ts, source) values (1, 3, now() - interval '500 days', 'x')"
    )
    owner.execute(
        "insert into rollup_dirty (tenant_id, device_id, type, hour, due)"
        " values (1, 3, 'device', date_trunc('hour', now()) - interval '500 days', 'infinity')"
    )
    old = "select count(*) from poll_device where ts < now() - interval '490 days'"
    upkeep(settings, now=True)
    assert owner.execute(old).fetchone() == (1,)
    owner.execute("delete from rollup_dirty where due = 'infinity'")
    assert upkeep(settings, now=True) is True
    assert owner.execute(old).fetchone() == (0,)
