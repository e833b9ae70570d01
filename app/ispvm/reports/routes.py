"""GET /api/v1/reports/…: 95th percentiles of a month as JSON, as CSV, and as a picture."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime
from typing import Annotated, Literal
from uuid import UUID
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from ispvm.refusal import RESPONSES, RefusedError
from ispvm.reports import billing
from ispvm.series.budget import Budget, Budgets
from ispvm.series.cache import CLOSED_MONTH_SECONDS, OPEN_MONTH_SECONDS, Answers, encoded_response
from ispvm.store.history import SLOT_S, five_minute_means
from ispvm.store.pool import Connection
from ispvm.web.auth import SignedIn, User

router = APIRouter(prefix="/api/v1/reports", tags=["reports"], responses=RESPONSES)
COLUMNS = (
    *("month", "time_zone", "router", "interface", "comment", "capacity_bps"),
    *("in_p95_bps", "out_p95_bps", "billable", "billable_bps"),
    *("expected_samples", "in_samples", "out_samples", "in_missing_pct", "out_missing_pct"),
)
RX, TX = "interface.rx_bps", "interface.tx_bps"

MonthName = Annotated[
    str | None,
    Query(pattern=r"^(19[7-9]\d|20\d\d|21\d\d)-(0[1-9]|1[0-2])$", description="YYYY-MM; default: this month"),
]
Zone = Annotated[str | None, Query(max_length=64, description="IANA time zone; default: the tenant's")]
Key = Annotated[str | None, Query(max_length=255, description="an interface of `device`")]
PictureKey = Annotated[str, Query(max_length=255)]
Tag = Annotated[str, Query(max_length=100, description="which interfaces, when `device` is left out")]


class DirectionOut(BaseModel):
    """One direction over the month in bit/s; null when nothing was measured."""

    p95_bps: float | None
    mean_bps: float | None
    max_bps: float | None
    samples: int = Field(description="five minutes that were measured")
    missing_pct: float = Field(description="share of the five minutes that were not; they count for nothing")


class LineOut(BaseModel):
    """One interface."""

    device: UUID
    device_name: str
    key: str
    name: str
    comment: str
    capacity_bps: int | None
    received: DirectionOut
    sent: DirectionOut
    billable_bps: float | None = Field(description="the larger of the two percentiles")
    billable: Literal["received", "sent"] | None


class P95Report(BaseModel):
    """95th percentiles of five-minute means, nearest rank."""

    month: str
    time_zone: str
    start: datetime
    end: datetime
    until: datetime = Field(description="what is after it lies in the future")
    expected: int = Field(description="five minutes from `start` to `until`")
    lines: list[LineOut]


class P95Picture(BaseModel):
    """A month of one interface in at most 600 places, and the lines to draw across it."""

    month: str
    time_zone: str
    end: datetime
    step_s: int
    t: list[int] = Field(description="start of each place, seconds since 1970, UTC")
    received: list[float | None]
    received_high: list[float | None] = Field(description="highest five minutes of each place")
    sent: list[float | None]
    sent_high: list[float | None]
    received_p95: float | None
    sent_p95: float | None


def _month(name: str | None, zone: str | None, budget: Budget) -> tuple[billing.Month, str]:
    """The month asked for, and its zone; raises RefusedError naming the parameter."""
    wanted = zone or budget.time_zone
    now = datetime.now(UTC)
    try:
        ZoneInfo(wanted)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise RefusedError(
            422, "zone", f"there is no time zone {wanted!r}", "give one such as Europe/Berlin"
        ) from error
    try:
        return billing.month(name or billing.months(wanted, now, 1)[0], wanted, now), wanted
    except ValueError as error:
        raise RefusedError(422, "month", str(error), "ask for this month or one before") from error


async def _interfaces(
    connection: Connection, budget: Budget, device: UUID | None, key: str | None, tag: str
) -> list[tuple[int, UUID, str, str, str, str, int | None]]:
    """Interfaces of a router, or all with a tag: entity, router, its name, key, name, comment, capacity."""
    rows = await connection.execute(
        "select e.id, d.uuid, d.name, e.key, e.name, coalesce(e.attributes ->> 'comment', ''), e.capacity_bps"
        " from device d join entity e on e.device_id = d.id and e.type = 'interface'"
        " where d.tenant_id = current_tenant() and (%(device)s::uuid is null or d.uuid = %(device)s)"
        " and (%(key)s::text is null or e.key = %(key)s)"
        " and (%(device)s::uuid is not null or e.tags @> array[%(tag)s]) order by d.name, e.id limit %(limit)s",
        {"device": device, "key": key, "tag": tag, "limit": budget.max_entities + 1},
    )
    found = [row async for row in rows]
    if device is not None and not found:
        raise RefusedError(404, "device", f"no such interface on device {device}", "see /api/v1/devices")
    budget.check_entities(len(found), "name one router with `device`, or a rarer `tag`")
    return found


def _out(of: billing.Direction) -> DirectionOut:
    return DirectionOut(
        p95_bps=of.p95_bps,
        mean_bps=of.mean_bps,
        max_bps=of.max_bps,
        samples=of.samples,
        missing_pct=of.missing_pct,
    )


async def p95_report(
    request: Request, user: User, month: str | None, zone: str | None, device: UUID | None, key: str | None, tag: str
) -> bytes:
    """The encoded P95Report."""
    if key is not None and device is None:
        raise RefusedError(422, "device", "is needed with `key`", "name the router of the interface")
    budgets: Budgets = request.app.state.budgets
    budget = await budgets.of(request, user)
    wanted, zone_name = _month(month, zone, budget)
    budget.check_range(wanted.start, wanted.end)

    async def read() -> bytes:
        async with budgets.query(request, user) as connection:
            found = await _interfaces(connection, budget, device, key, tag)
            means = await five_minute_means(connection, [row[0] for row in found], [RX, TX], wanted.start, wanted.until)
        lines = []
        for entity, uuid, device_name, port, name, comment, capacity in found:
            received, sent = (billing.direction(means[entity, metric]) for metric in (RX, TX))
            known = [
                (one.p95_bps, way) for one, way in ((received, "received"), (sent, "sent")) if one.p95_bps is not None
            ]
            bps, way = max(known, default=(None, None))
            lines.append(
                LineOut.model_validate(
                    {
                        "device": uuid,
                        "device_name": device_name,
                        "key": port,
                        "name": name,
                        "comment": comment,
                        "capacity_bps": capacity,
                        "received": _out(received),
                        "sent": _out(sent),
                        "billable_bps": bps,
                        "billable": way,
                    }
                )
            )
        report = P95Report(
            month=wanted.name,
            time_zone=zone_name,
            start=wanted.start,
            end=wanted.end,
            until=wanted.until,
            expected=wanted.slots,
            lines=lines,
        )
        return report.model_dump_json().encode()

    answers: Answers = request.app.state.answers
    seconds = CLOSED_MONTH_SECONDS if wanted.over else OPEN_MONTH_SECONDS
    return await answers.get((user.tenant, "p95", wanted.name, zone_name, device, key, tag), seconds, read)


@router.get("/p95", response_model=P95Report)
async def p95(
    request: Request,
    user: SignedIn,
    month: MonthName = None,
    zone: Zone = None,
    device: UUID | None = None,
    key: Key = None,
    tag: Tag = "uplink:true",
) -> Response:
    """95th percentile of a month for each interface: one, those of a router, or those with a tag."""
    return encoded_response(request, await p95_report(request, user, month, zone, device, key, tag))


@router.get("/p95.csv", response_class=Response, responses={200: {"content": {"text/csv": {}}}})
async def p95_csv(
    request: Request,
    user: SignedIn,
    month: MonthName = None,
    zone: Zone = None,
    device: UUID | None = None,
    key: Key = None,
    tag: Tag = "uplink:true",
) -> Response:
    """The same as a table: RFC 4180, UTF-8, bit/s."""
    report = P95Report.model_validate_json(await p95_report(request, user, month, zone, device, key, tag))
    out = io.StringIO()
    table = csv.writer(out)
    table.writerow(COLUMNS)
    for line in report.lines:
        table.writerow(
            [
                report.month,
                report.time_zone,
                *(billing.safe_cell(text) for text in (line.device_name, line.name, line.comment)),
                line.capacity_bps,
                *(None if bps is None else round(bps) for bps in (line.received.p95_bps, line.sent.p95_bps)),
                {"received": "in", "sent": "out", None: None}[line.billable],
                None if line.billable_bps is None else round(line.billable_bps),
                report.expected,
                line.received.samples,
                line.sent.samples,
                f"{line.received.missing_pct:.3f}",
                f"{line.sent.missing_pct:.3f}",
            ]
        )
    return encoded_response(request, out.getvalue().encode(), "text/csv; charset=utf-8", f"p95-{report.month}.csv")


@router.get("/p95/picture", response_model=P95Picture)
async def p95_picture(
    request: Request, user: SignedIn, device: UUID, key: PictureKey, month: MonthName = None, zone: Zone = None
) -> Response:
    """A month of one interface to draw: mean and highest five minutes of each place, and both percentiles."""
    budgets: Budgets = request.app.state.budgets
    budget = await budgets.of(request, user)
    wanted, zone_name = _month(month, zone, budget)
    budget.check_range(wanted.start, wanted.end)

    async def read() -> bytes:
        async with budgets.query(request, user) as connection:
            ((entity, *_), *_) = await _interfaces(connection, budget, device, key, "")
            means = await five_minute_means(connection, [entity], [RX, TX], wanted.start, wanted.until)
        slots = int((wanted.end - wanted.start).total_seconds()) // SLOT_S
        received, sent = (billing.picture(means[entity, metric], slots) for metric in (RX, TX))
        first = int(wanted.start.timestamp())
        drawn = P95Picture(
            month=wanted.name,
            time_zone=zone_name,
            end=wanted.end,
            step_s=received.step_s,
            t=[first + place * received.step_s for place in range(len(received.mean))],
            received=received.mean,
            received_high=received.high,
            sent=sent.mean,
            sent_high=sent.high,
            received_p95=billing.percentile(means[entity, RX]),
            sent_p95=billing.percentile(means[entity, TX]),
        )
        return drawn.model_dump_json().encode()

    seconds = CLOSED_MONTH_SECONDS if wanted.over else OPEN_MONTH_SECONDS
    answers: Answers = request.app.state.answers
    key_of = (user.tenant, "p95-picture", wanted.name, zone_name, device, key)
    return encoded_response(request, await answers.get(key_of, seconds, read))
