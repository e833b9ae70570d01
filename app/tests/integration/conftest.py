from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import msgspec
import psycopg
import pytest
from ispvm import settings as config
from ispvm.inventory.agents import enroll
from ispvm.inventory.people import login_link
from ispvm.inventory.seeds import apply
from ispvm.series.budget import Budgets
from ispvm.series.cache import Answers, Cache
from ispvm.server import create_app
from ispvm.settings import Settings
from ispvm.store.migrate import migrate
from ispvm.web.auth import COOKIE
from ispvm_contract import seed as seeds
from server_world import ORIGIN, World

SEED = Path(__file__).parents[3] / "seeds" / "demo_small.json"


def _dsn(name: str) -> str:
    try:
        return os.environ[f"ISPVM_TEST_DSN_{name}"]
    except KeyError:
        pytest.fail(
            f"ISPVM_TEST_DSN_{name} is not set; `make test-integration` makes a database and sets it", pytrace=False
        )


@pytest.fixture(scope="session")
def settings() -> Settings:
    """A server on the test database, migrated by the product itself."""
    made = msgspec.convert(
        {
            "schema_version": 1,
            "environment": "demo",
            "public_url": ORIGIN,
            "database": {
                "dsn": _dsn("SERVER"),
                "worker_dsn": _dsn("WORKER"),
                "owner_dsn": _dsn("OWNER"),
                "pool_size": 4,
            },
            "storage": {"timescaledb_edition": os.environ.get("ISPVM_TEST_EDITION", "apache")},
        },
        config.Settings,
    )
    migrate(made)
    return made


@pytest.fixture
def owner(settings: Settings) -> Iterator[psycopg.Connection]:
    with psycopg.connect(settings.database.owner_dsn, autocommit=True) as connection:
        yield connection


@pytest.fixture
def config_file(settings: Settings, tmp_path: Path) -> Path:
    path = tmp_path / "server.toml"
    path.write_text(
        f'schema_version = 1\nenvironment = "demo"\npublic_url = "{settings.public_url}"\n[database]\n'
        + "".join(f'{n} = "{getattr(settings.database, n)}"\n' for n in ("dsn", "worker_dsn", "owner_dsn"))
        + f'[storage]\ntimescaledb_edition = "{settings.storage.timescaledb_edition}"\n'
    )
    return path


@pytest.fixture
async def make_world(settings: Settings, tmp_path: Path) -> AsyncIterator[Callable[[], Awaitable[World]]]:
    """Makes worlds that share one server."""
    async with AsyncExitStack() as stack:
        app = create_app(settings)
        # Tests read what they just wrote.
        app.state.overviews, app.state.sessions, app.state.incidents = Cache(0), Cache(0), Cache(0)
        app.state.answers, app.state.budgets = Answers(None), Budgets(0)
        await stack.enter_async_context(app.router.lifespan_context(app))

        async def make() -> World:
            tenant, token = f"t{secrets.token_hex(5)}", secrets.token_urlsafe(24)
            raw = msgspec.json.decode(SEED.read_bytes())
            raw["tenant"] = {"key": tenant, "name": f"Tenant {tenant}"}
            path = tmp_path / f"{tenant}.json"
            path.write_bytes(msgspec.json.encode(raw))
            apply(settings, path)
            seed = seeds.load(path)
            enroll(settings, tenant, "pop", [s.key for s in seed.sites], hashlib.sha256(token.encode()).hexdigest())
            client = await stack.enter_async_context(
                httpx.AsyncClient(
                    transport=httpx.ASGITransport(app),
                    base_url=ORIGIN,
                    headers={"Origin": ORIGIN, "X-Forwarded-For": "192.0.2.1"},  # as the proxy says it
                )
            )
            link = login_link(settings, f"op-{tenant}", tenant, 5)
            answer = await client.post(link.removeprefix(ORIGIN))
            assert answer.status_code == 303
            assert COOKIE in client.cookies
            return World(settings, tenant, token, seed, app, client)

        yield make


@pytest.fixture
async def world(make_world: Callable[[], Awaitable[World]]) -> World:
    return await make_world()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.integration)
