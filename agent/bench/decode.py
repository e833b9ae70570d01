"""How fast replies are read: this agent, librouteros, and a bare recv as the limit, in one run, interleaved.

A server process on loopback answers a 50-interface print. Each client asks the same number of times on one connection;
what counts is rows a second, by the wall and by the client's CPU. Typed means counters as numbers, names as text.

    python agent/bench/decode.py [--rounds 5] [--asks 200]
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import socket
import statistics
import time
from collections.abc import Callable
from itertools import cycle
from multiprocessing.connection import Connection

import librouteros
from ispvm_agent.collectors.base import Moment
from ispvm_agent.collectors.interfaces import Interfaces
from ispvm_agent.routeros.commands import Command
from ispvm_agent.routeros.session import Target, connect
from ispvm_agent.routeros.wire import encode_sentence

ROWS = 50


def _reply(moved: int = 0) -> tuple[bytes, bytes]:
    """The answer to the interface print, without tags and with a placeholder for them; byte counters have `moved`."""
    plain = tagged = b""
    for number in range(ROWS):
        values = {
            "name": f"sfp-sfpplus{number}", "default-name": f"sfp-sfpplus{number}", "type": "ether", "running": "true",
            "disabled": "false",
            "rx-byte": 4503283119192160 + number * moved, "tx-byte": 990260581007418 + number * moved,
            "rx-error": 717, "tx-error": 0, "rx-drop": 239, "tx-drop": 0, "link-downs": 3,
        }  # fmt: skip
        row = encode_sentence(["!re", *(f"={key}={value}" for key, value in values.items())])
        plain += row
        tagged += row[:4] + b"\x09.tag=TTTT" + row[4:]
    return plain + encode_sentence(["!done"]), tagged + encode_sentence(["!done", ".tag=TTTT"])


def serve(ready: Connection) -> None:
    """Answer every sentence with the reply (or with `!done` to a login), one connection at a time."""
    replies = cycle([_reply(125_000_000 * step) for step in range(1, 65)])
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ready.send((listener.getsockname()[1], len(next(replies)[0])))
        while True:
            peer, _ = listener.accept()
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with peer:
                while data := peer.recv(65536):
                    plain, tagged = next(replies)
                    tag = data[data.find(b".tag=") + 5 : -1] if b".tag=" in data else b""
                    if data.startswith(b"\x06/login"):
                        word = bytes([5 + len(tag)]) + b".tag=" + tag if tag else b""
                        peer.sendall(b"\x05!done" + word + b"\0")
                    elif tag:
                        word = bytes([5 + len(tag)]) + b".tag=" + tag
                        peer.sendall(tagged.replace(b"\x09.tag=TTTT", word))
                    else:
                        peer.sendall(plain)


def recv_only(port: int, size: int, asks: int) -> None:
    """The limit: receive the bytes, look at none."""
    question = encode_sentence(Command.INTERFACES.words)
    buffer = bytearray(1 << 18)
    with socket.create_connection(("127.0.0.1", port)) as peer:
        for _ in range(asks):
            peer.sendall(question)
            left = size
            while left:
                left -= peer.recv_into(buffer)


def librouteros_sync(port: int, size: int, asks: int) -> None:
    """librouteros, blocking."""
    api = librouteros.connect("127.0.0.1", "u", "p", port=port)
    for _ in range(asks):
        assert len(list(api.rawCmd(*Command.INTERFACES.words))) == ROWS  # noqa: S101
    api.close()


def librouteros_async(port: int, size: int, asks: int) -> None:
    """librouteros, asyncio."""

    async def work() -> None:
        api = await librouteros.async_connect("127.0.0.1", "u", "p", port=port)
        for _ in range(asks):
            assert len([row async for row in api.rawCmd(*Command.INTERFACES.words)]) == ROWS  # noqa: S101
        await api.close()

    asyncio.run(work())


def _ours(port: int, asks: int, collect: bool) -> None:
    async def work() -> None:
        session = await connect(Target("127.0.0.1", port, "off"), "u", "p")
        interfaces = Interfaces()
        for number in range(asks):
            (reply,) = await session.run([Command.INTERFACES])
            assert reply.count == ROWS  # noqa: S101
            if collect:
                interfaces.publish({Command.INTERFACES: reply}, Moment(0.0, float(number)))
        session.close()

    asyncio.run(work())


def ours(port: int, size: int, asks: int) -> None:
    """This agent: rows of text."""
    _ours(port, asks, collect=False)


def ours_with_collector(port: int, size: int, asks: int) -> None:
    """This agent: rows, typed, with rates and events, as a table ready to encode."""
    _ours(port, asks, collect=True)


CLIENTS: tuple[Callable[[int, int, int], None], ...] = (
    recv_only, librouteros_sync, librouteros_async, ours, ours_with_collector,
)  # fmt: skip


def main() -> None:
    """Run all clients in turn, several rounds, and print medians."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--asks", type=int, default=200)
    options = parser.parse_args()
    here, there = multiprocessing.Pipe()
    server = multiprocessing.Process(target=serve, args=(there,), daemon=True)
    server.start()
    port, size = here.recv()
    wall: dict[str, list[float]] = {client.__name__: [] for client in CLIENTS}
    cpu: dict[str, list[float]] = {client.__name__: [] for client in CLIENTS}
    for _ in range(options.rounds):
        for client in CLIENTS:
            began, used = time.perf_counter(), time.process_time()
            client(port, size, options.asks)
            wall[client.__name__].append(options.asks * ROWS / (time.perf_counter() - began))
            cpu[client.__name__].append(options.asks * ROWS / (time.process_time() - used))
    server.terminate()
    print(f"{size / ROWS:.0f} bytes a row, {ROWS} rows a reply, {options.asks} replies, median of {options.rounds}")
    print(f"{'':<22}{'rows/s':>12}{'':>22}{'rows/CPU-s':>14}{'vs librouteros_async':>24}")
    base = statistics.median(cpu["librouteros_async"])
    for name in wall:
        walls, cpus = wall[name], cpu[name]
        spread = f"[{min(walls):,.0f}-{max(walls):,.0f}]"
        median = statistics.median(cpus)
        print(f"{name:<22}{statistics.median(walls):>12,.0f}{spread:>22}{median:>14,.0f}{median / base:>23.1f}x")


if __name__ == "__main__":
    main()
