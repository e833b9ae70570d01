"""What one tenant may ask at most, and in which zone its days and months are counted (`ispvm tenant`)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import psycopg
from psycopg import sql
from psycopg.rows import class_row

from ispvm.series.budget import DEFAULTS, Budget
from ispvm.settings import Settings


def _tenant(connection: psycopg.Connection, key: str) -> int:
    row = connection.execute("select id from tenant where key = %s", [key]).fetchone()
    if row is None:
        raise LookupError(f"--tenant: there is no tenant {key!r}")
    return int(row[0])


def _budget(connection: psycopg.Connection, tenant: int) -> Budget:
    cursor = connection.cursor(row_factory=class_row(Budget)).execute(
        "select time_zone, max_range_days, max_points, max_entities, max_concurrent, statement_timeout_ms"
        " from tenant_setting where tenant_id = %s",
        [tenant],
    )
    return cursor.fetchone() or DEFAULTS


def show(settings: Settings, key: str) -> str:
    """The limits of a tenant, one a line, and whether it runs the appliance. Raises LookupError for an unknown one."""
    with psycopg.connect(settings.database.owner_dsn) as connection:
        tenant = _tenant(connection, key)
        budget, operator = _budget(connection, tenant), _operates(connection, tenant)
    said = {**dataclasses.asdict(budget), "operator": "yes" if operator else "no"}
    return "\n".join(f"{name} = {value}" for name, value in said.items())


def _operates(connection: psycopg.Connection, tenant: int) -> bool:
    row = connection.execute("select operator from tenant where id = %s", [tenant]).fetchone()
    return bool(row and row[0])


def set_operator(settings: Settings, key: str, operator: bool) -> bool:
    """Let the administrators of a tenant see how the whole appliance does, or no longer; returns whether anything
    changed. Raises LookupError for an unknown tenant.
    """
    with psycopg.connect(settings.database.owner_dsn) as connection:
        tenant = _tenant(connection, key)
        changed = connection.execute(
            "update tenant set operator = %s where id = %s and operator <> %s", [operator, tenant, operator]
        )
    return changed.rowcount > 0


def change(settings: Settings, key: str, values: Mapping[str, int | str]) -> bool:
    """Set limits by their names in `Budget`; returns whether anything changed.

    Raises LookupError for an unknown tenant, ValueError naming the option for a value that is not allowed.
    """
    with psycopg.connect(settings.database.owner_dsn) as connection:
        tenant = _tenant(connection, key)
        wanted = dataclasses.replace(before := _budget(connection, tenant), **values)  # type: ignore[arg-type]
        known = connection.execute("select 1 from pg_timezone_names where name = %s", [wanted.time_zone]).fetchone()
        if known is None:
            raise ValueError(f"--time-zone {wanted.time_zone!r}: no such zone; give one such as Europe/Berlin")
        if wanted == before:
            return False
        fields = dataclasses.asdict(wanted)
        names = [sql.Identifier(name) for name in fields]
        try:
            connection.execute(
                sql.SQL(
                    "insert into tenant_setting (tenant_id, {names}) values (%s, {places})"
                    " on conflict (tenant_id) do update set {sets}"
                ).format(
                    names=sql.SQL(", ").join(names),
                    places=sql.SQL(", ").join([sql.Placeholder()] * len(names)),
                    sets=sql.SQL(", ").join(sql.SQL("{0} = excluded.{0}").format(name) for name in names),
                ),
                [tenant, *fields.values()],
            )
        except (psycopg.errors.CheckViolation, psycopg.errors.NumericValueOutOfRange) as error:
            allowed = _allowed(settings)
            raise ValueError(f"a limit is out of range; allowed: {allowed}") from error
    return True


def _allowed(settings: Settings) -> str:
    """The ranges that the database allows, as it states them."""
    with psycopg.connect(settings.database.owner_dsn) as connection:
        rows = connection.execute(
            "select pg_get_expr(conbin, conrelid) from pg_constraint"
            " where conrelid = 'tenant_setting'::regclass and contype = 'c' order by conname"
        ).fetchall()
    return ", ".join(str(text).strip("()").replace("(", "").replace(")", "") for (text,) in rows)
