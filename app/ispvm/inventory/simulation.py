"""The network of a seed bundle at any minute of the past: traffic, load, few incidents. Pure, the same each time."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from math import tau

import numpy as np
from ispvm_contract.seed import Device, Interface, Link, Seed
from numpy.typing import NDArray

from ispvm.store.packing import DAY_SECONDS, Samples
from ispvm.store.rollup import UTILIZATION, utilization

PERIOD_S = 60
# Traffic grows by this much a day up to its level of today.
GROWTH = 0.002
# Upload as a share of download.
UPLOAD = 0.25
_DISTANCE = {"edge": 0, "core": 1, "rr": 1, "agg": 2, "access": 3, "customer-edge": 4}
# One incident in so many days.
INCIDENT_DAYS = 7

Values = NDArray[np.float64]
Flags = NDArray[np.bool_]
Port = tuple[str, str]
Thing = tuple[str, str, str]  # router, entity type, key


@dataclass(frozen=True, slots=True)
class Event:
    """What an agent would have said."""

    at: float
    device: str
    name: str
    type: str
    key: str | None
    old: str
    new: str


def _random(*names: object) -> np.random.Generator:
    """Chance that is the same for the same names, for ever."""
    digest = hashlib.blake2b("/".join(map(str, names)).encode(), digest_size=8).digest()
    return np.random.default_rng(int.from_bytes(digest, "big"))


class World:
    """The network of a bundle at any minute until `now`."""

    def __init__(self, seed: Seed, now: datetime) -> None:
        """`now` is when traffic has grown to the bundle's level."""
        self.seed, self.now = seed, now.timestamp()
        self.routers = {device.name: device for device in seed.devices}
        self.ports = {(device.name, port.key): port for device in seed.devices for port in device.interfaces}
        self.far: dict[Port, tuple[Port, Link]] = {}
        for link in seed.links:
            a, b = (link.a.device, link.a.interface), (link.b.device, link.b.interface)
            self.far[a], self.far[b] = (b, link), (a, link)

    def _wave(self, at: Values, name: object, swing: float) -> Values:
        """About 1: a day with its evening peak, a week with livelier weekends, and what never stands still."""
        chance = _random(self.seed.name, name)
        hour = (at / 3600 + chance.normal(0, 0.4)) % 24 * tau / 24
        weekend = np.where((at // DAY_SECONDS + 3) % 7 >= 5, 1.07, 1.0)  # 1 January 1970 was a Thursday
        # Together they are highest at eight in the evening and lowest at five.
        wave: Values = 1 + swing * np.cos(hour - 18.5 * tau / 24) + swing / 3 * np.cos(2 * (hour - 21.5 * tau / 24))
        for period, share in ((5400, 0.03), (1500, 0.03), (420, 0.02)):
            wave += share * np.sin(at * tau / (period * chance.uniform(0.8, 1.2)) + chance.uniform(0, tau))
        noise = _random(self.seed.name, name, int(at[0])).normal(1, 0.015, len(at))
        return wave * weekend * noise

    def _sent(self, port: Port, at: Values) -> Values:
        """What a linked port sends, in bit/s: more towards subscribers than from them."""
        other, link = self.far[port]
        near, far = _DISTANCE[self.routers[port[0]].role], _DISTANCE[self.routers[other[0]].role]
        share = 1.0 if near < far else UPLOAD if near > far else 0.6
        return self._rate(at, port, self.ports[port].load_pct * share, link.capacity_bps)

    def _rate(self, at: Values, name: object, load_pct: float, capacity_bps: int) -> Values:
        grown = 1 - GROWTH * (self.now - at) / DAY_SECONDS
        rate = capacity_bps * load_pct / 100 * self._wave(at, name, 0.4) * np.maximum(grown, 0.2)
        return np.rint(np.minimum(rate, 0.97 * capacity_bps))

    def incidents(self, day: date) -> list[tuple[Device | Link, float, float]]:
        """What was broken on a day: a router without power, or a link that was cut, from when until when."""
        week, place = divmod(day.toordinal(), INCIDENT_DAYS)
        chance = _random(self.seed.name, "incident", week)
        if chance.integers(INCIDENT_DAYS) != place:
            return []
        midnight = datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()
        begin = midnight + PERIOD_S * int(chance.integers(60, 1200))
        end = begin + PERIOD_S * int(chance.integers(12, 75))
        outer = [d for d in self.seed.devices if _DISTANCE[d.role] > 1]
        broken: list[Device] | list[Link] = self.seed.links if week % 2 and self.seed.links else outer
        return [(broken[int(chance.integers(len(broken)))], begin, end)] if broken else []

    def events(self, day: date) -> Iterator[Event]:
        """What agents would have said of the incidents of a day."""
        for what, begin, end in self.incidents(day):
            for at, old, new in ((begin, "up", "down"), (end, "down", "up")):
                if isinstance(what, Device):
                    for name in ("device.reachable.changed", "device.api.changed"):
                        yield Event(at, what.name, name, "device", None, old, new)
                    ports = [(what.name, port.key) for port in what.interfaces]
                    ports = [self.far[port][0] for port in ports if port in self.far]
                else:
                    ports = [(end_.device, end_.interface) for end_ in (what.a, what.b)]
                for router, key in ports:
                    yield Event(at, router, "interface.oper.changed", "interface", key, old, new)
                    for neighbor in self.routers[router].ospf_neighbors:
                        if neighbor.interface == key:
                            states = ("full", "down") if new == "down" else ("down", "full")
                            name = f"{neighbor.router_id}@{key}"
                            yield Event(at, router, "ospf.neighbor.state.changed", "ospf_neighbor", name, *states)

    def day(self, day: date, until: datetime) -> dict[Thing, dict[str, Samples]]:
        """All samples of a day before `until`, by metric."""
        midnight = datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()
        seconds = np.arange(min(DAY_SECONDS, int(until.timestamp() - midnight)), step=PERIOD_S, dtype=np.int32)
        at = midnight + seconds.astype(np.float64)
        found: dict[Thing, dict[str, Samples]] = {}
        dark: dict[str, Flags] = {name: np.zeros(len(at), bool) for name in self.routers}
        cut: dict[str, Flags] = {link.name: np.zeros(len(at), bool) for link in self.seed.links}
        for what, begin, end in self.incidents(day):
            (dark if isinstance(what, Device) else cut)[what.name] |= (at >= begin) & (at < end)
        for router in self.seed.devices:
            answers = ~dark[router.name]
            carried = np.zeros(len(at))
            for port in router.interfaces:
                up, rx, tx = self._port(router, port, at, dark, cut)
                carried += (rx + tx) / (2 * port.capacity_bps)
                values = {"interface.oper_up": up.astype(float), "interface.admin_up": np.ones(len(at)),
                          "interface.rx_bps": rx, "interface.tx_bps": tx}  # fmt: skip
                taken = _taken(seconds, values, answers)
                if taken:
                    rates = taken["interface.rx_bps"], taken["interface.tx_bps"]
                    taken[UTILIZATION] = utilization(*rates, port.capacity_bps)
                found[router.name, "interface", port.key] = taken
            load = carried / max(1, len(router.interfaces)) * self._wave(at, router.name, 0)
            cpu = np.clip(np.rint(4 + 80 * load), 1, 100)
            evening = 0.85 + 0.1 * (self._wave(at, router.name + "/subscribers", 0.5) - 1)
            values = {"device.cpu_pct": cpu, "device.temp_c": np.rint((37 + 0.2 * cpu) * 10) / 10}
            if router.pppoe_sessions:
                values["pppoe.sessions.active"] = np.rint(router.pppoe_sessions * evening)
            if router.dhcp_leases:
                values["dhcp.leases.active"] = np.rint(router.dhcp_leases * evening)
            always = {name: answers.astype(float) for name in ("device.up", "device.api.up")}
            found[router.name, "device", ""] = _taken(seconds, values, answers) | _taken(
                seconds, always, np.ones(len(at), bool)
            )
        return found

    def _port(
        self, router: Device, port: Interface, at: Values, dark: dict[str, Flags], cut: dict[str, Flags]
    ) -> tuple[Flags, Values, Values]:
        """Whether a port has a carrier, and what it receives and sends."""
        name = (router.name, port.key)
        if name in self.far:
            other, link = self.far[name]
            up = ~(cut[link.name] | dark[other[0]])
            return up, self._sent(other, at) * up, self._sent(name, at) * up
        shares = (1.0, UPLOAD) if "uplink:true" in port.tags else (UPLOAD, 1.0)
        rx, tx = (
            self._rate(at, (*name, way), port.load_pct * share, port.capacity_bps)
            for way, share in zip(("rx", "tx"), shares, strict=True)
        )
        return np.ones(len(at), bool), rx, tx


def _taken(seconds: NDArray[np.int32], values: dict[str, Values], when: Flags) -> dict[str, Samples]:
    """The samples of the moments that somebody could have asked."""
    return {name: Samples(seconds[when], of[when]) for name, of in values.items() if when.any()}
