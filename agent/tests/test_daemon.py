"""The whole agent: a router and a server on real sockets, TLS on both sides."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import ssl
import sys
from pathlib import Path
from uuid import UUID, uuid4

import httpx
import pytest
import trustme
import zstandard
from agent_fakes import PASSWORD, FakeRouter, FakeServer, on_disk
from ispvm_agent import config, credentials, daemon, outbox
from ispvm_agent.spool import Spool


@pytest.fixture
def ca(tmp_path: Path) -> trustme.CA:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.crt"))
    return authority


def server_tls(ca: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("127.0.0.1").configure_cert(context)
    return context


def config_text(directory: Path, server_port: int, router_port: int) -> str:
    return f"""
schema_version = 1
[agent]
name = "pop-north"
tenant = "demo"
[server]
url = "https://127.0.0.1:{server_port}"
ca_file = "{directory}/ca.crt"
[polling]
fast_seconds = 1
medium_seconds = 1
slow_seconds = 1
[spool]
directory = "{directory}/state"
[[router]]
name = "CORE-NTH-1"
site = "north"
address = "127.0.0.1"
port = {router_port}
user = "ispvm"
tls = "ca"
ca_file = "{directory}/ca.crt"
credential = "routers"
"""


async def test_a_poll_travels_from_router_to_server(
    tmp_path: Path, ca: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = tmp_path / "credentials"
    secrets.mkdir()
    (secrets / credentials.SERVER_TOKEN).write_text("the-token\n")
    (secrets / credentials.router_credential("routers")).write_text(PASSWORD)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(secrets))
    monkeypatch.setattr(outbox, "GATHER_SECONDS", 0.1)
    server, router = FakeServer(), FakeRouter()
    async with server.serving(server_tls(ca)) as port, router.serving(tls=server_tls(ca)):
        settings = config.parse(config_text(tmp_path, port, router.port))
        running = asyncio.create_task(daemon.run(settings, metrics_port=0))
        async with asyncio.timeout(10):
            while len(server.batches) < 2:
                server.arrived.clear()
                await server.arrived.wait()
        running.cancel()
        await running
    first = server.batches[0]
    assert first.agent.name == "pop-north"
    assert server.authorizations == {"Bearer the-token"}
    assert [device.name for device in first.inventory_patch.devices] == ["CORE-NTH-1"]
    device = next(poll for poll in first.polls if poll.entity_type == "device")
    assert device.columns["device.mem_used_bytes"] == [400]
    assert device.columns["device.api.up"] == [True]
    interfaces = next(poll for poll in first.polls if poll.entity_type == "interface")
    assert interfaces.set is not None
    assert first.sets[interfaces.set] == ["ether1", "bridge"]
    assert interfaces.columns["interface.oper_up"] == [True, False]
    assert "interface.rx_bps" not in interfaces.columns
    assert server.heartbeats[0].routers[0].name == "CORE-NTH-1"
    assert router.logins == 1


DRIVER = """
import asyncio, sys
from pathlib import Path
from ispvm_agent import config, daemon, outbox, service
service.log_to_journal()
outbox.GATHER_SECONDS = 0.1
asyncio.run(daemon.run(config.load(Path(sys.argv[1])), metrics_port=0))
"""


def spooled(directory: Path) -> set[UUID]:
    """What is on disk, read beside a running agent."""
    path = directory / "state" / "spool.sqlite3"
    if not path.exists():
        return set()
    with contextlib.closing(sqlite3.connect(path, timeout=5)) as db:
        try:
            return {UUID(row[0]) for row in db.execute("select id from batch")}
        except sqlite3.OperationalError:  # not created yet
            return set()


def exposed(process: asyncio.subprocess.Process, directory: Path) -> bytes:
    """What others on the host can see or find: its arguments and environment, everything it keeps on disk."""
    proc = Path(f"/proc/{process.pid}")
    return b"\0".join([(proc / "cmdline").read_bytes(), (proc / "environ").read_bytes(), on_disk(directory / "state")])


def secrets_in(found: bytes) -> list[bytes]:
    return [secret for secret in (b"the-token", PASSWORD.encode()) if secret in found]


def test_the_search_for_secrets_can_fail(tmp_path: Path) -> None:
    assert secrets_in(b"authorization: Bearer the-token") == [b"the-token"]
    spool = Spool(tmp_path, 10**6, 10**9)
    spool.append([(uuid4(), zstandard.ZstdCompressor().compress(b"password of the router: " + PASSWORD.encode()))])
    assert secrets_in(on_disk(tmp_path)) == [PASSWORD.encode()]
    spool.close()


async def test_kill_9_and_an_outage_lose_and_double_nothing(tmp_path: Path, ca: trustme.CA) -> None:
    secrets = tmp_path / "credentials"
    secrets.mkdir()
    (secrets / credentials.SERVER_TOKEN).write_text("the-token")
    (secrets / credentials.router_credential("routers")).write_text(PASSWORD)
    environment = {**os.environ, "CREDENTIALS_DIRECTORY": str(secrets), "PYTHONPATH": os.pathsep.join(sys.path)}
    server, router = FakeServer(), FakeRouter()
    server.replies = [httpx.Response(503) for _ in range(1000)]

    async def start() -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable, "-c", DRIVER, str(tmp_path / "agent.toml"), env=environment, stderr=asyncio.subprocess.PIPE
        )

    async with server.serving(server_tls(ca)) as port, router.serving(tls=server_tls(ca)):
        (tmp_path / "agent.toml").write_text(config_text(tmp_path, port, router.port))
        first = await start()
        async with asyncio.timeout(20):
            while len(await asyncio.to_thread(spooled, tmp_path)) < 3:  # noqa: ASYNC110 - a file of another process
                await asyncio.sleep(0.1)
        seen = exposed(first, tmp_path)
        assert str(secrets).encode() in seen  # the directory is named, its content is not
        first.kill()
        _, first_log = await first.communicate()
        assert secrets_in(seen + first_log) == []
        before = await asyncio.to_thread(spooled, tmp_path)
        server.replies.clear()
        second = await start()
        async with asyncio.timeout(20):
            while not before <= {batch.id for batch in server.batches}:
                server.arrived.clear()
                await server.arrived.wait()
        second.terminate()
        _, log = await second.communicate()
    assert second.returncode == 0, log.decode()
    assert len({batch.id for batch in server.batches}) == len(server.batches)
    moments = [(poll.entity_type, poll.ts, *poll.columns) for batch in server.batches for poll in batch.polls]
    assert len(set(moments)) == len(moments)
    assert secrets_in(log) == []
