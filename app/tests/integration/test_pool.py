from __future__ import annotations

import psycopg
from ispvm.settings import Settings
from ispvm.store.pool import open_pool


async def test_a_connection_that_died_while_idle_is_not_handed_out(
    settings: Settings, owner: psycopg.Connection
) -> None:
    pool = open_pool(settings.database.owner_dsn, 1)
    await pool.open()
    try:
        async with pool.connection() as connection:
            pid = connection.info.backend_pid
        owner.execute("select pg_terminate_backend(%s, 5000)", [pid])
        async with pool.connection() as connection:
            assert connection.info.backend_pid != pid
            assert await (await connection.execute("select 1")).fetchone() == (1,)
    finally:
        await pool.close()
