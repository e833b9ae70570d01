"""All collectors, in the order in which their commands go out: counters first, their moment matters most."""

from __future__ import annotations

from ispvm_agent.collectors.base import Collector, Version
from ispvm_agent.collectors.bgp import Bgp
from ispvm_agent.collectors.counts import Pools, PppSessions, Queues
from ispvm_agent.collectors.facts import facts
from ispvm_agent.collectors.history import History
from ispvm_agent.collectors.interfaces import Interfaces
from ispvm_agent.collectors.listings import BFD, NETWATCH, Listed
from ispvm_agent.collectors.ospf import Ospf
from ispvm_agent.collectors.ports import Ethernet, Lte, Neighbors, radios
from ispvm_agent.collectors.system import Clock, Health, Ntp

SEEN = ((6, 49), (7, 24))  # the versions whose fields are known: docs/reference/compatibility-routeros.md


def unseen(version: Version) -> str:
    """What to tell people about a version for which there is no field data; "" for the others."""
    if SEEN[0] <= version <= SEEN[1]:
        return ""
    told = " to ".join(f"{major}.{minor}" for major, minor in SEEN)
    return f"there is no field data for this version, only for {told}; what does not fit is left out"


def catalogue() -> list[Collector]:
    """A fresh set of collectors for one router."""
    menus = facts()
    return [
        menus.pop("resource"), Interfaces(), Clock(), Bgp(), Ospf(), Listed(BFD), PppSessions(), Health(),
        Listed(NETWATCH), Ethernet(), *radios(), Lte(), Neighbors(), Pools(), Queues(), Ntp(), *menus.values(),
        History(),
    ]  # fmt: skip
