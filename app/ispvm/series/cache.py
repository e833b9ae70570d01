"""Caches with one computation at a time per key: of objects, and of encoded answers."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine, Hashable
from typing import Any, Generic, Protocol, TypeVar

from fastapi import Request
from fastapi.routing import APIRoute
from starlette.responses import Response

from ispvm.web.auth import known_user

T = TypeVar("T")

# How long answers live, in seconds. What is wrong now must be seen soon; the worst of the last minutes changes slowly.
SUMMARY_SECONDS, TOP_SECONDS, SERIES_SECONDS = 10.0, 30.0, 5.0
# Reports: of the running month, and of one that is over (late data may still change it).
OPEN_MONTH_SECONDS, CLOSED_MONTH_SECONDS = 60.0, 600.0


class _Flight(Generic[T]):
    """Whoever asks while a value is being made waits for that one."""

    def __init__(self) -> None:
        """Nothing is being made."""
        self._making: dict[Hashable, asyncio.Task[T]] = {}

    async def once(self, key: Hashable, make: Callable[[], Awaitable[T]]) -> T:
        """What `make` returns. An error is given to all who wait."""
        task = self._making.get(key)
        if task is None:
            task = self._making[key] = asyncio.ensure_future(make())
            task.add_done_callback(lambda _: self._making.pop(key, None))
        # One impatient caller must not cancel the value for the others.
        return await asyncio.shield(task)


class Cache(Generic[T]):
    """Objects by key for `seconds`, in memory."""

    def __init__(self, seconds: float, size: int = 1000) -> None:
        """`seconds` is how long a value lives, `size` how many are kept."""
        self._seconds, self._size = seconds, size
        self._values: OrderedDict[Hashable, tuple[float, T]] = OrderedDict()
        self._flight: _Flight[T] = _Flight()

    def peek(self, key: Hashable) -> T | None:
        """The value, if it is there and alive."""
        found = self._values.get(key)
        return found[1] if found is not None and found[0] > time.monotonic() else None

    async def get(self, key: Hashable, make: Callable[[], Awaitable[T]]) -> T:
        """The cached value, or what `make` returns; an error is not kept."""
        found = self._values.get(key)
        if found is not None and found[0] > time.monotonic():
            return found[1]

        async def kept() -> T:
            value = await make()
            self.put(key, value)
            return value

        return await self._flight.once(key, kept)

    def put(self, key: Hashable, value: T) -> None:
        """Keep a value."""
        self._values[key] = (time.monotonic() + self._seconds, value)
        self._values.move_to_end(key)
        while len(self._values) > self._size:
            self._values.popitem(last=False)

    def forget(self, key: Hashable) -> None:
        """Drop one value."""
        self._values.pop(key, None)


class Keeper(Protocol):
    """Where encoded answers are kept."""

    async def read(self, key: str) -> bytes | None:
        """The value, if it is there and alive."""

    async def write(self, key: str, value: bytes, seconds: float) -> None:
        """Keep a value for so long."""


class Memory:
    """Keeps answers in this process, the least recently written dropped first."""

    def __init__(self, size_bytes: int = 32 << 20) -> None:
        """`size_bytes` bounds the sum of all values."""
        self._limit, self._size = size_bytes, 0
        self._values: OrderedDict[str, tuple[float, bytes]] = OrderedDict()

    async def read(self, key: str) -> bytes | None:
        """The value, if it is there and alive."""
        found = self._values.get(key)
        return found[1] if found is not None and found[0] > time.monotonic() else None

    async def write(self, key: str, value: bytes, seconds: float) -> None:
        """Keep a value for so long."""
        if (old := self._values.pop(key, None)) is not None:
            self._size -= len(old[1])
        self._values[key] = (time.monotonic() + seconds, value)
        self._size += len(value)
        while self._size > self._limit:
            self._size -= len(self._values.popitem(last=False)[1][1])


Question = tuple[int, str, bytes]


class Answers:
    """Encoded answers, each made once however many ask for it."""

    def __init__(self, keeper: Keeper | None, questions: int = 10_000) -> None:
        """Without a keeper nothing outlives its making; `questions` bounds how many are known again."""
        self._keeper = keeper
        self._flight: _Flight[bytes] = _Flight()
        self._names: OrderedDict[Question, str] = OrderedDict()
        self._questions = questions

    async def get(self, key: tuple[object, ...], seconds: float, make: Callable[[], Awaitable[bytes]]) -> bytes:
        """The kept answer, or what `make` returns, which is then kept for `seconds`. A key begins with its tenant."""
        name = _name(key)

        async def read_or_make() -> bytes:
            if self._keeper is None:
                return await make()
            value = await self._keeper.read(name)
            if value is None:
                value = await make()
                await self._keeper.write(name, value, seconds)
            return value

        return await self._flight.once(name, read_or_make)

    async def respond(
        self, request: Request, key: tuple[int, *tuple[object, ...]], seconds: float,
        make: Callable[[], Awaitable[bytes]],
    ) -> Response:  # fmt: skip
        """`get` as the answer to this request, and to all that ask it in the same words: see `Kept`."""
        body = await self.get(key, seconds, make)
        self._names[_question(request, key[0])] = _name(key)
        while len(self._names) > self._questions:
            self._names.popitem(last=False)
        return encoded_response(request, body)

    async def again(self, request: Request, tenant: int) -> bytes | None:
        """The answer to a question that was asked before in the same words, as long as it is kept."""
        name = self._names.get(_question(request, tenant))
        return await self._keeper.read(name) if name is not None and self._keeper is not None else None


def _name(key: tuple[object, ...]) -> str:
    return "\x1f".join(map(str, key))


def _question(request: Request, tenant: int) -> Question:
    return tenant, request.scope["path"], request.scope["query_string"]


class Kept(APIRoute):
    """A route that looks for a kept answer before FastAPI takes the request apart, which costs more than the answer.

    Only for somebody whom the server has seen signed in within the last two seconds; everybody else goes the long way.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's own, with the short way before it."""
        long_way = super().get_route_handler()

        async def short_way(request: Request) -> Response:
            if (user := known_user(request)) is not None:
                answers: Answers = request.app.state.answers
                if (body := await answers.again(request, user.tenant)) is not None:
                    return encoded_response(request, body)
            return await long_way(request)

        return short_way


def encoded_response(
    request: Request, body: bytes, media_type: str = "application/json", filename: str | None = None
) -> Response:
    """An encoded answer with an ETag, or 304 when the caller has it already; `filename` makes it a download."""
    # Many times as fast as blake2b where the processor knows it, which is nearly everywhere.
    etag = f'"{hashlib.sha256(body).hexdigest()[:24]}"'
    headers = {"ETag": etag, "Cache-Control": "private, no-cache", "Vary": "Cookie"}
    if etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    if filename:
        headers["Content-Disposition"] = f'attachment; filename="{filename}"'
    return Response(body, headers=headers, media_type=media_type)
