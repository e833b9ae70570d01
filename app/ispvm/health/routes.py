"""Whether this process lives (/healthz) and can work (/readyz), and how the machine room does (/metrics)."""

from __future__ import annotations

import hashlib
import hmac
from datetime import UTC, datetime

from fastapi import APIRouter, Request
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse, Response

from ispvm.health import metrics
from ispvm.health.advice import advise
from ispvm.health.platform import Platform, read_agents, read_platform
from ispvm.settings import Settings

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


async def cached_platform(request: Request) -> Platform:
    """The machine room, read at most every ten seconds."""

    async def read() -> Platform:
        return await read_platform(request.app.state.pool, request.app.state.settings, datetime.now(UTC))

    found: Platform = await request.app.state.platform.get("platform", read)
    return found


def _may_scrape(request: Request) -> bool:
    """Whoever comes by the socket itself, which belongs to root and the proxy; through the proxy only with the token.

    The proxy always says for whom it asks.
    """
    if "x-forwarded-for" not in request.headers:
        return True
    wanted = request.app.state.settings.metrics_token_sha256
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    given = hashlib.sha256(token.encode()).hexdigest()
    return bool(wanted) and scheme.lower() == "bearer" and hmac.compare_digest(given, wanted)


@router.get("/metrics", include_in_schema=False)
async def scrape(request: Request) -> Response:
    """Prometheus text about all tenants together, for whoever runs the appliance."""
    if not _may_scrape(request):
        raise HTTPException(404)
    settings: Settings = request.app.state.settings
    platform = await cached_platform(request)
    agents = await read_agents(request.app.state.pool)
    body = metrics.text(platform, agents, advise(platform, settings.retention, agents))
    return Response(body, media_type=metrics.CONTENT_TYPE)
