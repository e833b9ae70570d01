"""Which versions work together: for programs, and as a page with this tenant's own agents beside the promises."""

from __future__ import annotations

import msgspec
from fastapi import APIRouter, Request
from ispvm_contract.compatibility import compatibility
from pydantic import BaseModel, Field
from starlette.responses import HTMLResponse, Response

from ispvm import __version__
from ispvm.refusal import RESPONSES
from ispvm.series.cache import encoded_response
from ispvm.series.query import STATEMENT_MS
from ispvm.store.pool import reading
from ispvm.web.auth import SignedIn
from ispvm.web.page import PageUser, page

router = APIRouter()


class AgentVerdict(BaseModel):
    """One of the tenant's agents against the matrix."""

    name: str
    version: str | None = Field(description="null before its first heartbeat")
    problem: str | None = Field(description="why this server refuses it; null when it does not")


class CompatibilityOut(BaseModel):
    """The matrix this server enforces, and how this tenant's agents stand."""

    server: str
    agents: list[AgentVerdict]
    matrix: dict[str, object] = Field(description="SBOM/compatibility.yml as JSON")


async def _agents(request: Request, tenant: int) -> list[AgentVerdict]:
    async with reading(request.app.state.pool, tenant, STATEMENT_MS) as connection:
        rows = await connection.execute(
            "select name, version from agent where tenant_id = current_tenant() and revoked_at is null"
            " order by name limit 1000"
        )
        found = [(name, version) async for name, version in rows]
    known = compatibility()
    return [
        AgentVerdict(name=name, version=version, problem=known.agent_fault(version) if version else None)
        for name, version in found
    ]


@router.get("/api/v1/compatibility", tags=["dashboard"], responses=RESPONSES, response_model=CompatibilityOut)
async def compatibility_json(request: Request, user: SignedIn) -> Response:
    """What this server works with, what it was tested with, and which of the tenant's agents it refuses."""
    agents = [agent.model_dump() for agent in await _agents(request, user.tenant)]
    body = {"server": __version__, "agents": agents, "matrix": compatibility()}
    return encoded_response(request, msgspec.json.encode(body))


@router.get("/compatibility", include_in_schema=False)
async def compatibility_page(request: Request, user: PageUser) -> HTMLResponse:
    """The same for people."""
    agents = await _agents(request, user.tenant)
    return page("compatibility.html", user=user, agents=agents, matrix=compatibility(), server=__version__)
