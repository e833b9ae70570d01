"""Bring the schema to the newest revision: plain SQL files, applied in order, each once and never edited afterwards."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.resources import files

import psycopg
from ispvm_contract.registry import registry
from psycopg import sql

from ispvm.settings import Settings
from ispvm.store import edition
from ispvm.store.columns import landing_types, table

# Any constant will do, as long as every release uses the same one.
_LOCK = 0x69737076
_OUTSIDE = "-- ispvm: outside a transaction"


class MigrationError(RuntimeError):
    """The database cannot be brought to this release; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file of `migrations/`; `name` is its file name, `checksum` the SHA-256 of its text."""

    name: str
    text: str

    @property
    def checksum(self) -> str:
        """SHA-256, hexadecimal."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def migrations() -> list[Migration]:
    """All migrations of this release in order."""
    folder = files("ispvm.store").joinpath("migrations")
    found = (entry for entry in folder.iterdir() if entry.name.endswith(".sql"))
    return sorted((Migration(e.name, e.read_text(encoding="utf-8")) for e in found), key=lambda m: m.name)


def migrate(settings: Settings) -> bool:
    """Apply what is missing, bring the edition's part, and record environment, metrics and chunk interval. Returns
    whether anything changed.

    Raises MigrationError when an applied file was edited, the database is newer than this release, runs another edition
    of TimescaleDB, or is marked with another environment that may not change.
    """
    with psycopg.connect(settings.database.owner_dsn, autocommit=True) as connection:
        connection.execute("select pg_advisory_lock(%s)", [_LOCK])
        changed = _apply(connection, migrations())
        with connection.transaction():
            changed |= _record_environment(connection, settings.environment)
            changed |= _record_metrics(connection)
            changed |= _set_chunk_interval(connection, settings.storage.chunk_hours)
        try:
            changed |= edition.bring(connection, settings)
        except edition.EditionError as error:
            raise MigrationError(str(error)) from error
    return changed


def _apply(connection: psycopg.Connection, wanted: list[Migration]) -> bool:
    connection.execute(
        "create table if not exists schema_migration"
        " (name text primary key, checksum text not null, applied_at timestamptz not null default now())"
    )
    applied: dict[str, str] = dict(connection.execute("select name, checksum from schema_migration").fetchall())
    if newer := sorted(set(applied) - {m.name for m in wanted}):
        raise MigrationError(
            f"the database has revision {newer[-1]}, which this release does not know; install a newer release"
        )
    changed = False
    for migration in wanted:
        if (checksum := applied.get(migration.name)) is not None:
            if checksum != migration.checksum:
                raise MigrationError(f"{migration.name} was edited after it was applied; add a new migration instead")
            continue
        record = ("insert into schema_migration (name, checksum) values (%s, %s)", [migration.name, migration.checksum])
        if migration.text.startswith(_OUTSIDE):
            connection.execute(migration.text.encode())
            connection.execute(*record)
        else:
            with connection.transaction():
                connection.execute(migration.text.encode())
                connection.execute(*record)
        changed = True
    return changed


def _record_environment(connection: psycopg.Connection, environment: str) -> bool:
    row = connection.execute("select environment from deployment for update").fetchone()
    if row is None:
        connection.execute("insert into deployment (environment) values (%s)", [environment])
        return True
    if row[0] == environment:
        return False
    if row[0] == "production":
        raise MigrationError(
            f"the database is marked production, which never changes; environment says {environment!r}"
        )
    if environment == "production" and connection.execute("select 1 from tenant where seeded limit 1").fetchone():
        raise MigrationError("the database holds seeded demo data; production needs a database of its own")
    connection.execute("update deployment set environment = %s, since = now()", [environment])
    return True


def _record_metrics(connection: psycopg.Connection) -> bool:
    with connection.cursor() as cursor:
        known = {name for (name,) in cursor.execute("select name from metric")}
        missing = [(name,) for name in registry().metrics if name not in known]
        cursor.executemany("insert into metric (name) values (%s)", missing)
    return bool(missing)


def _set_chunk_interval(connection: psycopg.Connection, hours: int) -> bool:
    changed = False
    for entity_type in landing_types():
        name = table(entity_type)
        row = connection.execute(
            "select extract(epoch from time_interval)::int / 3600 from timescaledb_information.dimensions"
            " where hypertable_name = %s and dimension_number = 1",
            [name],
        ).fetchone()
        if row is None or row[0] != hours:
            statement = sql.SQL("select set_chunk_time_interval({}, make_interval(hours => {}))")
            connection.execute(statement.format(name, hours))
            changed = True
    return changed
