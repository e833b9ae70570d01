"""What can be made to go wrong, and what is going wrong now.

A fault has a kind, the router it is on and parameters. Wire faults are asked for by the API connections as they speak;
world faults change the state of the world when they are added and take their change back when they are cleared.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

Params = dict[str, str]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of fault: what it does, and its parameters with their defaults ("" for none)."""

    name: str
    does: str
    params: Params = field(default_factory=dict)


@dataclass(eq=False, slots=True)
class Fault:
    """One fault on one router ("*": on every router, for wire faults)."""

    id: str
    kind: str
    router: str
    params: Params
    since: float
    cleared: asyncio.Event = field(default_factory=asyncio.Event)
    undo: Callable[[], None] | None = None

    def number(self, name: str) -> float:
        """A parameter that is a number."""
        return float(self.params[name])

    def concerns(self, router: str, menu: str) -> bool:
        """Whether this fault is about that menu of that router."""
        about = self.params.get("menu", "")
        return self.router in {router, "*"} and (not about or menu == about or menu.startswith(f"{about}/"))


_MENU = {"menu": ""}
WIRE_KINDS = (
    Kind(
        "stall", "the reply stops after some bytes, in the middle of a sentence, until cleared", _MENU | {"after": "40"}
    ),
    Kind("drip", "the reply comes a few bytes at a time", _MENU | {"bytes": "4", "every": "0.2"}),
    Kind("reset", "the connection is reset after some bytes of the reply", _MENU | {"after": "40"}),
    Kind("garbage", "bytes that are no API sentence stand where the reply should", _MENU),
    Kind(
        "fatal", "the command is answered with !fatal and the connection closes", _MENU | {"text": "session terminated"}
    ),
    Kind(
        "trap",
        "the command is answered with !trap",
        _MENU | {"message": "failure: action timed out", "category": "", "rows": "0"},
    ),
    Kind("password", "every password is wrong"),
    Kind("sessions", "connections are closed without a word, as when there are too many or the address is not allowed"),
    Kind("encoding", "texts carry letters of a codepage", {"codepage": "cp1252", "names": "no"}),
    Kind("huge", "a menu has that many rows", {"menu": "/ip/dhcp-server/lease", "rows": "20000"}),
    Kind("no-certificate", "api-ssl has no certificate: anonymous Diffie-Hellman only, up to TLS 1.2"),
)


class Book:
    """All faults there are now."""

    def __init__(self) -> None:
        self.kinds = {kind.name: kind for kind in WIRE_KINDS}
        self.faults: dict[str, Fault] = {}
        self._numbers = itertools.count(1)

    def active(self, kind: str, router: str, menu: str = "") -> Fault | None:
        """The first fault of that kind about that menu of that router."""
        return next(self.all_active(kind, router, menu), None)

    def all_active(self, kind: str, router: str, menu: str = "") -> Iterator[Fault]:
        """Every fault of that kind about that menu of that router."""
        return (fault for fault in self.faults.values() if fault.kind == kind and fault.concerns(router, menu))
