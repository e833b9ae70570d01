from __future__ import annotations

import asyncio
import hashlib
import math
import struct
from collections.abc import Mapping, Sequence
from datetime import timedelta
from uuid import uuid4

import httpx
import msgspec
import psycopg
import pytest
from feeder import AGENT, HEADERS, encode, ms
from ispvm.ingest.routes import Gate
from ispvm.inventory.agents import enroll, listing, revoke
from ispvm.server import create_app
from ispvm_contract.identity import set_id
from ispvm_contract.ingest import Agent, Batch, Column, DevicePatch, EntityPatch, Event, InventoryPatch, Poll
from ispvm_contract.packed import packed
from server_world import World

TABLES = (
    "poll_device",
    "poll_interface",
    "poll_bgp_peer",
    "poll_ospf_neighbor",
    "latest_poll",
    "event",
    "rollup_dirty",
)


async def test_a_repeated_batch_changes_nothing(world: World) -> None:
    event = Event(uuid4(), ms(world.now()), "device.rebooted", world.feeder.id("EDGE-NTH-1"), "warning")
    batch = world.feeder.batch([world.now() - timedelta(minutes=at) for at in range(5, -1, -1)], events=[event])
    assert await world.sent(batch) == {"id": str(batch.id), "status": "stored", "rejected": []}
    once = {table: world.count(table) for table in TABLES}
    assert once["poll_device"] == 36
    assert once["event"] == 1
    for _ in range(3):
        assert await world.sent(batch) == {"id": str(batch.id), "status": "duplicate", "rejected": []}
    assert {table: world.count(table) for table in TABLES} == once


async def test_the_same_batch_sent_at_once_by_many_is_stored_once(world: World) -> None:
    batch = world.feeder.batch([world.now()])
    answers = await asyncio.gather(*(world.sent(batch) for _ in range(6)))
    assert sorted(str(a["status"]) for a in answers) == ["duplicate"] * 5 + ["stored"]
    assert world.count("poll_device") == 6


async def test_the_same_polls_in_another_batch_are_stored_once_and_fill_what_was_missing(
    world: World, owner: psycopg.Connection
) -> None:
    now, device = world.now(), world.feeder.id("EDGE-NTH-1")
    patch = world.feeder.inventory()
    probe = Poll(device, ms(now), "device", {"device.up": [True]}, source="probe")
    resource = Poll(device, ms(now), "device", {"device.up": [False], "device.cpu_pct": [12.5]})
    await world.sent(Batch(1, uuid4(), ms(now), AGENT, polls=[probe], inventory_patch=patch))
    await world.sent(Batch(1, uuid4(), ms(now), AGENT, polls=[resource, probe]))
    rows = owner.execute(
        "select p.up, p.cpu_pct from poll_device p join device d on d.id = p.device_id where d.uuid = %s", [device]
    ).fetchall()
    assert rows == [(True, 12.5)]


async def test_what_cannot_be_stored_is_reported_and_the_rest_is_stored(world: World) -> None:
    now, feeder = world.now(), world.feeder
    device, ports = feeder.id("EDGE-NTH-1"), [p.key for p in world.seed.devices[0].interfaces]
    strange = ["sfp28-1", "never heard of"]
    sets = {set_id(ports): ports, set_id(strange): strange, "0" * 16: ports}

    def poll(
        columns: Mapping[str, Sequence[object]], kind: str = "interface", of: str | None = set_id(ports), **more: object
    ) -> Poll:
        fields = {"device": device, "ts": ms(now), "entity_type": kind, "columns": columns, "set": of, **more}
        return msgspec.convert({k: v for k, v in fields.items() if v is not None}, Poll)

    good = [True] * len(ports)
    polls = [
        poll({"interface.oper_up": good}),
        poll({"device.cpu_pct": [1.0]}, "device", None, device=uuid4()),
        poll({"interface.oper_up": [True, True]}, of=set_id(strange)),
        poll({"interface.oper_up": [True]}),
        poll({"interface.oper_up": [2, *good[1:]]}),
        poll({"device.cpu_pct": [1.0]}, "device", None, ts=ms(now + timedelta(hours=1))),
        poll({"device.cpu_pct": [1.0]}, "device", None, ts=ms(now - timedelta(days=40))),
        poll({"x.y": [1]}, "toaster", None),
        poll({"interface.oper_up": good}, of="0" * 16),
        poll({"interface.oper_up": good}, of="f" * 16),
        poll({"interface.oper_up": good}, of=None),
        poll({"interface.oper_up": good}, reset=[99]),
        poll({"device.cpu_pct": [1.0]}, "device"),
        poll({"device.cpu_pct": [5.0], "device.colour": [3]}, "device", None),
        poll({"device.cpu_pct": [1.0]}, "device", None, ts=1 << 62),
        poll({}, "device", None),
    ]
    patch = feeder.inventory()
    events = [
        Event(uuid4(), ms(now), "device.exploded", device, "info"),
        Event(uuid4(), ms(now), "device.rebooted", uuid4(), "info"),
        Event(uuid4(), ms(now), "device.rebooted", device, "info"),
    ]
    answer = await world.sent(Batch(1, uuid4(), ms(now), AGENT, sets, polls, events, patch))
    rejected = msgspec.convert(answer["rejected"], list[dict[str, str]])
    reasons = {r["at"]: r["reason"] for r in rejected}
    expected = {
        "polls[1]": "is not known at this agent's sites; send it in inventory_patch.devices",
        "polls[2]": "not known 'interface' entities; send them in inventory_patch.entities",
        "polls[3]": "columns.interface.oper_up: 1 values for 4 keys",
        "polls[4]": "columns.interface.oper_up: value 0 is 2, not true or false",
        "polls[5]": "more than 300 s in the future",
        "polls[6]": "older than raw data are kept",
        "polls[7]": "entity_type 'toaster' is not in the registry",
        "polls[8]": "is not the id of its keys",
        "polls[9]": "is not in sets",
        "polls[10]": "set: missing",
        "polls[11]": "reset: positions are from 0 to 3",
        "polls[12]": "set: a poll of the device itself has none",
        "polls[13]": "columns.device.colour: not a metric of 'device'; the other columns were stored",
        "polls[14]": "is not a time in milliseconds",
        "polls[15]": "columns: none that is in the registry",
        "events[0]": "event 'device.exploded' is not in the registry",
        "events[1]": "is not known at this agent's sites",
    }
    assert set(reasons) == set(expected)
    for at, words in expected.items():
        assert words in reasons[at], at
    assert (world.count("poll_interface"), world.count("poll_device"), world.count("event")) == (1, 1, 1)


async def test_a_wrong_packed_column_is_named_and_rejects_its_poll_alone(
    world: World, owner: psycopg.Connection
) -> None:
    now, device = world.now(), world.feeder.id("EDGE-NTH-1")
    ports = [p.key for p in world.seed.devices[0].interfaces]
    patch = world.feeder.inventory()
    patch.entities.append(EntityPatch(device, "bgp_peer", "peer", "peer"))
    sets = {set_id(keys): keys for keys in (ports, ["peer"])}
    good = {"interface.oper_up": bytes([1, 0, 128, 1]), "interface.rx_bps": struct.pack("<4f", 1.5, math.nan, 0, 3)}

    def poll(at: int, columns: Mapping[str, bytes], kind: str = "interface", keys: Sequence[str] = ports) -> Poll:
        of = None if kind == "device" else set_id(keys)
        return Poll(device, ms(now) - at, kind, {**columns}, of)

    polls = [
        poll(0, good),
        poll(1, {**good, "interface.rx_bps": struct.pack("<4f", 1, 2, math.inf, 4)}),
        poll(2, {**good, "interface.rx_bps": struct.pack("<4f", 1, 2, 3, 3.402e38)}),
        poll(3, {**good, "interface.oper_up": bytes([1, 1, 1, 2])}),
        poll(4, {**good, "interface.oper_up": bytes(3)}),
        poll(5, {**good, "interface.rx_bytes_total": bytes(4 * 8 - 1)}),
        poll(6, {**good, "interface.rx_bytes_total": b""}),
        poll(7, {**good, "interface.colour": bytes(4)}),
        poll(8, {"bgp.peer.state": struct.pack("<h", 6)}, "bgp_peer", ["peer"]),
        poll(9, {"bgp.peer.state": struct.pack("<h", -1)}, "bgp_peer", ["peer"]),
        poll(10, {"bgp.peer.state": struct.pack("<h", 5)}, "bgp_peer", ["peer"]),
        poll(11, {"device.cpu_pct": struct.pack("<f", math.nan), "device.mem_used_bytes": bytes(8)}, "device"),
        poll(12, {"device.cpu_pct": struct.pack("<f", -math.inf)}, "device"),
        poll(13, {"device.colour": bytes(3)}, "device"),
    ]
    answer = await world.sent(Batch(1, uuid4(), ms(now), AGENT, sets, polls, inventory_patch=patch))
    rejected = msgspec.convert(answer["rejected"], list[dict[str, str]])
    assert {r["at"]: r["reason"].removeprefix("columns.") for r in rejected} == {
        "polls[1]": "interface.rx_bps: value 2 is inf, not a finite number",
        "polls[2]": "interface.rx_bps: value 3 is 3.4020000005553803e+38, not a finite number",
        "polls[3]": "interface.oper_up: value 3 is 2, not true or false",
        "polls[4]": "interface.oper_up: 3 values for 4 keys",
        "polls[5]": "interface.rx_bytes_total: 31 bytes, not a whole number of 8-byte values",
        "polls[6]": "interface.rx_bytes_total: 0 values for 4 keys",
        "polls[7]": "interface.colour: not a metric of 'interface'; the other columns were stored",
        "polls[8]": "bgp.peer.state: value 0 is 6, not a code from 0 to 5",
        "polls[9]": "bgp.peer.state: value 0 is -1, not a code from 0 to 5",
        "polls[12]": "device.cpu_pct: value 0 is -inf, not a finite number",
        "polls[13]": "columns: none that is in the registry".removeprefix("columns."),
    }
    mine = " from {} p join device d on d.id = p.device_id where d.uuid = %s order by ts desc"
    rows = owner.execute(f"select oper_up, rx_bps, rx_bytes_total{mine.format('poll_interface')}", [device]).fetchall()
    assert rows == [([True, False, None, True], [1.5, None, 0, 3], None)] * 2
    assert owner.execute(f"select bgp_peer_state{mine.format('poll_bgp_peer')}", [device]).fetchall() == [([5],)]
    assert owner.execute(f"select cpu_pct, mem_used_bytes{mine.format('poll_device')}", [device]).fetchall() == [
        (None, 0)
    ]


@pytest.mark.parametrize("form", ["lists", "packed", "json", "packed json"])
async def test_lists_and_packed_columns_are_stored_alike(world: World, owner: psycopg.Connection, form: str) -> None:
    """Absent values, and counters beyond what a float can hold, in every form that an agent may send."""
    now, device = world.now(), world.feeder.id("EDGE-NTH-1")
    ports = [p.key for p in world.seed.devices[0].interfaces]
    columns: dict[str, Column] = {
        "interface.oper_up": [True, False, None, True],
        "interface.rx_bps": [None, 0, 1.5, 2**20],
        "interface.rx_bytes_total": [(1 << 62) + 1, None, 0, (1 << 63) - 1],
        "interface.tx_bytes_total": [None] * 4,
    }
    poll = Poll(device, ms(now), "interface", columns, set_id(ports), reset=[0, 3])
    batch = Batch(1, uuid4(), ms(now), AGENT, {set_id(ports): ports}, [poll], [], world.feeder.inventory())
    batch = packed(batch) if "packed" in form else batch
    headers = {"Authorization": f"Bearer {world.token}", "Content-Type": "application/msgpack"}
    body = msgspec.msgpack.encode(batch)
    if "json" in form:
        headers["Content-Type"], body = "application/json", msgspec.json.encode(batch)
    answer = await world.client.post("/ingest/v1/batch", content=body, headers=headers)
    assert (answer.status_code, answer.json()["rejected"]) == (200, [])
    names = ", ".join(name.partition(".")[2] for name in columns)
    (row,) = owner.execute(
        f"select {names}, p.reset from poll_interface p join device d on d.id = p.device_id where d.uuid = %s",
        [device],
    ).fetchall()
    assert list(row) == [*columns.values(), [0, 3]]


async def test_an_outage_does_not_become_the_rhythm_of_a_router(world: World, owner: psycopg.Connection) -> None:
    now, device = world.now(), world.feeder.id("EDGE-NTH-1")

    async def period_after(*minutes: int) -> float | None:
        times = [now - timedelta(minutes=m) for m in minutes]
        polls = [Poll(device, ms(ts), "device", {"device.cpu_pct": [1.0]}) for ts in times]
        patch = world.feeder.inventory()
        await world.sent(Batch(1, uuid4(), ms(now), AGENT, polls=polls, inventory_patch=patch))
        query = "select period_s from latest_poll p join device d on d.id = p.device_id where d.uuid = %s"
        (period,) = owner.execute(query, [device]).fetchone() or (None,)
        return None if period is None else float(period)

    assert await period_after(200) is None
    assert await period_after(199) == 60
    assert await period_after(10) == 120  # live again, twice the rhythm at most
    assert await period_after(150, 149, 148) == 120  # the backlog is older than what is known
    assert await period_after(9) == 60
    assert await period_after(6) == 120  # a rhythm that became slower
    assert await period_after(3) == 180


async def test_inventory_outside_the_agents_reach_is_rejected(world: World) -> None:
    feeder = world.feeder
    edge = feeder.inventory().devices[0]
    patch = InventoryPatch(
        [
            DevicePatch(uuid4(), "NEW-1", "atlantis", "10.0.0.1"),
            DevicePatch(uuid4(), edge.name, edge.site, "10.0.0.1"),
            DevicePatch(uuid4(), "NEW-2", edge.site, "10.0.0.2", model="hAP"),
        ],
        [EntityPatch(edge.id, "toaster", "a", "a"), EntityPatch(uuid4(), "interface", "a", "a")],
    )
    answer = await world.sent(Batch(1, uuid4(), ms(world.now()), AGENT, inventory_patch=patch))
    rejected = msgspec.convert(answer["rejected"], list[dict[str, str]])
    assert [r["at"] for r in rejected] == [
        "inventory_patch.devices[0]",
        "inventory_patch.devices[1]",
        "inventory_patch.entities[0]",
        "inventory_patch.entities[1]",
    ]
    assert set(await world.devices()) == {*(d.name for d in world.seed.devices), "NEW-2"}


async def test_an_agent_speaks_only_for_its_sites(world: World) -> None:
    enroll(world.settings, world.tenant, "pop", ["harbour"], world_token(world))
    answer = await world.sent(world.feeder.batch([world.now()]))
    rejected = msgspec.convert(answer["rejected"], list[dict[str, str]])
    assert len([r for r in rejected if r["at"].startswith("polls")]) > 0
    assert world.count("poll_device") == 2


def world_token(world: World) -> str:
    return hashlib.sha256(world.token.encode()).hexdigest()


async def test_tokens(world: World) -> None:
    batch = world.feeder.batch([world.now()])
    for headers in ({}, {"Authorization": "Basic eDp5"}, {"Authorization": "Bearer wrong-token"}):
        answer = await world.client.post("/ingest/v1/batch", content=encode(batch), headers={**HEADERS, **headers})
        assert (answer.status_code, answer.json()["field"]) == (401, "Authorization")
        assert "WWW-Authenticate" in answer.headers
    assert revoke(world.settings, world.tenant, "pop") is True
    assert revoke(world.settings, world.tenant, "pop") is False
    assert (await world.send(batch)).status_code == 403
    assert any(
        line.startswith(f"{world.tenant}\tpop\t") and line.endswith("revoked")
        for line in listing(world.settings).splitlines()
    )
    assert enroll(world.settings, world.tenant, "pop", ["north", "harbour", "hill"], world_token(world)) is True
    assert enroll(world.settings, world.tenant, "pop", ["north", "harbour", "hill"], world_token(world)) is False
    assert (await world.send(batch)).status_code == 200


@pytest.mark.host
async def test_a_token_that_was_accepted_is_asked_for_again_with_every_batch(world: World) -> None:
    assert (await world.send(world.feeder.batch([world.now()]))).status_code == 200
    enroll(world.settings, world.tenant, "pop", ["harbour"], world_token(world))
    before = world.count("poll_device")
    told = await world.sent(world.feeder.batch([world.now() - timedelta(minutes=1)]))
    assert "is not known at this agent's sites" in str(told["rejected"])
    assert world.count("poll_device") == before + 2
    assert revoke(world.settings, world.tenant, "pop") is True
    for _ in range(2):
        answer = await world.send(world.feeder.batch([world.now()]))
        assert (answer.status_code, answer.json()["field"]) == (403, "Authorization")
    assert world.count("poll_device") == before + 2


async def test_limits_are_refused_by_name_and_nothing_is_stored(world: World) -> None:
    now, device = world.now(), world.feeder.id("EDGE-NTH-1")
    many = [Poll(device, ms(now) + at, "device", {"device.cpu_pct": [1.0] * 1000}) for at in range(51)]
    answer = await world.send(Batch(1, uuid4(), ms(now), AGENT, polls=many))
    assert (answer.status_code, answer.json()["field"]) == (413, "polls")
    assert "50000" in answer.json()["problem"]
    headers = {**HEADERS, "Authorization": f"Bearer {world.token}", "Content-Encoding": "identity"}
    answer = await world.client.post("/ingest/v1/batch", content=b" " * (8 * 1024 * 1024 + 1), headers=headers)
    assert (answer.status_code, answer.json()["field"]) == (413, "body")
    answer = await world.send(Batch(1, uuid4(), ms(now + timedelta(seconds=400)), AGENT))
    assert (answer.status_code, answer.json()["field"]) == (422, "sent_at")
    assert world.count("ingest_batch") == 0


async def test_a_saturated_pool_says_when_to_come_back(world: World) -> None:
    settings = msgspec.structs.replace(
        world.settings, database=msgspec.structs.replace(world.settings.database, pool_size=1)
    )
    app = create_app(settings)
    async with (
        app.router.lifespan_context(app),
        app.state.pool.connection(),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="https://monitor.test") as client,
    ):
        headers = {**HEADERS, "Authorization": f"Bearer {world.token}"}
        body = encode(world.feeder.batch([world.now()]))
        answers = await asyncio.gather(
            *(client.post("/ingest/v1/batch", content=body, headers=headers) for _ in range(8))
        )
    assert {a.status_code for a in answers} == {503}
    assert all(int(a.headers["Retry-After"]) > 0 and a.json()["field"] == "server" for a in answers)
    assert (await world.send(world.feeder.batch([world.now()]))).status_code == 200


async def test_no_more_batches_are_in_hand_at_once_than_the_limit(world: World) -> None:
    batch = world.feeder.batch([world.now()])
    gate: Gate = world.app.state.gate
    assert gate.limit == 2 * world.settings.database.pool_size
    gate.inside = gate.limit
    answer = await world.send(batch)
    assert (answer.status_code, answer.json()["field"]) == (429, "server")
    assert f"the limit is {gate.limit}" in answer.json()["problem"]
    assert int(answer.headers["Retry-After"]) > 0
    gate.inside = 0
    assert world.count("ingest_batch") == 0
    assert (await world.send(batch)).status_code == 200
    assert (await world.send(Batch(1, uuid4(), 1 << 62, AGENT))).status_code == 422
    assert gate.inside == 0


@pytest.mark.host
async def test_a_batch_that_the_database_cannot_take_in_time_comes_back_later(
    world: World, owner: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ispvm.ingest.store.STATEMENT_MS", 200)
    batch = world.feeder.batch([world.now()])
    with owner.transaction():
        owner.execute("lock table latest_poll")
        answer = await world.send(batch)
    assert (answer.status_code, answer.json()["field"]) == (503, "server")
    assert answer.json()["problem"] == "the database did not answer in time"
    assert int(answer.headers["Retry-After"]) > 0
    assert world.count("poll_device") == world.count("ingest_batch") == 0
    assert (await world.sent(batch))["status"] == "stored"
    # on every connection of the pool, also the one on which it went wrong
    for minutes in range(1, 9):
        assert (await world.sent(world.feeder.batch([world.now() - timedelta(minutes=minutes)])))["status"] == "stored"


async def test_heartbeat_and_states(world: World) -> None:
    feeder, now = world.feeder, world.now()
    await world.sent(feeder.batch([now], down=["ACCESS-HIL-1"], api_down=["AGG-HIL-1"]))
    assert {d["state"] for d in (await world.devices()).values()} == {"agent-offline"}
    beat = await world.sent(feeder.heartbeat(now), "heartbeat")
    assert abs(int(str(beat["server_time"])) - ms(now)) < 60_000
    found = await world.devices()
    assert {name: d["state"] for name, d in found.items()} == {
        "ACCESS-HIL-1": "down",
        "AGG-HIL-1": "degraded",
        "AGG-HBR-1": "up",
        "CORE-HBR-1": "up",
        "CORE-NTH-1": "up",
        "EDGE-NTH-1": "up",
    }
    assert "API-only down" in str(found["AGG-HIL-1"]["evidence"])
    summary = await world.json("/api/v1/summary")
    assert summary["counts"] == {"up": 4, "degraded": 1, "down": 1, "agent-offline": 0, "stale": 0, "never-seen": 0}
    home = (await world.get("/")).text
    for name, device in found.items():
        assert name in home
        assert str(device["evidence"]).split("(")[0].split(";")[0] in home


async def test_routers_of_a_seed_are_never_seen_before_their_first_poll(world: World) -> None:
    assert {d["state"] for d in (await world.devices()).values()} == {"never-seen"}


async def test_an_impossible_time_in_a_heartbeat_is_refused_by_name(world: World) -> None:
    await world.sent(world.feeder.batch([world.now()]))
    for field in ("started_at", "sent_at", "oldest_buffered", "routers[0].last_good"):
        beat = world.feeder.heartbeat(world.now())
        setattr(beat.routers[0] if "." in field else beat, field.rpartition(".")[2], 1 << 62)
        answer = await world.send(beat, "heartbeat")
        assert (answer.status_code, answer.json()["field"]) == (422, field)


async def test_what_the_database_cannot_keep_is_rejected_and_the_rest_is_stored(world: World) -> None:
    batch = world.feeder.batch([world.now()])
    device = world.feeder.id("EDGE-NTH-1")
    batch.inventory_patch.devices[1].model = "CCR\0"
    batch.inventory_patch.entities.append(EntityPatch(device, "interface", "x", "a\0b"))
    batch.events.append(Event(uuid4(), ms(world.now()), "device.rebooted", device, "info", payload={"a": "\0"}))
    batch.polls.append(Poll(device, ms(world.now()) - 1, "device", {"device.cpu_pct": [1.0]}, source="\0"))
    batch.polls.append(Poll(device, ms(world.now()) - 2, "device", {"device.cpu_pct": [1.0]}, interval_s=float("nan")))
    rejected = msgspec.convert((await world.sent(batch))["rejected"], list[dict[str, str]])
    assert [r["at"] for r in rejected] == [
        "inventory_patch.devices[1]",
        f"inventory_patch.entities[{len(batch.inventory_patch.entities) - 1}]",
        f"polls[{len(batch.polls) - 2}]",
        f"polls[{len(batch.polls) - 1}]",
        "events[0]",
    ]
    assert world.count("poll_device") == 6


async def test_no_odd_request_ends_in_an_error_of_the_server(world: World) -> None:
    beat = world.feeder.heartbeat(world.now())
    beat.agent = Agent("pop", AGENT.version, ["\0"])
    assert (await world.send(beat, "heartbeat")).status_code == 422
    beat.agent, beat.buffer_depth = AGENT, 1 << 40
    assert (await world.send(beat, "heartbeat")).status_code == 422
    device = world.feeder.id("EDGE-NTH-1")
    for path in (
        f"/api/v1/series?device={device}&metric=interface.rx_bps&key=%00",
        f"/api/v1/series?device={device}&metric=%00",
        f"/devices/{device}?port=%00",
        "/login/one-time/%00",
        "/devices/%00",
        "/static/..%2f..%2fserver.py",
        "/static/%00",
    ):
        assert (await world.client.get(path)).status_code in (200, 404, 410, 422), path
    form = {"name": "\0", "password": "\0"}
    assert (await world.client.post("/login", data=form)).status_code in (403, 422)
