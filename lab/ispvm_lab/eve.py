"""EVE-NG lab files (`.unl`, or an exported `.zip` with one) become seeds.

What the file says is taken, what it does not say is never invented: a router without an address is a fault, something
ambiguous a warning. Of a startup configuration only addresses, OSPF, BGP and PPPoE servers are read; secrets are not.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import re
import zipfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface, ip_address
from math import hypot
from pathlib import Path
from xml.etree import ElementTree as ET

from ispvm_contract import seed as seeds

MAX_BYTES = 32 << 20
CHR_PORT_BPS = 1_000_000_000
_NEAR_PIXELS = 120.0
_ROLES: dict[str, seeds.Role] = {
    "core": "core",
    "rr": "rr",
    "edge": "edge",
    "agg": "agg",
    "access": "access",
    "cpe": "customer-edge",
}
# Who needs whom by default, when they are linked: the operator may say otherwise later.
_NEEDS = {"access": ("agg",), "agg": ("core",), "edge": ("core",), "rr": ("core",)}
_SECRET_MENUS = ("/user", "/ppp secret", "/certificate", "/ip ssh", "/snmp community")


@dataclass(frozen=True, slots=True)
class Port:
    """An interface of a node: its number from 0, and the network it is plugged into, where it is."""

    number: int
    name: str
    network: str | None


@dataclass(frozen=True, slots=True)
class Node:
    """A machine of the lab."""

    id: str
    name: str
    template: str
    image: str
    left: float
    top: float
    ports: tuple[Port, ...]
    config: str

    @property
    def is_router(self) -> bool:
        """Whether this is RouterOS."""
        return self.template == "mikrotik" or self.image.startswith(("mikrotik-", "chr-"))


@dataclass(frozen=True, slots=True)
class Lab:
    """A lab file, as it is."""

    name: str
    version: str
    sha256: str
    nodes: tuple[Node, ...]
    networks: Mapping[str, str]  # id to type: bridge, ovs, pnet0, nat0, ...
    texts: tuple[tuple[float, float, str], ...]


@dataclass(slots=True)
class Choices:
    """What a person adds to a lab file: tenant, site, and addresses by node name, which go before the file's."""

    tenant: seeds.Tenant = field(default_factory=lambda: seeds.Tenant("lab", "EVE-NG lab"))
    site: seeds.Site = field(default_factory=lambda: seeds.Site("lab", "EVE-NG lab", 0.0, 0.0))
    addresses: dict[str, str] = field(default_factory=dict)
    loopbacks: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Imported:
    """A seed, and what in it deserves a second look."""

    seed: seeds.Seed
    warnings: tuple[str, ...]


# Reading the file


class _Builder(ET.TreeBuilder):
    """Builds a tree from XML without a document type: no entities, nothing from elsewhere."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        """Refuse."""
        raise ValueError(f"the file declares a document type ({name}); a lab file has none")


def read(path: Path) -> Lab:
    """Read a `.unl` or a `.zip` with exactly one; raises ValueError with what is wrong."""
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path.name}: larger than {MAX_BYTES >> 20} MiB, which no lab file is")
    data = path.read_bytes()
    if zipfile.is_zipfile(io.BytesIO(data)):
        data = _unzipped(path.name, data)
    try:
        root = ET.fromstring(data, parser=ET.XMLParser(target=_Builder()))  # noqa: S314 - _Builder refuses entities
    except (ET.ParseError, ValueError) as error:
        raise ValueError(f"{path.name}: no EVE-NG lab: {error}") from error
    if root.tag != "lab":
        raise ValueError(f"{path.name}: no EVE-NG lab: the root element is <{root.tag}>, not <lab>")
    configs = {
        element.get("id", ""): _decoded(element.text, f"{path.name}: objects/configs/config[@id={element.get('id')}]")
        for element in root.iterfind("objects/configs/config")
    }
    nodes = tuple(_node(element, configs) for element in root.iterfind("topology/nodes/node"))
    return Lab(
        name=root.get("name") or path.stem,
        version=root.get("version", ""),
        sha256=hashlib.sha256(data).hexdigest(),
        nodes=tuple(sorted(nodes, key=lambda node: (node.name, node.id))),
        networks={
            element.get("id", ""): element.get("type", "") for element in root.iterfind("topology/networks/network")
        },
        texts=tuple(_texts(root)),
    )


def _unzipped(name: str, data: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        labs = [info for info in archive.infolist() if info.filename.endswith(".unl")]
        if len(labs) != 1:
            raise ValueError(f"{name}: holds {len(labs)} .unl files, and should hold one")
        with archive.open(labs[0]) as member:
            content = member.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ValueError(f"{name}: {labs[0].filename} is larger than {MAX_BYTES >> 20} MiB")
    return content


def _decoded(text: str | None, where: str) -> str:
    try:
        return base64.b64decode("".join((text or "").split()), validate=True).decode("utf-8", errors="replace")
    except binascii.Error as error:
        raise ValueError(f"{where}: not base64: {error}") from error


def _number(text: str | None) -> float:
    try:
        return float((text or "0").removesuffix("px"))
    except ValueError:
        return 0.0


def _node(element: ET.Element, configs: Mapping[str, str]) -> Node:
    number = element.get("id", "")
    ports = tuple(
        sorted(
            (
                Port(int(_number(port.get("id"))), port.get("name", ""), port.get("network_id"))
                for port in element.iterfind("interface")
                if port.get("type") == "ethernet"
            ),
            key=lambda port: port.number,
        )
    )
    return Node(
        id=number,
        name=element.get("name", "").replace("_", "-"),
        template=element.get("template", ""),
        image=element.get("image", ""),
        left=_number(element.get("left")),
        top=_number(element.get("top")),
        ports=ports,
        config=configs.get(number, ""),
    )


def _texts(root: ET.Element) -> Iterator[tuple[float, float, str]]:
    """Where each text stands on the canvas, without its markup."""
    for element in root.iterfind("objects/textobjects/textobject"):
        html = _decoded(element.findtext("data"), f"objects/textobjects/textobject[@id={element.get('id')}]")
        place = [re.search(rf"\b{side}:\s*([\d.]+)px", html) for side in ("left", "top")]
        if place[0] and place[1]:
            yield float(place[0][1]), float(place[1][1]), re.sub(r"<[^>]*>", " ", html)


# Reading a startup configuration

_WORD = re.compile(r'([\w.-]+)=("(?:[^"\\]|\\.)*"|\S*)')
Line = tuple[str, str, dict[str, str]]


def configuration(text: str) -> Iterator[Line]:
    """The lines of a RouterOS export as (menu, verb, arguments). A `.as` after `remote.address` is `remote.as`."""
    menu = ""
    for line in re.sub(r"\\\r?\n\s*", "", text).splitlines():
        line = line.strip()
        if line.startswith("/"):
            path, _, rest = line.partition(" ")
            line = f"/{path[1:].replace('/', ' ')} {rest}".strip()
            head = re.match(r"(/[\w ./-]*?)(?:\s+(add|set|print|remove|enable|disable)\b|$)(.*)", line)
            if head is None:
                continue
            menu, line = head[1].strip(), f"{head[2] or ''}{head[3]}"
        verb, _, rest = line.partition(" ")
        if verb not in {"add", "set"}:
            continue
        arguments: dict[str, str] = {}
        prefix = ""
        for name, value in _WORD.findall(rest):
            if name.startswith("."):
                name = prefix + name
            elif "." in name:
                prefix = name.partition(".")[0]
            arguments[name] = re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith('"') else value
        yield menu, verb, arguments


@dataclass(slots=True)
class _Settings:
    """What a router's configuration says that a seed holds."""

    identity: str = ""
    addresses: dict[str, list[IPv4Interface]] = field(default_factory=lambda: defaultdict(list))
    comments: dict[str, str] = field(default_factory=dict)
    bgp: list[seeds.BgpPeer] = field(default_factory=list)
    ospf: bool = False
    pppoe: set[str] = field(default_factory=set)
    secrets: set[str] = field(default_factory=set)


def _settings(node: Node) -> _Settings:
    found = _Settings()
    for menu, _, given in configuration(node.config):
        found.secrets.update(secret for secret in _SECRET_MENUS if menu == secret or menu.startswith(f"{secret} "))
        if menu == "/system identity":
            found.identity = given.get("name", "")
        elif menu == "/ip address" and "address" in given:
            found.addresses[given.get("interface", "")].append(_interface(node, given["address"]))
        elif menu == "/interface ethernet" and "comment" in given:
            found.comments[given.get("name") or given.get("default-name", "")] = given["comment"]
        elif menu == "/routing bgp connection" and "remote.address" in given:
            found.bgp.append(_peer(node, given, "remote.address", "remote.as"))
        elif menu == "/routing bgp peer" and "remote-address" in given:
            found.bgp.append(_peer(node, given, "remote-address", "remote-as"))
        elif menu.startswith("/routing ospf "):
            found.ospf = True
        elif menu == "/interface pppoe-server server" and given.get("disabled") != "yes":
            found.pppoe.add(given.get("interface", ""))
    return found


def _interface(node: Node, text: str) -> IPv4Interface:
    try:
        return IPv4Interface(text)
    except ValueError as error:
        raise ValueError(f"{node.name}: /ip address: {error}") from None


def _peer(node: Node, given: Mapping[str, str], address: str, remote_as: str) -> seeds.BgpPeer:
    host = given[address].partition("/")[0]
    number = given.get(remote_as, "")
    if not number.isdigit():
        raise ValueError(f"{node.name}: BGP peer {given.get('name', host)}: {remote_as} is {number!r}, not a number")
    return seeds.BgpPeer(name=given.get("name", host), remote_address=host, remote_as=int(number))


# Making the seed


class _Maker:
    """One import: gathers routers, then links, then what follows from both."""

    def __init__(self, lab: Lab, choices: Choices) -> None:
        """Nothing made yet."""
        self.lab = lab
        self.choices = choices
        self.warnings: list[str] = []
        self.routers = [node for node in lab.nodes if node.is_router]
        self.settings = {node.id: _settings(node) for node in self.routers}
        self.ends: dict[str, list[tuple[Node, Port]]] = defaultdict(list)
        for node in lab.nodes:
            for port in node.ports:
                if port.network is not None:
                    self.ends[port.network].append((node, port))

    def make(self) -> seeds.Seed:
        """The seed, checked; raises ValueError."""
        if not self.routers:
            raise ValueError(
                f"{self.lab.name}: no MikroTik node (template mikrotik, or an image named mikrotik-... or chr-...)"
            )
        if self.choices.site.latitude == self.choices.site.longitude == 0.0:
            self.warnings.append(
                "sites: an EVE-NG file has no coordinates; give them with --site KEY:NAME:LATITUDE:LONGITUDE"
            )
        devices = [self._device(node) for node in self.routers]
        links = self._links()
        made = seeds.Seed(
            schema_version=1,
            name=_key(self.lab.name),
            tenant=self.choices.tenant,
            sites=[self.choices.site],
            devices=devices,
            links=links,
            dependencies=self._dependencies(devices, links),
            probe_targets=self._targets(),
            alert_packs=["isp-default"],
            source=seeds.Source(kind="eve-ng", name=self.lab.name, sha256=self.lab.sha256, version=self.lab.version),
        )
        if faults := seeds.check(made):
            raise ValueError("\n".join(faults))
        return made

    def _device(self, node: Node) -> seeds.Device:
        found = self.settings[node.id]
        for menu in sorted(found.secrets):
            self.warnings.append(f"{node.name}: its configuration holds {menu}; not read")
        if found.identity and found.identity.replace("_", "-") != node.name:
            self.warnings.append(f"{node.name}: calls itself {found.identity!r} in its configuration")
        return seeds.Device(
            name=node.name,
            role=self._role(node),
            site=self.choices.site.key,
            model="CHR",
            routeros=self._routeros(node),
            address=self._address(node),
            loopback=self._loopback(node),
            interfaces=[self._port(node, port) for port in node.ports],
            tags=[f"role:{self._role(node)}"],
            bgp_peers=found.bgp,
            ospf_neighbors=self._neighbours(node),
            pppoe_sessions=self._subscribers(node),
            layout=self._layout(node),
        )

    def _role(self, node: Node) -> seeds.Role:
        word = re.match(r"[a-z]*", node.name.lower())
        role = _ROLES.get(word[0]) if word else None
        if role is None:
            known = ", ".join(name.upper() for name in _ROLES)
            warning = f"{node.name}: role unknown, customer-edge taken; names that begin with {known} tell theirs"
            if warning not in self.warnings:
                self.warnings.append(warning)
        return role or "customer-edge"

    def _routeros(self, node: Node) -> str:
        version = re.search(r"-(\d+\.\d+(?:\.\d+)?(?:rc\d+|beta\d+)?)$", node.image)
        if version is None:
            raise ValueError(
                f"{node.name}: image {node.image!r} does not end in a RouterOS version, such as mikrotik-7.16.2"
            )
        return version[1]

    def _is_management(self, port: Port) -> bool:
        """On a cloud: what leaves the lab is where it is managed from."""
        return self.lab.networks.get(port.network or "", "").startswith(("pnet", "nat"))

    def _address(self, node: Node) -> str:
        if node.name in self.choices.addresses:
            return self.choices.addresses[node.name]
        for port in node.ports:
            if self._is_management(port) and (own := self.settings[node.id].addresses.get(_port_name(port))):
                return str(own[0].ip)
        raise ValueError(
            f"{node.name}: no management address: none of its interfaces on a cloud (pnet, nat) has one in its startup "
            f"configuration; give it with --address {node.name}=ADDRESS"
        )

    def _loopback(self, node: Node) -> str:
        if node.name in self.choices.loopbacks:
            return self.choices.loopbacks[node.name]
        for addresses in self.settings[node.id].addresses.values():
            for address in addresses:
                if address.network.prefixlen == 32:
                    return str(address.ip)
        for left, top, text in self.lab.texts:
            written = re.search(r"\b((?:\d{1,3}\.){3}\d{1,3})/32\b", text)
            if written and hypot(left - node.left, top - node.top) < _NEAR_PIXELS:
                self.warnings.append(f"{node.name}: loopback {written[1]} read from the text beside it")
                return str(ip_address(written[1]))
        raise ValueError(
            f"{node.name}: no loopback: neither its startup configuration nor a text beside it has an address/32; "
            f"give it with --loopback {node.name}=ADDRESS"
        )

    def _port(self, node: Node, port: Port) -> seeds.Interface:
        found = self.settings[node.id]
        name = _port_name(port)
        others = [far for far, other in self.ends[port.network or ""] if (far, other) != (node, port)]
        tags = []
        load = 20.0
        if self._is_management(port):
            what, load = "management", 1.0
        elif len(others) == 1:
            what = f"to {others[0].name}"
            if others[0].name.lower().startswith("upstream"):
                what, load = f"transit {others[0].name}", 40.0
                tags = ["uplink:true", f"provider:{_key(others[0].name)}"]
        elif others:
            what = "LAN with " + ", ".join(sorted({far.name for far in others}))
        else:
            what, load = "", 0.0
            self.warnings.append(f"{node.name}: {name} is not plugged in")
        return seeds.Interface(
            key=name, capacity_bps=CHR_PORT_BPS, comment=found.comments.get(name) or what, tags=tags, load_pct=load
        )

    def _router_links(self) -> Iterator[tuple[tuple[Node, Port], tuple[Node, Port]]]:
        """Networks with two routers and nothing else: the cables between routers."""
        for network, kind in self.lab.networks.items():
            ends = self.ends[network]
            if kind.startswith(("bridge", "ovs")) and len(ends) == 2 and all(node.is_router for node, _ in ends):
                first, second = sorted(ends, key=lambda end: (end[0].name, end[1].number))
                yield first, second

    def _links(self) -> list[seeds.Link]:
        names: dict[str, int] = defaultdict(int)
        links = []
        for (a, a_port), (b, b_port) in sorted(
            self._router_links(), key=lambda link: (link[0][0].name, link[0][1].number)
        ):
            name = f"{a.name}--{b.name}"
            names[name] += 1
            links.append(
                seeds.Link(
                    name=name if names[name] == 1 else f"{name}-{names[name]}",
                    a=seeds.End(a.name, _port_name(a_port)),
                    b=seeds.End(b.name, _port_name(b_port)),
                    capacity_bps=CHR_PORT_BPS,
                    medium="fiber",
                )
            )
        return links

    def _neighbours(self, node: Node) -> list[seeds.OspfNeighbor]:
        """The router at the other end of each cable, when both run OSPF and have addresses in one network."""
        found = []
        for ends in self._router_links():
            for (near, port), (far, far_port) in (ends, ends[::-1]):
                if near is not node or not (self.settings[near.id].ospf and self.settings[far.id].ospf):
                    continue
                own = self.settings[near.id].addresses.get(_port_name(port), [])
                theirs = self.settings[far.id].addresses.get(_port_name(far_port), [])
                shared = [there for here in own for there in theirs if here.network == there.network]
                if not shared:
                    self.warnings.append(
                        f"{near.name}: {_port_name(port)} and {far.name} share no network; no OSPF there"
                    )
                    continue
                found.append(seeds.OspfNeighbor(self._loopback(far), str(shared[0].ip), _port_name(port)))
        return sorted(found, key=lambda neighbour: neighbour.interface)

    def _subscribers(self, node: Node) -> int:
        """The hosts plugged into interfaces that serve PPPoE."""
        serving = [port for port in node.ports if _port_name(port) in self.settings[node.id].pppoe]
        return sum(not far.is_router for port in serving for far, _ in self.ends[port.network or ""])

    def _dependencies(self, devices: list[seeds.Device], links: list[seeds.Link]) -> list[seeds.Dependency]:
        role = {device.name: device.role for device in devices}
        found = []
        for device in devices:
            linked = {
                end.device
                for link in links
                for end in (link.a, link.b)
                if device.name in (link.a.device, link.b.device)
            }
            members = sorted(name for name in linked if role[name] in _NEEDS.get(device.role, ()))
            if members:
                found.append(seeds.Dependency(device.name, "any" if len(members) > 1 else "all", members))
        if found:
            self.warnings.append("dependencies: guessed from roles and cables; check them")
        return found

    def _targets(self) -> list[seeds.ProbeTarget]:
        found = []
        for node in self.lab.nodes:
            if not node.name.lower().startswith("target"):
                continue
            written = re.search(r"\b((?:\d{1,3}\.){3}\d{1,3})/\d{1,2}\b", node.config)
            address = self.choices.addresses.get(node.name) or (written[1] if written else None)
            if address is None:
                self.warnings.append(
                    f"{node.name}: no address known, so no probe target; --address {node.name}=ADDRESS"
                )
                continue
            found.append(seeds.ProbeTarget(node.name, self.choices.site.key, "icmp", str(IPv4Address(address))))
        return found

    def _layout(self, node: Node) -> seeds.Layout:
        """Where the node stands on the canvas, from 0 to 1 each way over all nodes."""

        def share(value: float, values: list[float]) -> float:
            low, high = min(values), max(values)
            return round((value - low) / (high - low), 4) if high > low else 0.5

        return seeds.Layout(
            x=share(node.left, [other.left for other in self.lab.nodes]),
            y=share(node.top, [other.top for other in self.lab.nodes]),
        )


def _port_name(port: Port) -> str:
    """RouterOS counts from 1 what EVE-NG counts from 0."""
    return f"ether{port.number + 1}"


def _key(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_") or "lab"


def imported(lab: Lab, choices: Choices | None = None) -> Imported:
    """A seed of a lab file; raises ValueError naming the node and what it lacks."""
    maker = _Maker(lab, choices or Choices())
    made = maker.make()
    return Imported(made, tuple(dict.fromkeys(maker.warnings)))
