"""An agent made of arithmetic: batches for the routers of a seed, with values a test can foretell."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID, uuid4

import msgspec
import zstandard
from ispvm_contract.identity import device_id, set_id
from ispvm_contract.ingest import (
    Agent,
    Batch,
    Column,
    DevicePatch,
    EntityPatch,
    Event,
    Heartbeat,
    InventoryPatch,
    Poll,
    RouterSummary,
)
from ispvm_contract.packed import packed
from ispvm_contract.seed import Device, OspfNeighbor, Seed

Attributes = dict[str, str | float | int | bool | None]
AGENT = Agent(name="pop-north", version="0.1.0", capabilities=["zstd"])


def ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


def load(capacity_bps: int, mean_pct: float, ts: datetime, phase: float) -> float:
    """A daily curve around the mean, with a little noise that is the same every time."""
    day = math.sin((ts.timestamp() / 86400 + phase) * 2 * math.pi)
    noise = math.sin(ts.timestamp() / 97 + phase * 40) * 0.12 + math.sin(ts.timestamp() / 31 + phase * 90) * 0.06
    return max(0.0, capacity_bps * mean_pct / 100 * (1 + 0.35 * day + noise))


def ospf_key(neighbor: OspfNeighbor) -> str:
    return f"{neighbor.router_id}@{neighbor.interface}"


class Feeder:
    """Speaks for some routers of a seed."""

    def __init__(self, seed: Seed, interval_s: float = 60.0, only: Sequence[str] | None = None) -> None:
        self.seed, self.interval_s = seed, interval_s
        self.devices = [d for d in seed.devices if only is None or d.name in only]

    def id(self, name: str) -> UUID:
        return device_id(self.seed.tenant.key, name)

    def inventory(self) -> InventoryPatch:
        patch = InventoryPatch()
        for d in self.devices:
            uuid = self.id(d.name)
            patch.devices.append(
                DevicePatch(
                    uuid,
                    d.name,
                    d.site,
                    d.address,
                    model=d.model,
                    routeros=d.routeros,
                    serial=f"SN{uuid.hex[:8].upper()}",
                    identity=d.name,
                    architecture="arm64",
                )
            )
            for port in d.interfaces:
                patch.entities.append(
                    EntityPatch(uuid, "interface", port.key, port.key, {"type": port.type, "comment": port.comment})
                )
            for peer in d.bgp_peers:
                attributes: Attributes = {"remote_address": peer.remote_address, "remote_as": peer.remote_as}
                patch.entities.append(EntityPatch(uuid, "bgp_peer", peer.name, peer.name, attributes))
            for neighbor in d.ospf_neighbors:
                attributes = {"address": neighbor.address, "interface": neighbor.interface}
                patch.entities.append(
                    EntityPatch(uuid, "ospf_neighbor", ospf_key(neighbor), neighbor.router_id, attributes)
                )
        return patch

    def polls(
        self, ts: datetime, down: Sequence[str] = (), api_down: Sequence[str] = ()
    ) -> tuple[list[Poll], dict[str, list[str]]]:
        polls: list[Poll] = []
        sets: dict[str, list[str]] = {}
        for number, d in enumerate(self.devices):
            uuid, when = self.id(d.name), ms(ts)
            reachable = d.name not in down
            answers = reachable and d.name not in api_down
            columns: dict[str, Column] = {"device.up": [reachable], "device.api.up": [answers]}
            polls.append(Poll(uuid, when, "device", columns, interval_s=self.interval_s, source="probe"))
            if not answers:
                continue
            columns |= {
                "device.uptime_seconds": [ts.timestamp() - 1.75e9],
                "device.cpu_pct": [18 + 9 * math.sin(ts.timestamp() / 700 + number)],
                "device.mem_used_bytes": [2_100_000_000 + number * 100_000_000],
                "device.mem_total_bytes": [16 << 30],
                "device.temp_c": [41.5 + number],
                "pppoe.sessions.active": [d.pppoe_sessions],
            }
            polls.append(self._interfaces(d, ts, sets, number))
            polls += self._routing(d, ts, sets)
        return polls, sets

    def _interfaces(self, d: Device, ts: datetime, sets: dict[str, list[str]], number: int) -> Poll:
        keys = [port.key for port in d.interfaces]
        sets[set_id(keys)] = keys
        rx = [load(p.capacity_bps, p.load_pct, ts, number * 0.02 + at * 0.01) for at, p in enumerate(d.interfaces)]
        tx = [0.6 * rate for rate in rx]
        total = [int(rate * (ts.timestamp() - 1.75e9) / 8) for rate in rx]
        zero: list[float | int | bool | None] = [0] * len(keys)
        columns: dict[str, Column] = {
            "interface.oper_up": [True] * len(keys),
            "interface.admin_up": [True] * len(keys),
            "interface.rx_bps": [*rx],
            "interface.tx_bps": [*tx],
            "interface.rx_bytes_total": [*total],
            "interface.tx_bytes_total": [*total],
            "interface.rx_errors_total": zero,
            "interface.tx_errors_total": zero,
        }
        return Poll(self.id(d.name), ms(ts), "interface", columns, set_id(keys), self.interval_s)

    def _routing(self, d: Device, ts: datetime, sets: dict[str, list[str]]) -> list[Poll]:
        polls = []
        if d.bgp_peers:
            keys = [peer.name for peer in d.bgp_peers]
            sets[set_id(keys)] = keys
            columns: dict[str, Column] = {
                "bgp.peer.up": [True] * len(keys),
                "bgp.peer.state": [5] * len(keys),
                "bgp.peer.uptime_seconds": [86400.0 * 12] * len(keys),
                "bgp.peer.prefixes_in": [peer.prefixes_in for peer in d.bgp_peers],
            }
            polls.append(Poll(self.id(d.name), ms(ts), "bgp_peer", columns, set_id(keys), self.interval_s))
        if d.ospf_neighbors:
            keys = [ospf_key(neighbor) for neighbor in d.ospf_neighbors]
            sets[set_id(keys)] = keys
            up: list[float | int | bool | None] = [True] * len(keys)
            columns = {"ospf.neighbor.up": up, "ospf.neighbor.state": [7] * len(keys)}
            polls.append(Poll(self.id(d.name), ms(ts), "ospf_neighbor", columns, set_id(keys), self.interval_s))
        return polls

    def batch(
        self,
        times: Sequence[datetime],
        sent_at: datetime | None = None,
        events: Sequence[Event] = (),
        **outage: Sequence[str],
    ) -> Batch:
        polls: list[Poll] = []
        sets: dict[str, list[str]] = {}
        for ts in times:
            more, new = self.polls(ts, **outage)
            polls += more
            sets |= new
        return Batch(1, uuid4(), ms(sent_at or times[-1]), AGENT, sets, polls, list(events), self.inventory())

    def heartbeat(self, now: datetime, state: str = "ok") -> Heartbeat:
        routers = [
            RouterSummary(
                self.id(d.name), d.name, "timeout" if state == "timeout" else "ok", last_good=ms(now), poll_ms=12.5
            )
            for d in self.devices
        ]
        return Heartbeat(1, ms(now), AGENT, ms(now) - 3_600_000, clock_synchronised=True, routers=routers)


HEADERS = {"Content-Type": "application/msgpack", "Content-Encoding": "zstd"}


def encode(message: msgspec.Struct) -> bytes:
    """As the agent does: columns packed."""
    return zstandard.compress(msgspec.msgpack.encode(packed(message) if isinstance(message, Batch) else message))
