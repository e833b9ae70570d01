"""`ispvm upkeep`: retention and heavy maintenance, only inside the maintenance window. A missed one is made up for, and
said.
"""

from __future__ import annotations

from datetime import datetime, time, timedelta

import psycopg
import structlog
from ispvm_contract.registry import registry
from psycopg import sql

from ispvm import logs
from ispvm.settings import Settings
from ispvm.store.columns import landing_types, table
from ispvm.store.edition import LOCK_TIMEOUT, kept_days
from ispvm.store.packing import often, pack, thinned, unpack

log = structlog.get_logger("ispvm.upkeep")
# A ledger entry is needed as long as an agent may repeat its batch: its spool keeps a week by default.
LEDGER_DAYS = 30
# Landing rows are packed within the hour; current values and the newest hours are read from them.
LANDING_DAYS = 2
BY_DAY = ("sample_day", "rollup_1d")


def in_window(window: str, now: time) -> bool:
    """Whether `now` is inside "HH:MM-HH:MM", which may cross midnight."""
    begin, end = (time.fromisoformat(part) for part in window.split("-"))
    return begin <= now < end if begin <= end else now >= begin or now < end


def upkeep(settings: Settings, *, now: bool = False) -> bool:
    """Drop what retention no longer keeps, and turn samples older than raw retention into minute means.

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
        changed |= _thin(connection, settings.retention.raw_days)
        connection.execute("insert into upkeep_run (ended_at) values (now())")
        connection.execute("delete from upkeep_run where ended_at < now() - interval '400 days'")
    return changed


def _last_run(connection: psycopg.Connection) -> datetime | None:
    row = connection.execute("select max(ended_at) from upkeep_run").fetchone()
    return row[0] if row else None


def _retention(connection: psycopg.Connection, settings: Settings) -> bool:
    days = {table(entity_type): LANDING_DAYS for entity_type in landing_types()}
    if settings.storage.timescaledb_edition == "apache":  # the community edition's jobs do the rest
        days |= kept_days(settings)
    changed = False
    for name, kept in days.items():
        chunks = connection.execute(
            "select format('%%I.%%I', chunk_schema, chunk_name), range_start, range_end"
            " from timescaledb_information.chunks"
            " where hypertable_name = %s and range_end < now() - make_interval(days => %s)"
            # What is not packed yet stays.
            " and not exists (select from rollup_dirty d where 'poll_' || d.type = hypertable_name"
            "   and d.hour >= range_start and d.hour < range_end) order by range_end",
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
        connection.execute(
            "select drop_chunks(%s::regclass, older_than => %s::{0}, newer_than => %s::{0})".format(
                "date" if name in BY_DAY else "timestamptz"
            ).encode(),
            [name, end, begin],
        )
    except psycopg.errors.LockNotAvailable:
        log.warning("a chunk is being read; it is dropped next time", table=name, chunk=chunk)
        return False
    log.info("dropped", table=name, chunk=chunk, until=end.isoformat())
    return True


def _thin(connection: psycopg.Connection, days: int) -> bool:
    """Samples older than raw retention become minute means, a chunk at a time, once."""
    chunks = connection.execute(
        "select c.chunk_schema, c.chunk_name from timescaledb_information.chunks c"
        " where c.hypertable_name = 'sample_day' and c.range_end < now() - make_interval(days => %s)"
        " and not exists (select from upkeep_thinned t where t.chunk = c.chunk_name) order by c.range_end",
        [days],
    ).fetchall()
    changed = False
    for schema, chunk in chunks:
        name = sql.Identifier(schema, chunk)
        try:
            rows = _thin_chunk(connection, name)
            if rows:  # nothing is written into it any more: only a rewrite gives the room back
                connection.execute(sql.SQL("vacuum (full, analyze) {}").format(name))
        except psycopg.errors.LockNotAvailable:
            log.warning("a chunk is in use; its samples become minute means next time", chunk=chunk)
            continue
        connection.execute("insert into upkeep_thinned (chunk) values (%s) on conflict do nothing", [chunk])
        log.info("minute means", chunk=chunk, rows=rows)
        changed |= rows > 0
    connection.execute(
        "delete from upkeep_thinned t"
        " where not exists (select from timescaledb_information.chunks c where c.chunk_name = t.chunk)"
    )
    return changed


def _thin_chunk(connection: psycopg.Connection, chunk: sql.Identifier) -> int:
    """Returns how many rows had more than one sample a minute."""
    metrics = {
        number: registry().metrics[name]
        for number, name in connection.execute("select id, name from metric")
        if name in registry().metrics
    }
    update = sql.SQL("update {} set samples = %b, low = %b, high = %b where ctid = %s").format(chunk)
    thin = 0
    with connection.transaction(), connection.cursor() as writer, connection.cursor("rows", binary=True) as reader:
        query = sql.SQL("select ctid::text, metric_id, samples from {} where low is null for update")
        for ctid, metric, packed in reader.execute(query.format(chunk)):
            if metric not in metrics or not often(packed):
                continue
            kind = metrics[metric].type
            parts = thinned(unpack(packed), last=kind in ("counter", "enum"))
            writer.execute(update, [*(part and pack(part, kind != "gauge") for part in parts), ctid])
            thin += 1
    return thin
