"""What the agent measures itself: the way to each router by ping, and the TCP, HTTP and DNS services of `[[probe]]`.

A probe tells its last measurement, also when a router is polled more often than it measures: absent would mean unknown.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import socket
import ssl
import time
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from statistics import fmean, median
from typing import Protocol

import httpx
from ispvm_contract.ingest import Value

from ispvm_agent import __version__, config
from ispvm_agent.collectors.base import Attributes
from ispvm_agent.probes import Prober

TIMEOUT = 5.0
SECONDS = 30.0  # between measurements, unless configured
MANAGEMENT = "management address"  # the probe that every router has
_log = logging.getLogger("targets")


class Watched(Protocol):
    """Something whose measurements go to the server with a router's poll."""

    key: str
    attributes: Attributes

    def read(self) -> dict[str, Value]:
        """What was measured last; empty before the first time."""


def ping_metrics(trips: Sequence[float | None]) -> dict[str, Value]:
    """Loss, median round trip and jitter of echo requests; None is one that was lost."""
    if not trips:
        return {}
    answered = [trip for trip in trips if trip is not None]
    found: dict[str, Value] = {"probe.ping.loss_pct": round(100 * (1 - len(answered) / len(trips)), 2)}
    if answered:
        found["probe.ping.rtt_ms"] = round(median(answered), 3)
    if len(answered) > 1:
        steps = [abs(after - before) for before, after in pairwise(answered)]
        found["probe.ping.jitter_ms"] = round(fmean(steps), 3)
    return found


class Ping:
    """Echo requests, which the prober sends."""

    def __init__(self, key: str, address: str, prober: Prober) -> None:
        """`prober` has the address among its targets."""
        self.key = key
        self.attributes: Attributes = {"kind": "icmp", "target": address}
        self._address = address
        self._prober = prober
        self._read = 0  # of all trips that were ever completed
        self._told: dict[str, Value] = {}

    def read(self) -> dict[str, Value]:
        """Of the trips completed since the last reading, at most the last hundred; if there are none, as before."""
        target = self._prober.targets[self._address]
        fresh, self._read = target.completed - self._read, target.completed
        if fresh:
            self._told = ping_metrics(list(target.trips)[-fresh:])
        return self._told


class Service:
    """A TCP, HTTP or DNS probe."""

    def __init__(self, probe: config.Probe) -> None:
        """Nothing is sent before `run`."""
        self.key = probe.name
        self.attributes: Attributes = {"kind": probe.kind, "target": probe.target}
        self._probe = probe
        self._seconds = probe.seconds or SECONDS
        self._seen: dict[str, Value] = {}

    def read(self) -> dict[str, Value]:
        """What was measured last."""
        return self._seen

    async def measure(self) -> None:
        """Once; a target that does not answer in time is down."""
        probe = self._probe
        measure = {"tcp": measure_tcp, "http": measure_http, "dns": measure_dns}[probe.kind]
        try:
            async with asyncio.timeout(TIMEOUT):
                self._seen = await measure(probe.target)
        except (OSError, httpx.HTTPError, ValueError, TimeoutError) as error:
            _log.debug("probe %s: %r", probe.name, error)
            self._seen = {f"probe.{probe.kind}.up": False}

    async def run(self) -> None:
        """Measure for ever, from a random moment on."""
        loop = asyncio.get_running_loop()
        start = loop.time() + random.uniform(0, min(10.0, self._seconds))  # noqa: S311 - spread, not secrecy
        tick = 0
        while True:
            await asyncio.sleep(start + tick * self._seconds - loop.time())
            await self.measure()
            tick = max(tick + 1, int((loop.time() - start) / self._seconds) + 1)


async def measure_tcp(target: str) -> dict[str, Value]:
    """Connect and hang up. Raises OSError."""
    host, port = config.endpoint(target)
    began = time.monotonic()
    _, writer = await asyncio.open_connection(host, port)
    took = time.monotonic() - began
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return {"probe.tcp.up": True, "probe.tcp.connect_ms": round(took * 1000, 3)}


@cache
def _authorities() -> ssl.SSLContext:
    return ssl.create_default_context()


async def measure_http(target: str) -> dict[str, Value]:
    """Get a page, until the first bytes of the answer; certificates are verified, redirects not followed."""
    headers = {"user-agent": f"ispvm-agent/{__version__}"}
    began = time.monotonic()
    async with (
        httpx.AsyncClient(verify=_authorities(), trust_env=False, headers=headers, timeout=TIMEOUT) as client,
        client.stream("GET", target) as answer,
    ):
        took = time.monotonic() - began
        status = answer.status_code
    latency = round(took * 1000, 3)
    return {"probe.http.up": status < 400, "probe.http.status": status, "probe.http.latency_ms": latency}


def dns_query(name: str, number: bytes) -> bytes:
    """A question for the IPv4 address of a name; raises ValueError for what is no name."""
    labels = name.rstrip(".").encode("idna").split(b".")
    if not all(0 < len(label) < 64 for label in labels):
        raise ValueError(f"{name!r} is no name")
    asked = b"".join(bytes([len(label)]) + label for label in labels)
    return number + b"\x01\x00\0\x01\0\0\0\0\0\0" + asked + b"\0\0\x01\0\x01"


async def measure_dns(target: str) -> dict[str, Value]:
    """Ask one server, "name@server". Up is an answer without error and with at least one record."""
    name, _, server = target.rpartition("@")
    host, port = config.endpoint(server, 53)
    query = dns_query(name, os.urandom(2))
    loop = asyncio.get_running_loop()
    began = time.monotonic()
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        await loop.sock_connect(sock, (host, port))
        await loop.sock_sendall(sock, query)
        while True:
            answer = await loop.sock_recv(sock, 4096)
            if len(answer) >= 12 and answer[:2] == query[:2] and answer[2] & 0x80:
                break
    good = answer[3] & 0x0F == 0 and int.from_bytes(answer[6:8], "big") > 0
    return {"probe.dns.up": good, "probe.dns.latency_ms": round((time.monotonic() - began) * 1000, 3)}


def watch(settings: config.Config, prober: Prober) -> tuple[dict[str, list[Watched]], list[Service]]:
    """What is watched for each router, by its name; and the services that have to be run."""
    by_router: dict[str, list[Watched]] = {
        router.name: [Ping(MANAGEMENT, router.address, prober)] for router in settings.routers
    }
    services = []
    for probe in settings.probes:
        if probe.kind == "icmp":
            by_router[probe.router].append(Ping(probe.name, probe.target, prober))
        else:
            services.append(Service(probe))
            by_router[probe.router].append(services[-1])
    return by_router, services
