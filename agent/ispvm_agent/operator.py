"""Answers for people: does this router work, how is the agent doing, what does it send and where."""

from __future__ import annotations


def transparency(as_json: bool) -> str:
    return ""


def status(as_json: bool) -> int:
    return 0


async def check(config, name, as_json) -> int:
    return 0
