"""Seeds become EVE-NG lab files: the same routers, cables and addresses on CHR virtual machines.

What a seed does not know is left to a person and said in the configuration: users, the addresses on transit ports, the
machines behind customer ports.
"""

from __future__ import annotations

import base64
from collections import defaultdict
from collections.abc import Iterator
from uuid import uuid5
from xml.etree import ElementTree as ET

from ispvm_contract import seed as seeds
from ispvm_contract.identity import DEVICE_NAMESPACE

from .menus import link_address, link_length, management_port
from .traffic import Clock
from .world import Port, Router, World

_ROWS = ("edge", "rr", "core", "agg", "access", "customer-edge")
_STEP_X, _STEP_Y = 150, 140
_QEMU = {
    "type": "qemu",
    "template": "mikrotik",
    "console": "telnet",
    "cpu": "1",
    "cpulimit": "0",
    "ram": "256",
    "qemu_options": "-machine type=pc,accel=kvm -serial mon:stdio -nographic -no-user-config -nodefaults -rtc base=utc",
    "qemu_version": "2.12.0",
    "qemu_arch": "x86_64",
    "qemu_nic": "virtio-net-pci",
    "delay": "0",
    "icon": "Router.png",
    "config": "1",
}


def exported(seed: seeds.Seed) -> str:
    """A `.unl` file of a seed, the same for the same seed. Each router's management port becomes ether1."""
    world = World(seed, Clock(0.0))
    root = ET.Element("lab", name=seed.name, version="1", scripttimeout="300", lock="0", author="ISPVisualMonitor")
    topology = ET.SubElement(root, "topology")
    nodes, networks = ET.SubElement(topology, "nodes"), ET.SubElement(topology, "networks")
    configs = ET.SubElement(ET.SubElement(root, "objects"), "configs")
    ET.SubElement(networks, "network", id="1", type="pnet1", name="management", left="20", top="20", visibility="1")
    places = _places(seed)
    cables: dict[frozenset[Port], str] = {}
    for number, router in enumerate(world.routers.values(), start=1):
        left, top = places[router.name]
        ports = ordered_ports(router)
        node = ET.SubElement(
            nodes,
            "node",
            _QEMU,
            id=str(number),
            name=router.name,
            image=f"mikrotik-{router.spec.routeros}",
            ethernet=str(max(4, len(ports))),
            uuid=str(uuid5(DEVICE_NAMESPACE, f"{seed.name}/{router.name}")),
            left=str(left),
            top=str(top),
        )
        for index, port in enumerate(ports):
            interface = ET.SubElement(node, "interface", id=str(index), name=f"ether{index + 1}", type="ethernet")
            if index == 0:
                interface.set("network_id", "1")
            elif port.peer is not None:
                cable = frozenset((port, port.peer))
                if cable not in cables:
                    cables[cable] = str(len(cables) + 2)
                    name = f"Net-{router.name}iface_{index}"
                    place = {"left": str(left), "top": str(top), "visibility": "0"}
                    ET.SubElement(networks, "network", {"id": cables[cable], "type": "bridge", "name": name, **place})
                interface.set("network_id", cables[cable])
        text = "\n".join(startup(router)) + "\n"
        ET.SubElement(configs, "config", id=str(number)).text = base64.b64encode(text.encode()).decode()
    ET.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n{ET.tostring(root, encoding="unicode")}\n'


def ordered_ports(router: Router) -> list[Port]:
    """The router's ports as ether1, ether2, ...: the management port first."""
    management = management_port(router)
    return sorted(router.ports.values(), key=lambda port: (port is not management, port.index))


def _places(seed: seeds.Seed) -> dict[str, tuple[int, int]]:
    """Where each router stands on the canvas: where it stood, else in a row with its like."""
    placed: dict[str, tuple[int, int]] = {}
    rows: dict[str, int] = defaultdict(int)
    for device in seed.devices:
        if device.layout is not None:
            placed[device.name] = (round(100 + 1000 * device.layout.x), round(60 + 800 * device.layout.y))
            continue
        placed[device.name] = (100 + _STEP_X * rows[device.role], 60 + _STEP_Y * _ROWS.index(device.role))
        rows[device.role] += 1
    return placed


def startup(router: Router) -> Iterator[str]:
    """The lines of a startup configuration; no user and no secret is in it."""
    spec = router.spec
    names = {port: f"ether{index + 1}" for index, port in enumerate(ordered_ports(router))}
    yield f"# {router.name}, made from a seed. Left to you: users, transit addresses, a certificate for api-ssl."
    yield from ("/system identity", f"set name={_quoted(router.name)}", "/interface bridge", "add name=lo")
    yield "/interface ethernet"
    for port, name in names.items():
        if port.spec.comment:
            yield f"set [ find default-name={name} ] comment={_quoted(port.spec.comment)}"
    yield from (
        "/ip address",
        f"add address={spec.loopback}/32 interface=lo",
        f"add address={spec.address}/24 interface=ether1",
    )
    links = [(port, address) for port in names if (address := link_address(port)) is not None]
    for port, address in links:
        yield f"add address={address}/{link_length(address, port)} interface={names[port]}"
    if spec.ospf_neighbors:
        yield from _ospf(router, [names[port] for port, _ in links])
    if spec.bgp_peers:
        yield from _bgp(router)
    subscribers = next((names[port] for port in names if port.peer is None and names[port] != "ether1"), None)
    if spec.pppoe_sessions and subscribers is not None:
        yield "/interface pppoe-server server"
        yield f"add disabled=no interface={subscribers} one-session-per-host=yes service-name=internet"
    yield "/ip service"
    yield from (f"set {service} disabled=yes" for service in ("telnet", "ftp", "www", "api"))


def _quoted(text: str) -> str:
    """As a RouterOS string."""
    return '"' + "".join(f"\\{letter}" if letter in '"\\$?' else letter for letter in text) + '"'


def _ospf(router: Router, interfaces: list[str]) -> Iterator[str]:
    loopback = router.spec.loopback
    if router.v7:
        yield from ("/routing ospf instance", f"add disabled=no name=v2 router-id={loopback} version=2")
        yield from (
            "/routing ospf area",
            "add disabled=no instance=v2 name=backbone",
            "/routing ospf interface-template",
        )
        yield "add area=backbone disabled=no interfaces=lo passive"
        yield from (f"add area=backbone disabled=no interfaces={name} type=ptp" for name in interfaces)
        return
    yield from ("/routing ospf instance", f"set [ find default=yes ] router-id={loopback}", "/routing ospf interface")
    yield from (f"add interface={name} network-type=point-to-point" for name in interfaces)
    yield from ("/routing ospf network", f"add area=backbone network={loopback}/32")
    for port in router.ports.values():
        if (address := link_address(port)) is not None:
            yield f"add area=backbone network={address}/32"


def _bgp(router: Router) -> Iterator[str]:
    own, loopback = router.local_as, router.spec.loopback
    if router.v7:
        yield "/routing bgp connection"
    else:
        yield from ("/routing bgp instance", f"set default as={own} router-id={loopback}", "/routing bgp peer")
    for bgp in router.bgp:
        peer, inside = bgp.spec, bgp.remote is not None
        role = "ebgp" if peer.remote_as != own else "ibgp-rr" if router.spec.role == "rr" else "ibgp"
        if router.v7:
            local = f"local.address={loopback} .role={role}" if inside else f"local.role={role}"
            remote = f"remote.address={peer.remote_address}/32 .as={peer.remote_as}"
            yield f"add as={own} disabled=no {local} name={_quoted(peer.name)} {remote} router-id={loopback}"
        else:
            remote = f"remote-address={peer.remote_address} remote-as={peer.remote_as}"
            yield f"add name={_quoted(peer.name)} {remote}" + (f" update-source={loopback}" if inside else "")
