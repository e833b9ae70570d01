"""What can be made to go wrong, and what is going wrong now.

A fault has a kind, the router it is on and parameters. *Wire* faults are looked up by the API connections as they
speak. *World* faults change the state of the world when they are added and take the change back when they are cleared:
each is a context manager. *Driven* faults do so again and again, or for a time: each is a coroutine.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

from .world import DARK_DBM, UTC_ZONE, Drop, World, Zone

Params = dict[str, str]
Effect = Callable[[World, "Fault"], AbstractContextManager[None]]
Drive = Callable[["Book", "Fault"], Awaitable[None]]
EVERYWHERE = "*"


@dataclass(eq=False, slots=True)
class Fault:
    """One fault on one router, or (wire faults only) on every router when `router` is "*"."""

    id: str
    kind: str
    router: str
    params: Params
    since: float
    cleared: asyncio.Event = field(default_factory=asyncio.Event)

    def number(self, name: str) -> float:
        """A parameter that is a number."""
        return float(self.params[name])

    def concerns(self, router: str, menu: str) -> bool:
        """Whether this fault is about that menu of that router."""
        about = self.params.get("menu", "")
        return self.router in {router, EVERYWHERE} and (not about or menu == about)


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of fault: what it does, and its parameters with their defaults; a numeric default wants a number."""

    name: str
    does: str
    params: Mapping[str, str] = field(default_factory=dict)
    effect: Effect | None = None
    drive: Drive | None = None
    once: bool = False  # over as soon as it has happened
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def complete(self, given: Mapping[str, str]) -> Params:
        """The given parameters with the defaults of the rest; raises ValueError naming the one at fault."""
        for name in given.keys() - self.params.keys():
            known = ", ".join(self.params) or "none"
            raise ValueError(f"{name}: {self.name} has no such parameter (it has: {known})")
        params = {**self.params, **given}
        for name, default in self.params.items():
            if _is_number(default) and not _is_number(params[name]):
                raise ValueError(f"{name}: {params[name]!r} is not a number")
            allowed = self.choices.get(name)
            if allowed is not None and params[name] not in allowed:
                raise ValueError(f"{name}: {params[name]!r} is not one of {', '.join(allowed)}")
        return params


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


# World faults


@contextmanager
def _down(world: World, fault: Fault) -> Iterator[None]:
    world.power_off(fault.router, fault.id, refuse=fault.params["mode"] == "refuse")
    yield
    world.power_on(fault.router, fault.id)


@contextmanager
def _link_down(world: World, fault: Fault) -> Iterator[None]:
    world.cut(fault.router, fault.params["interface"], fault.id)
    try:
        yield
    finally:  # a flapping link may be cleared while it is down
        world.mend(fault.router, fault.params["interface"], fault.id)


@contextmanager
def _disabled(world: World, fault: Fault) -> Iterator[None]:
    world.enable(fault.router, fault.params["interface"], False)
    yield
    world.enable(fault.router, fault.params["interface"], True)


@contextmanager
def _congestion(world: World, fault: Fault) -> Iterator[None]:
    port = world.port(fault.router, fault.params["interface"])
    before = world.load(port, fault.number("pct") / 100, fault.number("drop_share"))
    yield
    world.unload(port, before)


@contextmanager
def _errors(world: World, fault: Fault) -> Iterator[None]:
    port = world.port(fault.router, fault.params["interface"])
    usual = port.error_share
    port.misread(fault.number("share"), world.clock.now())
    yield
    port.misread(usual, world.clock.now())


@contextmanager
def _bgp_loss(world: World, fault: Fault) -> Iterator[None]:
    wanted = fault.params["peer"]
    sessions = [bgp for bgp in world.router(fault.router).bgp if wanted in {"", bgp.spec.name, bgp.spec.remote_address}]
    if not sessions:
        raise ValueError(f"peer: {fault.router} has no BGP peer {wanted!r}")
    world.lose(sessions, fault.id)
    yield
    world.regain(sessions, fault.id)


@contextmanager
def _ospf_loss(world: World, fault: Fault) -> Iterator[None]:
    wanted = fault.params["neighbor"]
    neighbours = [
        ospf for ospf in world.router(fault.router).ospf if wanted in {"", ospf.spec.router_id, ospf.spec.address}
    ]
    if not neighbours:
        raise ValueError(f"neighbor: {fault.router} has no OSPF neighbour {wanted!r}")
    world.lose(neighbours, fault.id)
    yield
    world.regain(neighbours, fault.id)


@contextmanager
def _pppoe_drop(world: World, fault: Fault) -> Iterator[None]:
    router = world.router(fault.router)
    keep, recover = fault.number("keep_pct") / 100, fault.number("recover")
    router.drops[fault.id] = Drop(world.clock.now(), keep, recover)
    router.note(world.clock.now(), "pppoe,info", "many sessions terminated: hungup")
    yield
    del router.drops[fault.id]


@contextmanager
def _clock_jump(world: World, fault: Fault) -> Iterator[None]:
    router = world.router(fault.router)
    lost = fault.params["lost"] == "yes"
    router.clock_jumps[fault.id] = -world.clock.now() if lost else fault.number("seconds")
    yield
    del router.clock_jumps[fault.id]


@contextmanager
def _time_zone(world: World, fault: Fault) -> Iterator[None]:
    router = world.router(fault.router)
    router.zone = Zone(fault.params["zone"], int(fault.number("minutes") * 60))
    yield
    router.zone = UTC_ZONE


@contextmanager
def _sensor(world: World, fault: Fault) -> Iterator[None]:
    sensors = world.router(fault.router).sensors
    sensors[fault.params["name"]] = fault.params["value"]
    yield
    sensors.pop(fault.params["name"], None)


@contextmanager
def _optics(world: World, fault: Fault) -> Iterator[None]:
    port = world.port(fault.router, fault.params["interface"])
    if not port.spec.key.startswith(("sfp", "qsfp")):
        raise ValueError(f"interface: {port.spec.key} of {fault.router} has no optical module")
    port.light = fault.number("rx_power")
    if port.light <= DARK_DBM:
        world.cut(fault.router, port.spec.key, fault.id)
    yield
    port.light = None
    world.mend(fault.router, port.spec.key, fault.id)


@contextmanager
def _netwatch_down(world: World, fault: Fault) -> Iterator[None]:
    router = world.router(fault.router)
    hosts = {ospf.spec.router_id for ospf in router.ospf}
    if fault.params["host"] not in {"", *hosts}:
        raise ValueError(f"host: {fault.router} watches {', '.join(sorted(hosts)) or 'nobody'}")
    gone = hosts if not fault.params["host"] else {fault.params["host"]}
    router.unreached |= gone
    yield
    router.unreached -= gone


@contextmanager
def _flagged(world: World, fault: Fault) -> Iterator[None]:
    world.router(fault.router).flagged = True
    yield
    world.router(fault.router).flagged = False


@contextmanager
def _counter_reset(world: World, fault: Fault) -> Iterator[None]:
    world.reset_counters(fault.router, filter(None, [fault.params["interface"]]))
    yield


@contextmanager
def _config_change(world: World, fault: Fault) -> Iterator[None]:
    world.router(fault.router).changed(world.clock.now(), fault.params["by"], fault.params["action"])
    yield


# Driven faults


async def _flap(book: Book, fault: Fault) -> None:
    half = max(0.05, fault.number("every") / 2)
    while True:
        with _link_down(book.world, fault):
            await asyncio.sleep(half)
        await asyncio.sleep(half)


async def _reboot(book: Book, fault: Fault) -> None:
    book.world.power_off(fault.router, fault.id)
    try:
        await book.changed()
        await asyncio.sleep(fault.number("seconds"))
    finally:
        book.world.power_on(fault.router, fault.id)


_MENU = {"menu": ""}
_PORT = {"interface": ""}
_YES_NO = ("yes", "no")
KINDS = {
    kind.name: kind
    for kind in (
        # on the wire
        Kind("stall", "replies stop after some bytes, inside a sentence, until cleared", {**_MENU, "after": "40"}),
        Kind("drip", "replies come a few bytes at a time", {**_MENU, "bytes": "4", "every": "0.2"}),
        Kind("reset", "the connection is reset after some bytes of a reply", {**_MENU, "after": "40"}),
        Kind("garbage", "bytes that are no API sentence stand where a reply should", _MENU),
        Kind(
            "fatal", "commands are answered with !fatal, which ends the connection", {**_MENU, "text": "out of memory"}
        ),
        Kind(
            "trap",
            "prints are answered with !trap, after some rows",
            {
                **_MENU,
                "message": "action timed out - try again, if error continues contact MikroTik support",
                "rows": "0",
            }
            | {"category": ""},
        ),
        Kind("password", "every password is wrong"),
        Kind("sessions", "new connections are closed without a word (too many, or the address is not allowed)"),
        Kind("no-test-policy", "on RouterOS 6 the user may not run monitor commands: its group lacks the policy test"),
        Kind("no-certificate", "api-ssl has no certificate: anonymous Diffie-Hellman only, up to TLS 1.2"),
        Kind(
            "encoding",
            "texts (with names=yes also interface names) hold letters of a codepage",
            {"codepage": "cp1252", "names": "no"},
            choices={"codepage": ("latin-1", "cp1252", "cp1251", "utf-8"), "names": _YES_NO},
        ),
        Kind(
            "missing-fields",
            "rows lack some fields, as those of some boards do",
            {"menu": "/interface", "fields": "rx-error,rx-drop,l2mtu"},
        ),
        Kind("huge", "a menu has that many rows", {"menu": "/ip/dhcp-server/lease", "rows": "20000"}),
        # in the world
        Kind(
            "down",
            "no power: the router is silent (or, mode=refuse, its ports are closed) and its links are down",
            {"mode": "silent"},
            effect=_down,
            choices={"mode": ("silent", "refuse")},
        ),
        Kind(
            "reboot", "off for some seconds, then booted: uptime and counters from 0", {"seconds": "20"}, drive=_reboot
        ),
        Kind(
            "counter-reset", "interface counters to 0, of one interface or all", _PORT, effect=_counter_reset, once=True
        ),
        Kind(
            "clock-jump",
            "the clock is off by some seconds, or lost (1970)",
            {"seconds": "3600", "lost": "no"},
            effect=_clock_jump,
            choices={"lost": _YES_NO},
        ),
        Kind(
            "time-zone",
            "the router keeps another time zone, so many minutes ahead of UTC",
            {"zone": "America/St_Johns", "minutes": "-210"},
            effect=_time_zone,
        ),
        Kind("link-down", "what is plugged into an interface is cut", _PORT, effect=_link_down),
        Kind(
            "link-flap",
            "an interface goes down and up, once every so many seconds",
            {**_PORT, "every": "10"},
            drive=_flap,
        ),
        Kind("interface-disabled", "somebody disabled an interface", _PORT, effect=_disabled),
        Kind(
            "congestion",
            "an interface sends that many percent of its capacity, and its queue drops packets",
            {**_PORT, "pct": "97", "drop_share": "0.02"},
            effect=_congestion,
        ),
        Kind("errors", "a share of what an interface receives is broken", {**_PORT, "share": "0.01"}, effect=_errors),
        Kind("bgp-loss", "one BGP peer, or all, cannot be", {"peer": ""}, effect=_bgp_loss),
        Kind(
            "ospf-loss",
            "one OSPF neighbour (router id or address), or all, cannot be",
            {"neighbor": ""},
            effect=_ospf_loss,
        ),
        Kind(
            "pppoe-drop",
            "most PPPoE sessions end at once; with recover they redial over so many seconds",
            {"keep_pct": "5", "recover": "0"},
            effect=_pppoe_drop,
        ),
        Kind(
            "sensor",
            "a sensor of /system/health shows a value",
            {"name": "psu2-state", "value": "fail"},
            effect=_sensor,
        ),
        Kind(
            "optics",
            "an optical module receives that much light (dBm); -40 is dark and takes the link down",
            {**_PORT, "rx_power": "-40"},
            effect=_optics,
        ),
        Kind("netwatch-down", "netwatch does not reach a host, or any", {"host": ""}, effect=_netwatch_down),
        Kind("flagged", "RouterOS 7 finds its configuration suspicious (device-mode)", effect=_flagged),
        Kind(
            "config-change",
            "somebody changed the configuration: a line in the history",
            {"by": "admin", "action": "changed firewall filter rule"},
            effect=_config_change,
            once=True,
        ),
    )
}


class Book:
    """All faults there are now. `reconcile` is awaited after the world changed: sockets follow power."""

    def __init__(self, world: World, reconcile: Callable[[], Awaitable[None]]) -> None:
        """Nothing is wrong yet."""
        self.world = world
        self.faults: dict[str, Fault] = {}
        self.changed = reconcile
        self._effects: dict[str, AbstractContextManager[None]] = {}
        self._drives: dict[str, asyncio.Task[None]] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._ending: set[asyncio.Task[Fault]] = set()
        self._numbers = itertools.count(1)

    def active(self, kind: str, router: str, menu: str = "") -> Fault | None:
        """The oldest fault of that kind about that menu of that router."""
        for fault in self.faults.values():
            if fault.kind == kind and fault.concerns(router, menu):
                return fault
        return None

    async def add(
        self, name: str, router: str, params: Mapping[str, str] | None = None, seconds: float | None = None
    ) -> Fault:
        """Make something go wrong, for `seconds` or until cleared; raises ValueError naming what cannot be."""
        kind = KINDS.get(name)
        if kind is None:
            raise ValueError(f"kind: no fault {name!r} (there are: {', '.join(KINDS)})")
        if router == EVERYWHERE and (kind.effect or kind.drive):
            raise ValueError(f"router: {name} is for one router at a time, not for {EVERYWHERE!r}")
        if router != EVERYWHERE:
            self.world.router(router)
        complete = kind.complete(params or {})
        fault = Fault(f"f{next(self._numbers)}", name, router, complete, self.world.clock.now())
        if "interface" in complete and not (name == "counter-reset" and not complete["interface"]):
            self.world.port(router, complete["interface"])
        if kind.once and kind.effect is not None:
            with kind.effect(self.world, fault):
                fault.cleared.set()
            await self.changed()
            return fault
        if kind.effect or kind.drive:
            self._refuse_twin(fault)
        if kind.effect is not None:
            effect = kind.effect(self.world, fault)
            effect.__enter__()
            self._effects[fault.id] = effect
        self.faults[fault.id] = fault
        if kind.drive is not None:
            self._drives[fault.id] = asyncio.ensure_future(self._driven(kind.drive, fault))
            await asyncio.sleep(0)
        if seconds is not None:
            self._timers[fault.id] = asyncio.get_running_loop().call_later(seconds, self._expire, fault.id)
        await self.changed()
        return fault

    def _refuse_twin(self, fault: Fault) -> None:
        """Two faults that change the same thing could not be cleared one by one."""
        about = ("interface", "peer", "neighbor", "name", "host")
        for other in self.faults.values():
            if (other.kind, other.router) == (fault.kind, fault.router) and all(
                other.params.get(name) == fault.params.get(name) for name in about
            ):
                raise ValueError(f"{fault.kind}: {other.id} is the same fault; clear that first")

    async def _driven(self, drive: Drive, fault: Fault) -> None:
        try:
            await drive(self, fault)
        finally:
            self._expire(fault.id)

    def _expire(self, number: str) -> None:
        if number in self.faults:
            task = asyncio.ensure_future(self.clear(number))
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)

    async def clear(self, number: str) -> Fault:
        """Make it go right again; raises ValueError when there is no such fault."""
        fault = self.faults.pop(number, None)
        if fault is None:
            raise ValueError(f"id: no fault {number!r} (there are: {', '.join(self.faults) or 'none'})")
        if (timer := self._timers.pop(number, None)) is not None:
            timer.cancel()
        if (drive := self._drives.pop(number, None)) is not None:
            drive.cancel()
            await asyncio.gather(drive, return_exceptions=True)
        if (effect := self._effects.pop(number, None)) is not None:
            effect.__exit__(None, None, None)
        await self.changed()
        fault.cleared.set()
        return fault

    async def clear_all(self, router: str | None = None) -> list[Fault]:
        """Clear every fault, or every fault of one router; what was cleared."""
        numbers = [fault.id for fault in self.faults.values() if router in {None, fault.router}]
        return [await self.clear(number) for number in numbers]

    async def close(self) -> None:
        """End everything that goes on by itself; faults end with the lab."""
        for timer in self._timers.values():
            timer.cancel()
        tasks: list[asyncio.Task[Any]] = [*self._drives.values(), *self._ending]
        for fault in self.faults.values():
            fault.cleared.set()
        self.faults.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @contextlib.asynccontextmanager
    async def during(self, name: str, router: str, /, **params: str) -> AsyncIterator[Fault]:
        """A fault for the length of a block."""
        fault = await self.add(name, router, params)
        try:
            yield fault
        finally:
            if fault.id in self.faults:
                await self.clear(fault.id)
