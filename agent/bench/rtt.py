"""How many round trips a poll takes: one router behind a path of 100 ms, all fast-tier commands.

The path is a relay on loopback that delivers every piece half a round trip late, in both directions. Peers ask the same
commands one after the other over the same path. What a relay does not have is TCP's slow start: an answer larger than
about 14 kB would cost a real path one more round trip on a new connection.

    python agent/bench/rtt.py [--milliseconds 100] [--interfaces 50] [--polls 5]
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from contextlib import suppress

import librouteros
from fleet import FakeRouter
from ispvm_agent.collectors import catalogue
from ispvm_agent.routeros.session import Target, connect


async def relay(port: int, delay: float) -> asyncio.Server:
    """A path to `port` on which everything takes `delay` seconds each way."""

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        while data := await reader.read(1 << 16):
            loop.call_later(delay, writer.write, data)
        loop.call_later(delay, writer.close)

    async def joined(near: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        far, there = await asyncio.open_connection("127.0.0.1", port)
        with suppress(ConnectionError):
            await asyncio.gather(carry(near, there), carry(far, back))

    return await asyncio.start_server(joined, "127.0.0.1", 0)


async def measure(delay: float, polls: int) -> None:
    """Ours, all in one write; librouteros, one command after the other."""
    loop = asyncio.get_running_loop()
    router = await loop.create_server(FakeRouter, "127.0.0.1", 0)
    path = await relay(router.sockets[0].getsockname()[1], delay / 2)
    port = path.sockets[0].getsockname()[1]
    fast = [collector for collector in catalogue() if collector.tier == "fast"]
    commands = list(dict.fromkeys(command for collector in fast for command in collector.ask((7, 22))))
    session = await connect(Target("127.0.0.1", port, "off"), "u", "p")
    api = await librouteros.async_connect("127.0.0.1", "u", "p", port=port)
    ours, theirs = [], []
    for _ in range(polls):
        began = time.perf_counter()
        replies = await session.run(commands)
        ours.append((time.perf_counter() - began) / delay)
        assert all(reply.done is not None and reply.trap is None for reply in replies)  # noqa: S101
        began = time.perf_counter()
        for command in commands:
            assert [row async for row in api.rawCmd(*command.words)]  # noqa: S101
        theirs.append((time.perf_counter() - began) / delay)
    print(f"{len(commands)} fast-tier commands, {FakeRouter.interfaces} interfaces, {delay * 1000:.0f} ms round trip, "
          f"median of {polls}")  # fmt: skip
    for name, taken in (("ours", ours), ("librouteros_async", theirs)):
        print(f"{name:<20}{statistics.median(taken):6.2f} round trips [{min(taken):.2f}-{max(taken):.2f}]")
    session.close()
    await api.close()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--milliseconds", type=float, default=100)
    parser.add_argument("--interfaces", type=int, default=50)
    parser.add_argument("--polls", type=int, default=5)
    options = parser.parse_args()
    FakeRouter.interfaces = options.interfaces
    asyncio.run(measure(options.milliseconds / 1000, options.polls))


if __name__ == "__main__":
    main()
