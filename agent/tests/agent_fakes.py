"""A small router and a small server on real sockets, for tests."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import sqlite3
import ssl
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Literal

import httpx
import msgspec
import zstandard
from ispvm_agent.outbox import Outbox
from ispvm_agent.routeros.wire import encode_sentence
from ispvm_contract import ingest
from ispvm_contract.packed import unpack
from ispvm_contract.registry import registry

Words = list[str]
Answer = list[Words]
PASSWORD = "correct horse"


def rows(*found: dict[str, Any]) -> Answer:
    """Rows as a router prints them."""
    return [["!re", *(f"={key}={value}" for key, value in row.items())] for row in found] + [["!done"]]


def count(number: int) -> Answer:
    return [["!done", f"=ret={number}"]]


def trap(message: str) -> Answer:
    return [["!trap", f"=message={message}"], ["!done"]]


EMPTY: Answer = [["!empty"], ["!done"]]


def menus_v7() -> dict[str, Answer]:
    """What a healthy v7 router answers, by menu."""
    return {
        "/system/resource": rows(
            {"uptime": "1w2d3h4m5s", "version": "7.22.2 (stable)", "cpu-load": 7, "free-memory": 600,
             "total-memory": 1000, "free-hdd-space": 5000, "architecture-name": "arm64", "board-name": "CCR2004"}),
        "/system/identity": rows({"name": "123"}),
        "/system/routerboard": rows({"routerboard": "true", "model": "CCR2004-1G-12S+2XS", "serial-number": "HE1"}),
        "/system/health": rows({"name": "temperature", "value": "41", "type": "C"},
                               {"name": "psu1-state", "value": "ok", "type": ""}),
        "/system/clock": rows({"date": time.strftime("%Y-%m-%d", time.gmtime()),
                               "time": time.strftime("%H:%M:%S", time.gmtime()), "gmt-offset": "+00:00"}),
        "/system/ntp/client": rows({"enabled": "true", "status": "synchronized"}),
        "/interface": rows(
            {"name": "no", "default-name": "ether1", "type": "ether", "running": "true", "disabled": "false",
             "rx-byte": 1000, "tx-byte": 2000, "rx-error": 0, "tx-error": 0, "rx-drop": 0, "tx-drop": 0,
             "link-downs": 1},
            {"name": "bridge", "type": "bridge", "running": "false", "disabled": "true", "rx-byte": 5, "tx-byte": 6}),
        "/routing/bgp/connection": rows({"name": "up1", "remote.address": "192.0.2.1/32", "remote.as": 64500},
                                        {"name": "up2", "remote.address": "192.0.2.2", "remote.as": 64501}),
        "/routing/bgp/session": rows({"name": "up1-1", "remote.address": "192.0.2.1", "remote.as": 64500,
                                      "established": "true", "uptime": "3h2m", "prefix-count": 12}),
        "/routing/ospf/neighbor": rows({"router-id": "10.255.0.2", "address": "10.0.0.2", "interface": "ether1",
                                        "state": "Full", "adjacency": "1d2h"}),
        "/system/history": rows({".id": "*1", "by": "admin", "action": "changed ip address", "time": "14:27:01"}),
        "/interface/ethernet": rows({".id": "*1", "name": "no"}),
        "/interface/ethernet/monitor": rows(
            {"name": "no", "status": "link-ok", "rate": "10Gbps", "full-duplex": "true", "sfp-rx-power": "-4.215",
             "sfp-tx-power": "-2.1", "sfp-temperature": "41", "sfp-rx-loss": "false"}),
        "/ip/neighbor": rows({"interface": "no", "identity": "CORE2", "platform": "MikroTik",
                              "interface-name": "sfp1"}),
        "/routing/bfd/session": EMPTY,
        "/tool/netwatch": rows({"host": "192.0.2.9", "type": "simple", "status": "up", "disabled": "false"}),
        "/ip/pool": rows({"name": "pppoe", "ranges": "100.64.0.0/24"}),
        "/ip/pool/used": count(64),
        "/queue/simple": count(3),
        "/user/active": rows({"via": "api-ssl"}, {"via": "winbox"}),
        "/system/package": rows({"version": "7.22.2", "disabled": "false"}),
        "/system/device-mode": rows({"mode": "advanced", "flagged": "false"}),
        "/ppp/active": count(812),
        "/ip/dhcp-server/lease": count(40),
        "/ip/firewall/connection": count(99),
    }  # fmt: skip


class FakeRouter:
    """Answers prints by menu. Attributes switch the awkward behaviours on."""

    def __init__(self, menus: dict[str, Answer] | None = None) -> None:
        self.menus = menus_v7() if menus is None else menus
        self.echo_tags = True
        self.old_login = False
        self.password = PASSWORD
        self.silent_menus: set[str] = set()
        self.raw: Callable[[str], bytes | None] = lambda menu: None  # bytes instead of an answer
        self.hang_up_at_login = False
        self.logins = 0
        self.connections = 0
        self.commands: list[Words] = []
        self.reads: list[int] = []  # commands in each piece that arrived
        self.port = 0
        self._writers: set[asyncio.StreamWriter] = set()

    @contextlib.asynccontextmanager
    async def serving(self, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> AsyncIterator[FakeRouter]:
        server = await asyncio.start_server(self._serve, host, 0, ssl=tls)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            self.drop_all()

    def drop_all(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        buffer = b""
        try:
            while data := await reader.read(1 << 16):
                buffer += data
                sentences, buffer = split_commands(buffer)
                self.reads.append(len(sentences))
                for words in sentences:
                    self._answer(words, writer)
                await writer.drain()
        except OSError:
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    def _answer(self, words: Words, writer: asyncio.StreamWriter) -> None:
        tag = [word for word in words if word.startswith(".tag=")] if self.echo_tags else []
        if words[0] == "/login":
            if self.hang_up_at_login:
                writer.transport.abort()
                return
            answer = self._login(words)
        else:
            self.commands.append(words)
            menu = words[0].removesuffix("/print")
            if menu in self.silent_menus:
                return
            if (raw := self.raw(menu)) is not None:
                writer.write(raw)
                return
            answer = self.menus.get(menu, trap("no such command prefix"))
        writer.write(b"".join(encode_sentence([words[0], *tag, *words[1:]]) for words in answer))

    def _login(self, words: Words) -> Answer:
        self.logins += 1
        given = dict(word[1:].split("=", 1) for word in words if word.startswith("="))
        challenge = bytes(range(16))
        if self.old_login and "response" not in given:
            return [["!done", f"=ret={challenge.hex()}"]]
        if self.old_login:
            digest = hashlib.md5(b"\0" + self.password.encode() + challenge).hexdigest()
            return [["!done"]] if given["response"] == f"00{digest}" else trap("cannot log in")
        return [["!done"]] if given.get("password") == self.password else trap("invalid user name or password (6)")


def split_commands(buffer: bytes) -> tuple[list[Words], bytes]:
    """Complete sentences of a client (all words shorter than 16 kB) and the rest."""
    sentences: list[Words] = []
    words: Words = []
    at = done = 0
    while at < len(buffer):
        length, start = buffer[at], at + 1
        if length >= 0x80:
            if at + 2 > len(buffer):
                break
            length, start = int.from_bytes(buffer[at : at + 2], "big") & 0x3FFF, at + 2
        if start + length > len(buffer):
            break
        at = start + length
        if length:
            words.append(buffer[start:at].decode())
        else:
            sentences.append(words)
            words, done = [], at
    return sentences, buffer[done:]


def as_list(metric: str, column: ingest.Column) -> list[ingest.Value]:
    return unpack(registry().metrics[metric].kind, column) if isinstance(column, bytes) else column


def decoded(body: bytes) -> ingest.Batch:
    """A batch as the server reads it, its packed columns as lists."""
    raw = zstandard.ZstdDecompressor().decompress(body, max_output_size=ingest.MAX_DECOMPRESSED_BYTES)
    batch = msgspec.msgpack.decode(raw, type=ingest.Batch)
    for poll in batch.polls:
        poll.columns = {name: as_list(name, column) for name, column in poll.columns.items()}
    return batch


def taken(outbox: Outbox) -> list[ingest.Batch]:
    """What the outbox has gathered."""
    return [decoded(body) for _, body in outbox.take()]


def on_disk(state: Path) -> bytes:
    """Every file the agent keeps, and what its compressed batches hold."""
    files = [path.read_bytes() for path in state.iterdir() if path.is_file()]
    with contextlib.closing(sqlite3.connect(f"file:{state}/spool.sqlite3?mode=ro", uri=True, timeout=10)) as db:
        bodies = db.execute("select body from batch union all select body from set_aside").fetchall()
    unfold = zstandard.ZstdDecompressor().decompress
    return b"\0".join([*files, *(unfold(body, max_output_size=1 << 24) for (body,) in bodies)])


class FakeServer:
    """An ingest endpoint for httpx.MockTransport, or any handler: keeps what it is sent."""

    def __init__(self) -> None:
        self.batches: list[ingest.Batch] = []
        self.heartbeats: list[ingest.Heartbeat] = []
        self.authorizations: set[str] = set()
        self.replies: list[httpx.Response] = []  # given instead, first come first served
        self.rejected: list[ingest.Rejection] = []
        self.time_offset = 0.0
        self.arrived = asyncio.Event()

    def handle(self, path: str, authorization: str, body: bytes) -> httpx.Response:
        self.authorizations.add(authorization)
        if path == "/ingest/v1/heartbeat":
            self.heartbeats.append(msgspec.msgpack.decode(body, type=ingest.Heartbeat))
            answer = ingest.HeartbeatAnswer(int((time.time() + self.time_offset) * 1000))
            return httpx.Response(200, content=msgspec.json.encode(answer))
        if self.replies:
            return self.replies.pop(0)
        batch = decoded(body)
        status: Literal["stored", "duplicate"] = (
            "duplicate" if batch.id in {known.id for known in self.batches} else "stored"
        )
        if status == "stored":
            self.batches.append(batch)
        self.arrived.set()
        rejected, self.rejected = self.rejected, []
        return httpx.Response(200, content=msgspec.json.encode(ingest.BatchAnswer(batch.id, status, rejected)))

    def client(self, token: str = "t") -> httpx.AsyncClient:
        async def handler(request: httpx.Request) -> httpx.Response:
            return self.handle(request.url.path, request.headers["authorization"], await request.aread())

        return httpx.AsyncClient(base_url="https://server", transport=httpx.MockTransport(handler),
                                 headers={"authorization": f"Bearer {token}"})  # fmt: skip

    @contextlib.asynccontextmanager
    async def serving(self, tls: ssl.SSLContext) -> AsyncIterator[int]:
        """The same on a real HTTPS socket; yields the port."""

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                while True:
                    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                    headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in head[1:] if line)}
                    body = await reader.readexactly(int(headers["content-length"]))
                    response = self.handle(head[0].split(" ")[1], headers["authorization"], body)
                    line = f"HTTP/1.1 {response.status_code} X\r\ncontent-length: {len(response.content)}\r\n\r\n"
                    writer.write(line.encode() + response.content)
                    await writer.drain()
            except (asyncio.IncompleteReadError, OSError):
                writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()
