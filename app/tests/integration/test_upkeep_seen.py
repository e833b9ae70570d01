from __future__ import annotations

import hashlib
from datetime import timedelta

import httpx
import msgspec
import psycopg
import pytest
from ispvm.health.platform import read_platform
from server_world import ORIGIN, World


def scraper(world: World, **headers: str) -> httpx.AsyncClient:
    """Somebody who is not signed in."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(world.app), base_url=ORIGIN, headers=headers)


@pytest.mark.host
async def test_the_numbers_are_those_of_the_database(world: World, owner: psycopg.Connection) -> None:
    await world.sent(world.feeder.batch([world.now() - timedelta(minutes=m) for m in (3, 2, 1)], sent_at=world.now()))
    found = await read_platform(world.app.state.pool, world.settings, world.now())
    sizes: dict[str, int] = dict(
        owner.execute(
            "select hypertable_name::text, total_bytes from timescaledb_information.hypertables h"
            " cross join lateral hypertable_detailed_size(hypertable_name::regclass)"
        ).fetchall()
    )
    seen = {one.name: one for one in found.hypertables}
    assert {"poll_interface", "poll_device"} <= set(seen)
    for name in ("poll_interface", "poll_device"):
        # the empty parent table is not a chunk
        assert seen[name].bytes <= sizes[name] <= seen[name].bytes + 200_000
        assert seen[name].active_bytes >= seen[name].bytes / seen[name].chunks
    assert (found.wal_bytes >= 16 << 20, found.max_wal_bytes >= 1 << 30) == (True, True)
    row = owner.execute("select count(*), pg_database_size(current_database()) from rollup_dirty").fetchone()
    assert row is not None
    assert found.waiting_hours <= row[0] + 100
    assert abs(found.database_bytes - row[1]) < 64 << 20
    assert found.memory_bytes is not None
    assert {pool.user for pool in found.pools} >= {"ispvm"}
    assert found.pool_size == world.settings.database.pool_size
    assert any("poll_interface" in one.statement for one in found.statements)


@pytest.mark.host
def test_statements_show_no_constants_and_no_other_kinds(world: World, owner: psycopg.Connection) -> None:
    # A statement that is not data manipulation keeps its constants: the statistics have it, the answer has not.
    owner.execute("comment on table metric is 'hunter2hunter2'")
    owner.execute("comment on table metric is null")
    with psycopg.connect(world.settings.database.dsn) as server:
        server.execute("select 'a constant of somebody', sum(n) from generate_series(1, 300000) as n")
    rows = owner.execute("select query from pg_stat_statements").fetchall()
    assert any("hunter2" in (query or "") for (query,) in rows)
    texts = " ".join(row[0] for row in owner.execute("select statement from upkeep_statements(100)").fetchall())
    assert "generate_series($" in texts
    for secret in ("hunter2", "a constant of somebody", "comment on"):
        assert secret not in texts


async def test_metrics_are_for_the_host_and_for_whoever_has_the_token(world: World) -> None:
    await world.sent(world.feeder.heartbeat(world.now()), "heartbeat")
    async with scraper(world) as local:
        answer = await local.get("/metrics")
        assert answer.status_code == 200
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        assert f'ispvm_agent_heartbeat_age_seconds{{agent="pop",tenant="{world.tenant}"}}' in answer.text
        assert "ispvm_hypertable_bytes" in answer.text
    async with scraper(world, **{"X-Forwarded-For": "192.0.2.9", "Authorization": "Bearer "}) as remote:
        assert (await remote.get("/metrics")).status_code == 404
        token = hashlib.sha256(b"s3cret").hexdigest()
        world.app.state.settings = msgspec.structs.replace(world.settings, metrics_token_sha256=token)
        for sent, status in (("s3cret", 200), ("other", 404), (token, 404), ("", 404)):
            answer = await remote.get("/metrics", headers={"Authorization": f"Bearer {sent}"})
            assert answer.status_code == status, sent
