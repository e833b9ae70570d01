"""A receiver with a ledger for benchmarks: HTTPS, a batch is durable before it is acknowledged, may be killed any time.

python agent/bench/receiver.py PORT CERTIFICATE KEY LEDGER    -> "ready" on stdout once it accepts connections
"""

from __future__ import annotations

import asyncio
import sqlite3
import ssl
import sys
import time
from pathlib import Path
from typing import Literal
from uuid import UUID

import msgspec
import zstandard
from ispvm_contract import ingest

_SCHEMA = """
create table if not exists batch (id blob primary key, at_ms integer, oldest_ms integer, rows integer);
create table if not exists moment (
    device blob, ts integer, entity_type text, batch blob, primary key (ts, device, entity_type)
) without rowid;
create table if not exists doubled (device blob, ts integer, entity_type text);
"""


class Poll(msgspec.Struct):
    """What the ledger needs of `ingest.Poll`: its values are not looked at."""

    device: UUID
    ts: int
    entity_type: str
    set: str | None = None


class Batch(msgspec.Struct):
    """The same of `ingest.Batch`."""

    id: UUID
    sets: dict[str, list[str]] = {}
    polls: list[Poll] = []


class Receiver:
    """Stores the id of each batch and the moment of each poll once; what comes again in another batch is doubled."""

    def __init__(self, ledger: Path) -> None:
        """Open or create the ledger."""
        self._db = sqlite3.connect(ledger, isolation_level=None)
        self._db.execute("pragma journal_mode = wal")
        self._db.executescript(_SCHEMA)
        self._decoder = msgspec.msgpack.Decoder(Batch)

    def batch(self, body: bytes) -> bytes:
        """One transaction a batch, as the server does it."""
        raw = zstandard.ZstdDecompressor().decompress(body, max_output_size=ingest.MAX_DECOMPRESSED_BYTES)
        batch = self._decoder.decode(raw)
        polls = [(poll.device.bytes, poll.ts, poll.entity_type) for poll in batch.polls]
        rows = sum(len(batch.sets.get(poll.set or "", [""])) for poll in batch.polls)
        status: Literal["stored", "duplicate"] = "duplicate"
        with self._db:
            self._db.execute("begin immediate")
            facts = (batch.id.bytes, int(time.time() * 1000), min((poll[1] for poll in polls), default=0), rows)
            if self._db.execute("insert or ignore into batch values (?, ?, ?, ?)", facts).rowcount:
                status = "stored"
                for poll in polls:
                    if not self._db.execute(
                        "insert or ignore into moment values (?, ?, ?, ?)", (*poll, facts[0])
                    ).rowcount:
                        self._db.execute("insert into doubled values (?, ?, ?)", poll)
        return msgspec.json.encode(ingest.BatchAnswer(batch.id, status))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """HTTP/1.1, enough for the agent."""
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in head[1:] if line)}
                body = await reader.readexactly(int(headers["content-length"]))
                if "/batch" in head[0]:
                    answer = self.batch(body)
                else:
                    answer = msgspec.json.encode(ingest.HeartbeatAnswer(int(time.time() * 1000)))
                writer.write(f"HTTP/1.1 200 OK\r\ncontent-length: {len(answer)}\r\n\r\n".encode() + answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, OSError):
            writer.close()


async def main() -> None:
    """Serve until killed."""
    port, certificate, key, ledger = int(sys.argv[1]), sys.argv[2], sys.argv[3], Path(sys.argv[4])
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    server = await asyncio.start_server(Receiver(ledger).serve, "127.0.0.1", port, ssl=tls)
    print("ready", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
