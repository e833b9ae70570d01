"""Who may send data: agents, bound to one tenant and its sites by the hash of their token."""

from __future__ import annotations

import re
from collections.abc import Sequence

import psycopg

from ispvm.settings import Settings

_KEY = re.compile(r"\S(.{0,253}\S)?")


def ensure_tenant(connection: psycopg.Connection, key: str, name: str | None = None) -> tuple[int, bool]:
    """The id of a tenant, made if absent, and whether it was made."""
    row = connection.execute("select id from tenant where key = %s", [key]).fetchone()
    if row is not None:
        return row[0], False
    made = connection.execute(
        # the first one is the operator's
        "insert into tenant (key, name, operator) values (%s, %s, not exists (select from tenant)) returning id",
        [key, name or key],
    ).fetchone()
    assert made is not None  # noqa: S101  # an insert without ON CONFLICT returns its row
    return made[0], True


def ensure_site(connection: psycopg.Connection, tenant: int, key: str) -> tuple[int, bool]:
    """The id of a site, made if absent (named by its key until an inventory says more), and whether it was made."""
    row = connection.execute("select id from site where tenant_id = %s and key = %s", [tenant, key]).fetchone()
    if row is not None:
        return row[0], False
    made = connection.execute(
        "insert into site (tenant_id, key, name) values (%s, %s, %s) returning id", [tenant, key, key]
    ).fetchone()
    assert made is not None  # noqa: S101
    return made[0], True


def enroll(settings: Settings, tenant: str, name: str, sites: Sequence[str], token_sha256: str) -> bool:
    """Bind an agent to a tenant and exactly these sites, with this token; a revoked agent is welcome again.

    Returns whether anything changed. Raises ValueError for a malformed name or hash, or a token another agent uses.
    """
    for option, value in (("--tenant", tenant), ("--name", name), *(("--site", site) for site in sites)):
        if not _KEY.fullmatch(value):
            raise ValueError(f"{option} {value!r}: 1 to 255 characters, no blanks at the ends")
    if not re.fullmatch("[0-9a-f]{64}", token_sha256):
        raise ValueError("--token-sha256: 64 hexadecimal digits, as `ispvm-agent token ensure` prints them")
    token = bytes.fromhex(token_sha256)
    with psycopg.connect(settings.database.owner_dsn) as connection:
        tenant_id, changed = ensure_tenant(connection, tenant)
        site_ids = set()
        for key in sites:
            site_id, made = ensure_site(connection, tenant_id, key)
            site_ids.add(site_id)
            changed |= made
        row = connection.execute(
            "select id, token_sha256, revoked_at from agent where tenant_id = %s and name = %s", [tenant_id, name]
        ).fetchone()
        try:
            if row is None:
                row = connection.execute(
                    "insert into agent (tenant_id, name, token_sha256) values (%s, %s, %s)"
                    " returning id, token_sha256, revoked_at",
                    [tenant_id, name, token],
                ).fetchone()
                assert row is not None  # noqa: S101
                changed = True
            elif row[1] != token or row[2] is not None:
                connection.execute(
                    "update agent set token_sha256 = %s, revoked_at = null where id = %s", [token, row[0]]
                )
                changed = True
        except psycopg.errors.UniqueViolation as error:
            raise ValueError("--token-sha256: another agent uses this token; make one of its own") from error
        agent_id = row[0]
        bound = {s for (s,) in connection.execute("select site_id from agent_site where agent_id = %s", [agent_id])}
        if bound != site_ids:
            connection.execute("delete from agent_site where agent_id = %s", [agent_id])
            with connection.cursor() as cursor:
                cursor.executemany(
                    "insert into agent_site (agent_id, site_id, tenant_id) values (%s, %s, %s)",
                    [(agent_id, site_id, tenant_id) for site_id in sorted(site_ids)],
                )
            changed = True
    return changed


def revoke(settings: Settings, tenant: str, name: str) -> bool:
    """Refuse an agent's token from now on. Returns whether anything changed; LookupError without such an agent."""
    with psycopg.connect(settings.database.owner_dsn) as connection:
        row = connection.execute(
            "select a.id, a.revoked_at from agent a join tenant t on t.id = a.tenant_id"
            " where t.key = %s and a.name = %s",
            [tenant, name],
        ).fetchone()
        if row is None:
            raise LookupError(f"no agent {name!r} in tenant {tenant!r}; `ispvm agent list` shows all")
        if row[1] is not None:
            return False
        connection.execute("update agent set revoked_at = now() where id = %s", [row[0]])
    return True


def listing(settings: Settings) -> str:
    """One line an agent: tenant, name, sites, last heartbeat, state."""
    with psycopg.connect(settings.database.owner_dsn) as connection:
        rows = connection.execute(
            "select t.key, a.name, coalesce(string_agg(s.key, ',' order by s.key), '-'),"
            " coalesce(to_char(a.last_heartbeat at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'), 'never'),"
            " case when a.revoked_at is null then 'active' else 'revoked' end"
            " from agent a join tenant t on t.id = a.tenant_id"
            " left join agent_site x on x.agent_id = a.id left join site s on s.id = x.site_id"
            " group by t.key, a.id order by 1, 2"
        ).fetchall()
    return "\n".join("\t".join(row) for row in [("TENANT", "NAME", "SITES", "LAST HEARTBEAT", "STATE"), *rows])
