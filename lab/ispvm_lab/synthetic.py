"""Seeds of any size, for measuring: a tree of routers, each with the same number of interfaces."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from itertools import islice

from ispvm_contract import seed as seeds

_CHILDREN = 4
_BOARDS = (("CCR2116-12G-4S+", "7.16.2"), ("CCR2116-12G-4S+", "7.18.2"), ("CCR1036-8G-2S+", "6.49.17"))
_LINK_BPS = 10_000_000_000
_PORT_BPS = 1_000_000_000


def synthetic(routers: int, interfaces: int, network: IPv4Network, pppoe_sessions: int = 0) -> seeds.Seed:
    """`routers` routers on the first addresses of `network`; the leaves of the tree have the PPPoE sessions.

    Raises ValueError when the network is too small, or the interfaces too few for the tree.
    """
    if interfaces < _CHILDREN + 2:
        raise ValueError(f"--interfaces: {interfaces} is too few; a router of the tree needs {_CHILDREN + 2}")
    addresses = list(islice(network.hosts(), routers))
    if routers < 1 or len(addresses) < routers:
        raise ValueError(f"--network: {network} has {len(addresses)} addresses, and {routers} routers need one each")
    devices = [_device(number, interfaces, addresses[number], routers, pppoe_sessions) for number in range(routers)]
    links = []
    for number in range(1, routers):
        parent, child = (number - 1) // _CHILDREN, number
        near, far = (
            seeds.End(devices[parent].name, f"sfp{2 + (number - 1) % _CHILDREN}"),
            seeds.End(devices[child].name, "sfp1"),
        )
        links.append(seeds.Link(f"{near.device}--{far.device}", near, far, _LINK_BPS, "fiber"))
        for own, port, other, offset in ((parent, near, child, 1), (child, far, parent, 0)):
            address = str(IPv4Address("172.16.0.0") + 2 * number + offset)
            neighbour = seeds.OspfNeighbor(devices[other].loopback, address, port.interface)
            devices[own].ospf_neighbors.append(neighbour)
    return seeds.Seed(
        schema_version=1,
        name=f"synthetic_{routers}x{interfaces}",
        tenant=seeds.Tenant(f"synthetic-{routers}", f"{routers} synthetic routers"),
        sites=[seeds.Site("here", "Nowhere", 0.0, 0.0)],
        devices=devices,
        links=links,
        dependencies=[seeds.Dependency(link.b.device, "all", [link.a.device]) for link in links],
    )


def _device(number: int, interfaces: int, address: IPv4Address, routers: int, pppoe_sessions: int) -> seeds.Device:
    leaf = number * _CHILDREN + 1 >= routers
    role: seeds.Role = "core" if number <= _CHILDREN else "access" if leaf else "agg"
    model, routeros = _BOARDS[number % len(_BOARDS)]
    trunks = [seeds.Interface(f"sfp{index}", _LINK_BPS) for index in range(1, _CHILDREN + 2)]
    ports = [seeds.Interface(f"ether{index}", _PORT_BPS) for index in range(1, interfaces - len(trunks) + 1)]
    return seeds.Device(
        name=f"{role.upper()}-{number:05d}",
        role=role,
        site="here",
        model=model,
        routeros=routeros,
        address=str(address),
        loopback=str(IPv4Address("10.128.0.0") + number),
        interfaces=[*trunks, *ports],
        tags=[f"role:{role}"],
        pppoe_sessions=pppoe_sessions if leaf else 0,
    )
