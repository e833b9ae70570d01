"""A router on the network: its two listening ports and the connections on them."""

from __future__ import annotations

import asyncio
import itertools
import ssl

from .connection import Connection
from .faults import Book
from .menus import Session
from .world import Router

API_PORT = 8728
API_SSL_PORT = 8729
MAX_SESSIONS = 20
_BACKLOG = 128


class Station:
    """Where one router answers. `user` and `password` are what its API wants."""

    def __init__(self, router: Router, faults: Book, user: str, password: str) -> None:
        self.router = router
        self.faults = faults
        self.user = user
        self.password = password
        self.connections: set[Connection] = set()
        self._servers: list[asyncio.Server] = []
        self._numbers = itertools.count(1)

    def now(self) -> float:
        """The world's present."""
        return self.router.clock.now()

    def sessions(self) -> tuple[Session, ...]:
        """Who is logged in."""
        return tuple(
            connection.session
            for connection in sorted(self.connections, key=lambda c: c.number)
            if connection.session is not None
        )

    async def open(self, host: str, port: int, secure_port: int, tls: ssl.SSLContext) -> None:
        """Listen for API on `port` and for API over TLS on `secure_port`."""
        plain = await asyncio.start_server(self._plain, host, port, backlog=_BACKLOG)
        self._servers.append(plain)
        self._servers.append(await asyncio.start_server(self._secure, host, secure_port, ssl=tls, backlog=_BACKLOG))

    async def close(self) -> None:
        """Stop listening and end all connections."""
        for server in self._servers:
            server.close()
        self.drop_connections()
        for server in self._servers:
            await server.wait_closed()
        self._servers.clear()

    def drop_connections(self) -> None:
        """Reset every connection."""
        for connection in tuple(self.connections):
            connection.abort()

    async def _plain(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._accept(reader, writer, secure=False)

    async def _secure(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._accept(reader, writer, secure=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, secure: bool) -> None:
        refused = self.faults.active("sessions", self.router.name) is not None
        if refused or len(self.connections) >= MAX_SESSIONS:
            writer.close()
            return
        connection = Connection(self, reader, writer, next(self._numbers), secure=secure)
        self.connections.add(connection)
        try:
            await connection.serve()
        finally:
            self.connections.discard(connection)
