"""Batches and heartbeats to the server over HTTPS; a batch leaves the disk only after the server's 200."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import sqlite3
import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

import httpx
import msgspec
from ispvm_contract import ingest

from ispvm_agent.outbox import Outbox
from ispvm_agent.spool import Depth, Spool, Stored

LIVE_SECONDS = 60.0
_AT_ONCE = 4  # batches on their way at the same time
_MAX_WAIT = 15.0  # a server that is back gets data within seconds
_TRANSIENT = frozenset({401, 403, 408, 426, 429})
_CLOCK_AHEAD = 60.0  # seconds; the server takes nothing from further in the future than it allows
_log = logging.getLogger("uplink")


@dataclass(slots=True)
class Health:
    """How the agent gets on with the server; shown by `status`, the metrics and the heartbeat."""

    last_push: float | None = None  # epoch seconds of the last accepted batch
    batches_sent: int = 0
    bytes_sent: int = 0
    failures: int = 0
    set_aside: int = 0
    rejected_parts: int = 0
    last_error: str = ""
    clock_error_seconds: float | None = None  # agent clock minus server clock


def client(url: str, token: str, ca_file: str | None) -> httpx.AsyncClient:
    """An HTTP client that sends only to this server, with its token. Ignores proxy settings of the environment.

    Connections are kept: on a host too busy to send every few seconds a new handshake each time would never end.
    """
    verify = ssl.create_default_context(cafile=ca_file)
    headers = {"authorization": f"Bearer {token}"}
    limits = httpx.Limits(keepalive_expiry=60)
    return httpx.AsyncClient(base_url=url, headers=headers, verify=verify, timeout=20, limits=limits,
                             trust_env=False, follow_redirects=False)  # fmt: skip


def retry_after(response: httpx.Response) -> float | None:
    """Seconds the server asks to wait (a number or a date), at most an hour; None if it does not say."""
    text = response.headers.get("retry-after", "")
    try:
        seconds = float(text)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(text).timestamp() - time.time()
        except ValueError:
            return None
    return min(max(seconds, 0.0), 3600.0) if seconds == seconds else None


def describe(response: httpx.Response) -> str:
    """One line about a refusal: what the server says of it, if the answer is the server's."""
    try:
        said = msgspec.json.decode(response.content, type=ingest.Refusal)
    except msgspec.DecodeError:
        return f"HTTP {response.status_code} {response.reason_phrase}"
    return f"HTTP {response.status_code}: {said.field}: {said.problem}; {said.fix}"


class Uplink:
    """Sends what the spool holds, in rounds: live data first, then the backlog in its order."""

    def __init__(self, http: httpx.AsyncClient, spool: Spool, outbox: Outbox, disk: ThreadPoolExecutor) -> None:
        """`disk` is the one thread on which the spool is used."""
        self.health = Health()
        self.hurry = asyncio.Event()  # somebody does not want to wait for the next try
        self._beat_error = ""  # of the last heartbeat, so that a long outage is one line
        self._http = http
        self._spool = spool
        self._outbox = outbox
        self._disk = disk

    async def send(self, stored: Stored) -> float:
        """Try one batch; returns how many seconds to wait before the next try, 0 when it is dealt with."""
        try:
            return await self._send(stored)
        except sqlite3.Error as error:  # a full disk: what was sent is sent again, which is harmless
            return self._unusable(error)

    async def _send(self, stored: Stored) -> float:
        run = asyncio.get_running_loop().run_in_executor
        headers = {"content-type": "application/msgpack", "content-encoding": "zstd"}
        try:
            response = await self._http.post("/ingest/v1/batch", content=stored.body, headers=headers)
        except (httpx.HTTPError, OSError) as error:
            return self._failed(f"{type(error).__name__}: {error}")
        if response.status_code == 200:
            try:
                answer = msgspec.json.decode(response.content, type=ingest.BatchAnswer)
            except msgspec.DecodeError as error:
                return self._failed(f"the answer to a batch is not understood: {error}")
            if answer.id != stored.id:
                return self._failed("the server answered for another batch")
            for rejection in answer.rejected[:5]:
                _log.warning("the server did not store %s of batch %s: %s", rejection.at, stored.id, rejection.reason)
            self.health.rejected_parts += len(answer.rejected)
            self._outbox.confirm(stored.id)
            if any("inventory_patch" in rejection.reason for rejection in answer.rejected):
                self._outbox.tell_again()  # a server restored from a backup may have forgotten
            await run(self._disk, self._spool.delete, stored)
            self.health.last_push = time.time()
            self.health.batches_sent += 1
            self.health.bytes_sent += len(stored.body)
            self.health.failures = 0
            self.health.last_error = ""
            return 0.0
        reason = describe(response)
        if 400 <= response.status_code < 500 and not self._is_transient(response):
            _log.error("batch %s is set aside, the server will never take it: %s", stored.id, reason)
            await run(self._disk, self._spool.set_aside, stored, reason)
            self.health.set_aside += 1
            return 0.0
        wait = self._failed(reason)
        asked = retry_after(response)
        return wait if asked is None else asked + random.uniform(0, 1)  # noqa: S311 - jitter

    def _is_transient(self, response: httpx.Response) -> bool:
        """Whether the same batch may be taken later: our token, our clock or the moment is at fault, not the batch."""
        if response.status_code in _TRANSIENT:
            return True
        try:
            field = msgspec.json.decode(response.content, type=ingest.Refusal).field
        except msgspec.DecodeError:
            return False
        return field == "sent_at" and (self.health.clock_error_seconds or 0.0) > _CLOCK_AHEAD

    def _unusable(self, error: sqlite3.Error) -> float:
        return self._failed(f"the spool cannot be used: {error}")

    def _failed(self, reason: str) -> float:
        if reason != self.health.last_error:
            _log.warning("cannot deliver: %s", reason)
        self.health.failures += 1
        self.health.last_error = reason
        return min(_MAX_WAIT, 2.0 ** min(self.health.failures, 6)) * random.uniform(0.5, 1)  # noqa: S311 - jitter

    async def run(self) -> None:
        """Deliver for ever, a few batches at once: live data first, then the backlog in its order.

        The server's answers set the pace: the next round begins when this one is answered, so live data waits for one
        round at most. While nothing is taken only one batch is tried.
        """
        on_disk = asyncio.get_running_loop().run_in_executor
        while True:
            self._outbox.appended.clear()
            live_since, failures = int((time.time() - LIVE_SECONDS) * 1000), self.health.failures
            try:
                batches = await on_disk(self._disk, self._spool.next, live_since, 1 if failures else _AT_ONCE)
                waits = await asyncio.gather(*map(self.send, batches))
            except sqlite3.Error as error:
                waits = [self._unusable(error)]
            if wait := min(filter(None, waits), default=0.0):
                self.health.failures = failures + 1  # a round that failed is one failure
            elif not waits:
                await self._outbox.appended.wait()
            self.hurry.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self.hurry.wait()

    async def beat(self, heartbeat: ingest.Heartbeat) -> None:
        """Send one heartbeat and learn the agent's own clock error from the answer; a failure is logged."""
        sent = time.time()
        try:
            response = await self._http.post(
                "/ingest/v1/heartbeat",
                content=msgspec.msgpack.encode(heartbeat),
                headers={"content-type": "application/msgpack"},
            )
            if response.status_code != 200:
                raise httpx.HTTPError(describe(response))
            answer = msgspec.json.decode(response.content, type=ingest.HeartbeatAnswer)
        except (httpx.HTTPError, OSError, msgspec.DecodeError) as error:
            if str(error) != self._beat_error:
                _log.warning("heartbeat not delivered: %s", error)
            self._beat_error = str(error)
            return
        self._beat_error = ""
        self.health.clock_error_seconds = round((sent + time.time()) / 2 - answer.server_time / 1000, 3)


def heartbeat(
    agent: ingest.Agent,
    started_ms: int,
    depth: Depth,
    routers: list[ingest.RouterSummary],
    clock_synchronised: bool | None,
) -> ingest.Heartbeat:
    """The heartbeat of this moment."""
    return ingest.Heartbeat(
        schema_version=1,
        sent_at=int(time.time() * 1000),
        agent=agent,
        started_at=started_ms,
        buffer_depth=depth.batches,
        buffer_bytes=depth.bytes,
        oldest_buffered=depth.oldest_ms,
        dropped_batches=depth.dropped_batches,
        refused_batches=depth.set_aside,
        clock_synchronised=clock_synchronised,
        routers=routers,
    )
