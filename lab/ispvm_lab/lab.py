"""The running lab: a world, its routers on the network, and the state kept between runs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import secrets
import socket
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from pathlib import Path
from time import time

import msgspec
from ispvm_contract import seed as seeds

from . import control
from .certificates import Authority, write_secret
from .faults import Book
from .station import API_PORT, API_SSL_PORT, Endpoint, Station
from .traffic import Clock
from .world import World

USER = "ispvm"
CREDENTIAL = "ispvm-lab.router-password"
DARK_FILE = "dark-addresses"
PASSWORD_FILE = "router-password"  # noqa: S105 - a file's name


class Memory(msgspec.Struct):
    """What outlives a restart: when the world began, and when each rebooted router last booted."""

    began: float
    boots: dict[str, float] = {}


@dataclass(frozen=True, slots=True)
class Override:
    """All routers on one host: the n-th of the seed (from 0) on ports base + 2n (api) and base + 2n + 1 (api-ssl)."""

    host: str
    base: int

    @staticmethod
    def parse(text: str) -> Override:
        """`HOST:BASEPORT`; raises ValueError."""
        host, _, port = text.rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 65536:
            raise ValueError(f"--listen-override: {text!r} is not HOST:BASEPORT, such as 127.0.0.1:18000")
        return Override(host, int(port))


def router_password(state: Path) -> str:
    """The password of every router: from systemd when it has one for us, else made once and kept."""
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    if directory and (given := Path(directory, CREDENTIAL)).exists():
        password = given.read_text(encoding="utf-8").rstrip("\n")
        if not password.isascii() or not password:
            raise ValueError(f"credential {CREDENTIAL}: must be a password of ASCII characters")
        return password
    file = state / PASSWORD_FILE
    if not file.exists():
        write_secret(file, secrets.token_urlsafe(24).encode())
    return file.read_text(encoding="utf-8").rstrip("\n")


def _recall(file: Path) -> Memory:
    if not file.exists():
        return Memory(began=time())
    try:
        return msgspec.json.decode(file.read_bytes(), type=Memory)
    except msgspec.DecodeError as error:
        raise ValueError(f"{file}: {error}; remove the file to begin anew") from None


class Lab:
    """A seed's routers, answering."""

    def __init__(self, seed: seeds.Seed, state: Path, speed: float = 1.0) -> None:
        """Set up, without a socket yet; `state` is made when it is not there."""
        state.mkdir(mode=0o755, parents=True, exist_ok=True)
        self.state = state
        self._memory_file = state / "memory.json"
        self.memory = _recall(self._memory_file)
        self._reconciling = asyncio.Lock()
        self.world = World(seed, Clock(self.memory.began, speed), self.memory.boots)
        self.faults = Book(self.world, self.reconcile)
        password = router_password(state)
        self.stations = {
            name: Station(router, self.faults, USER, password) for name, router in self.world.routers.items()
        }
        self.remember()
        self._tell_dark(())

    def remember(self) -> None:
        """Write down what must outlive a restart."""
        write_secret(self._memory_file, msgspec.json.encode(self.memory))

    async def reconcile(self) -> None:
        """Let sockets and files follow the world."""
        async with self._reconciling:
            routers = self.world.routers.values()
            boots = {router.name: router.booted for router in routers if router.booted > self.memory.began}
            if boots != self.memory.boots:
                self.memory.boots = boots
                self.remember()
            self._tell_dark(router.spec.address for router in routers if not router.powered and not router.refusing)
            for station in self.stations.values():
                await station.reconcile()

    def _tell_dark(self, addresses: Iterable[str]) -> None:
        """Write down the addresses that nothing should answer on; who may change the host's addresses can follow it."""
        file, text = self.state / DARK_FILE, "".join(f"{address}\n" for address in addresses)
        if not file.exists() or file.read_text(encoding="ascii") != text:
            temporary = file.with_name(f".{file.name}.new")
            temporary.write_text(text, encoding="ascii")
            temporary.rename(file)

    def status(self) -> list[dict[str, str | int | bool]]:
        """Each router: its name, whether it has power, how many clients it has."""
        return [
            {"router": name, "powered": station.router.powered, "connections": len(station.connections)}
            for name, station in self.stations.items()
        ]

    @contextlib.asynccontextmanager
    async def running(self, override: Override | None = None) -> AsyncIterator[Lab]:
        """All routers listen, and the control socket; leaving ends them."""
        _raise_file_limit()
        authority = Authority(self.state)
        anonymous = authority.anonymous()
        async with contextlib.AsyncExitStack() as stack:
            for index, station in enumerate(self.stations.values()):
                host, port, secure_port = station.router.spec.address, API_PORT, API_SSL_PORT
                if override is not None:
                    host, port = override.host, override.base + 2 * index
                    secure_port = port + 1
                certified = authority.context(station.router.name, host)
                stack.push_async_callback(station.close)
                try:
                    await station.open(Endpoint(host, port, secure_port, certified, anonymous))
                except OSError as error:
                    raise OSError(
                        f"{station.router.name}: cannot listen on {host} ports {port} and {secure_port}: "
                        f"{error.strerror}. The address must be on this host and the ports free; "
                        "--listen-override puts all routers on one host."
                    ) from error
            await stack.enter_async_context(control.listening(self))
            stack.push_async_callback(self.faults.close)
            yield self


def _raise_file_limit() -> None:
    """A thousand routers are two thousand sockets before the first client has come."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def notify_ready() -> None:
    """Tell systemd, when it asked, that the service is up."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notifier:
        notifier.connect(address)
        notifier.sendall(b"READY=1")
