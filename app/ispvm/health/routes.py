"""Whether this process lives (/healthz) and can work (/readyz)."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import PlainTextResponse

router = APIRouter(tags=["health"])


@router.get("/healthz", response_class=PlainTextResponse)
async def healthz() -> str:
    """The process answers."""
    return "ok\n"


@router.get("/readyz", response_class=PlainTextResponse)
async def readyz(request: Request) -> str:
    """The process answers and so does the database; 503 otherwise."""
    async with request.app.state.pool.connection() as connection:
        await connection.execute("select 1")
    return "ok\n"
