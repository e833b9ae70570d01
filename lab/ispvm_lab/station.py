"""A router on the network: its two listening ports and the connections on them."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import ssl
import struct
from array import array
from dataclasses import dataclass

from .connection import Connection
from .faults import Book
from .menus import Session
from .world import Router

API_PORT = 8728
API_SSL_PORT = 8729
MAX_SESSIONS = 20
_BACKLOG = 128
_DISMISS_SECONDS = 5.0
_SO_ATTACH_FILTER = 26
_IP_FREEBIND = 15
# one classic BPF instruction, "return 0": whatever arrives is dropped before TCP sees it
_DROP_ALL = array("B", struct.pack("=HBBI", 0x06, 0, 0, 0))
_DROP_PROGRAM = struct.pack("@HP", 1, _DROP_ALL.buffer_info()[0])


def deafen(sock: socket.socket) -> None:
    """Let a socket hear nothing more, as if its machine had lost power: connecting to it times out."""
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, _DROP_PROGRAM)


def listening_socket(host: str, port: int, *, absent_too: bool) -> socket.socket:
    """A bound socket; with `absent_too` also while `host` is not an address of this machine yet."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol named, asyncio sets TCP_NODELAY; else each reply waits 40 ms for an acknowledgement.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_IP, _IP_FREEBIND, int(absent_too))
        sock.bind((host, port))
    except OSError:
        sock.close()
        raise
    return sock


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a router listens; `anonymous` is its TLS when it has no certificate."""

    host: str
    port: int
    secure_port: int
    tls: ssl.SSLContext
    anonymous: ssl.SSLContext


class Station:
    """Where one router answers. `user` and `password` are what its API wants."""

    def __init__(self, router: Router, faults: Book, user: str, password: str) -> None:
        """Set up, without a socket yet."""
        self.router = router
        self.faults = faults
        self.user = user
        self.password = password
        self.connections: set[Connection] = set()
        self.awake = asyncio.Event()
        self.booted = router.booted
        self._certified = True
        self._endpoint: Endpoint | None = None
        self._servers: list[asyncio.Server] = []
        self._numbers = itertools.count(1)

    def now(self) -> float:
        """The world's present."""
        return self.router.clock.now()

    def sessions(self) -> tuple[Session, ...]:
        """Who is logged in."""
        connections = sorted(self.connections, key=lambda connection: connection.number)
        return tuple(connection.session for connection in connections if connection.session is not None)

    async def open(self, endpoint: Endpoint) -> None:
        """Listen for API and for API over TLS."""
        self._endpoint = endpoint
        await self._listen(again=False)

    async def _listen(self, *, again: bool = True) -> None:
        # after a power cut the address may come back to this machine a moment later than the router
        if (end := self._endpoint) is None or self._servers:
            return
        self._certified = self.faults.active("no-certificate", self.router.name) is None
        tls = end.tls if self._certified else end.anonymous
        for port, accept, context in ((end.port, self._plain, None), (end.secure_port, self._secure, tls)):
            sock = listening_socket(end.host, port, absent_too=again)
            server = await asyncio.start_server(accept, sock=sock, ssl=context, backlog=_BACKLOG)
            self._servers.append(server)
        self.awake.set()

    async def close(self) -> None:
        """Stop listening and end all connections."""
        self._endpoint = None
        self._drop_connections()
        await self._unlisten()

    async def _unlisten(self) -> None:
        for server in self._servers:
            server.close()
        self._servers.clear()
        await asyncio.sleep(0)

    async def reconcile(self) -> None:
        """Follow the router's power: without it ports are deaf or closed, after a boot old connections are gone."""
        router = self.router
        if self._endpoint is None:
            return
        if not router.powered and self.awake.is_set():
            self.awake.clear()
            if self.faults.active("down", router.name) is None:  # a reboot says goodbye, a power cut does not
                self._drop_connections()
            if router.refusing or not self._deafen():
                self._drop_connections()
                await self._unlisten()
        elif router.powered and (not self.awake.is_set() or self.booted != router.booted):
            self._drop_connections()
            await self._unlisten()
            await self._listen()
        elif router.powered and self._certified == (self.faults.active("no-certificate", router.name) is not None):
            await self._unlisten()
            await self._listen()
        self.booted = router.booted

    def _deafen(self) -> bool:
        """Make every socket deaf; False where the kernel does not let this process (some sandboxes)."""
        try:
            for sock in self._sockets():
                deafen(sock)
        except PermissionError:
            return False
        return True

    def _sockets(self) -> list[socket.socket]:
        """Every socket of this router."""
        listening = [sock for server in self._servers for sock in server.sockets]
        return [*listening, *(c.socket for c in self.connections if c.socket is not None)]

    def _drop_connections(self) -> None:
        for connection in tuple(self.connections):
            connection.abort()

    async def _plain(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._accept(reader, writer, secure=False)

    async def _secure(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._accept(reader, writer, secure=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, secure: bool) -> None:
        refused = self.faults.active("sessions", self.router.name) is not None
        if refused or len(self.connections) >= MAX_SESSIONS:
            await _dismiss(reader, writer)
            return
        connection = Connection(self, reader, writer, next(self._numbers), secure=secure)
        self.connections.add(connection)
        try:
            await connection.serve()
        finally:
            self.connections.discard(connection)


async def _dismiss(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """End a connection without a word: an orderly end, not a reset, whatever the client may be sending."""
    with contextlib.suppress(ConnectionError, TimeoutError):
        if writer.can_write_eof():
            writer.write_eof()
            async with asyncio.timeout(_DISMISS_SECONDS):
                while await reader.read(1 << 16):
                    pass
    writer.close()
