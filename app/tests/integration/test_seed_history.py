"""Generated history in the database: packed like measured data, marked, never over it, and only for seeds."""

from __future__ import annotations

import asyncio
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import msgspec
import psycopg
import pytest
from feeder import Feeder
from ispvm import cli
from server_world import World

ROUTER, PORT = "EDGE-NTH-1", "sfp28-1"


@pytest.fixture
def bundle(world: World, tmp_path: Path) -> Path:
    """The bundle that the world was made of."""
    path = tmp_path / "again.json"
    path.write_bytes(msgspec.json.encode(world.seed))
    return path


async def seeded(config_file: Path, bundle: Path, days: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What `ispvm seed apply --history` says last."""
    command = ["--config", str(config_file), "seed", "apply", str(bundle), "--history", days]
    assert await asyncio.to_thread(cli.main, command) == 0
    return capsys.readouterr().out.splitlines()[-1]


def days_of(owner: psycopg.Connection, world: World) -> list[tuple[date, int]]:
    return owner.execute(
        "select day, sum(n) from rollup_1d r join tenant t on t.id = r.tenant_id where t.key = %s"
        " group by 1 order by 1",
        [world.tenant],
    ).fetchall()


async def test_a_chart_of_the_past_has_something_to_show_and_says_what_it_is(
    world: World, bundle: Path, config_file: Path, owner: psycopg.Connection, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await seeded(config_file, bundle, "3d", capsys) == "changed"
    now = world.now()
    before = days_of(owner, world)
    assert [day for day, _ in before] == [now.date() - timedelta(days=n) for n in (3, 2, 1, 0)]
    assert await seeded(config_file, bundle, "3d", capsys) == "unchanged"
    assert days_of(owner, world) == before
    assert await seeded(config_file, bundle, "4", capsys) == "changed"  # an older day comes before the others
    assert days_of(owner, world)[1:] == before

    await world.sent(world.feeder.batch([now + timedelta(minutes=1)]))
    await world.rolled_up()
    of = {"device": world.feeder.id(ROUTER), "key": PORT, "metric": "interface.rx_bps"}
    series = await world.json(
        "/api/v1/series", **of, **{"from": int((now - timedelta(days=5)).timestamp()), "to": int(now.timestamp()) + 600}
    )
    avg, generated = (msgspec.convert(series[name], list[float | None]) for name in ("avg", "generated"))
    there = [at for at, value in enumerate(avg) if value is not None]
    assert len(there) > 200
    assert set(there) - set(generated) <= {len(avg) - 1, len(avg) - 2}
    assert None not in [avg[int(at or 0)] for at in generated[2:-2]]
    busy = await world.json("/api/v1/series", **{**of, "metric": "interface.utilization_pct"}, max_points=10)
    assert busy["generated"]
    assert "this month was made up for the demo" in (await world.get("/reports/p95")).text


async def test_what_was_measured_stays_and_only_time_before_it_is_filled(
    world: World, bundle: Path, config_file: Path, owner: psycopg.Connection, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = world.now() - timedelta(days=1)
    feeder = Feeder(world.seed, 60, [ROUTER])
    await world.sent(feeder.batch([seen + timedelta(minutes=m) for m in range(10)], sent_at=world.now()))
    await world.rolled_up()
    measured = owner.execute(
        "select md5(string_agg(samples, '' order by entity_id, metric_id)) from sample_day s"
        " join tenant t on t.id = s.tenant_id where t.key = %s",
        [world.tenant],
    ).fetchone()
    ((day, n), *_) = days_of(owner, world)
    assert await seeded(config_file, bundle, "3d", capsys) == "changed"
    assert (day, n) == days_of(owner, world)[-1]
    assert (
        owner.execute(
            "select md5(string_agg(samples, '' order by entity_id, metric_id)) from sample_day s"
            " join tenant t on t.id = s.tenant_id where t.key = %s and s.day >= %s",
            [world.tenant, day],
        ).fetchone()
        == measured
    )
    part = owner.execute("select upper(generated) from tenant where key = %s", [world.tenant]).fetchone()
    assert part == (datetime(day.year, day.month, day.day, tzinfo=UTC),)


async def test_what_has_landed_and_waits_to_be_packed_was_measured_too(
    world: World, bundle: Path, config_file: Path, owner: psycopg.Connection, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = world.now() - timedelta(hours=30)
    await world.sent(world.feeder.batch([seen], sent_at=world.now()))
    assert await seeded(config_file, bundle, "3d", capsys) == "changed"
    part = owner.execute("select upper(generated) from tenant where key = %s", [world.tenant]).fetchone()
    assert part is not None
    assert part[0] <= seen


def test_only_the_tenant_of_a_seed_can_have_generated_history(world: World, owner: psycopg.Connection) -> None:
    with pytest.raises(psycopg.errors.CheckViolation), owner.transaction():
        owner.execute(
            "update tenant set seeded = false, generated = tstzrange(now() - interval '1 day', now()) where key = %s",
            [world.tenant],
        )


def test_production_gets_none(world: World, bundle: Path, config_file: Path, owner: psycopg.Connection) -> None:
    config_file.write_text(config_file.read_text().replace('"demo"', '"production"'))
    assert cli.main(["--config", str(config_file), "seed", "apply", str(bundle), "--history", "3d"]) == 3
    assert days_of(owner, world) == []


def test_a_wrong_length_is_refused(bundle: Path, config_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["--config", str(config_file), "seed", "apply", str(bundle), "--history"]
    assert cli.main([*command, "400d"]) == 2
    assert "--history 400d: from 0d to 366d" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        cli.main([*command, "month"])
    assert "'month' is not a number of days, such as 30d" in capsys.readouterr().err
