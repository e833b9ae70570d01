"""Ping without privileges; a kernel that refuses means unknown, not down."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from typing import cast

import pytest
from ispvm_agent.probes import Prober, Target

ADDRESS = "127.0.0.1"


class FakeSocket:
    """A datagram ICMP socket: what was sent, and what to receive."""

    def __init__(self) -> None:
        self.sent: list[tuple[bytes, tuple[str, int]]] = []
        self.inbox: list[tuple[bytes, tuple[str, int]]] = []
        self.error: OSError | None = None

    def sendto(self, packet: bytes, target: tuple[str, int]) -> None:
        self.sent.append((packet, target))
        if self.error is not None:
            raise self.error

    def recvfrom(self, size: int) -> tuple[bytes, tuple[str, int]]:
        if not self.inbox:
            raise BlockingIOError
        return self.inbox.pop(0)


class Rig:
    def __init__(self, address: str = ADDRESS) -> None:
        self.changes: list[tuple[str, bool | None, bool]] = []
        self.prober = Prober([address], 10, lambda *change: self.changes.append(change))
        self.target = self.prober.targets[address]
        self.family = self.target.family
        self.socket = FakeSocket()
        self.prober._sockets[self.family] = cast("socket.socket", self.socket)

    def send(self) -> bytes:
        self.prober._send(self.target)
        return self.socket.sent[-1][0]

    def receive(self, packet: bytes, sender: str | None = None) -> None:
        self.socket.inbox.append((packet, (sender or self.target.address, 0)))
        self.prober._receive(cast("socket.socket", self.socket), self.family)


def answer(request: bytes, kind: int = 0) -> bytes:
    return bytes([kind]) + request[1:]


@pytest.mark.parametrize(("address", "request_kind", "answer_kind"), [(ADDRESS, 8, 0), ("::1", 128, 129)])
def test_an_answer_is_up(address: str, request_kind: int, answer_kind: int) -> None:
    rig = Rig(address)
    request = rig.send()
    assert request[0] == request_kind
    assert rig.prober.up(address) is None
    rig.receive(answer(request, answer_kind))
    assert rig.prober.up(address) is True
    assert rig.target.rtt_ms is not None
    assert rig.changes == [(address, None, True)]


def test_three_silences_are_down_and_one_answer_is_up_again() -> None:
    rig = Rig()
    rig.receive(answer(rig.send()))
    for _ in range(3):
        rig.send()
        assert rig.prober.up(ADDRESS) is True
    rig.send()
    assert rig.prober.up(ADDRESS) is False
    rig.receive(answer(rig.send()))
    assert rig.changes == [(ADDRESS, None, True), (ADDRESS, True, False), (ADDRESS, False, True)]


def test_what_is_not_our_answer_is_ignored() -> None:
    rig = Rig()
    request = rig.send()
    late = answer(request)
    for packet, sender in (
        (late, "192.0.2.9"),  # somebody else
        (late[:6] + struct.pack("!H", 77) + late[8:], None),  # another sequence
        (late[:8] + b"forged!!", None),  # not our payload
        (answer(request, kind=3), None),  # not an echo reply
        (b"\0", None),
    ):
        rig.receive(packet, sender)
    assert rig.prober.up(ADDRESS) is None
    rig.send()
    rig.receive(late)  # an answer to the request before
    assert rig.prober.up(ADDRESS) is None


def test_no_route_counts_as_silence() -> None:
    rig = Rig()
    rig.socket.error = OSError(101, "Network is unreachable")
    for _ in range(4):
        rig.send()
    assert rig.prober.up(ADDRESS) is False


async def test_a_refusing_kernel_means_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> socket.socket:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("ispvm_agent.probes.socket.socket", refuse)
    prober = Prober([ADDRESS], 0.01, lambda *change: None)
    await prober.run()  # returns: there is nothing it could do
    assert prober.up(ADDRESS) is None
    assert "ping_group_range" in prober.refused


async def test_against_this_kernel() -> None:
    """Where the kernel allows ping sockets, loopback answers; where not, it is said."""
    answered = asyncio.Event()
    prober = Prober([ADDRESS], 0.05, lambda *change: answered.set())
    running = asyncio.create_task(prober.run())
    waiting = asyncio.create_task(answered.wait())
    await asyncio.wait({running, waiting}, timeout=5, return_when=asyncio.FIRST_COMPLETED)
    assert (prober.up(ADDRESS) is True) != bool(prober.refused)
    for task in (running, waiting):
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def test_family_by_address() -> None:
    assert Target("192.0.2.1").family is socket.AF_INET
    assert Target("2001:db8::1").family is socket.AF_INET6
