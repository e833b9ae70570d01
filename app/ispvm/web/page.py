"""How a page is made, and who may see one."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Request
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.responses import HTMLResponse, RedirectResponse, Response

from ispvm import __version__
from ispvm.health.state import BRIEF, LABELS
from ispvm.series.overview import load_class
from ispvm.web import show
from ispvm.web.auth import ROLE_LABELS, User, find_user

_pages = Environment(
    loader=PackageLoader("ispvm.web"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)
_pages.filters |= {
    "bps": show.bps,
    "capacity": show.capacity,
    "size": show.size,
    "pct": show.pct,
    "number": show.number,
    "duration": show.duration,
    "seconds": show.seconds,
    "load_class": load_class,
    "sparkline": show.sparkline,
    "each_second": show.each_second,
}
_pages.globals |= {
    "since": show.since,
    "LABELS": LABELS,
    "BRIEF": BRIEF,
    "ROLE_LABELS": ROLE_LABELS,
    "KINDS": show.KINDS,
    "version": __version__,
}


class NotSignedInError(Exception):
    """Sends a browser to the sign-in page."""


async def page_user(request: Request) -> User:
    """The user of a page; others are sent to sign in, also from within a refreshing page."""
    user = await find_user(request)
    if user is None:
        raise NotSignedInError
    return user


PageUser = Annotated[User, Depends(page_user)]


class NotFoundError(Exception):
    """Shows the page for things that are not there (or not yours)."""


async def to_missing(request: Request, error: Exception) -> Response:
    """The answer to NotFoundError."""
    problem = str(error) if isinstance(error, NotFoundError) else "There is no such page"
    return page("missing.html", 404, user=await find_user(request), problem=problem)


async def to_login(request: Request, _: Exception) -> Response:
    """The answer to NotSignedInError."""
    if "hx-request" in request.headers:
        return Response(status_code=401, headers={"HX-Redirect": "/login"})
    return RedirectResponse("/login", 303)


def page(template: str, status: int = 200, /, **values: Any) -> HTMLResponse:
    """A page from its template; every page is made anew."""
    return HTMLResponse(_pages.get_template(template).render(**values), status, {"Cache-Control": "no-store"})
