"""One connection to one router: connect, log in, send commands of the closed list, collect their replies."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import socket
import ssl
from asyncio import sslproto
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import repeat
from pathlib import Path
from typing import Literal

from ispvm_agent.routeros.allowlist import SENTENCES
from ispvm_agent.routeros.commands import Aimed, Command, Question
from ispvm_agent.routeros.values import Row
from ispvm_agent.routeros.wire import Decoder, Rows, Sentence, WireError, encode_sentence

Trouble = Literal["auth", "refused", "timeout", "unreachable", "trap", "protocol"]
Tls = Literal["ca", "pin", "anonymous", "off"]
CONNECT_SECONDS = 5.0
COMMAND_SECONDS = 10.0
MAX_ROWS = 20_000
MAX_REPLY_BYTES = 32 << 20
# asyncio fills a buffer of 256 KiB for every TLS connection, a quarter of a gigabyte for 1,000 routers; a TLS record
# has at most 16.
sslproto.SSLProtocol.max_size = 16 << 10


class RouterError(Exception):
    """Why a router cannot be talked to; `state` is what the heartbeat says of it."""

    def __init__(self, state: Trouble, detail: str) -> None:
        """`detail` is for people."""
        super().__init__(detail)
        self.state = state
        self.detail = detail


class ForbiddenCommandError(Exception):
    """Somebody tried to send what is not in the closed list."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a router answers and how its certificate is judged. `fingerprint` is SHA-256 in lowercase hex."""

    address: str
    port: int
    tls: Tls
    ca_file: str | None = None
    fingerprint: str | None = None
    server_name: str | None = None


class Reply:
    """What came back for one command. Times are of the event loop's clock; `done` is None while it has not finished."""

    def __init__(
        self, sent: float, rows: Iterable[Row] = (), ret: str | None = None, done: float | None = None
    ) -> None:
        """A command sent at `sent`; the rest is for tests."""
        self.sent = sent
        self.ret = ret
        self.trap: str | None = None
        self.done = done
        self.count = 0  # of rows
        self.octets = 0  # of rows on the wire
        self._parts: list[Rows] = []
        for row in rows:
            self.add(Rows("", 1, 0, {key: (value,) for key, value in row.items()}))

    def add(self, rows: Rows) -> None:
        """More rows have come. One with none of the fields asked for says nothing."""
        self.octets += rows.octets
        if rows.columns:
            self._parts.append(rows)
            self.count += rows.size

    @property
    def rows(self) -> list[Row]:
        """All rows, each as a dictionary of what it told."""
        return [
            dict(zip(part.columns, row, strict=True))
            for part in self._parts
            for row in zip(*part.columns.values(), strict=True)
        ]

    def column(self, key: str) -> list[str | None]:
        """One field of all rows, as long as `rows`; None where a row does not tell it. For tables that are large."""
        found: list[str | None] = []
        for part in self._parts:
            found += part.columns.get(key) or repeat(None, part.size)
        return found

    @property
    def midpoint(self) -> float:
        """The best guess when the router looked at its counters."""
        return self.sent + ((self.done or self.sent) - self.sent) / 2


class Session(asyncio.Protocol):
    """A logged-in connection. After any failure or timeout it is closed, and never used again."""

    def __init__(self) -> None:
        """Made by `connect`."""
        self.failure: RouterError | None = None
        self.tagged = True
        self.received_bytes = 0
        self.unknown_replies = 0
        self._decoder = Decoder()
        self._pending: dict[str, Reply] = {}
        self._idle: asyncio.Future[None] | None = None
        self._next_tag = 0
        self._budget = MAX_REPLY_BYTES
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport; notice dead peers."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - for the type checker
        self._transport = transport
        if (sock := transport.get_extra_info("socket")) is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def data_received(self, data: bytes) -> None:
        """Decode and hand out whatever arrived."""
        self.received_bytes += len(data)
        self._budget -= len(data)
        if self._budget < 0:
            self.close(RouterError("protocol", f"more than {MAX_REPLY_BYTES} bytes in one answer"))
            return
        try:
            for found in self._decoder.feed(data):
                self._dispatch(found)
        except WireError as error:
            self.close(RouterError("protocol", str(error)))

    def connection_lost(self, exc: Exception | None) -> None:
        """The router hung up."""
        self.close(RouterError("refused", f"the router closed the connection{f': {exc}' if exc else ''}"))

    # sending and receiving

    def close(self, why: RouterError | None = None) -> None:
        """Close now, keeping the first reason. Unfinished replies stay unfinished."""
        if self.failure is None:
            self.failure = why or RouterError("refused", "closed by the agent")
        if self._transport is not None:
            self._transport.abort()
        if self._idle is not None and not self._idle.done():
            self._idle.set_result(None)

    def _dispatch(self, sentence: Sentence | Rows) -> None:
        kind = "!re" if isinstance(sentence, Rows) else sentence.reply
        tag = sentence.tag
        if not tag and len(self._pending) == 1:
            # One command in flight: the answer can only be to it, but this router does not echo tags.
            (tag,) = self._pending
            self.tagged = self.tagged and kind == "!fatal"
        reply = self._pending.get(tag)
        if kind == "!fatal" and isinstance(sentence, Sentence):
            text = " ".join(sentence.bare) or sentence.attributes.get("message", "no reason given")
            self.close(RouterError("refused", f"the router ended the session: {text}"))
        elif reply is None:
            self.close(RouterError("protocol", f"{kind} for tag {tag!r}, which nobody is waiting for"))
        elif isinstance(sentence, Rows):
            reply.add(sentence)
            if reply.count > MAX_ROWS:
                self.close(RouterError("protocol", f"more than {MAX_ROWS} rows in one answer"))
        elif kind == "!trap":
            reply.trap = reply.trap or sentence.attributes.get("message", "no message")
        elif kind == "!done":
            reply.ret = sentence.attributes.get("ret")
            reply.done = self._loop.time()
            del self._pending[tag]
            if not self._pending and self._idle is not None and not self._idle.done():
                self._idle.set_result(None)
        elif kind != "!empty":
            self.unknown_replies += 1

    async def _exchange(self, sentences: Sequence[tuple[str, ...]], seconds: float) -> list[Reply]:
        """Write all sentences at once and wait for all replies, at most `seconds`; then whoever is late closes it."""
        if self.failure is not None or self._transport is None:
            raise self.failure or RouterError("protocol", "not connected")
        now = self._loop.time()
        replies = [Reply(sent=now) for _ in sentences]
        encoded: list[bytes] = []
        for words, reply in zip(sentences, replies, strict=True):
            self._next_tag += 1
            tag = f"{self._next_tag:x}"
            self._pending[tag] = reply
            encoded.append(encode_sentence((*words, f".tag={tag}") if self.tagged else words))
        self._budget = MAX_REPLY_BYTES
        self._idle = self._loop.create_future()
        self._transport.write(b"".join(encoded))
        try:
            async with asyncio.timeout(seconds):
                await self._idle
        except TimeoutError:
            late = sum(reply.done is None for reply in replies)
            self.close(RouterError("timeout", f"{late} of {len(replies)} commands unanswered after {seconds:g} s"))
        except asyncio.CancelledError:
            self.close()
            raise
        return replies

    async def run(self, commands: Sequence[Question], seconds: float = COMMAND_SECONDS) -> list[Reply]:
        """The replies to `commands`, in order. Unfinished ones have `done` None, and then `failure` says why.

        All commands go out in one write; a router that does not echo tags gets them one after the other.
        """
        for command in commands:
            listed = command.command if type(command) is Aimed else command
            if type(listed) is not Command or listed.words not in SENTENCES:
                raise ForbiddenCommandError(f"{command!r} is not one of the commands compiled in")
        if self.tagged:
            return await self._exchange([command.words for command in commands], seconds) if commands else []
        replies: list[Reply] = []
        for command in commands:
            if self.failure is None:
                replies += await self._exchange([command.words], seconds)
            else:
                replies.append(Reply(sent=self._loop.time()))
        return replies

    async def log_in(self, user: str, password: str) -> None:
        """Log in, by password (6.43 and later) or by challenge (older). Raises RouterError."""
        (reply,) = await self._exchange([("/login", f"=name={user}", f"=password={password}")], COMMAND_SECONDS)
        if reply.done is not None and reply.trap is None and reply.ret:
            try:
                challenge = bytes.fromhex(reply.ret)
            except ValueError:
                raise RouterError("protocol", "the login challenge is not hexadecimal") from None
            # MD5 is what routers before 6.43 speak; nothing else is possible with them.
            answer = hashlib.md5(b"\0" + password.encode() + challenge, usedforsecurity=False).hexdigest()
            words = ("/login", f"=name={user}", f"=response=00{answer}")
            (reply,) = await self._exchange([words], COMMAND_SECONDS)
        if reply.trap is not None:
            self.close(RouterError("auth", f"the router refused user {user!r}: {reply.trap}"))
        elif reply.done is None and self.failure is not None and self.failure.state == "refused":
            self.failure = RouterError(
                "refused", f"{self.failure.detail} (at login: address not allowed, or too many sessions?)"
            )
        if self.failure is not None:
            raise self.failure


def tls_context(target: Target) -> ssl.SSLContext | None:
    """How to speak TLS with this router; None for plain. Raises OSError when its `ca_file` cannot be read."""
    if target.tls == "off":
        return None
    return _tls_context(target.tls, target.ca_file, Path(target.ca_file).stat().st_mtime_ns if target.ca_file else 0)


@lru_cache(maxsize=16)
def _tls_context(tls: Tls, ca_file: str | None, changed: int) -> ssl.SSLContext:
    """One for all routers that are judged alike: each holds its authorities in memory."""
    if tls == "ca":
        return ssl.create_default_context(cafile=ca_file)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if tls == "anonymous":  # without a certificate RouterOS speaks only anonymous Diffie-Hellman
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers("ADH:@SECLEVEL=0")
    return context


def _check_pin(session_transport: asyncio.Transport, fingerprint: str) -> None:
    tls: ssl.SSLObject = session_transport.get_extra_info("ssl_object")
    seen = hashlib.sha256(tls.getpeercert(binary_form=True) or b"").hexdigest()
    if not hmac.compare_digest(seen, fingerprint):
        raise RouterError("protocol", f"the certificate's SHA-256 is {seen}, pinned is {fingerprint}")


async def connect(target: Target, user: str, password: str, tagged: bool = True) -> Session:
    """A logged-in session. Raises RouterError; then nothing is left open."""
    loop = asyncio.get_running_loop()
    try:
        context = tls_context(target)
    except OSError as error:
        raise RouterError("protocol", f"ca_file {target.ca_file}: {error.strerror or error}") from error
    name = (target.server_name or target.address) if context else None
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            transport, session = await loop.create_connection(
                Session, target.address, target.port, ssl=context, server_hostname=name
            )
    except TimeoutError:
        raise RouterError("unreachable", f"no connection within {CONNECT_SECONDS:g} s") from None
    except ssl.SSLError as error:
        raise RouterError("protocol", f"TLS ({target.tls}): {error.reason or error}: {error}") from error
    except ConnectionRefusedError:
        raise RouterError("refused", f"nothing listens on port {target.port}, or it is not open to us") from None
    except ConnectionResetError:
        why = "; during the TLS handshake: has api-ssl a certificate?" if context else ""
        raise RouterError("refused", f"the router reset the connection{why}") from None
    except OSError as error:
        raise RouterError("unreachable", error.strerror or str(error)) from error
    session.tagged = tagged
    try:
        if target.tls == "pin":
            _check_pin(transport, target.fingerprint or "")
        await session.log_in(user, password)
    except BaseException:
        session.close()
        raise
    return session
