"""From request bytes to contract types, with every size bounded before it costs anything."""

from __future__ import annotations

import re
import zlib
from typing import TypeVar

import msgspec
import zstandard
from fastapi import Request
from ispvm_contract.ingest import MAX_BODY_BYTES, MAX_DECOMPRESSED_BYTES, MAX_EVENTS, MAX_METRICS, Batch
from ispvm_contract.packed import length

from ispvm.refusal import RefusedError

T = TypeVar("T")


def _too_big(field: str, limit: int) -> RefusedError:
    return RefusedError(413, field, f"larger than {limit} bytes", "send the polls in several smaller batches")


async def read_body(request: Request) -> bytes:
    """The body as sent; refused as soon as it is known to be longer than the limit."""
    length = request.headers.get("content-length", "0")
    if length.isdecimal() and int(length) > MAX_BODY_BYTES:
        raise _too_big("body", MAX_BODY_BYTES)
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > MAX_BODY_BYTES:
            raise _too_big("body", MAX_BODY_BYTES)
        parts.append(part)
    return b"".join(parts)


def decompress(body: bytes, encoding: str, limit: int = MAX_DECOMPRESSED_BYTES) -> bytes:
    """Undo Content-Encoding, never producing more than `limit` bytes."""
    try:
        if encoding == "zstd":
            with zstandard.ZstdDecompressor().stream_reader(body) as reader:
                plain = reader.read(limit + 1)
        elif encoding == "gzip":
            inflate = zlib.decompressobj(wbits=31)
            plain = inflate.decompress(body, limit + 1)
            if len(plain) <= limit and not inflate.eof:
                raise zlib.error("it ends too early")
        elif encoding in ("", "identity"):
            plain = body
        else:
            raise RefusedError(415, "Content-Encoding", f"{encoding!r} is not known", "use zstd, gzip or identity")
    except (zstandard.ZstdError, zlib.error) as error:
        raise RefusedError(422, "body", f"is not {encoding}: {error}", "send the whole compressed body") from error
    if len(plain) > limit:
        raise _too_big("body after decompression", limit)
    return plain


def decode(body: bytes, content_type: str, kind: type[T]) -> T:
    """MessagePack or JSON as the contract's type; a fault names the field."""
    media = content_type.partition(";")[0].strip().lower()
    try:
        if media in ("application/msgpack", "application/vnd.msgpack", "application/x-msgpack"):
            return msgspec.msgpack.decode(body, type=kind)
        if media == "application/json":
            return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        text, _, where = str(error).partition(" - at ")
        path = re.search(r"`\$\.?([^`]*)`", where)
        field = (path[1] if path else "") or "body"
        raise RefusedError(422, field, text, "see the ingest v1 schema") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RefusedError(422, "body", f"is not {media}: {error}", "encode the whole message") from error
    raise RefusedError(
        415, "Content-Type", f"{media or 'absent'} is not known", "use application/msgpack or application/json"
    )


async def read(request: Request, kind: type[T]) -> T:
    """The request's message."""
    body = await read_body(request)
    plain = decompress(body, request.headers.get("content-encoding", "").strip().lower())
    return decode(plain, request.headers.get("content-type", ""), kind)


def check_limits(batch: Batch) -> None:
    """The limits that types cannot say."""
    values = sum(length(name, column) for poll in batch.polls for name, column in poll.columns.items())
    if values > MAX_METRICS:
        raise RefusedError(
            413, "polls", f"{values} values, the limit is {MAX_METRICS}", "send the polls in several batches"
        )
    if len(batch.events) > MAX_EVENTS:
        raise RefusedError(
            413,
            "events",
            f"{len(batch.events)} events, the limit is {MAX_EVENTS}",
            "send the events in several batches",
        )
