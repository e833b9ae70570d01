"""What one round of polls of many routers costs this agent: decode, rates, encode, compress, spool.

A server process answers resource and interface prints on one port; every poller has its own connection. Connecting and
the first poll are not counted. Prints seconds and CPU seconds of the agent's process a round, and its memory; then the
same for MKTXP with fewer routers, as it comes and with TCP_NODELAY, by the router.

    python agent/bench/fleet.py [--routers 1000] [--interfaces 53] [--rounds 5] [--peer-routers 50]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import resource
import statistics
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from ispvm_agent import config
from ispvm_agent.outbox import Outbox
from ispvm_agent.poller import Poller
from ispvm_agent.probes import Prober
from ispvm_agent.routeros.wire import encode_sentence
from ispvm_agent.spool import Spool
from ispvm_contract import ingest
from ispvm_contract.identity import device_id


class FakeRouter(asyncio.Protocol):
    """Answers any number of tagged commands in a write."""

    interfaces = 53
    tick = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport: Any = transport
        self.begun = b""

    def data_received(self, data: bytes) -> None:
        """One answer a sentence; sentences end with a zero byte."""
        *sentences, self.begun = (self.begun + data).split(b"\0")
        for sentence in sentences:
            tag = b".tag=" + sentence.rpartition(b".tag=")[2] if b".tag=" in sentence else b""
            word = bytes([len(tag)]) + tag if tag else b""
            if b"/system/resource" in sentence:
                FakeRouter.tick += 1
                rows = [{"uptime": f"{100_000 + FakeRouter.tick}s", "version": "7.22.2 (stable)", "cpu-load": 7}]
            elif b"/interface" in sentence:
                rows = [_interface(number) for number in range(self.interfaces)]
            else:
                rows = []
            answer = b"".join(
                encode_sentence(["!re", *(f"={k}={v}" for k, v in row.items())])[:-1] + word + b"\0" for row in rows
            )
            self.transport.write(answer + b"\x05!done" + word + b"\0")


def _interface(number: int) -> dict[str, object]:
    moved = 4503283119192160 + number + FakeRouter.tick * 1_000_003
    return {
        "name": f"sfp-sfpplus{number}", "default-name": f"sfp-sfpplus{number}", "type": "ether", "running": "true",
        "disabled": "false", "rx-byte": moved, "tx-byte": moved // 3, "rx-error": 717, "tx-error": 0,
        "rx-drop": 239, "tx-drop": 0, "link-downs": 3,
    }  # fmt: skip


def serve(ready: Connection, interfaces: int) -> None:
    """All routers, in a process of their own."""

    async def work() -> None:
        FakeRouter.interfaces = interfaces
        server = await asyncio.get_running_loop().create_server(FakeRouter, "127.0.0.1", 0, backlog=1024)
        ready.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(work())


async def measure(port: int, routers: int, rounds: int, directory: Path) -> tuple[float, float]:
    """Poll all routers, several rounds, fast tier only; returns seconds and CPU seconds of a router's poll."""
    disk = ThreadPoolExecutor(1)
    spool: Spool = disk.submit(Spool, directory, 10**9, 10**9).result()
    outbox = Outbox(ingest.Agent("bench", "0"), spool, disk)
    prober = Prober(["127.0.0.1"], 10, lambda address, old, new: None)
    polling = config.Polling(fast_seconds=30, medium_seconds=3000, slow_seconds=3000)
    pollers = []
    for number in range(routers):
        router = config.Router(
            name=f"R{number}", site="s", address="127.0.0.1", port=port, user="u", tls="off", credential="c"
        )
        pollers.append(
            Poller(router, device_id("bench", router.name), "p", polling, outbox, prober, lambda name, learned: None)
        )
    used: list[float] = []
    walls: list[float] = []
    for number in range(rounds + 1):
        before, began = time.process_time(), time.perf_counter()
        for start in range(0, routers, 50):  # as the phase spreads them: some at a time, a flush now and then
            await asyncio.gather(*(poller.poll() for poller in pollers[start : start + 50]))
            await outbox.flush()
        used.append(time.process_time() - before)
        walls.append(time.perf_counter() - began)
        for batch_id in list(outbox._carried):
            outbox.confirm(batch_id)
        failed = sum(poller.summary.state != "ok" for poller in pollers)
        print(
            f"round {number}: {used[-1]:.2f} CPU-s, {failed} failed"
            + (" (connects, not counted)" if not number else "")
        )
    depth = disk.submit(spool.depth).result()
    rows = FakeRouter.interfaces + 1
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{routers} routers x {rows} rows: median {statistics.median(used[1:]):.2f} CPU-s a round "
          f"[{min(used[1:]):.2f}-{max(used[1:]):.2f}], peak memory {peak:.0f} MB")  # fmt: skip
    size = depth.bytes / (rounds + 1) / routers / FakeRouter.interfaces
    print(f"{depth.batches} batches, {size:.1f} bytes an interface row as sent")
    for poller in pollers:
        poller.close()
    disk.shutdown()
    return statistics.median(walls[1:]) / routers, statistics.median(used[1:]) / routers


def compare(port: int, routers: int, rounds: int, ours: tuple[float, float]) -> None:
    """The same polls by MKTXP."""
    python = Path(__file__).parents[2] / ".cache/bench/bin/python"
    for kind in ("stock", "nodelay"):
        peer = Path(__file__).parent / "mktxp_peer.py"
        command: list[str | Path] = [python, peer, str(port), str(routers), str(rounds), kind]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)  # noqa: S603
        rounds_taken = json.loads(done.stdout)
        wall, used = (statistics.median(one[place] for one in rounds_taken) / routers for place in (0, 1))
        print(f"mktxp {kind:<8} {wall * 1e3:8.2f} ms, {used * 1e3:6.2f} CPU-ms a router: "
              f"{wall / ours[0]:.0f}x our time, {used / ours[1]:.0f}x our CPU")  # fmt: skip


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--routers", type=int, default=1000)
    parser.add_argument("--interfaces", type=int, default=53)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peer-routers", type=int, default=50, help="0: without MKTXP")
    options = parser.parse_args()
    files, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(files, 8192)), hard))
    here, there = multiprocessing.Pipe()
    server = multiprocessing.Process(target=serve, args=(there, options.interfaces), daemon=True)
    server.start()
    FakeRouter.interfaces = options.interfaces
    with tempfile.TemporaryDirectory() as directory:
        port = here.recv()
        ours = asyncio.run(measure(port, options.routers, options.rounds, Path(directory)))
    print(f"ours           {ours[0] * 1e3:8.2f} ms, {ours[1] * 1e3:6.2f} CPU-ms a router")
    if options.peer_routers:
        compare(port, options.peer_routers, options.rounds, ours)
    server.terminate()


if __name__ == "__main__":
    main()
