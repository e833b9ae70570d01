from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from uuid import uuid4

import httpx
import msgspec
import psycopg
import pytest
from fastapi import FastAPI
from feeder import AGENT, Feeder, ms
from ispvm import cli
from ispvm.inventory import tenants
from ispvm.series.budget import Budget
from ispvm.series.cache import Answers, Cache, Memory
from ispvm.series.overview import Ranking
from ispvm.web.auth import User, find_user
from ispvm_contract.identity import set_id
from ispvm_contract.ingest import Batch, Event, Poll
from server_world import ORIGIN, World
from starlette.requests import Request

ROUTER, PORT = "EDGE-NTH-1", "sfp28-1"
Found = list[dict[str, object]]


def interfaces(feeder: Feeder, batch: Batch) -> list[Poll]:
    return [p for p in batch.polls if p.entity_type == "interface" and p.device == feeder.id(ROUTER)]


async def test_errors_and_drops_are_rates_of_their_counters_worst_first(world: World) -> None:
    now = world.now()
    times = [now - timedelta(seconds=s) for s in (900, 400, 100, 0)]
    feeder = Feeder(world.seed, 60, [ROUTER])
    batch = feeder.batch(times, sent_at=now)
    # Four ports: nothing, 8 errors over the 400 s of the window, 20 + 20 drops, and a counter that went backwards.
    for at, poll in enumerate(interfaces(feeder, batch)):
        poll.columns["interface.rx_errors_total"] = [7, 1000 + [0, 0, 3, 8][at], 0, [500, 500, 400, 450][at]]
        poll.columns["interface.tx_errors_total"] = [0, 0, 0, 0]
        poll.columns["interface.rx_discards_total"] = [0, 0, [900, 0, 5, 20][at], 0]
        poll.columns["interface.tx_discards_total"] = [0, 0, [0, 0, 10, 20][at], 0]
    await world.sent(batch)
    summary = await world.json("/api/v1/summary")
    keys = [p.key for d in feeder.devices for p in d.interfaces]
    faulty = msgspec.convert(summary["faulty"], Found)
    assert [(f["key"], f["errors_per_s"], f["drops_per_s"], f["over_s"]) for f in faulty] == [
        (keys[2], 0, pytest.approx(0.1), 400),
        (keys[1], pytest.approx(0.02), 0, 400),
    ]


async def test_links_rank_by_their_load_and_the_map_says_what_a_link_carries(world: World) -> None:
    batch = world.feeder.batch([world.now()])
    await world.sent(batch)
    await world.sent(world.feeder.heartbeat(world.now()), "heartbeat")
    link = world.seed.links[0]
    (poll,) = [p for p in batch.polls if p.entity_type == "interface" and p.device == world.feeder.id(link.a.device)]
    seen = {str(entry["name"]): entry for entry in msgspec.convert((await world.json("/api/v1/map"))["links"], Found)}
    assert set(seen) == {one.name for one in world.seed.links}
    ranked = msgspec.convert((await world.json("/api/v1/summary"))["congested"], Found)
    loads = [float(str(entry["utilization_pct"])) for entry in ranked]
    assert loads == sorted(loads, reverse=True)
    assert {str(e["name"]): e["utilization_pct"] for e in ranked} == {n: e["load_pct"] for n, e in seen.items()}
    ends = {(end.device, end.interface) for end in (link.a, link.b)}
    assert seen[link.name]["load_pct"] == pytest.approx(_load(world, batch, ends, link.capacity_bps), rel=1e-5)
    sites = msgspec.convert((await world.json("/api/v1/map"))["sites"], Found)
    assert {s["worst"] for s in sites} == {"up"}
    assert all(s["latitude"] is not None for s in sites)
    # Carrier gone at one end: the link is down, carries nothing and is in no list.
    later = world.feeder.batch([world.now() + timedelta(seconds=1)])
    for other in later.polls:
        if other.entity_type == "interface" and other.device == poll.device:
            keys = later.sets[str(other.set)]
            other.columns["interface.oper_up"] = [key != link.a.interface for key in keys]
    await world.sent(later)
    seen = {str(entry["name"]): entry for entry in msgspec.convert((await world.json("/api/v1/map"))["links"], Found)}
    assert [seen[link.name][name] for name in ("down", "load_pct", "load_class")] == [True, None, "load-down"]
    ranked = msgspec.convert((await world.json("/api/v1/summary"))["congested"], Found)
    assert link.name not in {entry["name"] for entry in ranked}


def _load(world: World, batch: Batch, ends: set[tuple[str, str]], capacity: int) -> float:
    """The busier direction of a link in percent, worked out from what was sent."""
    rates = [0.0]
    names = {world.feeder.id(d.name): d.name for d in world.seed.devices}
    for poll in batch.polls:
        if poll.entity_type == "interface":
            for at, key in enumerate(batch.sets[str(poll.set)]):
                if (names[poll.device], key) in ends:
                    rates += [float(poll.columns[c][at] or 0) for c in ("interface.rx_bps", "interface.tx_bps")]
    return max(rates) * 100 / capacity


async def test_incidents_are_counted_in_the_days_of_the_tenants_zone(world: World) -> None:
    now = world.now()
    event = Event(
        uuid4(),
        ms(now),
        "bgp.peer.state.changed",
        world.feeder.id(ROUTER),
        "critical",
        "bgp_peer",
        "meridian-v4",
        "established",
        "idle",
    )
    await world.sent(world.feeder.batch([now], events=[event]))
    assert tenants.change(world.settings, world.tenant, {"time_zone": "Pacific/Kiritimati"})
    body = await world.json("/api/v1/incidents", days=3)
    days = msgspec.convert(body["days"], Found)
    assert (body["time_zone"], len(days)) == ("Pacific/Kiritimati", 3)
    assert [(d["bgp"], d["total"]) for d in days] == [(0, 0), (0, 0), (1, 1)]
    assert days[-1]["day"] == (now + timedelta(hours=14)).date().isoformat()


async def test_a_top_list_names_its_entities(world: World) -> None:
    end = world.now().replace(minute=0, second=0)
    feeder = Feeder(world.seed, 60, [ROUTER])
    await world.sent(feeder.batch([end - timedelta(minutes=m) for m in range(60, 0, -5)], sent_at=world.now()))
    await world.rolled_up()
    body = await world.json("/api/v1/top", metric="interface.utilization_pct", by="max", limit=2)
    found = msgspec.convert(body["entities"], Found)
    assert [(f["device_name"], f["key"]) for f in found] == [(ROUTER, "sfp28-1"), (ROUTER, "sfp28-2")]
    assert found[0]["samples"] == 12
    assert await world.json("/api/v1/top", metric="device.cpu_pct") != body
    refused = await world.get("/api/v1/top", metric="interface.rx_bytes_total")
    assert (refused.status_code, refused.json()["field"]) == (422, "metric")


# --- Budgets ----------------------------------------------------------------------------------------------------------


async def test_each_limit_refuses_by_its_name(world: World) -> None:
    query = {"device": world.feeder.id(ROUTER), "metric": "interface.rx_bps", "key": PORT}
    await world.sent(world.feeder.batch([world.now()]))
    week = {"from": (world.now() - timedelta(days=7)).isoformat()}
    assert (await world.get("/api/v1/series", **query, **week)).status_code == 200
    assert tenants.change(world.settings, world.tenant, {"max_range_days": 1, "max_points": 50})
    assert not tenants.change(world.settings, world.tenant, {"max_range_days": 1})
    for path, more, limit in (
        ("/api/v1/series", {**query, **week, "max_points": 50}, "max_range_days"),
        ("/api/v1/top", week, "max_range_days"),
        ("/api/v1/series", {**query, "max_points": 51}, "max_points"),
    ):
        answer = await world.get(path, **more)
        assert (answer.status_code, answer.json()["field"]) == (422, limit), answer.text
        assert answer.json()["fix"]


@pytest.mark.host
async def test_a_query_that_takes_too_long_is_ended_and_says_so(world: World) -> None:
    tenants.change(world.settings, world.tenant, {"statement_timeout_ms": 100})
    request, user = await _request(world)
    with pytest.raises(
        Exception, match="statement_timeout_ms: the query takes more milliseconds than this tenant's 100"
    ):
        async with world.app.state.budgets.query(request, user) as connection:
            await (await connection.execute("select pg_sleep(5)")).fetchone()
    for _ in range(9):  # on every connection of the pool, also the one on which it went wrong
        async with world.app.state.budgets.query(request, user) as connection:
            asked = await connection.execute(
                "select current_tenant(), current_setting('statement_timeout'),"
                " current_setting('transaction_read_only')"
            )
            assert await asked.fetchone() == (user.tenant, "100ms", "on")


@pytest.mark.host
async def test_more_queries_at_once_than_allowed_are_refused_and_others_are_not_kept(world: World) -> None:
    tenants.change(world.settings, world.tenant, {"max_concurrent": 1})
    request, user = await _request(world)
    query = {"device": world.feeder.id(ROUTER), "metric": "interface.rx_bps", "key": PORT}
    await world.sent(world.feeder.batch([world.now()]))
    async with world.app.state.budgets.query(request, user):
        answer = await world.get("/api/v1/series", **query)
        assert (answer.status_code, answer.json()["field"]) == (429, "max_concurrent")
        assert answer.headers["Retry-After"] == "1"
        assert (await world.get("/api/v1/summary")).status_code == 200
    assert (await world.get("/api/v1/series", **query)).status_code == 200


async def _request(world: World) -> tuple[Request, User]:
    cookies = "; ".join(f"{name}={value}" for name, value in world.client.cookies.items())
    scope = {"type": "http", "app": world.app, "headers": [(b"cookie", cookies.encode())]}
    request = Request(scope)
    user = await find_user(request)
    assert user is not None
    return request, user


def test_the_defaults_are_those_of_the_table(owner: psycopg.Connection) -> None:
    owner.execute("create temp table plain (like tenant_setting including defaults)")
    owner.execute("insert into plain (tenant_id) values (1)")
    row = owner.execute(
        "select time_zone, max_range_days, max_points, max_entities, max_concurrent, statement_timeout_ms from plain"
    ).fetchone()
    assert row is not None
    assert Budget(*row) == Budget()


@pytest.mark.host
async def test_the_command_changes_limits_and_refuses_what_is_not_one(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "load", lambda _: world.settings)

    def run(*arguments: str) -> tuple[int, str]:
        code = cli.main(["tenant", arguments[0], "--tenant", world.tenant, *arguments[1:]])
        out = capsys.readouterr()
        return code, (out.out + out.err).strip()

    assert run("set", "--max-points", "100", "--time-zone", "Europe/Berlin") == (0, "changed")
    assert run("set", "--max-points", "100") == (0, "unchanged")
    assert "max_points = 100" in run("show")[1]
    run("set", "--operator", "no")
    assert "operator = no" in run("show")[1]
    assert run("set", "--operator", "yes") == (0, "changed")
    assert run("set", "--operator", "yes", "--max-points", "100") == (0, "unchanged")
    assert "operator = yes" in run("show")[1]
    for arguments, word in (
        (("--max-points", "601"), "max_points <= 600"),
        (("--max-entities", "99999999999"), "max_entities"),
        (("--time-zone", "Mars/Olympus"), "--time-zone"),
        ((), "say what to set"),
    ):
        code, text = run("set", *arguments)
        assert (code, word in text) == (2, True), text
    assert cli.main(["tenant", "show", "--tenant", "nobody"]) == 2


async def test_the_busiest_ports_are_those_of_the_newest_polls_whatever_is_missing(world: World) -> None:
    now, device = world.now(), world.feeder.id(ROUTER)
    keys = [p.key for d in world.seed.devices if d.name == ROUTER for p in d.interfaces]
    capacities = {p.key: p.capacity_bps for d in world.seed.devices if d.name == ROUTER for p in d.interfaces}
    full = [float(capacities[key]) for key in keys]
    # An older key set says of all ports that they are full; the newer one knows less of them, and one has no rate.
    polls: list[tuple[list[str], list[float | None], list[float | None]]] = [
        (keys, [*full], [*full]),
        (keys[:3], [full[0] / 4, None, full[2] / 8], [full[0] / 2, None, None]),
    ]
    batch = Batch(
        1,
        uuid4(),
        ms(now),
        AGENT,
        {set_id(order): order for order, _, _ in polls},
        [
            Poll(device, ms(now - timedelta(seconds=5 - at)), "interface",
                 {"interface.rx_bps": [*rx], "interface.tx_bps": [*tx]}, set_id(order), 60)
            for at, (order, rx, tx) in enumerate(polls)
        ],
        [],
        world.feeder.inventory(),
    )  # fmt: skip
    await world.sent(batch)
    summary = await world.json("/api/v1/summary")
    busiest = msgspec.convert(summary["busiest"], Found)
    assert [(b["key"], b["utilization_pct"]) for b in busiest] == [
        *((key, 100) for key in keys[3:]), (keys[0], 50), (keys[2], 12.5)
    ]  # fmt: skip


async def test_what_ports_can_carry_is_kept_and_a_new_key_set_is_ranked_at_once(
    make_world: Callable[[], Awaitable[World]], owner: psycopg.Connection
) -> None:
    world, other = await make_world(), await make_world()
    (tenant,) = owner.execute("select id from tenant where key = %s", [world.tenant]).fetchone() or ()
    kept: Cache[Ranking] = world.app.state.rankings
    for one in (other, world):
        await one.sent(one.feeder.batch([one.now()]))
        assert (await one.json("/api/v1/summary"))["busiest"]
    ranking = kept.peek(tenant)
    await world.sent(world.feeder.batch([world.now() + timedelta(seconds=1)]))
    assert (await world.json("/api/v1/summary"))["busiest"]
    assert ranking is not None
    assert kept.peek(tenant) is ranking
    ports = [p for d in world.seed.devices if d.name == ROUTER for p in d.interfaces][:2]
    keys, full = [p.key for p in ports], [2.0 * p.capacity_bps for p in ports]
    device, now = world.feeder.id(ROUTER), world.now() + timedelta(seconds=2)
    poll = Poll(device, ms(now), "interface", {"interface.rx_bps": [*full]}, set_id(keys), 60)
    await world.sent(Batch(1, uuid4(), ms(now), AGENT, {set_id(keys): keys}, [poll], [], world.feeder.inventory()))
    busiest = msgspec.convert((await world.json("/api/v1/summary"))["busiest"], Found)
    assert [(b["key"], b["utilization_pct"]) for b in busiest[:2]] == [(key, 200) for key in keys]


@pytest.mark.host
async def test_a_summary_that_takes_too_long_ends_and_the_next_one_is_whole(
    world: World, owner: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.sent(world.feeder.batch([world.now()]))
    monkeypatch.setattr("ispvm.series.routes.STATEMENT_MS", 100)
    with owner.transaction():
        owner.execute("lock table link")
        refused = await world.client.get("/api/v1/summary")
    assert (refused.status_code, refused.json()["problem"]) == (503, "the query took too long")
    assert (await world.json("/api/v1/summary"))["busiest"]


# --- Caches -----------------------------------------------------------------------------------------------------------


async def test_an_answer_is_made_once_for_all_who_ask_and_kept_per_tenant(world: World) -> None:
    world.app.state.answers = Answers(Memory())
    await world.sent(world.feeder.batch([world.now()]))
    first, *others = await asyncio.gather(*(world.get("/api/v1/summary") for _ in range(5)))
    assert {other.content for other in others} == {first.content}
    await world.sent(world.feeder.batch([world.now() + timedelta(seconds=1)]))
    assert (await world.get("/api/v1/summary")).headers["ETag"] == first.headers["ETag"]
    again = await world.client.get("/api/v1/summary", headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")


async def test_a_kept_answer_is_for_its_tenant_and_for_who_is_signed_in(
    make_world: Callable[[], Awaitable[World]], owner: psycopg.Connection
) -> None:
    world, other = await make_world(), await make_world()
    world.app.state.answers, world.app.state.sessions = Answers(Memory()), Cache(2)
    await world.sent(world.feeder.batch([world.now()]))
    first = await world.get("/api/v1/summary")
    assert first.json()["busiest"]
    # The second time it does not get as far as the endpoint.
    with without(world.app, "budgets", "overviews"):
        assert (await world.get("/api/v1/summary")).content == first.content
    assert (await other.get("/api/v1/summary")).json()["busiest"] == []
    nobody = httpx.AsyncClient(transport=httpx.ASGITransport(world.app), base_url=ORIGIN)
    assert (await nobody.get("/api/v1/summary")).status_code == 401
    # A session that is gone is nobody within two seconds.
    owner.execute("delete from login_session where tenant_id = (select id from tenant where key = %s)", [world.tenant])
    ended = time.monotonic()
    while (answer := await world.get("/api/v1/summary")).status_code == 200:
        assert time.monotonic() < ended + 3, answer.text
        await asyncio.sleep(0.1)
    assert answer.status_code == 401
    assert (await other.get("/api/v1/summary")).status_code == 200


@contextmanager
def without(app: FastAPI, *names: str) -> Iterator[None]:
    """Without these parts of the server."""
    parts = {name: getattr(app.state, name) for name in names}
    for name in names:
        delattr(app.state, name)
    try:
        yield
    finally:
        for name, part in parts.items():
            setattr(app.state, name, part)
