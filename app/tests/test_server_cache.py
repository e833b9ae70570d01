from __future__ import annotations

import asyncio

import pytest
from ispvm.series.cache import Answers, Memory


class Maker:
    """Counts how often it is asked, and waits until it may answer."""

    def __init__(self) -> None:
        self.made, self.may = 0, asyncio.Event()

    async def __call__(self) -> bytes:
        self.made += 1
        await self.may.wait()
        return b"x" * self.made


async def test_many_ask_and_one_makes() -> None:
    answers, make = Answers(Memory()), Maker()
    asking = [asyncio.create_task(answers.get((1, "summary"), 60, make)) for _ in range(5)]
    await asyncio.sleep(0)
    asking[0].cancel()  # the first loses patience
    make.may.set()
    assert await asyncio.gather(*asking[1:]) == [b"x"] * 4
    assert await answers.get((1, "summary"), 60, make) == b"x"
    assert make.made == 1
    assert await answers.get((2, "summary"), 60, make) == b"xx"  # another tenant


async def test_an_error_is_told_to_all_and_not_kept() -> None:
    answers = Answers(Memory())

    async def fail() -> bytes:
        raise ValueError("no database")

    async def work() -> bytes:
        return b"now"

    told = await asyncio.gather(*(answers.get((1,), 60, fail) for _ in range(3)), return_exceptions=True)
    assert [str(one) for one in told] == ["no database"] * 3
    assert await answers.get((1,), 60, work) == b"now"


async def test_what_is_old_or_too_much_is_gone() -> None:
    memory = Memory(size_bytes=10)
    await memory.write("old", b"1", -1)
    assert await memory.read("old") is None
    await memory.write("a", b"12345", 60)
    await memory.write("b", b"12345", 60)
    assert await memory.read("a") == b"12345"
    await memory.write("c", b"1", 60)
    assert [await memory.read(key) for key in "abc"] == [None, b"12345", b"1"]
    await memory.write("b", b"123", 60)
    await memory.write("d", b"123456", 60)
    assert [await memory.read(key) for key in "bcd"] == [b"123", b"1", b"123456"]


async def test_without_a_keeper_every_question_is_made() -> None:
    answers, make = Answers(None), Maker()
    make.may.set()
    assert [await answers.get((1,), 60, make) for _ in range(2)] == [b"x", b"xx"]


@pytest.mark.parametrize("keys", [((1, "a"), (1, "b")), ((1, "ab"), (1, "a", "b")), ((1, None), (1, "x"))])
async def test_different_keys_are_different_answers(keys: tuple[tuple[object, ...], tuple[object, ...]]) -> None:
    answers, make = Answers(Memory()), Maker()
    make.may.set()
    assert await answers.get(keys[0], 60, make) != await answers.get(keys[1], 60, make)
