from __future__ import annotations

import httpx
import pytest
from fastapi import FastAPI
from ispvm import refusal
from psycopg import OperationalError
from psycopg.errors import DiskFull, QueryCanceled
from psycopg_pool import PoolTimeout, TooManyRequests


@pytest.mark.parametrize(
    ("error", "path", "problem", "again"),
    [
        (PoolTimeout(), "/ingest/v1/batch", "no database connection", "5"),
        (OperationalError(), "/ingest/v1/batch", "no database connection", "5"),
        (TooManyRequests(), "/ingest/v1/batch", "too many requests wait for the database", "5"),
        (QueryCanceled(), "/ingest/v1/batch", "the database did not answer in time", "5"),
        (DiskFull(), "/ingest/v1/batch", "the database's disk is full", "60"),
        (QueryCanceled(), "/api/v1/series", "the query took too long", None),
    ],
)
async def test_what_the_database_cannot_do_now_is_503_and_says_when_to_come_back(
    error: Exception, path: str, problem: str, again: str | None
) -> None:
    app = FastAPI()
    refusal.install(app)

    @app.post(path)
    async def fail() -> None:
        raise error

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="https://monitor.test") as client:
        answer = await client.post(path)
    assert (answer.status_code, answer.json()["problem"]) == (503, problem)
    assert answer.headers.get("Retry-After") == again
