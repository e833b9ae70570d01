"""All collectors, in the order in which their commands go out: counters first, their moment matters most."""

from __future__ import annotations

from ispvm_agent.collectors.base import Collector
from ispvm_agent.collectors.bgp import Bgp
from ispvm_agent.collectors.counts import Connections, DhcpLeases, Pools, PppSessions, Queues, Users
from ispvm_agent.collectors.history import History
from ispvm_agent.collectors.interfaces import Interfaces
from ispvm_agent.collectors.listings import BFD, NETWATCH, Listed
from ispvm_agent.collectors.ospf import Ospf
from ispvm_agent.collectors.ports import Ethernet, Lte, Neighbors, radios
from ispvm_agent.collectors.system import (
    Clock,
    DeviceMode,
    Health,
    Identity,
    Ntp,
    Packages,
    Resource,
    Routerboard,
)


def catalogue() -> list[Collector]:
    """A fresh set of collectors for one router."""
    return [
        Resource(), Interfaces(), Clock(), Bgp(), Ospf(), Listed(BFD), PppSessions(), DhcpLeases(), Connections(),
        Health(), Listed(NETWATCH), Ethernet(), *radios(), Lte(), Neighbors(), Pools(), Queues(), Users(),
        Ntp(), Identity(), Routerboard(), Packages(), DeviceMode(), History(),
    ]  # fmt: skip
