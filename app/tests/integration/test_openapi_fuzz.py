"""Schemathesis asks the server everything its OpenAPI allows, and more; no answer may be a 500."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import hypothesis
import pytest
import schemathesis
import uvicorn
from fastapi import FastAPI
from ispvm.server import create_app
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.core.result import Ok
from schemathesis.schemas import APIOperation
from server_world import ORIGIN, World

pytestmark = pytest.mark.host
Case = schemathesis.Case[Any]
Operation = APIOperation[Any, Any, Any, Any]
# Examples an operation, the same ones each time: a run that finds something can be repeated.
BOUNDED = hypothesis.settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
    phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
)


@contextmanager
def served(app: FastAPI) -> Iterator[str]:
    """The application on a free port of this host."""
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, lifespan="on"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            thread.join(0.02)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def fuzz(address: str, headers: dict[str, str], token: str, path: str = "") -> int:
    """Ask every operation (or those of one path); returns how many there were. Raises FailureGroup on a 500."""
    schema = schemathesis.openapi.from_url(f"{address}/api/openapi.json")
    asked = 0
    for found in schema.get_all_operations():
        assert isinstance(found, Ok), found
        operation = found.ok()
        if path and operation.path != path:
            continue
        agent = {"Authorization": f"Bearer {token}"} if operation.path.startswith("/ingest/") else {}
        _ask(operation, {**headers, **agent})
        asked += 1
    return asked


def _ask(operation: Operation, headers: dict[str, str]) -> None:
    @BOUNDED
    @hypothesis.given(case=operation.as_strategy())
    def ask(case: Case) -> None:
        case.call_and_validate(headers=headers, checks=[not_a_server_error])

    ask()


def cookie(world: World) -> dict[str, str]:
    return {"Cookie": "; ".join(f"{k}={v}" for k, v in world.client.cookies.items()), "Origin": ORIGIN}


async def test_no_question_ends_in_a_500(world: World) -> None:
    await world.sent(world.feeder.batch([world.now()]))
    with served(create_app(world.settings)) as address:
        asked = await asyncio.to_thread(fuzz, address, cookie(world), world.token)
    assert asked >= 14


async def test_a_500_is_found(world: World) -> None:
    app = create_app(world.settings)

    async def broken(number: int) -> int:
        return 1 // number if number < 1 else number

    app.add_api_route("/api/v1/broken", broken, response_model=None)
    with served(app) as address, pytest.raises(FailureGroup, match=r"[Ss]erver error"):
        await asyncio.to_thread(fuzz, address, cookie(world), world.token, "/api/v1/broken")
