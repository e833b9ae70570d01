"""The application: every router, in one place."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from starlette.middleware import Middleware
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

from ispvm import __version__, refusal
from ispvm.health.routes import router as health_router
from ispvm.ingest.routes import CONTRACT_SCHEMAS, Gate
from ispvm.ingest.routes import router as ingest_router
from ispvm.ingest.senders import Senders
from ispvm.reports.routes import router as reports_router
from ispvm.series.budget import Budgets
from ispvm.series.cache import TOP_SECONDS, Answers, Cache, Memory
from ispvm.series.routes import router as series_router
from ispvm.series.shared import Shared
from ispvm.settings import Settings
from ispvm.store.pool import open_pool
from ispvm.web.auth import Guard, Throttle
from ispvm.web.compatibility import router as compatibility_router
from ispvm.web.inventory import router as inventory_router
from ispvm.web.page import NotFoundError, NotSignedInError, to_login, to_missing
from ispvm.web.reports import router as reports_page_router
from ispvm.web.routes import router as web_router

ROUTERS = (
    health_router,
    ingest_router,
    series_router,
    reports_router,
    web_router,
    reports_page_router,
    compatibility_router,
    inventory_router,
)


def create_app(settings: Settings) -> FastAPI:
    """A server for these settings; nothing is shared between two of them."""

    shared = Shared(settings.cache.valkey) if settings.cache.valkey else None

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.pool = open_pool(settings.database.dsn, settings.database.pool_size)
        await app.state.pool.open()
        try:
            yield
        finally:
            await app.state.pool.close()
            if shared:
                await shared.close()

    app = FastAPI(
        title="ISPVisualMonitor",
        version=__version__,
        lifespan=lifespan,
        openapi_url="/api/openapi.json",
        docs_url=None,
        redoc_url=None,
        middleware=[Middleware(Guard, origin=settings.origin)],
    )
    app.state.settings = settings
    app.state.gate = Gate(2 * settings.database.pool_size)
    app.state.senders = Senders()
    app.state.sessions = Cache(seconds=2)
    app.state.overviews = Cache(seconds=2)
    app.state.rankings = Cache(seconds=TOP_SECONDS)
    app.state.platform = Cache(seconds=10)
    app.state.incidents = Cache(seconds=TOP_SECONDS)
    app.state.answers = Answers(shared or Memory())
    app.state.budgets = Budgets()
    app.state.throttle = Throttle()
    for router in ROUTERS:
        app.include_router(router)
    app.mount("/static", StaticFiles(directory=str(files("ispvm.web").joinpath("static"))), name="static")
    refusal.install(app)
    app.add_exception_handler(NotSignedInError, to_login)
    app.add_exception_handler(NotFoundError, to_missing)
    app.add_exception_handler(404, _missing)
    app.add_exception_handler(RequestValidationError, _missing)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return app


async def _missing(request: Request, error: Exception) -> Response:
    """A page for people, a refusal for programs."""
    if refusal.wants_page(request):
        return await to_missing(request, error)
    return await (refusal.invalid if isinstance(error, RequestValidationError) else refusal.http)(request, error)


def _openapi(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, routes=app.routes)
        document.setdefault("components", {}).setdefault("schemas", {}).update(CONTRACT_SCHEMAS)
        app.openapi_schema = document
    return app.openapi_schema
