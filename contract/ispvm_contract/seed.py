"""Seed v1: a bundle of sites, routers, links and dependencies for demo and lab tenants (and for the emulator)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

Key = Annotated[str, Meta(min_length=1, max_length=255)]
Role = Literal["core", "rr", "edge", "agg", "access", "customer-edge"]
Medium = Literal["fiber", "wireless", "leased"]
Tag = Annotated[str, Meta(pattern=r"^[^\s,;]{1,100}$")]


class Tenant(Struct, forbid_unknown_fields=True):
    """The tenant that a bundle fills; seeds never share a tenant with real routers."""

    key: Key
    name: str


class Site(Struct, forbid_unknown_fields=True):
    """A PoP. Coordinates are WGS 84 degrees."""

    key: Key
    name: str
    latitude: Annotated[float, Meta(ge=-90, le=90)]
    longitude: Annotated[float, Meta(ge=-180, le=180)]


class Interface(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A port. `load_pct` is the mean load the emulator draws traffic around."""

    key: Key
    capacity_bps: int
    type: str = "ether"
    comment: str = ""
    tags: list[Tag] = []
    load_pct: float = 20.0


class BgpPeer(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A configured BGP session."""

    name: Key
    remote_address: str
    remote_as: int
    prefixes_in: int = 10


class OspfNeighbor(Struct, forbid_unknown_fields=True):
    """An expected OSPF adjacency."""

    router_id: str
    address: str
    interface: str


class Layout(Struct, forbid_unknown_fields=True):
    """Where something stands on a drawn map: from the left and from the top, 0 to 1. No place on Earth."""

    x: Annotated[float, Meta(ge=0, le=1)]
    y: Annotated[float, Meta(ge=0, le=1)]


class Source(Struct, forbid_unknown_fields=True):
    """What a bundle was made from, when no person wrote it."""

    kind: Literal["eve-ng"]
    name: str
    sha256: str
    version: str


class Device(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A router. `address` is its management address, on which the emulator answers."""

    name: Key
    role: Role
    site: Key
    model: str
    routeros: str
    address: str
    loopback: str
    interfaces: list[Interface]
    tags: list[Tag] = []
    bgp_peers: list[BgpPeer] = []
    ospf_neighbors: list[OspfNeighbor] = []
    pppoe_sessions: int = 0
    dhcp_leases: int = 0
    layout: Layout | None = None


class End(Struct, forbid_unknown_fields=True):
    """One end of a link."""

    device: Key
    interface: Key


class Link(Struct, forbid_unknown_fields=True):
    """A cable or circuit between two ports."""

    name: Key
    a: End
    b: End
    capacity_bps: int
    medium: Medium


class Dependency(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """`child` needs any, all, or k of `members`."""

    child: Key
    mode: Literal["any", "all", "kofn"]
    members: list[Key]
    k: int | None = None


class ProbeTarget(Struct, forbid_unknown_fields=True):
    """Something an agent probes."""

    name: Key
    site: Key
    kind: Literal["icmp", "tcp", "http", "dns"]
    address: str


class Seed(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A whole bundle."""

    schema_version: Literal[1]
    name: Key
    tenant: Tenant
    sites: list[Site]
    devices: list[Device]
    links: list[Link]
    dependencies: list[Dependency]
    probe_targets: list[ProbeTarget] = []
    alert_packs: list[str] = []
    source: Source | None = None


def check(seed: Seed) -> list[str]:
    """Everything that types cannot say: one sentence per fault, naming the field. Empty when the bundle is sound."""
    faults: list[str] = []
    sites = {site.key for site in seed.sites}
    ports = {(device.name, port.key) for device in seed.devices for port in device.interfaces}
    names = [device.name for device in seed.devices]
    addresses = [device.address for device in seed.devices]
    faults += [f"devices: name {name!r} stands twice" for name in sorted({n for n in names if names.count(n) > 1})]
    faults += [f"devices: address {a} is used twice" for a in sorted({a for a in addresses if addresses.count(a) > 1})]
    for device in seed.devices:
        if device.site not in sites:
            faults.append(f"devices[{device.name}].site: {device.site!r} is not one of the sites")
    for link in seed.links:
        for end_name, end in (("a", link.a), ("b", link.b)):
            if (end.device, end.interface) not in ports:
                faults.append(f"links[{link.name}].{end_name}: no interface {end.interface!r} on {end.device!r}")
    for dependency in seed.dependencies:
        for name in (dependency.child, *dependency.members):
            if name not in names:
                faults.append(f"dependencies[{dependency.child}]: {name!r} is not one of the devices")
        if (dependency.mode == "kofn") != (dependency.k is not None):
            faults.append(f"dependencies[{dependency.child}].k: given with mode kofn, and only then")
    for target in seed.probe_targets:
        if target.site not in sites:
            faults.append(f"probe_targets[{target.name}].site: {target.site!r} is not one of the sites")
    return faults


def load(path: Path) -> Seed:
    """Read and check a bundle; raises ValueError with every fault, one a line."""
    try:
        seed = msgspec.json.decode(path.read_bytes(), type=Seed)
    except msgspec.DecodeError as error:
        raise ValueError(f"{path.name}: {error}") from error
    if faults := check(seed):
        raise ValueError("\n".join(f"{path.name}: {fault}" for fault in faults))
    return seed
