"""What compression of the community edition wins and costs, on data as the worker writes them.

ci/community --serve DIRECTORY &
PYTHONPATH=contract:app .venv/bin/python -m bench.editions DIRECTORY
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from datetime import date, timedelta

import msgspec
import psycopg
from ispvm import settings as config
from ispvm.store.migrate import migrate
from ispvm.store.rollup import roll_up
from psycopg import AsyncConnection

DAYS = 60
FIRST = date(2026, 3, 2)
INVENTORY = """
insert into tenant (key, name) values ('bench', 'Bench');
insert into site (tenant_id, key, name) select id, 'pop', 'PoP' from tenant;
insert into device (tenant_id, uuid, site_id, name, address)
    select tenant_id, gen_random_uuid(), id, 'r1', '192.0.2.1' from site;
insert into entity (tenant_id, device_id, type, key, name, capacity_bps)
    select tenant_id, id, 'interface', n, n, 1000000000 from device, generate_series(1, 60) n;
insert into entity_set (tenant_id, device_id, type, name, entities)
    select tenant_id, device_id, 'interface', 'all', array_agg(id order by id) from entity group by 1, 2;
insert into event (tenant_id, device_id, ts, id, name, severity, entity_type, key, old, new)
    select tenant_id, id, now() - n * interval '3 min', gen_random_uuid(),
           (array['interface.oper.changed', 'device.api.changed'])[1 + n % 2], 'warning', 'interface',
           'ether' || n % 24, 'up', 'down'
    from device, generate_series(1, 50000) n;
"""
# A poll a minute. A third of the interfaces is idle, the others follow a daily curve with noise; few count errors.
POLLS = """
insert into poll_interface
    (tenant_id, device_id, ts, set_id, interval_s, source, oper_up, rx_bps, tx_bps, rx_errors_total)
select s.tenant_id, s.device_id, m.ts, s.id, 60, 'bench', array_fill(true, array[cardinality(s.entities)]),
       rates.rx, rates.tx, rates.errors
from entity_set s,
generate_series(%(day)s::date, %(day)s::date + interval '1439 min', interval '1 min') as m(ts),
lateral (select array_agg(load order by n)::real[], array_agg(load * 0.4 order by n)::real[],
                array_agg(case n %% 10 when 0 then extract(epoch from ts)::bigint / 600 else n end order by n)
         from (select n, case n %% 3 when 0 then 0 else n * 9e6 * exp(random_normal(0, 0.08))
                       * (1 + 0.5 * sin(extract(epoch from m.ts) / 13751)) end as load
               from generate_series(1, cardinality(s.entities)) n) as one) as rates(rx, tx, errors);
"""
DIRTY = """
insert into rollup_dirty (tenant_id, device_id, type, hour, due)
select tenant_id, id, 'interface', hour, now()
from device, generate_series(%(day)s::date, %(day)s::date + interval '23 hours', interval '1 hour') hour
"""
READS = {
    "chart of one entity, rollup_1d": "select * from rollup_1d where entity_id = 37"
    " and metric_id = (select id from metric where name = 'interface.rx_bps')",
    "chart of one entity, sample_day": "select day, samples from sample_day where entity_id = 37"
    " and metric_id = (select id from metric where name = 'interface.rx_bps')",
    "top ten of 30 days, rollup_1d": "select entity_id, sum(n), sum(sum) / sum(n), max(max) from rollup_1d"
    " where tenant_id = 1 and metric_id = (select id from metric where name = 'interface.rx_bps')"
    " and day >= '2026-03-10' and day < '2026-04-09' group by 1 order by 3 desc limit 10",
    "all incidents of 30 days, event": "select count(*) from event where tenant_id = 1"
    " and ts >= now() - interval '40 days' and ts < now() - interval '10 days'",
}


async def _fill(owner: str) -> None:
    async with await AsyncConnection.connect(owner, autocommit=True) as connection:
        await connection.execute(INVENTORY.encode())
        for number in range(DAYS):
            day = {"day": FIRST + timedelta(days=number)}
            await connection.execute(POLLS.encode(), day)
            await connection.execute(DIRTY.encode(), day)
            while await roll_up(connection, 50):
                pass
            await connection.execute("truncate poll_interface")


def _times(connection: psycopg.Connection) -> dict[str, float]:
    """Milliseconds of each read, median of 21."""
    found: dict[str, list[float]] = {name: [] for name in READS}
    for _ in range(21):
        for name, query in READS.items():
            begin = time.perf_counter()
            connection.execute(query.encode()).fetchall()
            found[name].append((time.perf_counter() - begin) * 1000)
    return {name: statistics.median(times) for name, times in found.items()}


def main() -> None:
    """Fill, read, compress, read again."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory")
    dsn = f"host={parser.parse_args().directory} port=5432 dbname=ispvm user="
    made = {
        "schema_version": 1, "environment": "demo", "public_url": "https://monitor.test",
        "database": {"dsn": f"{dsn}ispvm", "worker_dsn": f"{dsn}ispvm_worker", "owner_dsn": f"{dsn}ispvm_owner"},
        "storage": {"timescaledb_edition": "community"},
    }  # fmt: skip
    migrate(msgspec.convert(made, config.Settings))
    asyncio.run(_fill(f"{dsn}ispvm_owner"))
    with psycopg.connect(f"{dsn}ispvm_owner", autocommit=True) as connection:
        # The product leaves samples alone; here is what it would win.
        connection.execute("alter table sample_day no force row level security, disable row level security")
        connection.execute(
            "alter table sample_day set (timescaledb.compress, timescaledb.compress_segmentby = 'tenant_id, metric_id',"
            " timescaledb.compress_orderby = 'entity_id, day')"
        )
        tables = ("rollup_1d", "sample_day", "event")
        for table in tables:
            connection.execute(f"vacuum analyze {table}".encode())
        before = _times(connection)
        for table in tables:
            connection.execute("select compress_chunk(c) from show_chunks(%s) c", [table])
            row = connection.execute(
                "select sum(before_compression_total_bytes)::float8, sum(after_compression_total_bytes)::float8"
                " from chunk_compression_stats(%s)",
                [table],
            ).fetchone()
            old, new = row or (0, 1)
            print(f"{table}: {old / 2**20:.1f} MiB, compressed {new / 2**20:.1f} MiB, {old / new:.2f} times smaller")
        for name, after in _times(connection).items():
            print(f"{name}: {before[name]:.1f} ms, compressed {after:.1f} ms")
        begin = time.perf_counter()
        (job,) = connection.execute(
            "select job_id from timescaledb_information.jobs where proc_name = 'policy_refresh_continuous_aggregate'"
        ).fetchone() or (0,)
        connection.execute(f"call run_job({job})".encode())
        print(f"first count of all incidents: {time.perf_counter() - begin:.1f} s")


if __name__ == "__main__":
    main()
