"""Routers made of arithmetic: what they are, what an agent would send of them, and the same as Influx lines.

Values look like a network's: every interface has a mean of its own, a daily curve and noise; byte counters follow from
the rates, error counters rarely move. The same fleet gives the same values every time.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from uuid import UUID, uuid5

import msgspec
import zstandard
from ispvm_contract.compatibility import compatibility
from ispvm_contract.identity import device_id, set_id
from ispvm_contract.ingest import (
    MAX_METRICS,
    Agent,
    Batch,
    Column,
    DevicePatch,
    EntityPatch,
    Heartbeat,
    InventoryPatch,
    Poll,
    RouterSummary,
    Value,
)
from ispvm_contract.packed import packed
from ispvm_contract.seed import Device, Interface, Seed, Site, Tenant

NAMES = UUID("b8a3b1de-2c1e-5a51-8a0e-9c9a5a0f7f10")
CAPACITY = 10_000_000_000
_DEVICE_VALUES = 8  # of a router itself, at most
# what the agent publishes of an interface on its fast tier
METRICS = (
    "interface.oper_up", "interface.admin_up", "interface.rx_bps", "interface.tx_bps", "interface.rx_bytes_total",
    "interface.tx_bytes_total", "interface.rx_errors_total", "interface.tx_errors_total",
    "interface.rx_discards_total", "interface.tx_discards_total", "interface.link_downs_total",
)  # fmt: skip
_SHORT = [name.partition(".")[2].removesuffix("_total") for name in METRICS]
_DRAW = random.Random(1)  # noqa: S311  # no secret
_NOISE = [_DRAW.gauss(1, 0.12) for _ in range(1 << 16)]


@dataclass
class Router:
    """One router and its counters."""

    number: int
    name: str
    uuid: UUID
    mean: list[float]
    rx_bytes: list[int]
    tx_bytes: list[int]
    errors: list[int]
    discards: list[int]
    downs: list[int]


@dataclass
class Fleet:
    """`routers` × `interfaces`, polled every `interval_s`; `tenant` makes their ids."""

    tenant: str
    routers: int
    interfaces: int = 50
    interval_s: int = 60
    all: list[Router] = field(init=False)

    def __post_init__(self) -> None:
        """Draw the means."""
        self.keys = [f"ether{at}" for at in range(1, self.interfaces + 1)]
        self.set = set_id(self.keys)
        self.agent = Agent("bench", f"{compatibility().server}.0", ["zstd"])
        self.all = [self._router(number) for number in range(self.routers)]

    def _router(self, number: int) -> Router:
        draw = random.Random(number)  # noqa: S311
        name = f"r{number:05d}"
        mean = [CAPACITY * min(0.9, draw.lognormvariate(-3.5, 1.2)) for _ in self.keys]
        counters = [draw.randrange(1 << 46) for _ in self.keys]
        zeros = [0] * self.interfaces
        return Router(
            number, name, device_id(self.tenant, name), mean, counters, [c // 2 for c in counters],
            list(zeros), list(zeros), list(zeros),
        )  # fmt: skip

    @property
    def per_batch(self) -> int:
        """How many routers' polls one batch may hold."""
        return MAX_METRICS // (len(METRICS) * self.interfaces + _DEVICE_VALUES)

    def seed(self) -> Seed:
        """Tenant, one site and the routers with the capacities of their ports."""
        ports = [Interface(key, CAPACITY) for key in self.keys]
        devices = [
            Device(r.name, "access", "pop", "CCR2116-12G-4S+", "7.16", _address(10, r), _address(172, r), ports)
            for r in self.all
        ]
        return Seed(1, self.tenant, Tenant(self.tenant, self.tenant), [Site("pop", "PoP", 48.2, 16.4)], devices, [], [])

    def inventory(self, routers: Sequence[Router]) -> InventoryPatch:
        """These routers and their interfaces, as an agent introduces them."""
        return InventoryPatch(
            [DevicePatch(r.uuid, r.name, "pop", _address(10, r)) for r in routers],
            [EntityPatch(r.uuid, "interface", key, key, {"type": "ether"}) for r in routers for key in self.keys],
        )

    def columns(self, router: Router, ts: int) -> dict[str, list[Value]]:
        """One poll of a router at `ts` (seconds); moves its counters on."""
        curve = 1 + 0.4 * math.sin((ts / 86400 + router.number * 0.01) * 2 * math.pi)
        at = (ts // self.interval_s * 7919 + router.number * 104_729) % (len(_NOISE) - self.interfaces)
        rx = [round(mean * curve * abs(n)) for mean, n in zip(router.mean, _NOISE[at:], strict=False)]
        tx = [rate // 2 for rate in rx]
        seconds = self.interval_s
        router.rx_bytes = [c + rate * seconds // 8 for c, rate in zip(router.rx_bytes, rx, strict=True)]
        router.tx_bytes = [c + rate * seconds // 8 for c, rate in zip(router.tx_bytes, tx, strict=True)]
        if at % 16 == 0:
            router.errors[at % self.interfaces] += 1 + at % 5
            router.discards[at % 7 % self.interfaces] += 1 + at % 90
        up: list[Value] = [True] * self.interfaces
        values: tuple[list[Value], ...] = (
            up, up, [*rx], [*tx], [*router.rx_bytes], [*router.tx_bytes], [*router.errors], [*router.errors],
            [*router.discards], [*router.discards], [*router.downs],
        )  # fmt: skip
        return dict(zip(METRICS, values, strict=True))

    def poll(self, router: Router, ts: int) -> Poll:
        """The same as a poll of the contract."""
        columns: dict[str, Column] = {**self.columns(router, ts)}
        return Poll(router.uuid, ts * 1000, "interface", columns, self.set, float(self.interval_s))

    def device_poll(self, router: Router, ts: int) -> Poll:
        """What a router says of itself."""
        load = 20 + 15 * abs(_NOISE[(ts + router.number) % len(_NOISE)] - 1)
        columns: dict[str, Column] = {
            "device.up": [True], "device.api.up": [True], "device.cpu_pct": [round(load, 1)],
            "device.mem_used_bytes": [2 << 30], "device.mem_total_bytes": [16 << 30],
            "device.uptime_seconds": [ts % 10_000_000], "device.temp_c": [41.0],
        }  # fmt: skip
        return Poll(router.uuid, ts * 1000, "device", columns, None, float(self.interval_s), source="probe")

    def heartbeat(self, now: int) -> Heartbeat:
        """The agent lives, and all its routers answer."""
        routers = [RouterSummary(r.uuid, r.name, "ok", last_good=now * 1000) for r in self.all]
        return Heartbeat(1, now * 1000, self.agent, now * 1000 - 86_400_000, clock_synchronised=True, routers=routers)

    def batch(self, polls: list[Poll], name: str, inventory: InventoryPatch | None = None) -> Batch:
        """Polls as one message; equal names give equal ids."""
        patch = inventory or InventoryPatch()
        sent = max(poll.ts for poll in polls)
        return Batch(
            1, uuid5(NAMES, f"{self.tenant}/{name}"), sent, self.agent, {self.set: self.keys}, polls, [], patch
        )

    def batches(self, times: Sequence[int], devices: bool = False) -> Iterator[Batch]:
        """Every router at each of these moments (seconds), as full batches; with `devices` also of the routers
        themselves.
        """
        for ts in times:
            for first in range(0, self.routers, self.per_batch):
                some = self.all[first : first + self.per_batch]
                polls = [self.poll(router, ts) for router in some]
                if devices:
                    polls += [self.device_poll(router, ts) for router in some]
                yield self.batch(polls, f"{first}@{ts}")

    def introduction(self, ts: int) -> Iterator[Batch]:
        """Batches that make every router and interface known, each with one poll at `ts`."""
        for first in range(0, self.routers, 20):
            some = self.all[first : first + 20]
            yield self.batch([self.poll(r, ts) for r in some], f"hello {first}@{ts}", self.inventory(some))

    def influx(self, batch: Batch) -> bytes:
        """A batch as Influx lines: the same values, one line an interface and moment, milliseconds."""
        names = {router.uuid: router.name for router in self.all}
        lines = []
        for poll in batch.polls:
            head, ts = f"if,d={names[poll.device]},i=", poll.ts
            rows = zip(self.keys, *poll.columns.values(), strict=True)
            for key, *row in rows:
                fields = ",".join(f"{short}={int(value or 0)}" for short, value in zip(_SHORT, row, strict=True))
                lines.append(f"{head}{key} {fields} {ts}")
        return "\n".join(lines).encode()


def _address(network: int, router: Router) -> str:
    return f"{network}.{router.number >> 8}.{router.number & 255}.1"


def values_of(batch: Batch) -> int:
    """How many metric values a batch carries."""
    return sum(len(column) for poll in batch.polls for column in poll.columns.values())


def encode(message: Batch | Heartbeat) -> bytes:
    """As the agent sends it: packed columns in MessagePack, zstd."""
    return zstandard.compress(msgspec.msgpack.encode(packed(message) if isinstance(message, Batch) else message))
