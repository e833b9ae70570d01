"""Outbox and uplink: nothing lost, nothing doubled, nothing blocked."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
import tracemalloc
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from pathlib import Path
from uuid import UUID, uuid4

import httpx
import msgspec
import pytest
from agent_fakes import FakeServer, taken
from ispvm_agent import outbox
from ispvm_agent.outbox import Outbox
from ispvm_agent.spool import Depth, Spool
from ispvm_agent.uplink import Uplink, heartbeat, retry_after
from ispvm_contract import ingest
from ispvm_contract.identity import set_id

AGENT = ingest.Agent("pop", "0")
DEVICE = uuid4()


class Rig:
    """Outbox, spool and uplink against a fake server."""

    def __init__(self, directory: Path) -> None:
        self.server = FakeServer()
        self.disk = ThreadPoolExecutor(1)
        self.spool = self.disk.submit(Spool, directory, 10**8, 10**9).result()
        self.outbox = Outbox(AGENT, self.spool, self.disk)
        self.uplink = Uplink(self.server.client(), self.spool, self.outbox, self.disk)

    def describe(self, device: UUID = DEVICE, keys: tuple[str, ...] = ()) -> None:
        entities = [ingest.EntityPatch(device, "interface", key, key) for key in keys]
        self.outbox.describe(ingest.DevicePatch(device, "R", "s", "10.0.0.1"), entities)

    async def batch(self, device: UUID = DEVICE) -> None:
        self.outbox.add(poll(device))
        await self.outbox.flush()

    async def send_next(self) -> float:
        (stored,) = self.disk.submit(self.spool.next, 0).result()
        return await self.uplink.send(stored)

    def depth(self) -> Depth:
        return self.disk.submit(self.spool.depth).result()


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    made = Rig(tmp_path)
    yield made
    made.disk.submit(made.spool.close).result()
    made.disk.shutdown()


def poll(device: UUID = DEVICE, ts: int = 1000) -> ingest.Poll:
    return ingest.Poll(device, ts, "device", {"device.api.up": [True]})


def refusal(status: int, field: str = "polls[0]", **headers: str) -> httpx.Response:
    return httpx.Response(status, headers=headers, content=msgspec.json.encode(ingest.Refusal(field, "bad", "fix")))


async def test_inventory_travels_until_it_is_confirmed_and_again_when_it_changes(rig: Rig) -> None:
    rig.describe(keys=("ether1",))
    await rig.batch()
    await rig.batch()
    assert await rig.send_next() == await rig.send_next() == 0
    await rig.batch()
    rig.describe(keys=("ether1",))
    await rig.batch()
    rig.describe(keys=("ether1", "ether2"))
    await rig.batch()
    for _ in range(3):
        await rig.send_next()
    patches = [[entity.key for entity in batch.inventory_patch.entities] for batch in rig.server.batches]
    assert patches == [["ether1"], ["ether1"], [], [], ["ether1", "ether2"]]


async def test_a_server_that_forgot_is_told_again(rig: Rig) -> None:
    rig.describe()
    await rig.batch()
    await rig.send_next()
    rig.server.rejected = [ingest.Rejection("polls[0]", "device unknown; send it in inventory_patch.devices")]
    await rig.batch()
    await rig.send_next()
    await rig.batch()
    await rig.send_next()
    assert [len(batch.inventory_patch.devices) for batch in rig.server.batches] == [1, 0, 1]
    assert rig.uplink.health.rejected_parts == 1


async def test_an_outage_does_not_fill_the_memory(rig: Rig) -> None:
    for _ in range(300):
        rig.describe()
        rig.outbox.add(poll())
        (batch,) = taken(rig.outbox)
        assert batch.inventory_patch.devices
    assert len(rig.outbox._carried) <= 101
    rig.outbox.confirm(batch.id)
    rig.outbox.add(poll())
    assert taken(rig.outbox)[0].inventory_patch.devices == []


async def test_a_disk_that_stands_still_does_not_fill_the_memory(rig: Rig) -> None:
    """On a busy machine gathering was faster than the disk, and values in memory take fifty times the space."""
    stuck = threading.Event()
    rig.disk.submit(stuck.wait)
    keys = [f"ether{number}" for number in range(500)]
    flushing: set[asyncio.Task[None]] = set()
    tracemalloc.start()
    try:
        for step in range(30 * 100):  # 30 batches of 50,000 values
            columns: dict[str, ingest.Column] = {"interface.rx_bps": [10**9 + n for n in range(500)]}
            rig.outbox.add(ingest.Poll(DEVICE, step, "interface", columns), keys)
            if step == 99:
                flushing.add(asyncio.create_task(rig.outbox.flush()))
                await asyncio.sleep(0)
        (held, _) = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        stuck.set()
    assert held < 12_000_000  # as values they would be 60 MB
    await asyncio.gather(*flushing)
    await rig.outbox.flush()
    assert rig.depth().batches == 30


async def test_what_waits_for_the_disk_is_bounded_and_its_loss_is_counted(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "MAX_WAITING", 3)
    monkeypatch.setattr(ingest, "MAX_METRICS", 1)
    for ts in range(5):
        rig.outbox.add(poll(ts=ts))
    assert [batch.polls[0].ts for batch in taken(rig.outbox)] == [2, 3, 4]
    assert rig.outbox.unwritten == 2


async def test_key_sets_travel_with_their_polls(rig: Rig) -> None:
    keys = ["ether1", "ether2"]
    rig.outbox.add(ingest.Poll(DEVICE, 1, "interface", {"interface.oper_up": [True, None]}), keys)
    await rig.outbox.flush()
    await rig.send_next()
    (batch,) = rig.server.batches
    assert batch.sets == {set_id(keys): keys}
    assert batch.polls[0].set == set_id(keys)
    assert batch.polls[0].columns == {"interface.oper_up": [True, None]}


async def test_batches_stay_within_the_contract(rig: Rig) -> None:
    big = [f"vlan{n}" for n in range(20_000)]
    columns: dict[str, ingest.Column] = {name: [0] * len(big) for name in ("a", "b", "c")}
    rig.outbox.add(ingest.Poll(DEVICE, 1, "interface", columns), big)
    for number in range(ingest.MAX_EVENTS + 1):
        rig.outbox.add_event(ingest.Event(uuid4(), number, "device.rebooted", DEVICE, "warning"))
    batches = taken(rig.outbox)
    values = [sum(len(column) for p in batch.polls for column in p.columns.values()) for batch in batches]
    assert sum(values) == 60_000
    assert max(values) <= ingest.MAX_METRICS
    assert sum(len(batch.events) for batch in batches) == ingest.MAX_EVENTS + 1
    assert all(len(batch.events) <= ingest.MAX_EVENTS for batch in batches)
    assert all(p.set in batch.sets for batch in batches for p in batch.polls)


async def test_the_same_bytes_are_sent_until_acknowledged(rig: Rig) -> None:
    await rig.batch()
    rig.server.replies = [httpx.Response(500), httpx.Response(503)]
    assert await rig.send_next() > 0
    assert await rig.send_next() > 0
    assert rig.depth().batches == 1
    assert await rig.send_next() == 0
    assert rig.depth().batches == 0
    assert len(rig.server.batches) == 1
    assert rig.uplink.health.failures == 0


async def test_a_lost_acknowledgement_doubles_nothing(rig: Rig) -> None:
    await rig.batch()
    (stored,) = rig.disk.submit(rig.spool.next, 0).result()
    await rig.uplink.send(stored)
    assert await rig.uplink.send(stored) == 0
    assert len(rig.server.batches) == 1


async def test_poison_is_set_aside_and_the_next_goes_through(rig: Rig) -> None:
    await rig.batch()
    await rig.batch()
    rig.server.replies = [refusal(422)]
    assert await rig.send_next() == 0
    assert await rig.send_next() == 0
    assert (len(rig.server.batches), rig.depth().batches, rig.depth().set_aside) == (1, 0, 1)
    beat = heartbeat(AGENT, 0, rig.depth(), [], None)
    assert (beat.dropped_batches, beat.refused_batches) == (0, 1)  # nothing was lost by the agent


@pytest.mark.parametrize("status", [401, 403, 408, 429, 500, 502, 503])
async def test_what_may_pass_keeps_the_batch(rig: Rig, status: int) -> None:
    await rig.batch()
    rig.server.replies = [refusal(status)]
    assert await rig.send_next() > 0
    assert rig.depth().batches == 1
    assert rig.depth().set_aside == 0


async def test_a_batch_from_our_own_wrong_clock_waits(rig: Rig) -> None:
    rig.server.time_offset = -600
    await rig.uplink.beat(heartbeat(AGENT, 0, Depth(), [], None))
    assert rig.uplink.health.clock_error_seconds == pytest.approx(600, abs=1)
    await rig.batch()
    rig.server.replies = [refusal(422, "sent_at")]
    assert await rig.send_next() > 0
    assert rig.depth().batches == 1


async def test_a_refusal_is_one_line(rig: Rig) -> None:
    await rig.batch()
    rig.server.replies = [httpx.Response(502, content=b"<html>\n<body>\n"), refusal(403, "Authorization")]
    await rig.send_next()
    assert rig.uplink.health.last_error == "HTTP 502 Bad Gateway"
    await rig.send_next()
    assert rig.uplink.health.last_error == "HTTP 403: Authorization: bad; fix"


async def test_retry_after_is_honoured(rig: Rig) -> None:
    await rig.batch()
    rig.server.replies = [refusal(429, **{"retry-after": "7"})]
    assert 7 <= await rig.send_next() <= 8


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("5", 5), ("0", 0), ("-3", 0), ("99999", 3600), ("soon", None), ("nan", None)],
)
def test_retry_after_forms(value: str, seconds: float | None) -> None:
    found = retry_after(httpx.Response(503, headers={"retry-after": value}))
    assert found == (seconds if seconds is None else pytest.approx(seconds, abs=2))


def test_retry_after_as_a_date() -> None:
    response = httpx.Response(503, headers={"retry-after": formatdate(time.time() + 60, usegmt=True)})
    assert retry_after(response) == pytest.approx(60, abs=2)


async def test_a_spool_that_cannot_write_is_said_and_polling_goes_on(rig: Rig) -> None:
    rig.disk.submit(rig.spool._db.execute, "pragma query_only = on").result()
    await rig.batch()
    assert rig.outbox.unwritten == 1
    rig.disk.submit(rig.spool._db.execute, "pragma query_only = off").result()
    await rig.batch()
    assert rig.depth().batches == 1


async def test_a_full_disk_stops_neither_delivery_nor_the_agent(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing can be deleted: the batch is sent again, and the server knows it."""
    monkeypatch.setattr(Uplink, "_failed", lambda uplink, reason: 0.01)
    await rig.batch()
    rig.disk.submit(rig.spool._db.execute, "pragma query_only = on").result()
    running = asyncio.create_task(rig.uplink.run())
    async with asyncio.timeout(5):
        await rig.server.arrived.wait()
        rig.server.arrived.clear()
        await rig.server.arrived.wait()
    assert not running.done()
    assert len(rig.server.batches) == 1
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    rig.disk.submit(rig.spool._db.execute, "pragma query_only = off").result()


async def test_an_answer_that_is_none_keeps_the_batch(rig: Rig) -> None:
    await rig.batch()
    other = msgspec.json.encode(ingest.BatchAnswer(uuid4(), "stored"))
    rig.server.replies = [httpx.Response(200, content=b"<html>"), httpx.Response(200, content=other)]
    assert await rig.send_next() > 0
    assert await rig.send_next() > 0
    assert rig.depth().batches == 1


async def test_backlog_is_drained_in_order_behind_live_data(rig: Rig) -> None:
    ids = []
    for age in (300, 200, 100):
        rig.outbox.add(poll(ts=age))
        batches = rig.outbox.take()
        rig.disk.submit(rig.spool.append, batches, int((time.time() - age) * 1000)).result()
        ids.append(batches[0][0])
    await rig.batch()
    running = asyncio.create_task(rig.uplink.run())
    async with asyncio.timeout(5):
        while len(rig.server.batches) < 4:
            rig.server.arrived.clear()
            await rig.server.arrived.wait()
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    assert [batch.id for batch in rig.server.batches][1:] == ids


async def test_heartbeat_says_how_things_are(rig: Rig) -> None:
    summary = ingest.RouterSummary(DEVICE, "R", "timeout", "late")
    await rig.uplink.beat(heartbeat(AGENT, 5, Depth(2, 300, 1, 4, 1), [summary], True))
    (beat,) = rig.server.heartbeats
    assert (beat.buffer_depth, beat.buffer_bytes, beat.oldest_buffered) == (2, 300, 1)
    assert (beat.dropped_batches, beat.refused_batches) == (4, 1)
    assert beat.routers == [summary]
    assert rig.uplink.health.clock_error_seconds == pytest.approx(0, abs=1)


async def test_a_heartbeat_that_fails_stops_nothing(rig: Rig) -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("no route", request=request)

    http = httpx.AsyncClient(base_url="https://x", transport=httpx.MockTransport(refuse))
    uplink = Uplink(http, rig.spool, rig.outbox, rig.disk)
    await uplink.beat(heartbeat(AGENT, 0, Depth(), [], None))
    assert uplink.health.clock_error_seconds is None
    await rig.batch()
    (stored,) = rig.disk.submit(rig.spool.next, 0).result()
    assert await uplink.send(stored) > 0
    assert "no route" in uplink.health.last_error
