"""Connections through PgBouncer, and the transaction in which exactly one tenant is visible."""

from __future__ import annotations

import asyncio
import select
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool

from ispvm.store import columns

Connection = AsyncConnection[TupleRow]
Pool = AsyncConnectionPool[Connection]


async def _configure(connection: Connection) -> None:
    columns.register(connection)


async def _alive(connection: Connection) -> None:
    """Refuse a connection that the other end has closed, without asking it: nothing else makes an idle one readable."""
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    if poll.poll(0):
        await connection.close()  # as long as it is open, the pool would take it back
        raise psycopg.OperationalError("the pool's connection was closed")


def open_pool(dsn: str, size: int) -> Pool:
    """A pool that is not open yet. Nobody waits longer than 2 s for a connection, and not more than 4 per connection:
    beyond that the caller is told to come back (503), before anything falls over.
    """
    return AsyncConnectionPool(
        dsn,
        # Whoever needs a transaction begins one; a single statement does without, and saves two round trips. Statements
        # are few and the same: prepared at once, not after five times.
        kwargs={"autocommit": True, "prepare_threshold": 0},
        min_size=min(2, size),
        max_size=size,
        timeout=2.0,
        max_waiting=4 * size,
        # Fail over fast: a connection that died with PgBouncer is noticed before it is handed out, and a long outage
        # does not end in a long back-off.
        check=_alive,
        reconnect_timeout=5.0,
        open=False,
        configure=_configure,
    )


@asynccontextmanager
async def transaction(pool: Pool, tenant: int, timeout_ms: int = 0) -> AsyncIterator[Connection]:
    """One transaction in which row-level security shows `tenant` only. The setting ends with the transaction, so the
    next user of the same server connection cannot inherit it. `timeout_ms` > 0 bounds each statement.
    """
    begin = f"begin; set local ispvm.tenant = '{tenant:d}'"
    if timeout_ms:
        begin += f"; set local statement_timeout = {timeout_ms:d}"
    async with pool.connection() as connection:
        # One round trip for all of it: several statements at once cannot be prepared.
        await connection.execute(begin.encode(), prepare=False)
        try:
            yield connection
        except BaseException:
            with suppress(psycopg.Error):  # of a broken connection: what broke it is what counts
                await connection.rollback()
            raise
        await connection.commit()


# Connections on their way back to the pool; the event loop itself keeps no hold on a task.
_returning: set[asyncio.Task[None]] = set()


@asynccontextmanager
async def reading(pool: Pool, tenant: int, timeout_ms: int, **settings: str) -> AsyncIterator[Connection]:
    """Like `transaction`, but only to read, with more settings if wanted, and as one pipeline: what is asked goes out
    without waiting for an answer, and an error of a statement is raised where its rows are fetched.

    A pipeline without `begin` is one transaction. It needs no round trip to begin, and nobody waits for its end.
    """
    settings |= {
        "transaction_read_only": "on", "ispvm.tenant": str(tenant), "statement_timeout": str(timeout_ms)
    }  # fmt: skip
    async with AsyncExitStack() as stack:
        connection = await stack.enter_async_context(pool.connection())
        await stack.enter_async_context(connection.pipeline())
        set_all = ", ".join(["set_config(%s, %s, true)"] * len(settings))
        await connection.execute(
            f"select {set_all}".encode(),
            [text for setting in settings.items() for text in setting],
        )
        try:
            yield connection
        finally:
            returning = asyncio.create_task(_give_back(stack.pop_all()))
            _returning.add(returning)
            returning.add_done_callback(_returning.discard)


async def _give_back(stack: AsyncExitStack) -> None:
    """End pipeline and transaction; what there is to say of a broken connection was said when it was read from."""
    with suppress(psycopg.Error):
        await stack.aclose()
