"""Who is asking: sessions in a cookie, one-time links, passwords, throttling, and where a request may come from."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Annotated, Literal
from urllib.parse import urlsplit

from fastapi import Depends, Request
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from ispvm.refusal import RefusedError, answer
from ispvm.store.pool import Pool

COOKIE = "__Host-ispvm-session"
SESSION_DAYS = 30
Role = Literal["admin", "noc", "readonly"]
ROLE_LABELS: dict[Role, str] = {"admin": "Admin", "noc": "NOC", "readonly": "ReadOnly"}


@dataclass(frozen=True, slots=True)
class User:
    """Somebody signed in; the tenant decides all that they can see."""

    id: int
    tenant: int
    tenant_name: str
    name: str
    role: Role
    has_password: bool
    by_link: bool
    operator: bool  # of the tenant that runs the appliance


def new_secret() -> str:
    """A fresh unguessable token (256 bits)."""
    return secrets.token_urlsafe(32)


def hashed(secret: str) -> bytes:
    """What the database keeps of a token."""
    return hashlib.sha256(secret.encode()).digest()


async def find_user(request: Request) -> User | None:
    """The user of the session cookie, if it is one; asked at most every two seconds per session."""
    token = request.cookies.get(COOKIE, "")
    if not token:
        return None
    key = hashed(token)

    async def read() -> User | None:
        pool: Pool = request.app.state.pool
        async with pool.connection() as connection:
            rows = await connection.execute(
                "select id, tenant_id, tenant_name, name, role, has_password, by_link, operates(tenant_id)"
                " from user_by_session(%s)",
                [key],
            )
            row = await rows.fetchone()
        return User(*row) if row else None

    user: User | None = await request.app.state.sessions.get(key, read)
    return user


def known_user(request: Request) -> User | None:
    """The user of the session cookie, if the database was asked for it within the last two seconds."""
    token = request.cookies.get(COOKIE, "")
    user: User | None = request.app.state.sessions.peek(hashed(token)) if token else None
    return user


async def signed_in(request: Request) -> User:
    """The user, or 401."""
    user = await find_user(request)
    if user is None:
        raise RefusedError(401, "Cookie", "nobody is signed in", "sign in at /login")
    return user


SignedIn = Annotated[User, Depends(signed_in)]


def set_session(response: Response, token: str) -> None:
    """Give the browser its session; never readable by scripts, never sent from another site."""
    response.set_cookie(
        COOKIE, token, max_age=SESSION_DAYS * 86400, path="/", secure=True, httponly=True, samesite="strict"
    )


def end_session(response: Response) -> None:
    """Take the session from the browser."""
    response.delete_cookie(COOKIE, path="/", secure=True, httponly=True, samesite="strict")


class Throttle:
    """Slows down guessing: after `free` failures of a key each further one doubles the wait, up to `longest` s."""

    def __init__(self, free: int = 5, longest: float = 300, size: int = 10_000) -> None:
        """`size` bounds how many keys are remembered."""
        self._free, self._longest, self._size = free, longest, size
        self._failures: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def wait(self, *keys: str) -> float:
        """Seconds that these keys (a user name, an address) must still wait; 0 when they may try."""
        return max((self._until(key) for key in keys), default=0.0)

    def _until(self, key: str) -> float:
        count, last = self._failures.get(key, (0, 0.0))
        pause = min(self._longest, 2.0 ** (count - self._free)) if count >= self._free else 0.0
        return max(0.0, last + pause - time.monotonic())

    def failed(self, *keys: str) -> None:
        """Note a failure."""
        for key in keys:
            count = self._failures.pop(key, (0, 0.0))[0]
            self._failures[key] = (count + 1, time.monotonic())
            while len(self._failures) > self._size:
                self._failures.popitem(last=False)

    def succeeded(self, *keys: str) -> None:
        """Forget the failures."""
        for key in keys:
            self._failures.pop(key, None)


_HEADERS = [
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; font-src 'self'; connect-src 'self';"
        b" form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
]


class Guard:
    """Security headers on every answer, and no state-changing request from another site.

    A browser says in `Origin` where a POST comes from; it must be this server: by its public name, or by the name that
    the same request asked for (an address, a tunnel). Agents have no cookies: ingest is free.
    """

    def __init__(self, app: ASGIApp, origin: str) -> None:
        """`origin` is this server's, as browsers write it."""
        self.app, self.origin = app, origin

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def guarded(message: dict[str, object]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *_HEADERS]  # type: ignore[misc]
            await send(message)

        safe = scope["method"] in ("GET", "HEAD", "OPTIONS") or scope["path"].startswith("/ingest/")
        headers = Headers(scope=scope)
        origin = headers.get("origin", "")
        if not safe and not self._own(origin, headers.get("host", "")):
            refusal = RefusedError(
                403, "Origin", f"{origin or 'absent'} is not this server", f"open {self.origin}"
            ).refusal
            await answer(403, refusal)(scope, receive, guarded)  # type: ignore[arg-type]
            return
        await self.app(scope, receive, guarded)  # type: ignore[arg-type]

    def _own(self, origin: str, host: str) -> bool:
        return urlsplit(origin)[:2] in (urlsplit(self.origin)[:2], ("https", host))
