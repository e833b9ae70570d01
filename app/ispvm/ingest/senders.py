"""Which agent a token belongs to.

The lookup is by hash in a unique index, so its time says nothing of the token. What was found is remembered, so that a
batch needs no lookup of its own before it is read. The transaction that stores it asks again: a token that was revoked,
or bound to other sites, is noticed at once all the same.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import Request

from ispvm.refusal import RefusedError
from ispvm.store.pool import Pool

# The same of an agent of the transaction's tenant, for a tenth of what the function costs that sees all.
CONFIRM = (
    "select a.id, a.tenant_id, a.name, a.revoked_at is not null,"
    " array(select s.site_id from agent_site s where s.agent_id = a.id) from agent a where a.token_sha256 = %s"
)


@dataclass(frozen=True, slots=True)
class Sender:
    """An agent whose token was accepted; `sites` are the ids it may speak for."""

    id: int
    tenant: int
    name: str
    sites: frozenset[int]


def token_hash(request: Request) -> bytes:
    """SHA-256 of the token in the Authorization header."""
    match = re.fullmatch(r"Bearer +([A-Za-z0-9._~+/=-]{8,512})", request.headers.get("authorization", ""))
    if match is None:
        raise RefusedError(
            401,
            "Authorization",
            "no bearer token",
            "send `Authorization: Bearer TOKEN`",
            {"WWW-Authenticate": "Bearer"},
        )
    return hashlib.sha256(match[1].encode()).digest()


def sender_in(row: Sequence[Any] | None) -> Sender | None:
    """The agent in a row about a token; none when the token is not known or was revoked."""
    return None if row is None or row[3] else Sender(row[0], row[1], row[2], frozenset(row[4]))


class Senders:
    """Agents whose tokens were accepted since the server began."""

    def __init__(self) -> None:
        """Nobody yet."""
        self._known: dict[bytes, Sender] = {}

    async def remembered(self, pool: Pool, token: bytes) -> Sender:
        """As `looked_up`, without asking when the token was accepted before."""
        return self._known.get(token) or await self.looked_up(pool, token)

    async def looked_up(self, pool: Pool, token: bytes) -> Sender:
        """The agent that a token stands for now; refused when there is none."""
        async with pool.connection() as connection:
            found = await connection.execute(
                "select id, tenant_id, name, revoked, sites from agent_by_token(%s)", [token]
            )
            row = await found.fetchone()
        if (sender := sender_in(row)) is not None:
            self._known[token] = sender
            return sender
        self._known.pop(token, None)
        if row is None:
            raise RefusedError(
                401, "Authorization", "the token is not known here", "enroll the agent", {"WWW-Authenticate": "Bearer"}
            )
        raise RefusedError(403, "Authorization", "the token was revoked", "enroll the agent again")
