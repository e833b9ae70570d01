"""Answers that several servers share, in valkey; the same code path as in one server's memory (`cache.Keeper`)."""

from __future__ import annotations

import time

import structlog
from valkey.asyncio import Valkey
from valkey.exceptions import ValkeyError

from ispvm import __version__

log = structlog.get_logger("ispvm.series")
# An answer is made in less: whoever waits longer for a kept one has lost.
TIMEOUT_SECONDS = 0.25
# How long valkey is left alone after it did not answer.
AWAY_SECONDS = 5.0


class Shared:
    """Keeps answers in valkey. While it does not answer, they are made anew each time, and that is said once."""

    def __init__(self, url: str) -> None:
        """`url` is that of its unix socket, such as unix:///run/valkey/valkey.sock; nothing is connected yet."""
        self._client = Valkey.from_url(url, socket_timeout=TIMEOUT_SECONDS, socket_connect_timeout=TIMEOUT_SECONDS)
        self._away_until = 0.0
        self._away = False

    async def read(self, key: str) -> bytes | None:
        """The value, if it is there and alive."""
        if time.monotonic() < self._away_until:
            return None
        try:
            value: bytes | None = await self._client.get(_name(key))
        except (ValkeyError, OSError) as error:
            self._missed(error)
            return None
        self._answered()
        return value

    async def write(self, key: str, value: bytes, seconds: float) -> None:
        """Keep a value for so long."""
        if time.monotonic() < self._away_until:
            return
        try:
            await self._client.set(_name(key), value, px=max(1, round(seconds * 1000)))
        except (ValkeyError, OSError) as error:
            self._missed(error)

    async def close(self) -> None:
        """Let go of its connections."""
        await self._client.aclose()

    def _missed(self, error: Exception) -> None:
        self._away_until = time.monotonic() + AWAY_SECONDS
        if not self._away:
            log.warning("valkey does not answer; every answer is made anew", error=str(error) or type(error).__name__)
        self._away = True

    def _answered(self) -> None:
        if self._away:
            log.info("valkey answers again")
        self._away = False


def _name(key: str) -> str:
    """Another release may encode differently."""
    return f"ispvm:{__version__}:{key}"
