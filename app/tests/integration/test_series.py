from __future__ import annotations

import math
import struct
from collections import defaultdict
from datetime import datetime, timedelta
from uuid import uuid4

import msgspec
import psycopg
import pytest
from feeder import AGENT, Feeder, ms
from ispvm.series.query import _raw, find_entity, metric_of
from ispvm.store.pool import transaction
from ispvm_contract.identity import set_id
from ispvm_contract.ingest import Batch, Poll
from server_world import World

ROUTER, PORT, PLACE = "EDGE-NTH-1", "sfp28-1", 0


class Series(msgspec.Struct):
    resolution: str
    step_s: int
    t: list[int]
    avg: list[float | None]
    min: list[float | None]
    max: list[float | None]
    p95: list[float | None]
    resets: list[int]


def rounded(value: float) -> float:
    """As a real keeps it."""
    return float(struct.unpack("f", struct.pack("f", value))[0])


def rate(feeder: Feeder, ts: datetime) -> float:
    polls, _ = feeder.polls(ts)
    (poll,) = [p for p in polls if p.entity_type == "interface" and p.device == feeder.id(ROUTER)]
    return rounded(float(poll.columns["interface.rx_bps"][PLACE] or 0))


def expected(values: dict[datetime, float], step: int) -> dict[int, tuple[float, float, float, float]]:
    """Average, minimum, maximum and nearest-rank p95 by bucket, worked out the slow way."""
    buckets: dict[int, list[float]] = defaultdict(list)
    for ts, value in values.items():
        buckets[int(ts.timestamp()) // step * step].append(value)
    return {at: (sum(v) / len(v), min(v), max(v), sorted(v)[math.ceil(0.95 * len(v)) - 1]) for at, v in buckets.items()}


def same(series: Series, wanted: dict[int, tuple[float, float, float, float]]) -> None:
    """Every bucket has its four values, and every other is a gap."""
    for at, *found in zip(series.t, series.avg, series.min, series.max, series.p95, strict=True):
        if at in wanted:
            assert found == [pytest.approx(value, rel=1e-6) for value in wanted[at]], at
        else:
            assert found == [None] * 4, at
    assert set(wanted) <= set(series.t)


async def read(world: World, start: datetime, end: datetime, max_points: int, **more: object) -> Series:
    query = {"metric": "interface.rx_bps", "key": PORT, **more}
    device = world.feeder.id(ROUTER)
    body = await world.json(
        "/api/v1/series",
        device=device,
        **{"from": start.isoformat(), "to": end.isoformat()},
        max_points=max_points,
        **query,
    )
    series = msgspec.convert(body, Series)
    assert len(series.t) <= max_points
    return series


async def fed(world: World, times: list[datetime], interval_s: float) -> dict[datetime, float]:
    feeder = Feeder(world.seed, interval_s, [ROUTER])
    for at in range(0, len(times), 120):
        answer = await world.sent(feeder.batch(times[at : at + 120], sent_at=world.now()))
        assert answer["rejected"] == []
    return {ts: rate(feeder, ts) for ts in times}


async def test_a_short_range_comes_from_raw_rows_with_its_gap(world: World) -> None:
    end = world.now().replace(second=0)
    times = [end - timedelta(minutes=m) for m in range(120, 0, -1) if not 40 <= m < 60]
    values = await fed(world, times, 60)
    series = await read(world, times[0], end, 61)
    assert (series.resolution, series.step_s) == ("raw", 120)
    same(series, expected(values, 120))
    assert series.avg.count(None) >= 9


async def test_a_counter_reset_is_marked_and_its_interval_is_a_gap(world: World) -> None:
    end = world.now().replace(second=0)
    times = [end - timedelta(minutes=m) for m in range(10, 0, -1)]
    batch = Feeder(world.seed, 60, [ROUTER]).batch(times, sent_at=world.now())
    for poll in batch.polls:
        if poll.entity_type == "interface" and poll.ts in (ms(times[4]), ms(times[5])):
            poll.columns["interface.rx_bps"][PLACE] = None
            poll.reset = [PLACE] if poll.ts == ms(times[4]) else [PLACE + 1]
    await world.sent(batch)
    series = await read(world, times[0], end, 10)
    assert series.resets == [series.t.index(int(times[4].timestamp()) // series.step_s * series.step_s)]
    await world.rolled_up()
    series = await read(world, end - timedelta(days=40), end, 600)
    assert (series.resolution, len(series.resets)) == ("1h", 1)


@pytest.mark.parametrize(("max_points", "resolution"), [(600, "1m"), (29, "1h"), (12, "1h")])
async def test_rollups_equal_raw_values(world: World, max_points: int, resolution: str) -> None:
    end = world.now().replace(minute=0, second=0)
    times = [end - timedelta(minutes=m) for m in range(30 * 60, 0, -5) if not 300 <= m < 520]
    values = await fed(world, times, 300)
    await world.rolled_up()
    series = await read(world, times[0], end, max_points)
    assert series.resolution == resolution
    same(series, expected(values, series.step_s))


OTHER_HOURS = """select entity_id, metric_id, hour, xmin from rollup_1h
where tenant_id = (select id from tenant where key = %s) and hour <> %s"""


async def test_late_data_is_in_the_rollup_after_the_next_run_and_only_its_hour_is_recomputed(
    world: World, owner: psycopg.Connection
) -> None:
    end = world.now().replace(minute=0, second=0)
    times = [end - timedelta(minutes=m) for m in range(30 * 60, 0, -10)]
    late = [ts for ts in times if timedelta(hours=20) < end - ts <= timedelta(hours=21)]
    values = await fed(world, [ts for ts in times if ts not in late], 600)
    await world.rolled_up()
    untouched = owner.execute(OTHER_HOURS, [world.tenant, late[0].replace(minute=0)]).fetchall()
    values |= await fed(world, late, 600)
    marks = owner.execute(
        "select distinct hour from rollup_dirty where tenant_id = (select id from tenant where key = %s)",
        [world.tenant],
    ).fetchall()
    assert marks in ([(late[0].replace(minute=0),)], [])  # a worker may be quicker than this test
    await world.rolled_up()
    for max_points in (600, 20):
        series = await read(world, times[0], end, max_points)
        same(series, expected(values, series.step_s))
    again = owner.execute(OTHER_HOURS, [world.tenant, late[0].replace(minute=0)]).fetchall()
    assert sorted(again) == sorted(untouched)
    await world.rolled_up()
    series = await read(world, times[0], end, 20)
    same(series, expected(values, series.step_s))


async def test_several_samples_a_minute_keep_their_extremes(world: World) -> None:
    end = world.now().replace(minute=0, second=0)
    times = [end - timedelta(seconds=s) for s in range(7200, 0, -15)]
    values = await fed(world, times, 15)
    await world.rolled_up()
    series = await read(world, end - timedelta(hours=25), end, 600)
    assert series.resolution == "1m"
    wanted = expected(values, series.step_s)
    for at, low, high in zip(series.t, series.min, series.max, strict=True):
        if at in wanted:
            assert [low, high] == pytest.approx(list(wanted[at][1:3]))


async def test_other_kinds_of_metrics_have_series(world: World) -> None:
    end = world.now().replace(second=0)
    times = [end - timedelta(minutes=m) for m in range(10, 0, -1)]
    values = await fed(world, times, 60)
    capacity = world.seed.devices[0].interfaces[PLACE].capacity_bps
    utilisation = await read(world, times[0], end, 10, metric="interface.utilization_pct")
    same(utilisation, expected({ts: value * 100 / capacity for ts, value in values.items()}, utilisation.step_s))
    up = await read(world, times[0], end, 10, metric="interface.oper_up")
    assert {v for v in up.avg if v is not None} == {1.0}
    for metric, key in (
        ("device.cpu_pct", ""),
        ("bgp.peer.prefixes_in", "meridian-v4"),
        ("ospf.neighbor.state", "10.255.0.1@sfp28-2"),
    ):
        series = await read(world, times[0], end, 10, metric=metric, key=key)
        assert any(v is not None for v in series.avg), metric


async def test_a_port_keeps_its_history_when_its_place_in_the_set_changes(world: World) -> None:
    end, device = world.now().replace(second=0), world.feeder.id(ROUTER)
    keys = [p.key for p in world.seed.devices[0].interfaces]
    orders = [keys, keys[::-1], keys[:2]]
    polls = [
        Poll(
            device,
            ms(end - timedelta(minutes=3 - at)),
            "interface",
            {"interface.rx_bps": [100.0 * (at + 1) if key == PORT else 0.0 for key in order]},
            set_id(order),
            20,
        )
        for at, order in enumerate(orders)
    ]
    sets = {set_id(order): order for order in orders}
    await world.sent(Batch(1, uuid4(), ms(end), AGENT, sets, polls, [], world.feeder.inventory()))
    series = await read(world, end - timedelta(minutes=3), end, 60)
    assert [v for v in series.max if v is not None] == [100.0, 200.0, 300.0]


REFUSED: list[tuple[dict[str, object], int, str]] = [
    ({"max_points": 601}, 422, "max_points"),
    ({"max_points": 0}, 422, "max_points"),
    ({"metric": "no.such"}, 422, "metric"),
    ({"metric": "agent_buffer_depth"}, 422, "metric"),
    ({"entity_type": "bgp_peer"}, 422, "entity_type"),
    ({"key": "nope"}, 404, "device"),
    ({"key": "ether1", "metric": "device.cpu_pct"}, 404, "device"),
    ({"device": "not-a-uuid"}, 422, "device"),
    ({"from": "2030-01-02", "to": "2030-01-01"}, 422, "from"),
    ({"from": "1999-01-01"}, 422, "from"),
    ({"from": "2200-01-01", "to": "2199-01-01"}, 422, "from"),
    ({"to": "2090-01-01", "from": "2089-12-01"}, 422, "to"),
    ({"from": "yesterday"}, 422, "from"),
    ({"from": "-99999999999"}, 422, "from"),
    ({"from": "1e300"}, 422, "from"),
]


async def test_what_a_series_does_not_answer(world: World) -> None:
    good = {"device": world.feeder.id(ROUTER), "metric": "interface.rx_bps", "key": PORT}
    for change, status, field in REFUSED:
        answer = await world.get("/api/v1/series", **{**good, **change})
        assert (answer.status_code, answer.json()["field"]) == (status, field), (change, answer.text)
        assert answer.json()["fix"]


async def test_an_unchanged_answer_is_not_sent_again(world: World) -> None:
    query = {
        "device": world.feeder.id(ROUTER),
        "metric": "interface.rx_bps",
        "key": PORT,
        "from": 1_790_000_000,
        "to": 1_790_003_600,
    }
    first = await world.get("/api/v1/series", **query)
    again = await world.client.get(
        "/api/v1/series", params={k: str(v) for k, v in query.items()}, headers={"If-None-Match": first.headers["ETag"]}
    )
    assert (first.status_code, again.status_code, again.content) == (200, 304, b"")


async def test_the_plan_of_a_raw_series_uses_the_index_only(world: World) -> None:
    end = world.now()
    await fed(world, [end - timedelta(minutes=m) for m in range(60, 0, -1)], 60)
    tenant = await _tenant(world)
    async with transaction(world.app.state.pool, tenant) as connection:
        entity = await find_entity(connection, world.feeder.id(ROUTER), "interface", PORT)
        await connection.execute("set local enable_seqscan = off")
        rows = await connection.execute(
            b"explain " + _raw(metric_of("interface.rx_bps"), entity).encode(),
            {
                "device": entity.device_id,
                "entity": entity.id,
                "type": "interface",
                "start": end - timedelta(hours=1),
                "end": end,
                "step": 60,
                "limit": 9,
            },
        )
        plan = "\n".join([row[0] async for row in rows])
    assert "Index Cond: ((device_id = " in plan
    assert "Seq Scan on _hyper" not in plan


async def _tenant(world: World) -> int:
    with psycopg.connect(world.settings.database.owner_dsn) as connection:
        row = connection.execute("select id from tenant where key = %s", [world.tenant]).fetchone()
    assert row is not None
    return int(row[0])
