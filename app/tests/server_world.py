"""What an integration test talks to: one tenant of the demo seed on a server, with an agent and somebody signed in."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import httpx
import msgspec
import psycopg
from fastapi import FastAPI
from feeder import HEADERS, Feeder, encode
from ispvm.settings import Settings
from ispvm.store.rollup import roll_up
from ispvm_contract import seed as seeds

ORIGIN = "https://monitor.test"


@dataclass
class World:
    """One tenant with the routers of the demo seed, an agent, somebody signed in, and a server to talk to."""

    settings: Settings
    tenant: str
    token: str
    seed: seeds.Seed
    app: FastAPI
    client: httpx.AsyncClient

    @property
    def feeder(self) -> Feeder:
        return Feeder(self.seed)

    async def send(self, message: msgspec.Struct, path: str = "batch", token: str | None = None) -> httpx.Response:
        return await self.post(encode(message), path, token)

    async def post(self, body: bytes, path: str = "batch", token: str | None = None) -> httpx.Response:
        headers = {**HEADERS, "Authorization": f"Bearer {token or self.token}"}
        return await self.client.post(f"/ingest/v1/{path}", content=body, headers=headers)

    async def sent(self, message: msgspec.Struct, path: str = "batch") -> dict[str, object]:
        answer = await self.send(message, path)
        assert answer.status_code == 200, answer.text
        body: dict[str, object] = answer.json()
        return body

    async def get(self, path: str, **parameters: object) -> httpx.Response:
        return await self.client.get(path, params={k: str(v) for k, v in parameters.items()})

    async def json(self, path: str, **parameters: object) -> dict[str, object]:
        answer = await self.get(path, **parameters)
        assert answer.status_code == 200, answer.text
        body: dict[str, object] = answer.json()
        return body

    def now(self) -> datetime:
        return datetime.now(UTC).replace(microsecond=0)

    async def devices(self) -> dict[str, dict[str, object]]:
        found = msgspec.convert((await self.json("/api/v1/devices"))["devices"], list[dict[str, object]])
        return {str(device["name"]): device for device in found}

    async def rolled_up(self) -> None:
        """Roll up everything that is marked; another worker may take some of it."""
        async with await psycopg.AsyncConnection.connect(self.settings.database.worker_dsn, autocommit=True) as worker:
            while await roll_up(worker, 50, all_marks=True):
                pass

    def count(self, table: str) -> int:
        with psycopg.connect(self.settings.database.owner_dsn) as connection:
            row = connection.execute(
                f"select count(*) from {table} where tenant_id = (select id from tenant where key = %s)", [self.tenant]
            ).fetchone()
        assert row is not None
        return int(row[0])
