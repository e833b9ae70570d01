"""Does an address answer ping, and how fast? Unprivileged: datagram ICMP sockets, no raw socket, no capability.

The kernel allows them when the agent's group is in net.ipv4.ping_group_range. Where it does not, nothing is known
about reachability (None), which is not the same as "down".
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

MISSES_UNTIL_DOWN = 3
_TYPES = {socket.AF_INET: (socket.IPPROTO_ICMP, 8, 0), socket.AF_INET6: (socket.IPPROTO_ICMPV6, 128, 129)}
_HEADER = struct.Struct("!BBHHH")
_log = logging.getLogger("probes")


@dataclass(slots=True)
class Target:
    """One address. `up` is None until it has answered once or been silent three times in a row."""

    address: str
    up: bool | None = None
    rtt_ms: float | None = None
    misses: int = 0
    sequence: int = 0
    sent: float | None = None  # of the request that is not answered yet
    trips: deque[float | None] = field(default_factory=lambda: deque(maxlen=100))  # ms, or None for a lost one
    completed: int = 0  # trips there ever were
    token: bytes = field(default_factory=lambda: os.urandom(8))

    def complete(self, trip: float | None) -> None:
        """Note how long the last request took, or that it was lost."""
        self.trips.append(trip)
        self.completed += 1

    @property
    def family(self) -> socket.AddressFamily:
        """IPv4 or IPv6."""
        return socket.AF_INET6 if ipaddress.ip_address(self.address).version == 6 else socket.AF_INET


class Prober:
    """Pings all targets every `seconds`, spread evenly; `changed(address, old, new)` tells of every change."""

    def __init__(
        self, addresses: Iterable[str], seconds: float, changed: Callable[[str, bool | None, bool], None]
    ) -> None:
        """Nothing is sent before `run`."""
        self.targets = {address: Target(address) for address in addresses}
        self.refused = ""  # why the kernel does not let us probe
        self._seconds = seconds
        self._changed = changed
        self._sockets: dict[socket.AddressFamily, socket.socket] = {}

    def up(self, address: str) -> bool | None:
        """What is known; None is unknown."""
        return self.targets[address].up

    def _open(self) -> None:
        loop = asyncio.get_running_loop()
        for family in {target.family for target in self.targets.values()}:
            try:
                sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, _TYPES[family][0])
            except OSError as error:
                self.refused = (
                    f"the kernel refuses ping sockets ({error.strerror}): reachability is unknown; "
                    "put the agent's group into net.ipv4.ping_group_range"
                )
                _log.warning(self.refused)
                continue
            self._sockets[family] = sock
            loop.add_reader(sock, self._receive, sock, family)

    def _receive(self, sock: socket.socket, family: socket.AddressFamily) -> None:
        while True:
            try:
                packet, sender = sock.recvfrom(512)
            except BlockingIOError:
                return
            except OSError as error:  # an ICMP error that came back for one of our requests
                _log.debug("ping: %s", error)
                return
            target = self.targets.get(str(sender[0]).partition("%")[0])
            if target is None or target.sent is None or len(packet) < _HEADER.size:
                continue
            kind, _, _, _, sequence = _HEADER.unpack_from(packet)
            if kind != _TYPES[family][2] or sequence != target.sequence or packet[_HEADER.size :] != target.token:
                continue
            target.rtt_ms = round((time.monotonic() - target.sent) * 1000, 3)
            target.sent = None
            target.misses = 0
            target.complete(target.rtt_ms)
            self._judge(target, up=True)

    def _judge(self, target: Target, *, up: bool) -> None:
        if target.up is not up:
            old, target.up = target.up, up
            self._changed(target.address, old, up)

    def _send(self, target: Target) -> None:
        sock = self._sockets.get(target.family)
        if sock is None:
            return
        if target.sent is not None:
            target.misses += 1
            target.complete(None)
            if target.misses >= MISSES_UNTIL_DOWN:
                target.rtt_ms = None
                self._judge(target, up=False)
        target.sequence = (target.sequence + 1) & 0xFFFF
        target.sent = time.monotonic()
        # The kernel fills in checksum and identifier.
        packet = _HEADER.pack(_TYPES[target.family][1], 0, 0, 0, target.sequence) + target.token
        try:
            sock.sendto(packet, (target.address, 0))
        except OSError as error:  # no route, or an answer "unreachable": a miss at the next round
            _log.debug("ping %s: %s", target.address, error)

    async def run(self) -> None:
        """Probe until cancelled; returns at once when the kernel refuses every socket."""
        self._open()
        try:
            while self._sockets:
                for target in self.targets.values():
                    self._send(target)
                    await asyncio.sleep(self._seconds / len(self.targets))
        finally:
            loop = asyncio.get_running_loop()
            for sock in self._sockets.values():
                loop.remove_reader(sock)
                sock.close()
