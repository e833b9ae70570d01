"""POST /ingest/v1/batch and /ingest/v1/heartbeat."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import structlog
from fastapi import APIRouter, Request
from ispvm_contract.compatibility import compatibility, minor_of
from ispvm_contract.ingest import MAX_FUTURE_SECONDS, Batch, BatchAnswer, Heartbeat, HeartbeatAnswer, Refusal
from psycopg.types.json import Jsonb
from starlette.responses import Response

from ispvm.ingest.decode import check_limits, read
from ispvm.ingest.known import Taken, moment
from ispvm.ingest.senders import Sender, Senders, token_hash
from ispvm.ingest.store import SenderChangedError, store
from ispvm.refusal import RETRY_SECONDS, RefusedError
from ispvm.settings import Settings
from ispvm.store.pool import Connection, Pool, transaction

log = structlog.get_logger("ispvm.ingest")
router = APIRouter(prefix="/ingest/v1", tags=["ingest"])
# OpenAPI components of the contract's types; the application adds them to its document.
CONTRACT_SCHEMAS: dict[str, Any] = {}


class Gate:
    """How many batches are in hand at once. Each may unfold to its full size in memory, so there must be an end."""

    def __init__(self, limit: int) -> None:
        """`limit` batches, not one more."""
        self.limit, self.inside = limit, 0

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Inside, or refused with 429 and the time to come back."""
        if self.inside >= self.limit:
            raise RefusedError(
                429,
                "server",
                f"{self.inside} batches are being stored, the limit is {self.limit}",
                f"send it again in {RETRY_SECONDS} s",
                {"Retry-After": str(RETRY_SECONDS)},
            )
        self.inside += 1
        try:
            yield
        finally:
            self.inside -= 1


def _documented(body: type[msgspec.Struct], answer: type[msgspec.Struct]) -> dict[str, Any]:
    """OpenAPI for a route whose types are the contract's."""
    (body_schema, answer_schema, refusal), definitions = msgspec.json.schema_components(
        (body, answer, Refusal), ref_template="#/components/schemas/{name}"
    )
    CONTRACT_SCHEMAS.update(definitions)
    failed = {"description": "Refused", "content": {"application/json": {"schema": refusal}}}
    content = {media: {"schema": body_schema} for media in ("application/msgpack", "application/json")}
    return {
        "requestBody": {"required": True, "content": content},
        "responses": {
            "200": {"description": "Durable", "content": {"application/json": {"schema": answer_schema}}},
            **dict.fromkeys(("401", "403", "413", "415", "422", "426", "429", "503"), failed),
        },
    }


def _json(value: msgspec.Struct) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")


@router.post("/batch", openapi_extra=_documented(Batch, BatchAnswer))
async def batch(request: Request) -> Response:
    """Store a batch exactly once; 200 means it is on disk."""
    pool: Pool = request.app.state.pool
    settings: Settings = request.app.state.settings
    senders: Senders = request.app.state.senders
    token = token_hash(request)
    sender = await senders.remembered(pool, token)
    gate: Gate = request.app.state.gate
    with gate.entered():
        message = await read(request, Batch)
        check_limits(message)
        _check_version(message.agent.version)
        now = datetime.now(UTC)
        _check_clock(message.sent_at, now)
        taken = Taken.at(now, settings.retention.raw_days)
        try:
            answer = await store(pool, token, sender, message, taken)
        except SenderChangedError:
            sender = await senders.looked_up(pool, token)
            answer = await store(pool, token, sender, message, taken)
    if answer.rejected:
        log.warning(
            "parts of a batch were rejected",
            agent=sender.name,
            count=len(answer.rejected),
            first=answer.rejected[0].reason,
        )
    return _json(answer)


def _check_version(agent: str) -> None:
    """Refuse what the compatibility matrix does not promise; the agent keeps its batches meanwhile."""
    known = compatibility()
    if fault := known.agent_fault(agent):
        takes = f"ispvm-agent/{known.oldest_agent}-{known.server}"
        raise RefusedError(426, "agent.version", fault, "see /compatibility on this server", {"Upgrade": takes})


async def _note_version(pool: Pool, sender: Sender, version: str) -> None:
    """An agent that is refused is not online, but people see why."""
    async with transaction(pool, sender.tenant) as connection:
        await connection.execute("update agent set version = %s where id = %s", [version, sender.id])


def _moment(field: str, epoch_ms: int) -> datetime:
    """A time of a message; refused by its field's name when it is none."""
    try:
        return moment(epoch_ms)
    except ValueError as error:
        raise RefusedError(422, field, str(error), "send milliseconds since 1970, UTC") from error


def _check_clock(sent_at: int, now: datetime) -> None:
    late = _moment("sent_at", sent_at) - now
    if late > timedelta(seconds=MAX_FUTURE_SECONDS):
        raise RefusedError(
            422,
            "sent_at",
            f"{late.total_seconds():.0f} s in the future, the limit is {MAX_FUTURE_SECONDS}",
            "set the agent's clock; nothing of this batch was stored",
        )


@router.post("/heartbeat", openapi_extra=_documented(Heartbeat, HeartbeatAnswer))
async def heartbeat(request: Request) -> Response:
    """Note that an agent lives, and how it gets on with its routers."""
    pool: Pool = request.app.state.pool
    senders: Senders = request.app.state.senders
    sender = await senders.looked_up(pool, token_hash(request))
    message = await read(request, Heartbeat)
    now = datetime.now(UTC)
    if compatibility().agent_fault(message.agent.version) and minor_of(message.agent.version):
        await _note_version(pool, sender, message.agent.version)
    _check_version(message.agent.version)
    started, sent = _moment("started_at", message.started_at), _moment("sent_at", message.sent_at)
    oldest = _moment("oldest_buffered", message.oldest_buffered) if message.oldest_buffered else None
    async with transaction(pool, sender.tenant) as connection:
        await connection.execute(
            "update agent set version = %s, capabilities = %s, started_at = %s, last_heartbeat = %s,"
            " clock_error_s = %s, clock_synchronised = %s, buffer_depth = %s, buffer_bytes = %s, oldest_buffered = %s,"
            " dropped_batches = %s, refused_batches = %s where id = %s",
            [
                message.agent.version,
                message.agent.capabilities,
                started,
                now,
                (sent - now).total_seconds(),
                message.clock_synchronised,
                message.buffer_depth,
                message.buffer_bytes,
                oldest,
                message.dropped_batches,
                message.refused_batches,
                sender.id,
            ],
        )
        await _routers(connection, sender, message, now)
    return _json(HeartbeatAnswer(int(now.timestamp() * 1000)))


async def _routers(connection: Connection, sender: Sender, message: Heartbeat, now: datetime) -> None:
    rows = await connection.execute(
        "select uuid, id from device where uuid = any(%s) and site_id = any(%s)",
        [[r.device for r in message.routers], list(sender.sites)],
    )
    devices = {uuid: device async for uuid, device in rows}
    known = [
        (
            devices[r.device],
            sender.tenant,
            sender.id,
            r.state,
            r.detail,
            _moment(f"routers[{at}].last_good", r.last_good) if r.last_good else None,
            r.poll_ms,
            r.bytes_per_poll,
            Jsonb(r.disabled_collectors),
            r.ms_per_minute,
            r.bytes_per_minute,
            r.slowed,
            now,
        )
        for at, r in enumerate(message.routers)
        if r.device in devices
    ]
    known.sort(key=lambda row: row[0])  # the same order everywhere: no deadlocks
    async with connection.cursor() as cursor:
        await cursor.executemany(
            "insert into agent_router (device_id, tenant_id, agent_id, state, detail, last_good, poll_ms,"
            " bytes_per_poll, disabled_collectors, ms_per_minute, bytes_per_minute, slowed, at)"
            " values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"
            " on conflict (device_id) do update set agent_id = excluded.agent_id, state = excluded.state,"
            " detail = excluded.detail, last_good = excluded.last_good, poll_ms = excluded.poll_ms,"
            " bytes_per_poll = excluded.bytes_per_poll, disabled_collectors = excluded.disabled_collectors,"
            " ms_per_minute = excluded.ms_per_minute, bytes_per_minute = excluded.bytes_per_minute,"
            " slowed = excluded.slowed, at = excluded.at",
            known,
        )
