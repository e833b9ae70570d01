"""Everything the benchmarks know of tables. Elsewhere they use HTTP and the product's own commands.

Hypertables are found, not listed: `poll_…` are landing rows, `sample_…` are packed ones, `rollup_…` are rollups. When a
layout changes, only this file may have to follow.
"""

from __future__ import annotations

from collections import Counter
from datetime import datetime

import psycopg
from psycopg import sql

_BOOKKEEPING = ("ingest_batch", "rollup_dirty", "latest_poll")


def hypertables(connection: psycopg.Connection, prefix: str = "") -> list[str]:
    """Names, by prefix."""
    rows = connection.execute(
        "select hypertable_name::text from timescaledb_information.hypertables"
        " where hypertable_schema = 'public' and starts_with(hypertable_name, %s) order by 1",
        [prefix],
    )
    return [name for (name,) in rows]


def empty(connection: psycopg.Connection) -> None:
    """No telemetry at all; inventory, agents and people stay."""
    there = {name for (name,) in connection.execute("select relname from pg_class where relkind = 'r'")}
    names = [*hypertables(connection), *(name for name in _BOOKKEEPING if name in there)]
    connection.execute(sql.SQL("truncate {}").format(sql.SQL(", ").join(map(sql.Identifier, names))))
    connection.execute("checkpoint")


def empty_landing(connection: psycopg.Connection) -> None:
    """No landing rows: the same rows may come again."""
    names = hypertables(connection, "poll_")
    connection.execute(sql.SQL("truncate {}").format(sql.SQL(", ").join(map(sql.Identifier, names))))
    connection.execute("checkpoint")


def copy_out(connection: psycopg.Connection, table: str) -> list[bytes]:
    """Every row of a landing table as binary COPY, one piece a moment: what one batch of one agent holds."""
    name = sql.Identifier(table)
    moments = connection.execute(sql.SQL("select distinct ts from {} order by 1").format(name)).fetchall()
    pieces = []
    for (ts,) in moments:
        query = sql.SQL("copy (select * from {} where ts = {}) to stdout (format binary)")
        with connection.cursor().copy(query.format(name, sql.Literal(ts))) as copy:
            pieces.append(b"".join(bytes(part) for part in copy))
    return pieces


def copy_in(connection: psycopg.Connection, table: str, piece: bytes) -> None:
    """One piece back in, one transaction."""
    query = sql.SQL("copy {} from stdin (format binary)").format(sql.Identifier(table))
    with connection.cursor().copy(query) as copy:
        copy.write(piece)


def sizes(connection: psycopg.Connection, prefix: str) -> int:
    """Bytes on disk with all indexes and toast."""
    total = 0
    for name in hypertables(connection, prefix):
        row = connection.execute("select hypertable_size(%s::regclass)", [name]).fetchone()
        total += int(row[0] or 0) if row else 0
    return total


def raw_size(connection: psycopg.Connection) -> int:
    """Bytes of everything that keeps polls: all hypertables but rollups and events."""
    everything = sum(sizes(connection, name) for name in hypertables(connection))
    return everything - sizes(connection, "rollup_") - sizes(connection, "event")


def chunks(connection: psycopg.Connection) -> tuple[int, int]:
    """How many chunks there are, and the bytes of the indexes of those that are written to now (the 25 % rule)."""
    row = connection.execute(
        "select count(*), coalesce(sum(pg_indexes_size(format('%I.%I', chunk_schema, chunk_name)::regclass))"
        " filter (where newest = 1), 0) from (select *, rank() over (partition by hypertable_name"
        " order by range_end desc) as newest from timescaledb_information.chunks) c"
    ).fetchone()
    assert row is not None  # noqa: S101  # an aggregate
    return int(row[0]), int(row[1])


def dead_tuples(connection: psycopg.Connection) -> tuple[int, int]:
    """Dead and live rows of every table, as the statistics have it."""
    connection.execute("select pg_stat_force_next_flush()")
    row = connection.execute("select sum(n_dead_tup), sum(n_live_tup) from pg_stat_user_tables").fetchone()
    assert row is not None  # noqa: S101
    return int(row[0]), int(row[1])


def dirty_hours(connection: psycopg.Connection) -> int:
    """How many buckets (device, type, hour) wait to be recomputed."""
    row = connection.execute("select count(*) from rollup_dirty").fetchone()
    assert row is not None  # noqa: S101
    return int(row[0])


def mark(connection: psycopg.Connection) -> int:
    """A point in the history of transactions, for `touched_since`."""
    row = connection.execute("select pg_current_xact_id()::text::bigint & 4294967295").fetchone()
    assert row is not None  # noqa: S101
    return int(row[0])


def touched_since(connection: psycopg.Connection, since: int) -> Counter[tuple[str, int, datetime]]:
    """Rollup rows written since: how many for each table, device and time."""
    found: Counter[tuple[str, int, datetime]] = Counter()
    for name in hypertables(connection, "rollup_"):
        at = time_column(connection, name)
        query = sql.SQL(
            "select e.device_id, r.{at}::timestamptz, count(*) from {name} r join entity e on e.id = r.entity_id"
            " where r.xmin::text::bigint >= %s group by 1, 2"
        ).format(at=sql.Identifier(at), name=sql.Identifier(name))
        for device, hour, count in connection.execute(query, [since]):
            found[name, device, hour] += count
    return found


def time_column(connection: psycopg.Connection, table: str) -> str:
    """The column a hypertable is partitioned by."""
    row = connection.execute(
        "select column_name::text from timescaledb_information.dimensions"
        " where hypertable_name = %s and dimension_number = 1",
        [table],
    ).fetchone()
    assert row is not None  # noqa: S101
    return str(row[0])


def replicate(connection: psycopg.Connection, tenant: str, template: str, metric: str, days: int) -> int:
    """Give every device of the tenant, for each of `days` days back, the rollup rows that the worker made of one day of
    the device `template`; rows travel in the order of time, as the worker would write them. Returns how many.
    """
    written = 0
    for name in [*hypertables(connection, "rollup_"), *hypertables(connection, "sample_")]:
        at = time_column(connection, name)
        columns = [
            column
            for (column,) in connection.execute(
                "select attname::text from pg_attribute where attrelid = %s::regclass and attnum > 0"
                " and not attisdropped order by attnum",
                [name],
            )
        ]
        swapped = {"entity_id": "e.id", at: f"r.{at} - make_interval(days => day.n)"}
        chosen = ", ".join(swapped.get(column, f"r.{column}") for column in columns)
        query = (
            f"insert into {name} ({', '.join(columns)})"  # noqa: S608  # names from the catalogue
            f" select {chosen} from generate_series(%(from)s::int, %(to)s::int) as day(n), {name} r"
            " join entity te on te.id = r.entity_id join device td on td.id = te.device_id"
            " join tenant t on t.id = td.tenant_id join device d on d.tenant_id = t.id"
            " join entity e on e.device_id = d.id and e.type = te.type and e.key = te.key"
            " where t.key = %(tenant)s and td.name = %(template)s"
            f" and r.{at} >= (select max({at}) - interval '23 hours' from {name} x"
            " join entity xe on xe.id = x.entity_id join device xd on xd.id = xe.device_id"
            " join tenant xt on xt.id = xd.tenant_id where xt.key = %(tenant)s and xd.name = %(template)s)"
            " and r.metric_id = (select id from metric where name = %(metric)s)"
            f" order by day.n desc, r.{at}, e.id on conflict do nothing"
        )
        # oldest day first, a day at a time: the template's own day comes last
        for back in range(days - 1, -1, -1):
            values = {"from": back, "to": back, "tenant": tenant, "template": template, "metric": metric}
            written += connection.execute(query.encode(), values).rowcount
        connection.execute(sql.SQL("analyze {}").format(sql.Identifier(name)))
    return written


def landed(connection: psycopg.Connection, tenant: str) -> Counter[tuple[str, datetime]]:
    """How often each poll of a tenant is there, by router and moment."""
    found: Counter[tuple[str, datetime]] = Counter()
    for name in hypertables(connection, "poll_"):
        query = sql.SQL(
            "select d.name, p.ts, count(*) from {} p join device d on d.id = p.device_id"
            " join tenant t on t.id = d.tenant_id where t.key = %s group by 1, 2"
        ).format(sql.Identifier(name))
        for device, ts, count in connection.execute(query, [tenant]):
            found[device, ts] += count
    return found


def settle(connection: psycopg.Connection) -> None:
    """Nothing pending that would make a size look smaller or larger."""
    connection.execute("vacuum (analyze)")
    connection.execute("checkpoint")
