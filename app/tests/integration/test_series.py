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
from ispvm.series.query import Entity, find_entity, metric_of
from ispvm.store import rollup
from ispvm.store.packing import STEP
from ispvm.store.pool import transaction
from ispvm.store.samples import DAYS_OF, _landing
from ispvm.store.steps import _query
from ispvm.store.upkeep import upkeep
from ispvm_contract.identity import set_id
from ispvm_contract.ingest import Batch, Poll
from server_world import World

ROUTER, PORT, PLACE = "EDGE-NTH-1", "sfp28-1", 0
# How near a packed value is to the one that was sent.
PACKED = STEP / 2 * 1.001


class Series(msgspec.Struct):
    resolution: str
    step_s: int
    t: list[int]
    avg: list[float | None]
    min: list[float | None]
    max: list[float | None]
    p95: list[float | None]
    p95_from: str
    resets: list[int]
    late: list[int]


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


def same(series: Series, wanted: dict[int, tuple[float, float, float, float]], rel: float = PACKED) -> None:
    """Every bucket has its four values, and every other is a gap."""
    for at, *found in zip(series.t, series.avg, series.min, series.max, series.p95, strict=True):
        if at in wanted:
            assert found == [pytest.approx(value, rel=rel) for value in wanted[at]], at
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
    same(series, expected(values, 120), 1e-6)
    assert series.avg.count(None) >= 9


async def test_what_once_came_less_often_is_no_row_of_dots(world: World) -> None:
    end = world.now().replace(second=0)
    slow = [end - timedelta(minutes=m) for m in range(60, 5, -1)]
    fast = [end - timedelta(seconds=s) for s in range(300, 0, -10)]
    values = await fed(world, slow, 60) | await fed(world, fast, 10)
    series = await read(world, slow[0], end, 300)
    assert series.step_s == 120
    same(series, expected(values, 120), 1e-6)
    assert None not in series.avg
    # where it only comes often, it is seen as often
    assert (await read(world, fast[0], end, 300)).step_s == 15


async def test_a_counter_reset_is_marked_and_its_interval_is_a_gap(world: World) -> None:
    end = world.now().replace(second=0)
    times = [end - timedelta(minutes=m) for m in range(10, 0, -1)]
    batch = Feeder(world.seed, 60, [ROUTER]).batch(times, sent_at=world.now())
    for poll in batch.polls:
        if poll.entity_type == "interface" and poll.ts in (ms(times[4]), ms(times[5])):
            rates = poll.columns["interface.rx_bps"]
            assert isinstance(rates, list)
            rates[PLACE] = None
            poll.reset = [PLACE] if poll.ts == ms(times[4]) else [PLACE + 1]
    await world.sent(batch)
    series = await read(world, times[0], end, 10)
    assert series.resets == [series.t.index(int(times[4].timestamp()) // series.step_s * series.step_s)]
    await world.rolled_up()
    for days, resolution in ((10, "raw"), (40, "1h")):
        series = await read(world, end - timedelta(days=days), end, 600)
        assert (series.resolution, len(series.resets)) == (resolution, 1)


@pytest.mark.parametrize("max_points", [600, 29, 12])
async def test_packed_days_give_what_was_sent(world: World, max_points: int) -> None:
    end = world.now().replace(minute=0, second=0)
    times = [end - timedelta(minutes=m) for m in range(30 * 60, 0, -5) if not 300 <= m < 520]
    values = await fed(world, times, 300)
    await world.rolled_up()
    series = await read(world, times[0], end, max_points)
    assert (series.resolution, series.p95_from) == ("raw" if series.step_s < 3600 else "1h", "samples")
    same(series, expected(values, series.step_s))


@pytest.mark.parametrize("hours", [1, *rollup.STEP_HOURS, 24])
async def test_buckets_of_hours_need_no_sample_of_days_that_are_over(
    world: World, owner: psycopg.Connection, hours: int
) -> None:
    today = world.now().replace(hour=0, minute=0, second=0)
    begin = today - timedelta(days=4)
    # Four days with a gap, and today's hours up to now, of which the running one is not packed.
    times = [begin + timedelta(minutes=m) for m in range(0, int((world.now() - begin).total_seconds()) // 60, 10)]
    values = await fed(world, [ts for ts in times if not 300 <= (ts - begin).total_seconds() / 60 < 900], 600)
    async with await psycopg.AsyncConnection.connect(world.settings.database.worker_dsn, autocommit=True) as worker:
        while await rollup.roll_up(worker):
            pass
    mine = "tenant_id = (select id from tenant where key = %s)"
    owner.execute(f"delete from sample_day where {mine} and day < %s", [world.tenant, today.date()])
    end = world.now()
    # From within a bucket: it is whole all the same.
    start = begin + timedelta(hours=max(1, hours / 2))
    points = math.ceil((end - start) / timedelta(hours=hours)) + 1
    series = await read(world, start, end, points)
    assert (series.step_s, series.resolution) == (hours * 3600, "1h" if hours < 24 else "1d")
    assert series.p95_from == "samples"
    first = series.t[0]
    same(series, {t: row for t, row in expected(values, hours * 3600).items() if t >= first})


async def test_days_of_an_earlier_release_are_read_from_their_samples(world: World, owner: psycopg.Connection) -> None:
    today = world.now().replace(hour=0, minute=0, second=0)
    times = [today - timedelta(minutes=m) for m in range(5 * 1440, 0, -10)]
    values = await fed(world, times, 600)
    await world.rolled_up()
    mine = "tenant_id = (select id from tenant where key = %s) and day = any(%s)"
    old = [(today - timedelta(days=back)).date() for back in (2, 4, 5)]
    owner.execute(f"update rollup_1d set step_p95 = null where {mine}", [world.tenant, old])
    series = await read(world, times[0], today, 31)
    assert (series.step_s, series.resolution) == (14400, "1h")
    same(series, expected(values, 14400))
    # Without them, what the rollup still knows of a whole day.
    owner.execute(f"delete from sample_day where {mine}", [world.tenant, old[1:]])
    series = await read(world, times[0], today, 31)
    assert (series.step_s, series.resolution, series.p95_from) == (86400, "1d", "samples")
    same(series, expected(values, 86400))


async def test_older_than_its_samples_a_range_comes_from_hours_or_days(world: World, owner: psycopg.Connection) -> None:
    end = world.now().replace(hour=0, minute=0, second=0)
    times = [end - timedelta(minutes=m) for m in range(5 * 1440, 0, -10) if not 300 <= m < 520]
    values = await fed(world, times, 600)
    await world.rolled_up()
    mine = "tenant_id = (select id from tenant where key = %s)"
    owner.execute(f"delete from sample_day where {mine}", [world.tenant])
    hours = await read(world, times[0], end, 600)
    assert (hours.resolution, hours.step_s, hours.p95_from) == ("1h", 3600, "samples")
    same(hours, expected(values, 3600))
    days = await read(world, times[0], end, 50)
    assert (days.resolution, days.step_s, days.p95_from) == ("1h", 10800, "samples")
    same(days, expected(values, 10800))
    weeks = await read(world, end - timedelta(days=240), end, 20)
    assert (weeks.resolution, weeks.p95_from) == ("1d", "sketch")
    same(weeks, expected(values, weeks.step_s), 0.005)


async def test_samples_older_than_raw_retention_become_minute_means_once(
    world: World, owner: psycopg.Connection
) -> None:
    end = world.now().replace(hour=0, minute=0, second=0) - timedelta(days=20)
    times = [end - timedelta(seconds=s) for s in range(7200, 0, -20)]
    values = await fed(world, times, 20)
    await world.rolled_up()
    owner.execute("delete from upkeep_thinned")
    strict = msgspec.structs.replace(
        world.settings, retention=msgspec.structs.replace(world.settings.retention, raw_days=7)
    )
    upkeep(strict, now=True)
    series = await read(world, times[0], end, 600)
    assert (series.resolution, series.step_s, series.p95_from) == ("1m", 120, "minute means")
    wanted = expected(values, 120)
    for at, *found in zip(series.t, series.avg, series.min, series.max, strict=True):
        if at in wanted:
            # packed as samples, then as means
            assert found == [pytest.approx(value, rel=2 * PACKED) for value in wanted[at][:3]]
    assert {at for at, value in zip(series.t, series.avg, strict=True) if value is not None} == set(wanted)
    errors = await read(world, times[0], end, 600, metric="interface.rx_errors_total")
    assert set(errors.avg) == {0.0}
    thin = "select max(length(samples)) from sample_day where low is not null"
    before = owner.execute(thin).fetchone()
    upkeep(strict, now=True)
    assert owner.execute(thin).fetchone() == before


DAYS = """select entity_id, metric_id, day, xmin from rollup_1d
where tenant_id = (select id from tenant where key = %s) and day <> %s"""


async def test_late_data_is_in_history_after_the_next_run_and_only_its_day_is_touched(
    world: World, owner: psycopg.Connection
) -> None:
    end = world.now().replace(minute=0, second=0)
    times = [end - timedelta(minutes=m) for m in range(70 * 60, 0, -10)]
    hour = times[180].replace(minute=0)
    late = [ts for ts in times if hour <= ts < hour + timedelta(hours=1)]
    values = await fed(world, [ts for ts in times if ts not in late], 600)
    await world.rolled_up()
    # The day is packed and its landing rows are gone: what comes now must be added, not put in its place.
    owner.execute(
        "delete from poll_interface where tenant_id = (select id from tenant where key = %s) and ts < %s",
        [world.tenant, end],
    )
    untouched = owner.execute(DAYS, [world.tenant, hour.date()]).fetchall()
    assert untouched
    values |= await fed(world, late, 600)
    marks = owner.execute(
        "select distinct hour from rollup_dirty where tenant_id = (select id from tenant where key = %s)",
        [world.tenant],
    ).fetchall()
    assert marks in ([(hour,)], [])  # a worker may be quicker than this test
    for _ in range(2):
        await world.rolled_up()
        for max_points in (600, 20):
            series = await read(world, times[0], end, max_points)
            same(series, expected(values, series.step_s))
            assert int(hour.timestamp()) // series.step_s * series.step_s in [series.t[at] for at in series.late]
    again = owner.execute(DAYS, [world.tenant, hour.date()]).fetchall()
    assert sorted(again) == sorted(untouched)


async def test_a_day_that_cannot_be_packed_holds_up_no_other_and_stays_marked(
    world: World, owner: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = rollup.recompute

    async def faulty(connection: object, tenant: int, device: int, entity_type: str, *more: object) -> None:
        if entity_type == "interface":
            raise ValueError("no such thing")
        await whole(connection, tenant, device, entity_type, *more)  # type: ignore[arg-type]

    end = world.now().replace(minute=0, second=0) - timedelta(hours=1)  # an hour that is due for every router
    await fed(world, [end - timedelta(minutes=m) for m in range(30, 0, -1)], 60)
    monkeypatch.setattr(rollup, "recompute", faulty)
    async with await psycopg.AsyncConnection.connect(world.settings.database.worker_dsn, autocommit=True) as worker:
        while await rollup.roll_up(worker):
            pass
    left = owner.execute(
        "select distinct type, due > now() + interval '50 minutes' from rollup_dirty"
        " where tenant_id = (select id from tenant where key = %s)",
        [world.tenant],
    ).fetchall()
    assert left == [("interface", True)]
    monkeypatch.undo()
    await world.rolled_up()
    assert world.count("sample_day") > 0
    assert world.count("rollup_dirty") == 0


@pytest.mark.host
async def test_a_second_worker_takes_what_the_first_has_not(world: World) -> None:
    end = world.now().replace(minute=0, second=0) - timedelta(hours=1)  # an hour that is due for every router
    await world.sent(Feeder(world.seed, 60).batch([end - timedelta(minutes=m) for m in (2, 1)], world.now()))
    dsn = world.settings.database.worker_dsn
    async with (
        await psycopg.AsyncConnection.connect(dsn) as one,
        await psycopg.AsyncConnection.connect(dsn) as other,
    ):
        first, second = await rollup.take_due(one, 1), await rollup.take_due(other, 1)
        assert first
        assert second
        assert not {(d.device, d.type, d.hour) for d in first} & {(d.device, d.type, d.hour) for d in second}
        await one.rollback()
        await other.rollback()


async def test_rates_beyond_all_sense_are_packed(world: World, owner: psycopg.Connection) -> None:
    owner.execute(
        "update entity set capacity_bps = 1 where type = 'interface'"
        " and tenant_id = (select id from tenant where key = %s)",
        [world.tenant],
    )
    end = world.now().replace(minute=0, second=0)
    batch = Feeder(world.seed, 60, [ROUTER]).batch([end - timedelta(minutes=m) for m in (3, 2, 1)], world.now())
    for poll in batch.polls:
        if poll.entity_type == "interface":
            poll.columns["interface.rx_bps"] = [3.39e38, 0.0, 1e-30, 1.0]
    await world.sent(batch)
    await world.rolled_up()
    assert world.count("rollup_dirty") == 0
    series = await read(world, end - timedelta(hours=1), end, 60, metric="interface.utilization_pct")
    assert max(v for v in series.max if v is not None) == pytest.approx(3.4e38)


async def test_several_samples_a_minute_are_all_kept(world: World) -> None:
    end = world.now().replace(minute=0, second=0)
    times = [end - timedelta(seconds=s) for s in range(7200, 0, -15)]
    values = await fed(world, times, 15)
    await world.rolled_up()
    series = await read(world, end - timedelta(hours=25), end, 600)
    same(series, expected(values, series.step_s))


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
    for minutes, value in ((3, 100.0), (2, 200.0), (1, 300.0)):
        start = end - timedelta(minutes=minutes)
        series = await read(world, start, start + timedelta(minutes=1), 60)
        assert [v for v in series.max if v is not None] == [value]


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
    ({"from": "1999-01-01"}, 422, "max_range_days"),
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


async def test_the_plan_of_a_series_uses_indexes_only(world: World) -> None:
    end = world.now()
    times = [end - timedelta(minutes=m) for m in range(60, 0, -1)]
    await fed(world, times, 60)
    await world.rolled_up()
    tenant = await _tenant(world)
    async with transaction(world.app.state.pool, tenant) as connection:
        asked = await find_entity(connection, world.feeder.id(ROUTER), metric_of("interface.rx_bps"), PORT)
        entity = Entity(*await asked.fetchone() or ())
        await connection.execute("set local enable_seqscan = off")
        for query, parameters in (
            (
                _landing("interface", ("interface.rx_bps",)),
                {"device": entity.device_id, "entity": entity.id, "type": "interface", "from": times[0], "to": end},
            ),
            (DAYS_OF, {"entity": entity.id, "metric": "interface.rx_bps", "from": end.date(), "to": end.date()}),
            (
                _query(4),
                {
                    "device": entity.device,
                    "type": "interface",
                    "key": PORT,
                    "metric": "interface.rx_bps",
                    "first": end.date(),
                    "last": end.date(),
                },
            ),
        ):
            rows = await connection.execute(b"explain " + query.encode(), parameters)
            plan = "\n".join([row[0] async for row in rows])
            assert "Index Cond: (" in plan
            assert "Seq Scan on _hyper" not in plan


async def _tenant(world: World) -> int:
    with psycopg.connect(world.settings.database.owner_dsn) as connection:
        row = connection.execute("select id from tenant where key = %s", [world.tenant]).fetchone()
    assert row is not None
    return int(row[0])
