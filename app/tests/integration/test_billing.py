from __future__ import annotations

import csv
import io
import math
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from feeder import Feeder
from ispvm.inventory import tenants
from ispvm.reports.billing import packed_until
from server_world import World

ROUTER, PORT = "EDGE-NTH-1", "sfp28-1"


class Direction(msgspec.Struct):
    p95_bps: float | None
    samples: int
    missing_pct: float


class Line(msgspec.Struct):
    device_name: str
    key: str
    received: Direction
    sent: Direction
    billable_bps: float | None
    billable: str | None


class Report(msgspec.Struct):
    month: str
    expected: int
    lines: list[Line]


async def report(world: World, **parameters: object) -> Report:
    return msgspec.convert(await world.json("/api/v1/reports/p95", **parameters), Report)


async def test_the_report_equals_the_percentile_worked_out_by_hand(world: World) -> None:
    now = world.now()
    end = datetime(now.year, now.month, 1, tzinfo=UTC)  # the end of last month
    feeder = Feeder(world.seed, 60, [ROUTER])
    # The last hours of the month with a hole, and some of the next, which do not count.
    times = [
        end - timedelta(minutes=m)
        for m in range(360, -30, -1)
        if not 100 <= m < 161 and end - timedelta(minutes=m) < now
    ]
    for at in range(0, len(times), 120):
        batch = feeder.batch(times[at : at + 120], sent_at=now)
        for poll in batch.polls:
            if poll.entity_type == "interface":
                second = poll.ts // 1000 % 86400
                poll.columns["interface.tx_bps"] = [float(second), None, None, None]
        await world.sent(batch)
    await world.rolled_up()
    slots: dict[int, list[float]] = {}
    for ts in times:
        if ts < end:
            slots.setdefault(int(ts.timestamp()) // 300, []).append(ts.timestamp() % 86400)
    means = sorted(sum(values) / len(values) for values in slots.values())
    assert len(means) == 60
    wanted = means[math.ceil(0.95 * len(means)) - 1]
    name = (end - timedelta(days=1)).strftime("%Y-%m")
    found = await report(world, month=name, device=world.feeder.id(ROUTER), key=PORT)
    days = (end - timedelta(days=1)).day
    assert found.expected == days * 288
    (line,) = found.lines
    assert line.sent.p95_bps == pytest.approx(wanted, rel=1e-6)
    assert line.sent.samples == 60
    assert line.sent.missing_pct == pytest.approx(100 - 60 * 100 / (days * 288))
    assert line.billable == "received"
    assert line.billable_bps == line.received.p95_bps
    # A month further east ends earlier: the last two hours are the next month's.
    east = await report(world, month=name, device=world.feeder.id(ROUTER), key=PORT, zone="Etc/GMT-2")
    assert east.lines[0].sent.samples == sum(slot * 300 < end.timestamp() - 7200 for slot in slots) == 40
    picture = await world.json("/api/v1/reports/p95/picture", month=name, device=world.feeder.id(ROUTER), key=PORT)
    places = msgspec.convert(picture["sent_high"], list[float | None])
    assert len(places) <= 600
    assert picture["sent_p95"] == line.sent.p95_bps
    assert 4 <= len(places) - places.count(None) <= 6  # five hours in places of 75 minutes
    assert max(value for value in places if value is not None) == pytest.approx(max(means), rel=1e-6)


async def test_a_table_of_all_uplinks(world: World) -> None:
    now = world.now()
    feeder = world.feeder
    seen = packed_until(now) - timedelta(hours=1)
    month = seen.strftime("%Y-%m")
    batch = feeder.batch([seen + timedelta(minutes=m) for m in (20, 21, 22)], sent_at=now)
    assert batch.inventory_patch
    for entity in batch.inventory_patch.entities:
        if entity.entity_type == "interface" and entity.key == PORT:
            entity.attributes["comment"] = '=HYPERLINK("x"), "quoted"'
    await world.sent(batch)
    await world.rolled_up()
    answer = await world.get("/api/v1/reports/p95.csv", month=month)
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert answer.headers["Content-Disposition"].startswith('attachment; filename="p95-')
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    wanted = {(d.name, p.key) for d in world.seed.devices for p in d.interfaces if "uplink:true" in p.tags}
    assert {(row["router"], row["interface"]) for row in rows} == wanted
    found = await report(world, month=month)
    assert all(line.billable_bps for line in found.lines)
    assert [round(line.billable_bps or 0) for line in found.lines] == [int(row["billable_bps"] or 0) for row in rows]
    (row,) = [row for row in rows if (row["router"], row["interface"]) == (ROUTER, PORT)]
    assert row["comment"].startswith("'=HYPERLINK")


async def test_what_a_report_does_not_answer(world: World) -> None:
    await world.sent(world.feeder.batch([world.now()]))
    device = world.feeder.id(ROUTER)
    tenants.change(world.settings, world.tenant, {"max_entities": 2})
    for parameters, status, field in (
        ({"month": "2199-01"}, 422, "month"),
        ({"month": "2026-13"}, 422, "month"),
        ({"month": "November"}, 422, "month"),
        ({"zone": "Mars/Olympus"}, 422, "zone"),
        ({"zone": "../../etc/passwd"}, 422, "zone"),
        ({"key": PORT}, 422, "device"),
        ({"device": device, "key": "nope"}, 404, "device"),
        ({"device": "00000000-0000-0000-0000-000000000000"}, 404, "device"),
        ({"device": device}, 422, "max_entities"),
    ):
        for path in ("/api/v1/reports/p95", "/api/v1/reports/p95.csv"):
            answer = await world.get(path, **parameters)
            assert (answer.status_code, answer.json()["field"]) == (status, field), (parameters, answer.text)
            assert answer.json()["fix"]
