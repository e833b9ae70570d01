"""`ispvm-agent run`: puts the parts together and keeps them going."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import msgspec
from ispvm_contract import ingest

from ispvm_agent import __version__, credentials, service, targets
from ispvm_agent.collectors import catalogue
from ispvm_agent.config import Config
from ispvm_agent.outbox import Outbox
from ispvm_agent.poller import Poller
from ispvm_agent.probes import Prober
from ispvm_agent.spool import Depth, Spool
from ispvm_agent.targets import Service
from ispvm_agent.uplink import Uplink, client, heartbeat

_log = logging.getLogger("agent")


class Daemon:
    """One agent. The spool is used only on the one thread of `disk`, because fsync must not hold up the polls."""

    def __init__(self, config: Config, http: httpx.AsyncClient, passwords: dict[str, str]) -> None:
        """Open the spool; `passwords` by credential name."""
        self.config = config
        self.started_ms = int(time.time() * 1000)
        self.agent = ingest.Agent(
            config.agent.name,
            __version__,
            sorted({collector.name for collector in catalogue()} | {"ping", "tcp", "http", "dns"}),
        )
        self.disk = ThreadPoolExecutor(1, "spool")
        self.spool: Spool = self.disk.submit(
            Spool,
            Path(config.spool.directory),
            config.spool.max_megabytes * 1_000_000,
            config.spool.max_age_hours * 3_600_000,
        ).result()
        self.depth = Depth()
        self.outbox = Outbox(self.agent, self.spool, self.disk)
        self.uplink = Uplink(http, self.spool, self.outbox, self.disk)
        pinged = [probe.target for probe in config.probes if probe.kind == "icmp"]
        self.prober = Prober(
            dict.fromkeys([router.address for router in config.routers] + pinged),
            config.polling.probe_seconds,
            self._reachability_changed,
        )
        self.pollers = [
            Poller(router, config.device_id(router), passwords[router.credential], config.polling, self.outbox,
                   self.prober, self._remember)
            for router in config.routers
        ]  # fmt: skip
        watched, self.services = targets.watch(config, self.prober)
        for poller in self.pollers:
            poller.watched = watched[poller.router.name]
            poller.restore(self.disk.submit(self.spool.recall, poller.router.name).result())

    def _remember(self, router: str, learned: dict[str, Any]) -> None:
        self.disk.submit(self.spool.remember, router, learned)

    def _reachability_changed(self, address: str, old: bool | None, new: bool) -> None:
        for poller in self.pollers:
            if poller.router.address == address:
                poller.reachability_changed(old, new)

    async def beat(self) -> None:
        """Heartbeats, and the status line of the unit."""
        loop = asyncio.get_running_loop()
        while True:
            self.depth = await loop.run_in_executor(self.disk, self.spool.depth)
            self.depth = replace(self.depth, dropped_batches=self.depth.dropped_batches + self.outbox.unwritten)
            routers = [poller.summary for poller in self.pollers]
            ok = sum(summary.state == "ok" for summary in routers)
            service.notify(f"STATUS={ok} of {len(routers)} routers answer, {self.depth.batches} batches to deliver")
            synchronised = service.clock_synchronised()
            await self.uplink.beat(heartbeat(self.agent, self.started_ms, self.depth, routers, synchronised))
            await asyncio.sleep(ingest.HEARTBEAT_SECONDS)

    async def watchdog(self) -> None:
        """A sign of life while the event loop turns."""
        seconds = service.watchdog_seconds()
        while seconds is not None:
            service.notify("WATCHDOG=1")
            await asyncio.sleep(seconds)

    async def run(self, metrics_port: int = service.METRICS_PORT) -> None:
        """Run until cancelled; what was gathered is on disk when this returns."""
        pages = {
            "/metrics": ("text/plain; version=0.0.4", self.metrics_text),
            "/status": ("application/json", self.status_text),
        }
        server = await service.serve_loopback(pages, metrics_port)
        self.metrics_port = server.sockets[0].getsockname()[1]
        try:
            async with server, asyncio.TaskGroup() as tasks:
                parts: list[Outbox | Uplink | Prober | Poller | Service] = [
                    self.outbox, self.uplink, self.prober, *self.pollers, *self.services,
                ]  # fmt: skip
                for part in parts:
                    tasks.create_task(part.run())
                tasks.create_task(self.beat())
                tasks.create_task(self.watchdog())
                service.notify("READY=1")
                _log.info("agent %s polls %d routers", self.agent.name, len(self.pollers))
        finally:
            service.notify("STOPPING=1")
            await asyncio.get_running_loop().run_in_executor(self.disk, self.spool.close)
            self.disk.shutdown()

    def status(self) -> dict[str, Any]:
        """How things stand, for people and programs; no secrets in it."""
        health = self.uplink.health
        return {
            "agent": self.agent.name,
            "version": __version__,
            "started_ms": self.started_ms,
            "server": msgspec.to_builtins(health),
            "spool": msgspec.to_builtins(self.depth),
            "probes": self.prober.refused or "ok",
            "routers": [
                {
                    **msgspec.to_builtins(poller.summary),
                    "reachable": self.prober.up(poller.router.address),
                    "costs": msgspec.to_builtins(poller.pace.costs),
                }
                for poller in self.pollers
            ],
        }

    def status_text(self) -> str:
        """`status` as JSON."""
        return json.dumps(self.status())

    def metrics_text(self) -> str:
        """Metrics about the agent itself, in the registry's names."""
        health, now = self.uplink.health, time.time()
        by_router: dict[str, dict[str, float]] = {"up": {}, "ms": {}, "bytes": {}}
        for poller in self.pollers:
            escaped = poller.router.name.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
            labels = f'{{router="{escaped}"}}'
            by_router["up"][labels] = float(poller.summary.state == "ok")
            if poller.summary.poll_ms is not None:
                by_router["ms"][labels] = poller.summary.poll_ms
                by_router["bytes"][labels] = float(poller.summary.bytes_per_poll or 0)
        pushed = {} if health.last_push is None else {"": round(now - health.last_push, 3)}
        skew = {} if health.clock_error_seconds is None else {"": health.clock_error_seconds}
        return service.prometheus(
            {
                "agent_last_push_seconds": ("gauge", "Age of the last accepted batch.", pushed),
                "agent_buffer_depth": ("gauge", "Batches waiting on disk.", {"": float(self.depth.batches)}),
                "agent_buffer_bytes": ("gauge", "Bytes waiting on disk.", {"": float(self.depth.bytes)}),
                "agent_dropped_batches_total": ("counter", "Dropped by the spool.", {"": self.depth.dropped_batches}),
                "agent_set_aside_batches": ("gauge", "Refused by the server.", {"": float(self.depth.set_aside)}),
                "agent_jobs_running": ("gauge", "Polls in flight.", {"": float(Poller.jobs_running)}),
                "agent_poll_errors_total": ("counter", "Polls that failed.", {"": float(Poller.errors_total)}),
                "agent_clock_error_seconds": ("gauge", "Agent clock minus server clock.", skew),
                "agent_router_ok": ("gauge", "The last poll succeeded.", by_router["up"]),
                "agent_router_poll_ms": ("gauge", "Duration of the last poll.", by_router["ms"]),
                "agent_router_poll_bytes": ("gauge", "Bytes of the last poll.", by_router["bytes"]),
            }
        )


async def run(config: Config, metrics_port: int = service.METRICS_PORT) -> None:
    """The daemon as a unit runs it: credentials from systemd, until SIGTERM. Raises CredentialError."""
    passwords = {
        name: credentials.read(credentials.router_credential(name)) for name in {r.credential for r in config.routers}
    }
    token = credentials.read(credentials.SERVER_TOKEN)
    async with client(config.server.url, token, config.server.ca_file) as http:
        agent = Daemon(config, http, passwords)
        task = asyncio.create_task(agent.run(metrics_port))
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, task.cancel)
        loop.add_signal_handler(signal.SIGUSR1, agent.uplink.hurry.set)  # `ispvm-agent replay --send`
        try:
            await task
        except asyncio.CancelledError:
            _log.info("stopped")
