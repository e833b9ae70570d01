"""A small cache of encoded answers: short lives, bounded size, one computation at a time per key."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from fastapi import Request
from starlette.responses import Response

T = TypeVar("T")


class Cache(Generic[T]):
    """Values by key for `seconds`; whoever asks while a value is being made waits for that one."""

    def __init__(self, seconds: float, size: int = 1000) -> None:
        """`seconds` is how long a value lives, `size` how many are kept."""
        self._seconds, self._size = seconds, size
        self._values: OrderedDict[Hashable, tuple[float, T]] = OrderedDict()
        self._making: dict[Hashable, asyncio.Task[T]] = {}

    async def get(self, key: Hashable, make: Callable[[], Awaitable[T]]) -> T:
        """The cached value, or what `make` returns. An error is given to all who wait and is not kept."""
        found = self._values.get(key)
        if found is not None and found[0] > time.monotonic():
            return found[1]
        task = self._making.get(key)
        if task is None:
            task = self._making[key] = asyncio.ensure_future(self._make(key, make))
        # One impatient caller must not cancel the value for the others.
        return await asyncio.shield(task)

    async def _make(self, key: Hashable, make: Callable[[], Awaitable[T]]) -> T:
        try:
            value = await make()
            self._values[key] = (time.monotonic() + self._seconds, value)
            self._values.move_to_end(key)
            while len(self._values) > self._size:
                self._values.popitem(last=False)
            return value
        finally:
            del self._making[key]

    def forget(self, key: Hashable) -> None:
        """Drop one value."""
        self._values.pop(key, None)


def json_response(request: Request, body: bytes) -> Response:
    """Encoded JSON with an ETag, or 304 when the caller has it already."""
    etag = f'"{hashlib.blake2b(body, digest_size=12).hexdigest()}"'
    headers = {"ETag": etag, "Cache-Control": "private, no-cache", "Vary": "Cookie"}
    if etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers, media_type="application/json")
