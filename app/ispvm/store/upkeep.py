"""`ispvm upkeep`: retention and heavy maintenance, only inside the maintenance window. A missed one is made up for, and
said.
"""

from __future__ import annotations

from datetime import datetime, time, timedelta

import psycopg
import structlog
from psycopg import sql

from ispvm import logs
from ispvm.settings import Settings
from ispvm.store.columns import landing_types, table

log = structlog.get_logger("ispvm.upkeep")
# A ledger entry is needed as long as an agent may repeat its batch: its spool keeps a week by default.
LEDGER_DAYS = 30
# How long a lock may be waited for before a chunk that somebody reads is left for the next run.
LOCK_TIMEOUT = "5s"


def in_window(window: str, now: time) -> bool:
    """Whether `now` is inside "HH:MM-HH:MM", which may cross midnight."""
    begin, end = (time.fromisoformat(part) for part in window.split("-"))
    return begin <= now < end if begin <= end else now >= begin or now < end


def upkeep(settings: Settings, *, now: bool = False) -> bool:
    """Drop what retention no longer keeps and put closed rollup chunks into reading order.

    Returns whether anything changed.
    """
    logs.configure()
    window = settings.retention.maintenance_window
    with psycopg.connect(settings.database.owner_dsn, autocommit=True) as connection:
        last = _last_run(connection)
        if not now and not in_window(window, datetime.now().astimezone().time().replace(tzinfo=None)):
            log.info("outside the maintenance window; nothing done", window=window)
            return False
        if last is not None and (missed := datetime.now(last.tzinfo) - last) > timedelta(hours=36):
            log.warning(
                "catching up: the last upkeep was long ago",
                last=last.isoformat(),
                hours=round(missed.total_seconds() / 3600),
            )
        connection.execute("select set_config('lock_timeout', %s, false)", [LOCK_TIMEOUT])
        changed = _retention(connection, settings)
        changed |= _order_rollups(connection)
        connection.execute("insert into upkeep_run (ended_at) values (now())")
        connection.execute("delete from upkeep_run where ended_at < now() - interval '400 days'")
    return changed


def _last_run(connection: psycopg.Connection) -> datetime | None:
    row = connection.execute("select max(ended_at) from upkeep_run").fetchone()
    return row[0] if row else None


def _retention(connection: psycopg.Connection, settings: Settings) -> bool:
    keep = settings.retention
    days = {
        **{table(entity_type): keep.raw_days for entity_type in landing_types()},
        "rollup_1m": keep.rollup_1m_days,
        "rollup_1h": keep.rollup_1h_days,
        "event": keep.events_days,
    }
    changed = False
    for name, kept in days.items():
        chunks = connection.execute(
            "select format('%%I.%%I', chunk_schema, chunk_name), range_start, range_end"
            " from timescaledb_information.chunks"
            " where hypertable_name = %s and range_end < now() - make_interval(days => %s) order by range_end",
            [name, kept],
        ).fetchall()
        for chunk, begin, end in chunks:
            changed |= _drop(connection, name, chunk, begin, end)
    gone = connection.execute(
        "delete from ingest_batch where received_at < now() - make_interval(days => %s)", [LEDGER_DAYS]
    ).rowcount
    gone += connection.execute("delete from login_link where expires_at < now() - interval '7 days'").rowcount
    gone += connection.execute("delete from login_session where created_at < now() - interval '30 days'").rowcount
    return changed or gone > 0


def _drop(connection: psycopg.Connection, name: str, chunk: str, begin: datetime, end: datetime) -> bool:
    """Drop one chunk, unless somebody reads it: then it stays until the next run."""
    try:
        connection.execute("select drop_chunks(%s::regclass, older_than => %s, newer_than => %s)", [name, end, begin])
    except psycopg.errors.LockNotAvailable:
        log.warning("a chunk is being read; it is dropped next time", table=name, chunk=chunk)
        return False
    log.info("dropped", table=name, chunk=chunk, until=end.isoformat())
    return True


def _order_rollups(connection: psycopg.Connection) -> bool:
    """Rewrite closed rollup chunks in the order charts read them: one entity's hours side by side. Once per chunk."""
    chunks = connection.execute(
        "select c.chunk_schema, c.chunk_name, c.hypertable_name from timescaledb_information.chunks c"
        " where c.hypertable_name in ('rollup_1m', 'rollup_1h') and c.range_end < now() - interval '1 day'"
        " and not exists (select from upkeep_ordered o where o.chunk = c.chunk_name)"
    ).fetchall()
    changed = False
    for schema, chunk, parent in chunks:
        index = connection.execute(
            "select indexrelid::regclass::text from pg_index"
            " where indrelid = format('%%I.%%I', %s::text, %s::text)::regclass and indisunique",
            [schema, chunk],
        ).fetchone()
        if index is None:
            continue
        name = sql.Identifier(schema, chunk)
        try:
            connection.execute(
                sql.SQL("cluster {} using {}").format(name, sql.Identifier(index[0].split(".")[-1].strip('"')))
            )
        except psycopg.errors.LockNotAvailable:
            log.warning("a chunk is in use; it is put in order next time", table=parent, chunk=chunk)
            continue
        connection.execute(sql.SQL("analyze {}").format(name))
        connection.execute("insert into upkeep_ordered (chunk) values (%s) on conflict do nothing", [chunk])
        log.info("in reading order", table=parent, chunk=chunk)
        changed = True
    return changed
