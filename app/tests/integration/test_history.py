from __future__ import annotations

from collections import defaultdict
from datetime import UTC, date, datetime, timedelta
from uuid import uuid4

import psycopg
import pytest
from feeder import Feeder, ms
from ispvm.store.history import five_minute_means, incidents_a_day, top
from ispvm.store.packing import STEP
from ispvm.store.pool import transaction
from ispvm_contract.ingest import Event
from server_world import World

ROUTER, PORT = "EDGE-NTH-1", "sfp28-1"


def tenant_and_entities(world: World, owner: psycopg.Connection) -> tuple[int, dict[str, int]]:
    """The tenant's id, and the ids of the router's interfaces by key."""
    rows = owner.execute(
        "select d.tenant_id, e.key, e.id from entity e join device d on d.id = e.device_id"
        " where d.uuid = %s and e.type = 'interface' and d.tenant_id = (select id from tenant where key = %s)",
        [world.feeder.id(ROUTER), world.tenant],
    ).fetchall()
    return rows[0][0], {key: number for _, key, number in rows}


def rates(feeder: Feeder, ts: datetime) -> dict[str, float]:
    polls, _ = feeder.polls(ts)
    (poll,) = [p for p in polls if p.entity_type == "interface" and p.device == feeder.id(ROUTER)]
    values = poll.columns["interface.rx_bps"]
    keys = [p.key for d in feeder.devices for p in d.interfaces]
    return {key: float(value or 0) for key, value in zip(keys, values, strict=True)}


async def test_five_minute_means_are_those_of_their_minutes_and_what_is_missing_is_none(
    world: World, owner: psycopg.Connection
) -> None:
    end = world.now().replace(minute=0, second=0)
    start = end - timedelta(hours=3)
    feeder = Feeder(world.seed, 30, [ROUTER])
    # Two samples a minute, one in the ninth minute, none for half an hour, and a lonely one near the end.
    times = [start + timedelta(seconds=30 * n) for n in range(360) if n != 17 and not 100 <= n < 160 and n < 340]
    times.append(end - timedelta(minutes=1))
    await world.sent(feeder.batch(times, sent_at=world.now()))
    await world.rolled_up()
    minutes: dict[datetime, list[float]] = defaultdict(list)
    for ts in times:
        minutes[ts.replace(second=0)].append(rates(feeder, ts)[PORT])
    slots: dict[int, list[float]] = defaultdict(list)
    for minute, values in minutes.items():
        slots[int((minute - start).total_seconds()) // 300].append(sum(values) / len(values))
    wanted = [sum(slots[n]) / len(slots[n]) if n in slots else None for n in range(36)]
    assert wanted.count(None) == 7
    tenant, entities = tenant_and_entities(world, owner)
    async with transaction(world.app.state.pool, tenant) as connection:
        found = await five_minute_means(
            connection, [entities[PORT], -1], ["interface.rx_bps", "interface.tx_bps"], start, end
        )
        part = await five_minute_means(
            connection, [entities[PORT]], ["interface.rx_bps"], start + timedelta(minutes=5), end - timedelta(minutes=5)
        )
        with pytest.raises(ValueError, match="five minutes"):
            await five_minute_means(connection, [1], ["interface.rx_bps"], start + timedelta(seconds=1), end)
    assert set(found) == {(e, m) for e in (entities[PORT], -1) for m in ("interface.rx_bps", "interface.tx_bps")}
    assert found[entities[PORT], "interface.rx_bps"] == [
        v if v is None else pytest.approx(v, rel=STEP / 2) for v in wanted
    ]
    assert found[-1, "interface.rx_bps"] == [None] * 36
    assert part[entities[PORT], "interface.rx_bps"] == found[entities[PORT], "interface.rx_bps"][1:-1]


async def test_the_top_is_by_mean_or_by_the_highest_sample(world: World, owner: psycopg.Connection) -> None:
    end = world.now().replace(minute=0, second=0)
    feeder = Feeder(world.seed, 60, [ROUTER])
    times = [end - timedelta(minutes=m) for m in range(180, 0, -1)]
    batch = feeder.batch(times, sent_at=world.now())
    for poll in batch.polls:
        if poll.entity_type == "interface":
            spike = 9e10 if poll.ts == ms(times[5]) else 1.0
            poll.columns["interface.rx_bps"] = [100.0, 300.0, 200.0, spike]
    await world.sent(batch)
    await world.rolled_up()
    tenant, entities = tenant_and_entities(world, owner)
    keys = [p.key for d in world.seed.devices if d.name == ROUTER for p in d.interfaces]
    names = {entities[key]: at for at, key in enumerate(keys)}
    async with transaction(world.app.state.pool, tenant) as connection:
        start = end - timedelta(hours=2)
        mean = await top(connection, "interface.rx_bps", start, end, 3)
        high = await top(connection, "interface.rx_bps", end - timedelta(hours=3), end, 1, by="high")
        nothing = await top(connection, "interface.rx_bps", end - timedelta(days=3), end - timedelta(days=2), 3)
    assert [(names[a.entity], a.n, a.mean, a.low, a.high) for a in mean] == [
        (1, 120, 300, 300, 300),
        (2, 120, 200, 200, 200),
        (0, 120, 100, 100, 100),
    ]
    assert [(names[a.entity], a.n, a.low) for a in high] == [(3, 180, 1)]
    assert high[0].high == pytest.approx(9e10)
    assert high[0].mean == pytest.approx((9e10 + 179) / 180, rel=1e-6)
    assert nothing == []


async def test_only_changes_for_the_worse_are_incidents_and_a_day_ends_where_the_zone_says(
    world: World, owner: psycopg.Connection
) -> None:
    today = world.now().date()
    midnight = datetime(today.year, today.month, today.day, tzinfo=UTC) - timedelta(days=1)
    device = world.feeder.id(ROUTER)

    def event(name: str, hours: float, old: str, new: str, kind: str = "device", key: str | None = None) -> Event:
        return Event(uuid4(), ms(midnight + timedelta(hours=hours)), name, device, "critical", kind, key, old, new)

    events = [
        event("device.reachable.changed", 1, "up", "down"),
        event("device.reachable.changed", 2, "down", "up"),
        event("device.api.changed", -30, "up", "down"),
        event("bgp.peer.state.changed", 3, "established", "idle", "bgp_peer", "meridian-v4"),
        event("bgp.peer.state.changed", 3.1, "idle", "active", "bgp_peer", "meridian-v4"),
        event("ospf.neighbor.state.changed", 4, "full", "down", "ospf_neighbor", "10.255.0.1@sfp28-2"),
        # 23:30 in UTC is the next day two hours further east
        event("ospf.neighbor.state.changed", -0.5, "full", "init", "ospf_neighbor", "10.255.0.1@sfp28-2"),
    ]
    await world.sent(world.feeder.batch([world.now()], events=events))
    tenant, _ = tenant_and_entities(world, owner)
    first: date = (midnight - timedelta(days=2)).date()
    async with transaction(world.app.state.pool, tenant) as connection:
        utc = await incidents_a_day(connection, first, 3, "UTC")
        east = await incidents_a_day(connection, first, 3, "Etc/GMT-2")
    assert [d.day for d in utc] == [first + timedelta(days=n) for n in range(3)]
    counted = [(d.reachability, d.api, d.bgp, d.ospf, d.total) for d in utc]
    assert counted == [(0, 1, 0, 0, 1), (0, 0, 0, 1, 1), (1, 0, 1, 1, 3)]
    assert [(d.reachability, d.api, d.bgp, d.ospf) for d in east] == [(0, 1, 0, 0), (0, 0, 0, 0), (1, 0, 1, 2)]
