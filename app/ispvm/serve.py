"""`ispvm serve`: uvicorn on the unix socket, telling systemd when it is ready and that it lives."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import structlog
import uvicorn
import uvloop
from starlette.datastructures import State

from ispvm import logs
from ispvm.server import create_app
from ispvm.settings import Settings

log = structlog.get_logger("ispvm.serve")


def notify(state: str) -> None:
    """Tell systemd; nothing happens when it did not start this process."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
        out.connect("\0" + address[1:] if address.startswith("@") else address)
        out.sendall(state.encode())


def watchdog_seconds() -> float | None:
    """How often systemd wants a sign of life: half of what it would wait."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    return int(microseconds) / 2_000_000 if microseconds.isdecimal() and int(microseconds) else None


def bind(path: Path) -> socket.socket:
    """A listening unix socket that the owner and its group may connect to (0660); a stale one is replaced."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o117)
    try:
        listener.bind(str(path))
    finally:
        os.umask(mask)
    return listener


class _Server(uvicorn.Server):
    """uvicorn that says when it has begun to accept connections."""

    def __init__(self, config: uvicorn.Config) -> None:
        """Like uvicorn's."""
        super().__init__(config)
        self.accepting = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """End when told, and return: uvicorn's own way ends the process before anything can be tidied up."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept."""
        await super().startup(sockets)
        self.accepting.set()


async def _run(settings: Settings, listener: socket.socket) -> None:
    app = create_app(settings)
    server = _Server(
        uvicorn.Config(
            app,
            http="httptools",
            log_config=None,
            proxy_headers=True,
            forwarded_allow_ips="*",  # only the proxy may connect to the socket
            server_header=False,
            timeout_graceful_shutdown=10,
        )
    )
    serving = asyncio.create_task(server.serve([listener]))
    ready = asyncio.create_task(_announce(app.state, server))
    try:
        await serving
    finally:
        ready.cancel()
        notify("STOPPING=1")
        listener.close()


async def _announce(state: State, server: _Server) -> None:
    """READY once the pool answers; from then on a sign of life as long as the event loop turns."""
    await server.accepting.wait()
    while True:
        try:
            async with state.pool.connection() as connection:
                await connection.execute("select 1")
            break
        except psycopg.OperationalError as error:
            log.warning("the database does not answer yet", error=str(error))
            await asyncio.sleep(1)
    notify("READY=1\nSTATUS=serving")
    log.info("ready")
    if (every := watchdog_seconds()) is not None:
        while True:
            notify("WATCHDOG=1")
            await asyncio.sleep(every)


def serve(settings: Settings) -> int:
    """Serve until told to stop."""
    logs.configure()
    path = Path(settings.socket)
    try:
        uvloop.run(_run(settings, bind(path)))
    finally:
        path.unlink(missing_ok=True)
    return 0
