"""`ispvm worker`: rolls up what is due, and waits when nothing is."""

from __future__ import annotations

import asyncio
import contextlib
import signal

import psycopg
import structlog
from psycopg import AsyncConnection

from ispvm import logs
from ispvm.serve import notify, watchdog_seconds
from ispvm.settings import Settings
from ispvm.store.rollup import roll_up

log = structlog.get_logger("ispvm.worker")
# Late data are to be seen in rollups within a second of their commit.
IDLE_SECONDS = 0.5
RECONNECT_SECONDS = 2.0


async def _work(settings: Settings, stop: asyncio.Event, *, once: bool) -> None:
    while not stop.is_set():
        try:
            async with await AsyncConnection.connect(settings.database.worker_dsn, autocommit=True) as connection:
                notify("READY=1\nSTATUS=rolling up")
                while not stop.is_set():
                    done = await roll_up(connection)
                    if done:
                        log.debug("rolled up", hours=done)
                        continue
                    if once:
                        return
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(stop.wait(), IDLE_SECONDS)
        except psycopg.OperationalError as error:
            if once:
                raise
            log.warning("the database went away; the marks wait", error=str(error))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), RECONNECT_SECONDS)


async def _live(every: float) -> None:
    while True:
        notify("WATCHDOG=1")
        await asyncio.sleep(every)


async def _run(settings: Settings, *, once: bool) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    every = watchdog_seconds()
    alive = asyncio.create_task(_live(every)) if every else None
    try:
        await _work(settings, stop, once=once)
    finally:
        notify("STOPPING=1")
        if alive:
            alive.cancel()


def run(settings: Settings, *, once: bool = False) -> int:
    """Roll up until told to stop, or with `once` until nothing is due."""
    logs.configure()
    asyncio.run(_run(settings, once=once))
    return 0
