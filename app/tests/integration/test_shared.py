"""Answers in valkey: the real one, as Debian has it, on the test host."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta

import msgspec
import pytest
from host_shell import on_host
from ispvm.series import shared
from ispvm.series.cache import Answers
from ispvm.series.shared import Shared
from ispvm.server import create_app
from ispvm.settings import Cache, Settings
from server_world import World


@pytest.fixture
def url() -> str:
    try:
        return os.environ["ISPVM_TEST_VALKEY"]
    except KeyError:
        pytest.fail("ISPVM_TEST_VALKEY is not set; `make test-integration` makes the host and sets it", pytrace=False)


@pytest.fixture
async def keeper(url: str) -> AsyncIterator[Shared]:
    keeper = Shared(url)
    yield keeper
    await keeper.close()


@pytest.fixture
def without_valkey() -> Iterator[None]:
    on_host("systemctl", "stop", "valkey-server")
    try:
        yield
    finally:
        on_host("systemctl", "start", "valkey-server")


async def test_a_value_lives_as_long_as_it_was_told(keeper: Shared) -> None:
    assert await keeper.read("none") is None
    await keeper.write("long", b"\x00\xff", 60)
    await keeper.write("short", b"x", 0.05)
    assert await keeper.read("long") == b"\x00\xff"
    deadline = time.monotonic() + 5
    while await keeper.read("short") is not None:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


async def test_what_one_server_made_another_gives(world: World, keeper: Shared, url: str) -> None:
    other = Shared(url)
    one, two = Answers(keeper), Answers(other)
    key = (1, "summary", world.tenant)
    made = 0

    async def make() -> bytes:
        nonlocal made
        made += 1
        await asyncio.sleep(0.05)
        return b"answer %d" % made

    assert await asyncio.gather(*(one.get(key, 60, make) for _ in range(5))) == [b"answer 1"] * 5
    assert await two.get(key, 60, make) == b"answer 1"
    await other.close()


async def test_the_settings_decide_and_the_path_is_the_same(
    world: World, settings: Settings, keeper: Shared, url: str
) -> None:
    app = create_app(msgspec.structs.replace(settings, cache=Cache(url)))
    async with app.router.lifespan_context(app):
        world.app.state.answers = app.state.answers
        await world.sent(world.feeder.batch([world.now()]))
        first = await world.get("/api/v1/summary")
        await world.sent(world.feeder.batch([world.now() + timedelta(seconds=1)]))
        assert (await world.get("/api/v1/summary")).content == first.content
        # As a second server would: it knows neither the question nor the answer.
        world.app.state.answers = Answers(keeper)
        assert (await world.get("/api/v1/summary")).content == first.content


async def test_without_valkey_answers_are_made_anew_and_it_is_said_once(
    world: World,
    keeper: Shared,
    without_valkey: None,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said: list[str] = []
    monkeypatch.setattr(shared.log, "warning", lambda text, **_: said.append(text))
    monkeypatch.setattr(shared.log, "info", lambda text, **_: said.append(text))
    monkeypatch.setattr(shared, "AWAY_SECONDS", 0.0)
    world.app.state.answers = Answers(keeper)
    for second in range(3):
        await world.sent(world.feeder.batch([world.now() + timedelta(seconds=second)]))
        answer = await world.get("/api/v1/summary")
        assert answer.status_code == 200, answer.text
    assert said == ["valkey does not answer; every answer is made anew"]
    on_host("systemctl", "start", "valkey-server")
    async with asyncio.timeout(20):
        while len(said) == 1:
            await world.get("/api/v1/summary")
            await asyncio.sleep(0.05)
    assert said[1:] == ["valkey answers again"]
