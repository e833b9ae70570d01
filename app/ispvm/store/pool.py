"""Connections through PgBouncer, and the transaction in which exactly one tenant is visible."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from select import POLLIN, poll
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool

from ispvm.store import columns

Connection = AsyncConnection[TupleRow]
Pool = AsyncConnectionPool[Connection]


async def _check(connection: Connection) -> None:
    """Whether a connection that nobody used is still good: a round trip only when its other end has said something
    meanwhile, which usually is that it is gone.
    """
    watched = poll()
    watched.register(connection, POLLIN)
    if watched.poll(0):
        await AsyncConnectionPool.check_connection(connection)


async def _configure(connection: Connection) -> None:
    columns.register(connection)


def open_pool(dsn: str, size: int) -> Pool:
    """A pool that is not open yet. Nobody waits longer than 2 s for a connection, and not more than 4 per connection:
    beyond that the caller is told to come back (503), before anything falls over.
    """
    return AsyncConnectionPool(
        dsn,
        min_size=min(2, size),
        max_size=size,
        timeout=2.0,
        max_waiting=4 * size,
        # Fail over fast: a connection that died with the database is noticed before it is handed out, and a long outage
        # does not end in a long back-off.
        check=_check,
        reconnect_timeout=5.0,
        open=False,
        configure=_configure,
    )


@asynccontextmanager
async def transaction(pool: Pool, tenant: int, timeout_ms: int = 0) -> AsyncIterator[Connection]:
    """One transaction in which row-level security shows `tenant` only. The setting ends with the transaction, so the
    next user of the same server connection cannot inherit it. `timeout_ms` > 0 bounds each statement.
    """
    async with pool.connection() as connection, connection.transaction():
        settings: list[Any] = [str(tenant)]
        query = "select set_config('ispvm.tenant', %s, true)"
        if timeout_ms:
            query += ", set_config('statement_timeout', %s, true)"
            settings.append(str(timeout_ms))
        await connection.execute(query, settings)
        yield connection
