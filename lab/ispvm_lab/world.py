"""The state of every router of a seed: what runs, since when, how much has passed, who talks to whom.

The world is changed by few verbs (power, reboot, cut, mend, lose, ...). After each, `refresh` derives the rest: a link
is up when both ends are powered and nothing cuts it; an OSPF adjacency needs its link; a BGP session inside the
network needs a path, one outside needs its uplink. Traffic is in closed form (`traffic.py`), so nothing ticks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import sin, tau

from ispvm_contract import seed as seeds

from . import formats
from .models import Model, model
from .traffic import Clock, Flow, between, flow, fraction

# Traffic runs from the transit edge down to subscribers; a link's heavy direction points to the higher rank.
_RANK = {"edge": 0, "core": 1, "rr": 1, "agg": 2, "access": 3, "customer-edge": 4}
_UPSTREAM_SHARE = 0.22  # upload as a share of download
OSPF_SECONDS = 8.0
BGP_SECONDS = 3.0
BGP_STAGGER_SECONDS = 5.0  # after a boot, sessions come up one after the other
PRIVATE_AS = 64512
PACKET_BITS = 8 * 870  # every packet is of mean size
DARK_DBM = -38.0  # an optical module sees nothing any more
CACHED_SESSION_SECONDS = 45.0  # v7 keeps showing a lost session for some time


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a router's log or history. `by` is the user of a change."""

    id: int
    at: float
    topics: str
    message: str
    by: str = ""


@dataclass(frozen=True, slots=True)
class Zone:
    """A time zone, and its seconds ahead of UTC."""

    name: str
    seconds: int


UTC_ZONE = Zone("UTC", 0)


@dataclass(frozen=True, slots=True)
class Passed:
    """What went through a port: bits and packets, as numbers that only grow."""

    rx_bits: float
    tx_bits: float
    rx_errors: float
    tx_drops: float


@dataclass(eq=False, slots=True)
class Port:
    """An interface: its flows, and how much had passed when it last came up or was reset."""

    router: Router
    spec: seeds.Interface
    index: int
    rx: Flow
    tx: Flow
    wireless: bool
    mac: str = ""
    peer: Port | None = None
    enabled: bool = True
    running: bool = True
    downs: int = 0
    up_at: float = 0.0
    down_at: float | None = None
    cuts: set[str] = field(default_factory=set)
    error_share: float = 0.0  # of the packets received
    drop_share: float = 0.0  # of the packets sent
    light: float | None = None  # dBm that its optical module receives, where something is wrong with it
    _rx_start: float = 0.0  # the flows' volumes when `_passed` was written down
    _tx_start: float = 0.0
    _passed: Passed = field(default_factory=lambda: Passed(0.0, 0.0, 0.0, 0.0))

    def passed(self, at: float) -> Passed:
        """What has passed since the last reset."""
        before = self._passed
        if not self.running:
            return before
        received = self.rx.volume(at) - self._rx_start
        sent = self.tx.volume(at) - self._tx_start
        return Passed(
            before.rx_bits + received,
            before.tx_bits + sent,
            before.rx_errors + received / PACKET_BITS * self.error_share,
            before.tx_drops + sent / PACKET_BITS * self.drop_share,
        )

    def rates(self, at: float) -> tuple[float, float]:
        """Bit/s received and sent."""
        return (self.rx.rate(at), self.tx.rate(at)) if self.running else (0.0, 0.0)

    def reset(self, at: float) -> None:
        """Counters to zero."""
        self._begin(Passed(0.0, 0.0, 0.0, 0.0), at)

    def settle(self, at: float) -> None:
        """Write down what has passed: from now on something is different."""
        self._begin(self.passed(at), at)

    def _begin(self, passed: Passed, at: float) -> None:
        self._passed = passed
        self._rx_start, self._tx_start = self.rx.volume(at), self.tx.volume(at)

    def carry(self, rx: Flow, tx: Flow, at: float) -> None:
        """From now on this much comes and goes."""
        passed = self.passed(at)
        self.rx, self.tx = rx, tx
        self._begin(passed, at)

    def misread(self, share: float, at: float) -> None:
        """From now on that share of the packets received is broken."""
        self.settle(at)
        self.error_share = share

    def turn(self, running: bool, at: float) -> bool:
        """Link up or down; True when that is news."""
        if running == self.running:
            return False
        self.settle(at)
        self.running = running
        if running:
            self.up_at = at
        else:
            self.downs += 1
            self.down_at = at
        return True

    def boot(self, at: float) -> None:
        """Everything forgotten; down until the world says otherwise."""
        self.running = False
        self.reset(at)
        self.downs, self.down_at, self.up_at = 0, None, at


@dataclass(eq=False, slots=True)
class Adjacency:
    """A BGP session or an OSPF adjacency: wanted and possible (`up`) or not, since when, and when it is `ready`."""

    index: int
    up: bool = True
    since: float = 0.0
    ready: float = 0.0
    changes: int = 0
    losses: set[str] = field(default_factory=set)

    def established(self, at: float) -> bool:
        """Whether the protocol has got there by now."""
        return self.up and at >= self.ready

    def turn(self, up: bool, at: float, delay: float) -> bool:
        """Possible or not from now on; True when that is news."""
        if up == self.up:
            return False
        self.up, self.since = up, at
        self.ready = at + delay if up else self.ready
        self.changes += 1
        return True


@dataclass(eq=False, slots=True)
class Bgp(Adjacency):
    """A configured BGP peer; `remote` is a router of the seed, `uplink` the port an outside peer is behind."""

    spec: seeds.BgpPeer = field(kw_only=True)
    remote: Router | None = field(default=None, kw_only=True)
    uplink: Port | None = field(default=None, kw_only=True)


@dataclass(eq=False, slots=True)
class Ospf(Adjacency):
    """An expected OSPF neighbour on a port."""

    spec: seeds.OspfNeighbor = field(kw_only=True)
    remote: Router | None = field(default=None, kw_only=True)
    port: Port | None = field(default=None, kw_only=True)


@dataclass(frozen=True, slots=True)
class Drop:
    """A mass disconnect: `keep` of the subscribers stayed, the rest redials within `recover` seconds (0: not)."""

    at: float
    keep: float
    recover: float


@dataclass(frozen=True, slots=True)
class Line:
    """A subscriber's line: a made-up name, mean bit/s down, and the seconds between two redials."""

    name: str
    caller_id: str
    address: str
    rate: float
    period: float
    phase: float


@dataclass(frozen=True, slots=True)
class Subscriber:
    """One active PPPoE session, up for so many seconds."""

    line: Line
    uptime: float
    session: int


class Router:
    """One device of the seed."""

    def __init__(self, spec: seeds.Device, clock: Clock, booted: float) -> None:
        """A powered router without ports or neighbours yet; the world wires it."""
        self.spec = spec
        self.name = spec.name
        self.clock = clock
        try:
            self.version = formats.version(spec.routeros)
        except ValueError as error:
            raise ValueError(f"devices[{spec.name}].routeros: {error}") from None
        self.model: Model = model(spec.model)
        self.booted = booted
        self.outages: set[str] = set()
        self.ports: dict[str, Port] = {}
        self.bgp: list[Bgp] = []
        self.ospf: list[Ospf] = []
        self.local_as = PRIVATE_AS
        self.skew = between(-0.8, 0.8, self.name, "skew")
        self.clock_jumps: dict[str, float] = {}
        self.zone = UTC_ZONE
        self.refusing = False  # when without power: closed ports instead of silence
        self.sensors: dict[str, str] = {}  # what a sensor shows in place of the truth
        self.unreached: set[str] = set()  # hosts that netwatch does not reach, whatever else does
        self.flagged = False
        self.drops: dict[str, Drop] = {}
        self.log: deque[Entry] = deque(maxlen=1000)
        self.history: deque[Entry] = deque(maxlen=100)
        self._entries = 0
        self._lines: list[Line] = []

    @property
    def powered(self) -> bool:
        """Whether it runs."""
        return not self.outages

    @property
    def v7(self) -> bool:
        """Whether this is RouterOS 7 or later."""
        return self.version >= (7, 0, 0)

    def uptime(self, at: float) -> float:
        """Seconds since the boot."""
        return max(0.0, at - self.booted)

    def wall_clock(self, at: float) -> float:
        """What the router believes its local time to be, as if it were UTC."""
        return at + self.skew + sum(self.clock_jumps.values()) + self.zone.seconds

    def load(self, at: float) -> float:
        """CPU load in percent: follows the traffic, and never stands quite still."""
        carried = sum(sum(port.rates(at)) for port in self.ports.values())
        capacity = sum(2.0 * port.spec.capacity_bps for port in self.ports.values()) or 1.0
        phase = fraction(self.name, "cpu")
        own = 4 + 3 * sin(tau * (at / 67 + phase)) + 2 * sin(tau * (at / 13 + phase))
        settling = 60.0 if self.uptime(at) < 30 else 0.0
        return min(100.0, max(1.0, own + 90.0 * carried / capacity + settling))

    def temperature(self, at: float) -> float:
        """Degrees Celsius: the load and the time of day."""
        warmth = 2.0 * sin(tau * (self.clock.hours(at) - 10) / 24)
        return 36.0 + between(-3, 3, self.name, "temperature") + 0.22 * self.load(at) + warmth

    def free_memory(self, at: float) -> int:
        """Bytes."""
        share = between(0.55, 0.75, self.name, "memory") + 0.02 * sin(tau * at / 1700)
        return int(self.model.memory * share) // 4096 * 4096

    def subscribers_wanted(self, at: float) -> int:
        """How many PPPoE sessions are up: the evening has more of them; mass disconnects take theirs away."""
        evening = 0.5 + 0.5 * sin(tau * (self.clock.hours(at) - 14.5) / 24)
        count = self.spec.pppoe_sessions * (0.80 + 0.20 * evening)
        for drop in self.drops.values():
            back = min(1.0, (at - drop.at) / drop.recover) if drop.recover else 0.0
            count *= drop.keep + (1.0 - drop.keep) * back
        count *= min(1.0, self.uptime(at) / 60.0)
        return int(count)

    def subscribers(self, at: float) -> list[Subscriber]:
        """The active PPPoE sessions. Names are made up; each redials every few hours."""
        limit = min([self.uptime(at), *(at - drop.at for drop in self.drops.values())])
        found = []
        for index in range(self.subscribers_wanted(at)):
            line = self._line(index)
            cycle, age = divmod(at + line.phase, line.period)
            session = 0x81000000 + index * 7 + int(cycle) % 7
            found.append(Subscriber(line, min(age, limit), session))
        return found

    def _line(self, index: int) -> Line:
        """The subscriber line of that number, worked out once."""
        while len(self._lines) <= index:
            number = len(self._lines)
            period = between(6, 60, self.name, number, "redial") * 3600
            device = int(fraction(self.name, number, "mac") * (1 << 24))
            self._lines.append(
                Line(
                    name=f"user{number:05d}",
                    caller_id=mac(0x0CC47A << 24 | device),
                    address=f"100.{64 + (number >> 16) % 64}.{number >> 8 & 255}.{number & 255}",
                    rate=between(2e5, 6e6, self.name, number, "rate"),
                    period=period,
                    phase=period * fraction(self.name, number, "phase"),
                )
            )
        return self._lines[index]

    def note(self, at: float, topics: str, message: str) -> None:
        """A line in the log."""
        self._entries += 1
        self.log.append(Entry(self._entries, at, topics, message))

    def changed(self, at: float, by: str, action: str) -> None:
        """Somebody changed the configuration: a line in the history and one in the log."""
        self._entries += 1
        self.history.append(Entry(self._entries, at, "system,info", action, by))
        self.note(at, "system,info", f"{action} by {by}")


def mac(number: int) -> str:
    """48 bits as a MAC address."""
    return ":".join(f"{byte:02X}" for byte in number.to_bytes(6, "big"))


class World:
    """All routers of a seed. Every verb takes effect at the clock's present."""

    def __init__(self, seed: seeds.Seed, clock: Clock, boots: dict[str, float] | None = None) -> None:
        """`boots` says when routers last booted, where that is known from an earlier run."""
        self.seed = seed
        self.clock = clock
        self.routers: dict[str, Router] = {}
        self._loopbacks: dict[str, Router] = {}
        for spec in seed.devices:
            age = between(9, 160, spec.name, "age") * 86400
            router = Router(spec, clock, (boots or {}).get(spec.name, clock.origin - age))
            self.routers[spec.name] = router
            self._loopbacks[spec.loopback] = self._loopbacks[spec.address] = router
        self._wire()
        self._peer()
        for router in self.routers.values():
            router.note(router.booted, "system,info", "router rebooted")
            edited = clock.origin - 86400 * between(1, 9, router.name, "edit")
            router.changed(max(router.booted, edited), "noc", "changed firewall filter rule")
        self.refresh()

    def router(self, name: str) -> Router:
        """The router of that name; raises ValueError."""
        try:
            return self.routers[name]
        except KeyError:
            raise ValueError(f"router: no {name!r} in seed {self.seed.name!r}") from None

    def port(self, router: str, interface: str) -> Port:
        """The port of that name; raises ValueError."""
        ports = self.router(router).ports
        try:
            return ports[interface]
        except KeyError:
            known = ", ".join(ports)
            raise ValueError(f"interface: no {interface!r} on {router}, which has {known}") from None

    def _wire(self) -> None:
        """Ports with their flows; both ends of a link share one flow a direction."""
        ends: dict[tuple[str, str], tuple[seeds.Link, seeds.End]] = {}
        for link in self.seed.links:
            ends[link.a.device, link.a.interface] = (link, link.b)
            ends[link.b.device, link.b.interface] = (link, link.a)
        for router in self.routers.values():
            for index, spec in enumerate(router.spec.interfaces):
                found = ends.get((router.name, spec.key))
                if found is None:
                    rx, tx = self._edge_flows(router, spec)
                else:
                    mean = found[0].capacity_bps * spec.load_pct / 100
                    rx = tx = self._link_flow(found[0], router, self.routers[found[1].device], mean)
                wireless = "medium:wireless" in spec.tags or (found is not None and found[0].medium == "wireless")
                port = Port(router, spec, index, rx, tx, wireless)
                port.error_share = between(0.2, 4, router.name, index) * (1e-6 if wireless else 1e-10)
                port.drop_share = between(0.2, 4, router.name, index, "drops") * 1e-9
                port.mac = mac((0x481F2D << 24 | int(fraction(router.name, "mac") * (1 << 16)) << 8) + index)
                port.up_at = router.booted + 4
                router.ports[spec.key] = port
        for link in self.seed.links:
            a = self.routers[link.a.device].ports[link.a.interface]
            b = self.routers[link.b.device].ports[link.b.interface]
            a.peer, b.peer = b, a
            a.rx, b.rx = b.tx, a.tx  # one flow, seen from both ends
        for router in self.routers.values():
            for port in router.ports.values():
                port.reset(router.booted)

    def _link_flow(self, link: seeds.Link, source: Router, target: Router, mean: float) -> Flow:
        down, up = _RANK[target.spec.role], _RANK[source.spec.role]
        share = 1.0 if down > up else _UPSTREAM_SHARE if down < up else 0.6
        return flow(mean * share, link.capacity_bps, self.clock, link.name, source.name)

    def _edge_flows(self, router: Router, spec: seeds.Interface) -> tuple[Flow, Flow]:
        heavy = spec.capacity_bps * spec.load_pct / 100
        light = heavy * _UPSTREAM_SHARE
        rx, tx = (heavy, light) if "uplink:true" in spec.tags else (light, heavy)
        make = (spec.capacity_bps, self.clock, router.name, spec.key)
        return flow(rx, *make, "rx"), flow(tx, *make, "tx")

    def _peer(self) -> None:
        """BGP and OSPF of each router, and the AS it is in."""
        for router in self.routers.values():
            outside = 0
            uplinks = [port for port in router.ports.values() if "uplink:true" in port.spec.tags]
            for index, peer in enumerate(router.spec.bgp_peers):
                session = Bgp(index, spec=peer, remote=self._loopbacks.get(peer.remote_address))
                if session.remote is None:
                    session.uplink = uplinks[outside] if outside < len(uplinks) else None
                    outside += 1
                self._settle(session, router, "bgp", 300)
                router.bgp.append(session)
            for index, neighbour in enumerate(router.spec.ospf_neighbors):
                adjacency = Ospf(
                    index,
                    spec=neighbour,
                    remote=self._loopbacks.get(neighbour.router_id),
                    port=router.ports.get(neighbour.interface),
                )
                self._settle(adjacency, router, "ospf", 40)
                router.ospf.append(adjacency)
        for router in self.routers.values():
            router.local_as = self._local_as(router)

    def _local_as(self, router: Router) -> int:
        """The AS that the router's peers in the seed know it by; by default a private one."""
        known = (
            far.spec.remote_as
            for bgp in router.bgp
            if bgp.remote is not None
            for far in bgp.remote.bgp
            if far.remote is router
        )
        return next(known, PRIVATE_AS)

    def _settle(self, adjacency: Adjacency, router: Router, kind: str, after_boot: float) -> None:
        """An adjacency that came up some time after its router did, before the world began."""
        share = fraction(router.name, kind, adjacency.index)
        later = after_boot * (0.1 + 0.9 * share) + router.uptime(self.clock.origin) * 0.8 * share
        adjacency.since = adjacency.ready = router.booted + later

    # What can happen

    def power_off(self, name: str, cause: str, *, refuse: bool = False) -> None:
        """Switch a router off until `cause` is gone; `refuse`: its ports are then closed, not silent."""
        router = self.router(name)
        router.outages.add(cause)
        router.refusing = refuse
        self.refresh()

    def power_on(self, name: str, cause: str) -> None:
        """Take one cause of an outage away; without any, the router boots."""
        router = self.router(name)
        router.outages.discard(cause)
        if router.powered:
            self._boot(router)
        self.refresh()

    def _boot(self, router: Router) -> None:
        now = self.clock.now()
        router.booted = now
        router.log.clear()
        router.note(now, "system,info", "router rebooted")
        for port in router.ports.values():
            port.boot(now)
        for adjacency in (*router.bgp, *router.ospf):
            adjacency.up, adjacency.since, adjacency.changes = False, now, 0

    def reset_counters(self, name: str, interfaces: Iterable[str] = ()) -> None:
        """Interface counters to zero, of all or the given interfaces."""
        now = self.clock.now()
        ports = [self.port(name, key) for key in interfaces] or self.router(name).ports.values()
        for port in ports:
            port.reset(now)

    def cut(self, name: str, interface: str, cause: str) -> None:
        """Cut what is plugged into a port, until `cause` is mended."""
        self.port(name, interface).cuts.add(cause)
        self.refresh()

    def mend(self, name: str, interface: str, cause: str) -> None:
        """Take one cause of a cut away."""
        self.port(name, interface).cuts.discard(cause)
        self.refresh()

    def enable(self, name: str, interface: str, on: bool) -> None:
        """Somebody enables or disables an interface."""
        self.port(name, interface).enabled = on
        self.router(name).changed(
            self.clock.now(), "admin", f"device changed: {'enabled' if on else 'disabled'} {interface}"
        )
        self.refresh()

    def load(self, port: Port, share: float, drop_share: float) -> tuple[Flow, float]:
        """Let a port send that share of its capacity and drop so much; what it sent and dropped before."""
        before = port.tx, port.drop_share
        capacity = port.spec.capacity_bps
        self.unload(port, (flow(capacity * share, capacity, self.clock, port.router.name, port.spec.key), drop_share))
        return before

    def unload(self, port: Port, sending: tuple[Flow, float]) -> None:
        """Let a port send and drop that again; the far end receives it."""
        now = self.clock.now()
        port.carry(port.rx, sending[0], now)
        port.drop_share = sending[1]
        if port.peer is not None:
            port.peer.carry(port.tx, port.peer.tx, now)

    def lose(self, adjacencies: Iterable[Adjacency], cause: str) -> None:
        """Make BGP sessions or OSPF adjacencies impossible, until `cause` is gone."""
        for adjacency in adjacencies:
            adjacency.losses.add(cause)
        self.refresh()

    def regain(self, adjacencies: Iterable[Adjacency], cause: str) -> None:
        """Take one cause of a loss away."""
        for adjacency in adjacencies:
            adjacency.losses.discard(cause)
        self.refresh()

    # What follows from it

    def refresh(self) -> None:
        """Derive links, then adjacencies, from what is powered, cut and lost."""
        now = self.clock.now()
        for router in self.routers.values():
            for port in router.ports.values():
                possible = router.powered and port.enabled and not port.cuts
                if port.peer is not None:
                    possible = possible and port.peer.router.powered and port.peer.enabled and not port.peer.cuts
                if possible != port.running and port.turn(possible, now) and router.powered:
                    router.note(now, "interface,info", f"{port.spec.key} link {'up' if possible else 'down'}")
        island = self._islands()
        for router in self.routers.values():
            settling = router.uptime(now) < 60
            for ospf in router.ospf:
                possible = router.powered and not ospf.losses and (ospf.port is None or ospf.port.running)
                if ospf.remote is not None:
                    possible = possible and ospf.remote.powered and not _mirrored_loss(ospf, ospf.remote.ospf, router)
                if ospf.turn(possible, now, OSPF_SECONDS) and router.powered:
                    change = "Down to Full" if possible else "Full to Down"
                    router.note(now, "route,ospf,info", f"neighbor {ospf.spec.router_id} state change from {change}")
            for bgp in router.bgp:
                possible = router.powered and not bgp.losses
                if bgp.remote is not None:
                    possible = (
                        possible
                        and bgp.remote.powered
                        and island[bgp.remote.name] == island[router.name]
                        and not _mirrored_loss(bgp, bgp.remote.bgp, router)
                    )
                elif bgp.uplink is not None:
                    possible = possible and bgp.uplink.running
                delay = BGP_STAGGER_SECONDS * (bgp.index + 1) if settling else BGP_SECONDS
                if bgp.turn(possible, now, delay) and router.powered:
                    word = "established" if possible else "closed"
                    router.note(now, "route,bgp,info", f"{bgp.spec.name} session {word}")

    def _islands(self) -> dict[str, str]:
        """For each router the name of the island it is on: two routers reach each other when theirs is the same."""
        head = {name: name for name in self.routers}

        def find(name: str) -> str:
            while head[name] != name:
                head[name] = head[head[name]]
                name = head[name]
            return name

        for router in self.routers.values():
            for port in router.ports.values():
                if port.peer is not None and port.running:
                    head[find(router.name)] = find(port.peer.router.name)
        return {name: find(name) for name in self.routers}


def _mirrored_loss(own: Adjacency, others: Iterable[Bgp | Ospf], router: Router) -> bool:
    """Whether the far end's view of the same adjacency is lost: a session has two ends and falls with either."""
    return any(other.remote is router and other.losses for other in others if type(other) is type(own))
