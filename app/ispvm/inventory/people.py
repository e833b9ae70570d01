"""Links that sign somebody in once; the first one makes the first administrator."""

from __future__ import annotations

import hashlib
import secrets
from datetime import timedelta

import psycopg

from ispvm.inventory.agents import ensure_tenant
from ispvm.settings import Settings


def login_link(settings: Settings, user: str, tenant: str | None, valid_minutes: int, role: str = "admin") -> str:
    """A new address that signs `user` in once; unused older links of that user end. Only its hash is stored.

    A user of a new name is made, with `role`.

    Raises ValueError for a validity outside 1 minute to 7 days, and LookupError when it is not clear in which tenant a
    new user belongs.
    """
    if not 1 <= valid_minutes <= 7 * 24 * 60:
        raise ValueError(f"--valid-minutes {valid_minutes}: from 1 to {7 * 24 * 60} (seven days)")
    token = secrets.token_urlsafe(32)
    with psycopg.connect(settings.database.owner_dsn) as connection:
        row = connection.execute("select id, tenant_id from app_user where name = %s", [user]).fetchone()
        if row is None:
            row = _make_user(connection, user, tenant, role)
        connection.execute("delete from login_link where user_id = %s and used_at is null", [row[0]])
        connection.execute(
            "insert into login_link (token_sha256, tenant_id, user_id, expires_at) values (%s, %s, %s, now() + %s)",
            [hashlib.sha256(token.encode()).digest(), row[1], row[0], timedelta(minutes=valid_minutes)],
        )
    return f"{settings.origin}/login/one-time/{token}"


def _make_user(connection: psycopg.Connection, user: str, tenant: str | None, role: str) -> tuple[int, int]:
    if tenant is None:
        tenants = [key for (key,) in connection.execute("select key from tenant order by key").fetchall()]
        if len(tenants) != 1:
            there = f"there are several tenants ({', '.join(tenants)})" if tenants else "there is no tenant yet"
            raise LookupError(f"user {user!r} is new and {there}: say which with --tenant")
        tenant = tenants[0]
    tenant_id, _ = ensure_tenant(connection, tenant)
    try:
        made = connection.execute(
            "insert into app_user (tenant_id, name, role) values (%s, %s, %s) returning id", [tenant_id, user, role]
        ).fetchone()
    except psycopg.errors.CheckViolation as error:
        raise ValueError(
            f"--user {user!r}: letters, digits and . _ @ -, at most 64, starting with one of the first"
        ) from error
    assert made is not None  # noqa: S101
    return made[0], tenant_id
