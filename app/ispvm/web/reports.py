"""Pages of reports, and the one for whoever runs the appliance."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

from fastapi import APIRouter, Request
from starlette.responses import Response

from ispvm.health.advice import advise
from ispvm.health.platform import AgentLag
from ispvm.health.routes import cached_platform
from ispvm.refusal import RefusedError
from ispvm.reports import billing
from ispvm.reports.routes import Key, MonthName, P95Report, Tag, Zone, p95_report
from ispvm.series.overview import Agent
from ispvm.series.query import STATEMENT_MS
from ispvm.series.routes import cached_overview
from ispvm.store.pool import reading
from ispvm.web.auth import User
from ispvm.web.page import NotFoundError, PageUser, page

router = APIRouter(include_in_schema=False)
USUAL_TAG = "uplink:true"


@router.get("/reports/p95")
async def p95(
    request: Request,
    user: PageUser,
    month: MonthName = None,
    zone: Zone = None,
    device: UUID | None = None,
    key: Key = None,
    tag: Tag = USUAL_TAG,
) -> Response:
    """The 95th percentiles of a month, and a picture of one interface."""
    report, problem = None, ""
    try:
        report = P95Report.model_validate_json(await p95_report(request, user, month, zone, device, key, tag))
    except RefusedError as error:
        if error.status == 404:
            raise NotFoundError("There is no such interface") from error
        problem = f"{error.refusal.field}: {error.refusal.problem}; {error.refusal.fix}."
    budget = await request.app.state.budgets.of(request, user)
    return page(
        "p95.html",
        200 if report else 422,
        user=user,
        report=report,
        problem=problem,
        generated_until=await _generated_until(request, user, report) if report else None,
        months=billing.months(report.time_zone if report else budget.time_zone, datetime.now(UTC)),
        month=month,
        zone=zone,
        tag=tag,
        chosen=report.lines[0] if report and device and key else None,
    )


async def _generated_until(request: Request, user: User, report: P95Report) -> datetime | None:
    """Until when the month has history that a seed made up; None when all of it was measured."""
    async with reading(request.app.state.pool, user.tenant, STATEMENT_MS) as connection:
        rows = await connection.execute(
            "select least(upper(generated), %s) from tenant"
            " where id = current_tenant() and generated && tstzrange(%s, %s)",
            [report.end, report.start, report.end],
        )
        row = await rows.fetchone()
    return row[0] if row else None


def _lag(agent: Agent, tenant: str, now: datetime) -> AgentLag:
    heartbeat, batch = (
        (now - moment).total_seconds() if moment else None for moment in (agent.last_heartbeat, agent.last_batch)
    )
    return AgentLag(tenant, agent.name, heartbeat, batch, agent.buffer_depth, agent.dropped_batches)


@router.get("/upkeep")
async def upkeep(request: Request, user: PageUser) -> Response:
    """How the machine room does, and what to do about it, for the operator's administrators; agents are their own."""
    if user.role != "admin" or not user.operator:
        raise NotFoundError("This page is for administrators of the operator")
    platform = await cached_platform(request)
    found = await cached_overview(request, user)
    agents = [_lag(a, user.tenant_name, found.now) for a in found.agents.values() if not a.revoked]
    advice = advise(platform, request.app.state.settings.retention, agents)
    return page("upkeep.html", user=user, p=platform, agents=agents, advice=advice)
