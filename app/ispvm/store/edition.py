"""What the community edition of TimescaleDB adds to the schema that both editions have: compression, continuous counts,
and jobs inside the maintenance window. `ispvm migrate` brings it, keeps it up to date, and takes it away again.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import psycopg
import structlog

from ispvm.settings import Settings

log = structlog.get_logger("ispvm.migrate")
COMPRESSED = ("event", "rollup_1d")
COMPRESS_AFTER_DAYS = 7
# How long a lock may be waited for before a chunk that somebody reads is left for the next run.
LOCK_TIMEOUT = "5s"
RETRY = "1 hour"
LICENSE = "select current_setting('timescaledb.license'), extversion from pg_extension where extname = 'timescaledb'"


class EditionError(RuntimeError):
    """The database does not run the edition that it should; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Job:
    """Something TimescaleDB does every night when the window opens."""

    procedure: str
    config: dict[str, Any]


def kept_days(settings: Settings) -> dict[str, int]:
    """How long each table of history is kept."""
    keep = settings.retention
    return {"sample_day": keep.rollup_1m_days, "rollup_1d": keep.rollup_1h_days, "event": keep.events_days}


def host_zone() -> str:
    """The IANA name of the zone the maintenance window is meant in."""
    _, found, name = str(Path("/etc/localtime").resolve()).partition("/zoneinfo/")
    return name if found else "UTC"


def jobs(settings: Settings) -> list[Job]:
    """What runs in the window, with everything that tells one configuration from another."""
    common = {
        "window": settings.retention.maintenance_window,
        "zone": host_zone(),
        "lock_timeout": LOCK_TIMEOUT,
    }
    return [
        Job("job_retention", {**common, "days": kept_days(settings)}),
        Job("job_compression", {**common, "tables": list(COMPRESSED), "after_days": COMPRESS_AFTER_DAYS}),
    ]


def bring(connection: psycopg.Connection, settings: Settings) -> bool:
    """Make the database what the edition in the settings needs; returns whether anything changed.

    The connection commits by itself. Raises EditionError when the loaded library cannot do it.
    """
    wanted = settings.storage.timescaledb_edition == "community"
    there = connection.execute("select to_regclass('incident_kept') is not null").fetchone() == (True,)
    if not wanted and not there:
        return False
    _check_license(connection, wanted=wanted)
    if not wanted:
        _leave(connection)
        return True
    changed = False
    with connection.transaction():
        if not there:
            connection.execute(_text("storage.sql").encode())
        changed |= _show_face(connection)
        changed |= _set_jobs(connection, jobs(settings))
    return changed


def _text(name: str) -> str:
    return files("ispvm.store").joinpath("community", name).read_text(encoding="utf-8")


def _check_license(connection: psycopg.Connection, *, wanted: bool) -> None:
    row = connection.execute(LICENSE.encode()).fetchone()
    license_, version = row or ("none", "none")
    if license_ == "timescale":
        return
    loaded = f"this database runs TimescaleDB {version} with timescaledb.license = '{license_}'"
    if wanted:
        raise EditionError(
            f"storage.timescaledb_edition is community, but {loaded}: install the community edition"
            " (ispvm_timescaledb_edition with ispvm_timescaledb_apt_source), or set apache"
        )
    raise EditionError(
        f"storage.timescaledb_edition is apache, and {loaded}, which cannot read what the community edition compressed:"
        " start the community edition again and migrate with apache there first, which decompresses"
    )


def _show_face(connection: psycopg.Connection) -> bool:
    """Make face.sql true again when it, or a table or view it stands on, is not what it was."""
    row = connection.execute(
        "select string_agg(format('%%s %%s %%s', attrelid::regclass, attname, atttypid::regtype), ',' order by"
        " attrelid::regclass::text, attnum), pg_get_viewdef('public.rollup_1h'::regclass),"
        " pg_get_viewdef('public.incident_count'::regclass), obj_description(to_regnamespace('ispvm'), 'pg_namespace')"
        " from pg_attribute where attrelid = any(%s::regclass[]) and attnum > 0 and not attisdropped",
        [[f"public.{name}" for name in COMPRESSED]],
    ).fetchone()
    *parts, shown = row or ()
    made_of = hashlib.sha256("\n".join([_text("face.sql"), *map(str, parts)]).encode()).hexdigest()
    if shown == made_of:
        return False
    connection.execute(_text("face.sql").encode())
    connection.execute(f"comment on schema ispvm is '{made_of}'".encode())
    # A late event is counted by the next of these; a new one at once, since what is not counted yet is read as it lies.
    # The first has all there is to count: a week a transaction instead of a bucket.
    connection.execute(
        "select add_continuous_aggregate_policy('incident_kept', start_offset => null,"
        " end_offset => interval '15 minutes', schedule_interval => interval '5 minutes', buckets_per_batch => 7 * 96)"
    )
    return True


def _set_jobs(connection: psycopg.Connection, wanted: list[Job]) -> bool:
    there: dict[str, tuple[int, dict[str, Any]]] = {
        name: (number, config)
        for name, number, config in connection.execute(
            "select proc_name::text, job_id, config from timescaledb_information.jobs where proc_name = any(%s)",
            [[job.procedure for job in wanted]],
        )
    }
    changed = False
    for job in wanted:
        number, config = there.get(job.procedure, (None, None))
        if config == job.config:
            continue
        if number is not None:
            connection.execute("select delete_job(%s)", [number])
        begin, zone = job.config["window"].split("-")[0], job.config["zone"]
        connection.execute(
            "select alter_job(add_job(%(name)s, interval '1 day', config => %(config)s, timezone => %(zone)s,"
            " initial_start => moment + case when moment < now() then interval '1 day' else interval '0' end),"
            " retry_period => %(retry)s::interval, max_runtime => interval '0')"
            " from (select ((now() at time zone %(zone)s)::date + %(begin)s::time) at time zone %(zone)s as moment) m",
            {"name": job.procedure, "config": json.dumps(job.config), "zone": zone, "begin": begin, "retry": RETRY},
        )
        changed = True
    return changed


def _leave(connection: psycopg.Connection) -> None:
    connection.execute("select delete_job(job_id) from timescaledb_information.jobs where job_id >= 1000")
    chunks = connection.execute(
        "select format('%%I.%%I', chunk_schema, chunk_name) from timescaledb_information.chunks"
        " where hypertable_name = any(%s) and is_compressed order by range_end",
        [list(COMPRESSED)],
    ).fetchall()
    for (chunk,) in chunks:  # each by itself: an interruption loses nothing, and the next run goes on
        connection.execute("select decompress_chunk(%s)", [chunk])
        log.info("decompressed", chunk=chunk)
    with connection.transaction():
        connection.execute(_text("leave.sql").encode())
