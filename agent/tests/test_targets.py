"""Probes on real sockets of this machine: what answers is up, with its time; what does not is down."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import pytest
from ispvm_agent import config, targets
from ispvm_agent.probes import Prober
from ispvm_agent.targets import Ping, Service, ping_metrics
from ispvm_contract.registry import registry
from test_config import MINIMAL, faults


def service(kind: Any, target: str) -> Service:
    return Service(config.Probe(name="p", kind=kind, target=target, router="R", seconds=1))


async def measured(kind: Any, target: str) -> dict[str, Any]:
    probe = service(kind, target)
    await probe.measure()
    seen = probe.read()
    assert set(seen) <= set(registry().metrics)
    return seen


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


@contextlib.asynccontextmanager
async def server(answer: bytes, wait: asyncio.Event | None = None) -> AsyncIterator[int]:
    """A TCP server that says `answer` once it has been asked something."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            await reader.read(4096)
            if wait is not None:
                await wait.wait()
            writer.write(answer)
            await writer.drain()
            writer.close()

    running = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with running:
        yield running.sockets[0].getsockname()[1]


class Resolver(asyncio.DatagramProtocol):
    """A DNS server that answers what it is told."""

    def __init__(self, reply: Callable[[bytes], list[bytes]]) -> None:
        self.reply = reply
        self.asked: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        self.asked.append(data)
        for answer in self.reply(data):
            self.transport.sendto(answer, addr)


@contextlib.asynccontextmanager
async def resolver(reply: Callable[[bytes], list[bytes]]) -> AsyncIterator[tuple[int, Resolver]]:
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_datagram_endpoint(lambda: Resolver(reply), ("127.0.0.1", 0))
    try:
        yield transport.get_extra_info("sockname")[1], protocol
    finally:
        transport.close()


async def test_tcp() -> None:
    async with server(b"") as port:
        seen = await measured("tcp", f"127.0.0.1:{port}")
    assert seen["probe.tcp.up"] is True
    assert seen["probe.tcp.connect_ms"] >= 0
    assert await measured("tcp", f"127.0.0.1:{closed_port()}") == {"probe.tcp.up": False}


@pytest.mark.parametrize(("status", "up"), [(200, True), (302, True), (404, False), (503, False)])
async def test_http_tells_its_status(status: int, up: bool) -> None:
    answer = f"HTTP/1.1 {status} X\r\nlocation: http://192.0.2.1/\r\ncontent-length: 0\r\n\r\n".encode()
    async with server(answer) as port:
        seen = await measured("http", f"http://127.0.0.1:{port}/")
    assert (seen["probe.http.up"], seen["probe.http.status"]) == (up, status)
    assert seen["probe.http.latency_ms"] > 0


async def test_http_that_is_none_or_silent_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    async with server(b"no http\r\n\r\n") as port:
        assert await measured("http", f"http://127.0.0.1:{port}/") == {"probe.http.up": False}
    monkeypatch.setattr(targets, "TIMEOUT", 0.1)
    never = asyncio.Event()
    async with server(b"", never) as port:
        assert await measured("http", f"http://127.0.0.1:{port}/") == {"probe.http.up": False}
        never.set()


def dns_answer(query: bytes, code: int = 0, records: int = 1) -> bytes:
    return query[:2] + bytes([0x81, 0x80 | code]) + b"\0\1" + records.to_bytes(2, "big") + b"\0\0\0\0" + query[12:]


@pytest.mark.parametrize(("code", "records", "up"), [(0, 1, True), (0, 0, False), (3, 0, False), (2, 1, False)])
async def test_dns_is_up_when_it_answers_the_question(code: int, records: int, up: bool) -> None:
    async with resolver(lambda query: [b"\0", b"xx" + query[2:], dns_answer(query, code, records)]) as (port, asked):
        seen = await measured("dns", f"www.example.net@127.0.0.1:{port}")
    assert seen["probe.dns.up"] is up
    assert seen["probe.dns.latency_ms"] > 0
    assert asked.asked[0][12:] == b"\3www\7example\3net\0\0\1\0\1"


async def test_a_silent_dns_server_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "TIMEOUT", 0.1)
    async with resolver(lambda query: [query]) as (port, _):  # an echo is no answer
        assert await measured("dns", f"www.example.net@127.0.0.1:{port}") == {"probe.dns.up": False}


async def test_many_at_once_wait_for_none() -> None:
    """Hundred probes whose servers all hold their answer back until the last has been asked."""
    everybody, seen = asyncio.Event(), 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal seen
        await reader.readuntil(b"\r\n\r\n")
        seen += 1
        if seen == 100:
            everybody.set()
        await everybody.wait()
        writer.write(b"HTTP/1.1 204 X\r\n\r\n")
        writer.close()

    running = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=200)
    async with running:
        port = running.sockets[0].getsockname()[1]
        probes = [service("http", f"http://127.0.0.1:{port}/") for _ in range(100)]
        await asyncio.gather(*(probe.measure() for probe in probes))
    assert [probe.read()["probe.http.status"] for probe in probes] == [204] * 100


@pytest.mark.parametrize(
    ("trips", "metrics"),
    [
        ([], {}),
        ([None, None], {"probe.ping.loss_pct": 100.0}),
        ([4.0], {"probe.ping.loss_pct": 0.0, "probe.ping.rtt_ms": 4.0}),
        (
            [1.0, None, 5.0, 2.0],
            {"probe.ping.loss_pct": 25.0, "probe.ping.rtt_ms": 2.0, "probe.ping.jitter_ms": 3.5},
        ),
    ],
)
def test_loss_round_trip_and_jitter(trips: list[float | None], metrics: dict[str, float]) -> None:
    assert ping_metrics(trips) == metrics


def test_a_ping_tells_each_who_watches_it_what_is_new_to_him() -> None:
    prober = Prober(["192.0.2.1"], 1, lambda address, old, new: None)
    unread = Ping("c", "192.0.2.1", prober)
    assert unread.read() == {}  # nobody has been asked yet
    one, other = Ping("a", "192.0.2.1", prober), Ping("b", "192.0.2.1", prober)
    for trip in (3.0, None):
        prober.targets["192.0.2.1"].complete(trip)
    assert one.read()["probe.ping.loss_pct"] == 50
    assert one.read()["probe.ping.loss_pct"] == 50  # nothing new
    for _ in range(200):
        prober.targets["192.0.2.1"].complete(None)
    assert one.read() == {"probe.ping.loss_pct": 100.0}
    assert other.read() == {"probe.ping.loss_pct": 100.0}


# configuration

PROBE = '[[probe]]\nname = "web"\nkind = "http"\ntarget = "https://www.example.net/"\nrouter = "CORE-NTH-1"\n'


def test_probes_are_configured_and_belong_to_a_router() -> None:
    settings = config.parse(MINIMAL + PROBE + PROBE.replace("web", "gw").replace("http", "icmp").replace(
        "icmps://www.example.net/", "192.0.2.1"))  # fmt: skip
    by_router, services = targets.watch(
        settings, Prober(["10.89.77.101", "192.0.2.1"], 1, lambda address, old, new: None)
    )
    assert [probe.key for probe in by_router["CORE-NTH-1"]] == ["management address", "web", "gw"]
    assert [one.key for one in services] == ["web"]
    assert [probe.seconds for probe in settings.probes] == [None, None]


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ('"CORE-NTH-1"', '"X"', "probe[web].router: 'X' is not one of the routers; name the one whose page shows it"),
        ('"http"', '"snmp"', "probe[web].kind: Invalid enum value 'snmp'; got 'snmp'"),
        ("https://", "ftp://", "probe[web].target: 'ftp://www.example.net/' is no http or https address"),
        ("https://", "https://me:pw@", "without a user name; write it like https://www.example.net/"),
        ('"http"', '"icmp"', "probe[web].target: 'https://www.example.net/' does not appear to be an IPv4"),
        (
            '"http"\ntarget = "https://www.example.net/"',
            '"tcp"\ntarget = "192.0.2.1"',
            "is not HOST:PORT; write it like",
        ),
        ('"http"\ntarget = "https://www.example.net/"', '"dns"\ntarget = "a.b@dns.x"', "does not appear to be an IPv4"),
        ('"http"\ntarget = "https://www.example.net/"', '"dns"\ntarget = "a..b@192.0.2.1"', "is no name to ask for"),
        ('name = "web"', 'name = "management address"', "choose another"),
        ('name = "web"', 'name = "web"\nevery = 5', "probe[web].every: unknown; use one of name, kind, target, router"),
        (
            '"http"\ntarget = "https://www.example.net/"',
            '"icmp"\ntarget = "192.0.2.1"\nseconds = 5',
            "probe[web].seconds: ping keeps to polling.probe_seconds; remove it",
        ),
        ('name = "web"', 'name = "web"\nseconds = 0', "probe[web].seconds: Expected"),
        (PROBE, PROBE + PROBE, "probe[web].name: used twice; names are unique"),
        ("[[probe]]", "[probe]", "probe: must be tables; write [[probe]]"),
    ],
)
def test_faults_of_probes_name_the_field_and_the_fix(old: str, new: str, fault: str) -> None:
    assert any(fault in line for line in faults(MINIMAL + PROBE.replace(old, new, 1)))
