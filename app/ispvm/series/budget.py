"""What one tenant may ask at most. The limits stand in `tenant_setting` and are set with `ispvm tenant set`."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime

from fastapi import Request
from psycopg.errors import QueryCanceled
from psycopg.rows import class_row

from ispvm.refusal import RefusedError
from ispvm.series.cache import Cache
from ispvm.store.pool import Connection, reading
from ispvm.web.auth import User


@dataclass(frozen=True, slots=True)
class Budget:
    """A row of `tenant_setting`; the defaults are those of the table."""

    time_zone: str = "UTC"
    max_range_days: int = 1830
    max_points: int = 600
    max_entities: int = 200
    max_concurrent: int = 8
    statement_timeout_ms: int = 5000

    def check_range(self, start: datetime, end: datetime) -> None:
        """Refuse a range that is too long."""
        if (end - start).total_seconds() > self.max_range_days * 86400:
            raise self.refused("max_range_days", "the range is longer", "ask for a shorter range")

    def check_points(self, points: int) -> None:
        """Refuse too many points."""
        if points > self.max_points:
            raise self.refused("max_points", f"{points} points are more", "ask for fewer points")

    def check_entities(self, count: int, fix: str) -> None:
        """Refuse too many entities at once."""
        if count > self.max_entities:
            raise self.refused("max_entities", f"{count} entities are more", fix)

    def refused(self, limit: str, problem: str, fix: str) -> RefusedError:
        """The refusal that names a limit."""
        return RefusedError(422, limit, f"{problem} than this tenant's {getattr(self, limit)}", fix)


DEFAULTS = Budget()


class Budgets:
    """Budgets of all tenants, read again every `seconds`, and how many queries of each run in this process."""

    def __init__(self, seconds: float = 10) -> None:
        """`seconds`: how long a changed limit may take to be followed."""
        self._cache: Cache[Budget] = Cache(seconds)
        self._running: Counter[int] = Counter()

    async def of(self, request: Request, user: User) -> Budget:
        """The budget of the user's tenant."""

        async def read() -> Budget:
            async with reading(request.app.state.pool, user.tenant, DEFAULTS.statement_timeout_ms) as connection:
                cursor = await connection.cursor(row_factory=class_row(Budget)).execute(
                    "select time_zone, max_range_days, max_points, max_entities, max_concurrent, statement_timeout_ms"
                    " from tenant_setting where tenant_id = current_tenant()"
                )
                return await cursor.fetchone() or DEFAULTS

        return await self._cache.get(user.tenant, read)

    @asynccontextmanager
    async def query(self, request: Request, user: User) -> AsyncIterator[Connection]:
        """A transaction within the tenant's budget: refused when too many run already (429) or it is too slow (422)."""
        budget = await self.of(request, user)
        if self._running[user.tenant] >= budget.max_concurrent:
            problem = f"{budget.max_concurrent} queries of this tenant run already, which is all it may"
            raise RefusedError(429, "max_concurrent", problem, "send it again in a second", {"Retry-After": "1"})
        self._running[user.tenant] += 1
        try:
            async with reading(request.app.state.pool, user.tenant, budget.statement_timeout_ms) as connection:
                yield connection
        except QueryCanceled as error:
            raise budget.refused(
                "statement_timeout_ms", "the query takes more milliseconds", "ask for a shorter range or fewer entities"
            ) from error
        finally:
            self._running[user.tenant] -= 1
