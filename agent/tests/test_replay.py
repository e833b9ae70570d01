"""`ispvm-agent replay`: seen beside a running agent, by time; sending at once."""

from __future__ import annotations

import asyncio
import json
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import UUID, uuid4

import httpx
import pytest
from agent_fakes import FakeServer
from ispvm_agent import cli, replay
from ispvm_agent.outbox import Outbox
from ispvm_agent.spool import Spool
from ispvm_agent.uplink import Uplink
from ispvm_contract import ingest

HOUR = 3_600_000
BEGIN = replay.moment("2026-11-22T10:00")


def fill(directory: Path, hours: int) -> list[UUID]:
    """One batch an hour from ten o'clock; room for all but the first two."""
    spool = Spool(directory, 10**6, 10**9)
    with ThreadPoolExecutor(1) as disk:
        outbox = Outbox(ingest.Agent("pop", "0"), spool, disk)
        device, ids = uuid4(), []
        outbox.describe(ingest.DevicePatch(device, "R", "s", "10.0.0.1"), [])
        for hour in range(hours):
            ts = BEGIN + hour * HOUR
            outbox.add(ingest.Poll(device, ts, "device", {"device.api.up": [True], "device.cpu_pct": [7]}))
            batches = outbox.take()
            spool.append(batches, ts)
            ids.append(batches[0][0])
    spool.max_bytes = spool.depth().bytes * 2 // 3
    spool.append([(uuid4(), b"")], BEGIN + hours * HOUR)
    (stored,) = spool.next(0)
    spool.set_aside(stored, "HTTP 422: polls[0]: bad; fix")
    spool._db.execute("delete from batch where body = ?", (b"",))
    spool.close()
    return ids


def test_waiting_dropped_and_refused_are_told_by_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ids = fill(tmp_path, 5)
    assert replay.show(tmp_path, "2026-11-22T13:30", "2026-11-22T16:00+01:00", as_json=True) == 0
    found = json.loads(capsys.readouterr().out)
    assert [batch["id"] for batch in found["waiting"]] == [str(ids[4])]
    assert found["waiting"][0]["from"] == "2026-11-22 14:00:00Z"
    assert (found["waiting"][0]["polls"], found["waiting"][0]["values"]) == (1, 2)
    assert found["dropped"] == found["refused"] == []
    assert replay.show(tmp_path, None, None, as_json=False) == 0
    text = capsys.readouterr().out
    assert text.startswith("2 batches wait")
    assert "dropped: 2 batches of 2026-11-22 10:00:00Z to 2026-11-22 11:00:00Z: the spool was full" in text
    assert f"refused: {ids[2]} of 2026-11-22 12:00:00Z: HTTP 422" in text


def test_what_cannot_be_read_is_an_error_with_a_fix(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert replay.show(tmp_path, None, None, as_json=False) == 1
    assert "as root on the agent's host" in capsys.readouterr().err
    assert replay.show(tmp_path, "yesterday", None, as_json=False) == 1
    assert "write a time such as" in capsys.readouterr().err


async def test_hurry_cuts_the_wait_for_the_next_try_short(tmp_path: Path) -> None:
    server = FakeServer()
    server.replies = [httpx.Response(503, headers={"retry-after": "3600"})]
    with ThreadPoolExecutor(1) as disk:
        spool: Spool = disk.submit(Spool, tmp_path, 10**6, 10**9).result()
        outbox = Outbox(ingest.Agent("pop", "0"), spool, disk)
        uplink = Uplink(server.client(), spool, outbox, disk)
        outbox.add(ingest.Poll(uuid4(), 1000, "device", {"device.api.up": [True]}))
        await outbox.flush()
        running = asyncio.create_task(uplink.run())
        async with asyncio.timeout(10):
            while not uplink.health.failures:  # noqa: ASYNC110 - nothing else tells
                await asyncio.sleep(0.01)
            while not server.batches:
                uplink.hurry.set()
                await asyncio.sleep(0.01)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        disk.submit(spool.close).result()


@pytest.mark.parametrize(("code", "said"), [(0, "tries to deliver now"), (1, "Unit not loaded; is it running?")])
def test_send_tells_the_unit(
    code: int, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[list[str]] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[bytes]:
        asked.append(command)
        return subprocess.CompletedProcess(command, code, b"", b"Unit not loaded")

    monkeypatch.setattr(replay.send_now, "__defaults__", (run,))
    assert cli.main(["replay", "--send"]) == code
    assert "--signal=SIGUSR1" in asked[0]
    told = capsys.readouterr()
    assert said in told.out + told.err
