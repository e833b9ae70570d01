"""One shape for every refusal: the field at fault, what is wrong, what to do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from ispvm_contract.ingest import Refusal
from psycopg import DataError, OperationalError
from psycopg.errors import DiskFull, QueryCanceled
from psycopg_pool import PoolTimeout, TooManyRequests
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import Response

RETRY_SECONDS = 5
# Somebody has to make room first.
DISK_RETRY_SECONDS = 60


class RefusalOut(BaseModel):
    """The contract's Refusal, for OpenAPI."""

    field: str = Field(description="the field at fault")
    problem: str
    fix: str = Field(description="what to do")


# For `APIRouter(responses=…)`: how every refusal of a reading route looks.
RESPONSES: dict[int | str, dict[str, Any]] = {
    401: {"model": RefusalOut, "description": "Nobody is signed in"},
    404: {"model": RefusalOut, "description": "Not there, or not yours"},
    422: {"model": RefusalOut, "description": "A parameter is wrong"},
    503: {"model": RefusalOut, "description": "Too busy, or too slow a query"},
}


class RefusedError(Exception):
    """Ends a request with a 4xx or 5xx status and a Refusal as its body."""

    def __init__(
        self, status: int, field: str, problem: str, fix: str, headers: Mapping[str, str] | None = None
    ) -> None:
        """The four parts of the answer, and headers to go with it."""
        super().__init__(f"{field}: {problem}")
        self.status, self.refusal, self.headers = status, Refusal(field, problem, fix), headers


def answer(status: int, refusal: Refusal, headers: Mapping[str, str] | None = None) -> Response:
    """A refusal as a response."""
    return Response(msgspec.json.encode(refusal), status, dict(headers or {}), "application/json")


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, RefusedError)  # noqa: S101
    return answer(error.status, error.refusal, error.headers)


async def invalid(_: Request, error: Exception) -> Response:
    """A parameter that is missing or of the wrong kind."""
    assert isinstance(error, RequestValidationError)  # noqa: S101
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"] if part not in ("query", "path", "body")) or "request"
    return answer(422, Refusal(field, str(first["msg"]), "see /api/openapi.json for what is allowed"))


async def http(_: Request, error: Exception) -> Response:
    """What the framework refuses, such as an unknown path."""
    assert isinstance(error, HTTPException)  # noqa: S101
    return answer(error.status_code, Refusal("request", str(error.detail), "see /api/openapi.json"), error.headers)


async def _busy(request: Request, error: Exception) -> Response:
    storing = request.url.path.startswith("/ingest/")
    if isinstance(error, QueryCanceled) and not storing:
        return answer(503, Refusal("request", "the query took too long", "ask for a shorter range or fewer points"))
    problem, seconds = "no database connection", RETRY_SECONDS
    if isinstance(error, TooManyRequests):
        problem = "too many requests wait for the database"
    elif isinstance(error, QueryCanceled):
        problem = "the database did not answer in time"
    elif isinstance(error, DiskFull):
        problem, seconds = "the database's disk is full", DISK_RETRY_SECONDS
    return answer(503, Refusal("server", problem, f"send it again in {seconds} s"), {"Retry-After": str(seconds)})


async def _unstorable(_: Request, error: Exception) -> Response:
    """What types allow and the database does not, such as a NUL character or a number out of range."""
    return answer(422, Refusal("request", str(error).splitlines()[0], "send values that can be stored"))


def wants_page(request: Request) -> bool:
    """Whether a person with a browser asks, rather than a program."""
    return "text/html" in request.headers.get("accept", "") and not request.url.path.startswith(("/api/", "/ingest/"))


def install(app: FastAPI) -> None:
    """Make the application answer every error in this shape."""
    for kind, handler in {
        RefusedError: _refused,
        RequestValidationError: invalid,
        HTTPException: http,
        PoolTimeout: _busy,
        TooManyRequests: _busy,
        OperationalError: _busy,
        DataError: _unstorable,
    }.items():
        app.add_exception_handler(kind, handler)
