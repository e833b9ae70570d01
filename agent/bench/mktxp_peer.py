"""The peer of fleet.py: MKTXP polls the same server and renders its page. Run by fleet.py, in .cache/bench.

Only its resource and interface collectors run, as in our fast tier; connections are kept, as it does by default.

    python agent/bench/mktxp_peer.py PORT ROUTERS ROUNDS stock|nodelay   -> JSON: seconds and CPU seconds of each round
"""

from __future__ import annotations

import contextlib
import json
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mktxp.cli.config import CustomConfig, config_handler
from mktxp.flow.collector_handler import CollectorHandler
from mktxp.flow.collector_registry import CollectorRegistry
from mktxp.flow.router_entries_handler import RouterEntriesHandler
from prometheus_client import CollectorRegistry as Page
from prometheus_client import generate_latest

_KEEP = {"SystemResourceCollector", "InterfaceCollector"}


def no_delay() -> None:
    """Every connection with TCP_NODELAY, which MKTXP does not set."""
    plain = socket.create_connection

    def connect(*given: Any, **named: Any) -> socket.socket:
        connection = plain(*given, **named)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    socket.create_connection = connect


def main() -> None:
    """One page a round, as a Prometheus scrape would have it."""
    port, routers, rounds, kind = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    if kind == "nodelay":
        no_delay()
    entry = "[R{}]\nenabled = True\nhostname = 127.0.0.1\nport = {}\nusername = u\npassword = p\nuse_ssl = False\n"
    with tempfile.TemporaryDirectory() as directory, contextlib.redirect_stdout(sys.stderr):
        text = "".join(entry.format(number, port) for number in range(routers))
        (Path(directory) / "mktxp.conf").write_text(text + "[default]\n")
        config_handler(CustomConfig(directory))
        registry = CollectorRegistry()
        kept = {k: f for k, f in registry.registered_collectors.items() if f.__qualname__.partition(".")[0] in _KEEP}
        assert len(kept) == len(_KEEP)  # noqa: S101
        registry.registered_collectors = kept
        handler = CollectorHandler(RouterEntriesHandler(), registry)

        class Scrape:
            def collect(self) -> Iterator[Any]:
                yield from handler.collect_sync()

        page = Page(auto_describe=False)
        page.register(Scrape())
        taken = []
        for number in range(rounds + 1):
            wall, used = time.perf_counter(), time.process_time()
            size = len(generate_latest(page))
            if number:
                taken.append((time.perf_counter() - wall, time.process_time() - used, size))
    print(json.dumps(taken))


if __name__ == "__main__":
    main()
