"""Python wheels as components: metadata, graph, and what they carry inside (PEP 770 SBOMs, shared libraries)."""

from __future__ import annotations

import email.utils
import json
import re
import zipfile
from dataclasses import dataclass, field
from email.message import Message
from email.parser import Parser
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename

from release.sbom import licences
from release.sbom.enrichment import Enrichment
from release.sbom.model import Component, Digest, Inventory, Producer, SbomError, digest, is_code

# The appliance's Python, for the markers of dependencies (Debian 13).
_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
_VENDORED = re.compile(r"^[^/]+\.libs/(?P<file>lib(?P<name>[a-z0-9_+]+)-[0-9a-f]{8}\.so(?P<soname>(\.[0-9]+)*))$")
_SOURCES = ("source", "sourcecode", "repository", "code", "github")


@dataclass
class Wheel:
    """One wheel of the wheelhouse, read once."""

    path: Path
    place: str  # inside the release
    houses: set[str]  # the wheelhouses it stands in, such as `amd64` or `installer/arm64`
    name: str
    version: str
    pure: bool
    metadata: Message
    licence_text: str
    sboms: list[dict[str, Any]]
    code: dict[str, Digest]  # every executable or importable file
    requirements: list[Requirement] = field(default_factory=list)

    @property
    def purl(self) -> str:
        """Its purl; a wheel for one processor is named by its file, since two of them are two components."""
        base = f"pkg:pypi/{self.name}@{quote(self.version, safe='')}"
        return base if self.pure else f"{base}?file_name={quote(self.path.name, safe='')}"


def architecture_of(house: str) -> str:
    """The processor that a wheelhouse is for; what is not for one alone is used on the machine that builds."""
    return house.rsplit("/", 1)[-1] if house.endswith(tuple(_MACHINES)) else "amd64"


def read(path: Path, place: str, house: str) -> Wheel:
    """Read a wheel. Raises SbomError when it is none."""
    try:
        name, version, _, tags = parse_wheel_filename(path.name)
        with zipfile.ZipFile(path) as archive:
            info = next(one for one in archive.namelist() if one.endswith(".dist-info/METADATA"))
            home = info.removesuffix("METADATA")
            metadata = Parser().parsestr(archive.read(info).decode())
            texts, sboms, code = [], [], {}
            for entry in archive.infolist():
                if entry.is_dir():
                    continue
                inside = entry.filename
                if inside.startswith(f"{home}sboms/") and inside.endswith(".json"):
                    sboms.append(json.loads(archive.read(entry)))
                elif inside.startswith(home) and "LICEN" in inside.upper():
                    texts.append(archive.read(entry).decode(errors="replace"))
                content = archive.read(entry)
                if is_code(inside, entry.external_attr >> 16, content[:4]) and not inside.startswith(home):
                    code[inside] = digest(content)
    except (ValueError, StopIteration, zipfile.BadZipFile) as error:
        raise SbomError(f"{place}: no readable wheel ({error})") from error
    pure = all(tag.platform == "any" for tag in tags)
    wheel = Wheel(path, place, {house}, str(name), str(version), pure, metadata, "\n".join(texts), sboms, code)
    wheel.requirements = [Requirement(text) for text in metadata.get_all("Requires-Dist", [])]
    return wheel


def read_all(wheelhouse: Path, tree: Path) -> list[Wheel]:
    """Every wheel below `wheelhouse`; one that stands in two architectures' folders is one wheel."""
    found: dict[str, Wheel] = {}
    for path in sorted(wheelhouse.rglob("*.whl")):
        house = path.parent.relative_to(wheelhouse).as_posix()
        known = found.get(path.name)
        if known is None:
            found[path.name] = read(path, path.relative_to(tree).as_posix(), house)
        elif known.path.read_bytes() == path.read_bytes():
            known.houses.add(house)
        else:
            raise SbomError(f"{path.relative_to(tree)}: another file of this name has other content")
    return list(found.values())


def _links(metadata: Message) -> dict[str, str]:
    """Project URLs by their lower-case label without spaces."""
    links = {}
    for line in metadata.get_all("Project-URL", []):
        label, _, address = line.partition(",")
        links[re.sub(r"[^a-z]", "", label.lower())] = address.strip()
    if metadata.get("Home-page"):
        links.setdefault("homepage", metadata["Home-page"])
    return links


def _producer(wheel: Wheel, enrichment: Enrichment) -> Producer:
    """Who makes it: a person or group with an address, else the project at its URL."""
    for header in ("Author-email", "Maintainer-email"):
        for shown, address in email.utils.getaddresses([str(wheel.metadata.get(header, ""))]):
            if "@" in address:
                return Producer(shown or wheel.metadata.get("Author") or address, email=address)
    links = _links(wheel.metadata)
    address = links.get("homepage") or next((links[one] for one in _SOURCES if one in links), "")
    address = address or next(iter(links.values()), "")
    if address:
        return Producer(wheel.metadata.get("Author") or f"The {wheel.name} project", url=address)
    return enrichment.producer(wheel.purl)


def _source(wheel: Wheel) -> str:
    links = _links(wheel.metadata)
    found = next((links[one] for one in _SOURCES if one in links), "") or links.get("homepage", "")
    return found or f"pkg:pypi/{wheel.name}@{quote(wheel.version, safe='')}"


def requirements_of(lists: list[Path]) -> dict[str, set[str]]:
    """Which kinds of host install a distribution, from the requirement lists: name → `server`, `agent`, `lab`."""
    roles: dict[str, set[str]] = {}
    for path in lists:
        for line in path.read_text().splitlines():
            named = re.match(r"([A-Za-z0-9._-]+)(\[[^\]]*\])?==", line)
            if named:
                roles.setdefault(canonicalize_name(named[1]), set()).add(path.stem)
    return roles


def _edges(wheels: list[Wheel]) -> dict[str, set[str]]:
    """Who needs whom, inside each wheelhouse: wheel's file name → file names. Extras count where somebody asks."""
    edges: dict[str, set[str]] = {wheel.path.name: set() for wheel in wheels}
    for house in sorted({house for wheel in wheels for house in wheel.houses}):
        here = {wheel.name: wheel for wheel in wheels if house in wheel.houses}
        environment = {
            "python_version": "3.13",
            "python_full_version": "3.13.5",
            "sys_platform": "linux",
            "os_name": "posix",
            "platform_system": "Linux",
            "implementation_name": "cpython",
            "platform_python_implementation": "CPython",
            "platform_machine": _MACHINES[architecture_of(house)],
        }
        extras: dict[str, set[str]] = {name: {""} for name in here}
        queue = sorted(here)
        while queue:
            wheel = here[queue.pop()]
            for needed in wheel.requirements:
                target = canonicalize_name(needed.name)
                if target not in here or not _holds(needed.marker, environment, extras[wheel.name]):
                    continue
                edges[wheel.path.name].add(here[target].path.name)
                if not needed.extras <= extras[target]:
                    extras[target] |= needed.extras
                    queue.append(target)
    return edges


def _holds(marker: Marker | None, environment: dict[str, str], extras: set[str]) -> bool:
    return marker is None or any(marker.evaluate({**environment, "extra": extra}) for extra in sorted(extras))


def add(inventory: Inventory, tree: Path, enrichment: Enrichment) -> list[Wheel]:
    """Add every wheel of the release, and what is inside them."""
    wheelhouse = tree / "wheelhouse"
    wheels = read_all(wheelhouse, tree)
    roles = requirements_of(sorted(wheelhouse.rglob("*.txt")))
    edges = _edges(wheels)
    purls = {wheel.path.name: wheel.purl for wheel in wheels}
    for wheel in wheels:
        declared = licences.from_python(
            wheel.name,
            wheel.metadata.get("License-Expression", ""),
            wheel.metadata.get("License", ""),
            wheel.metadata.get_all("Classifier", []),
            wheel.licence_text,
        )
        own = wheel.name.startswith("ispvm-")
        component = inventory.add(
            Component(
                "application" if own and wheel.name != "ispvm-contract" else "library",
                wheel.name,
                wheel.version,
                wheel.purl,
                enrichment.own if own else _producer(wheel, enrichment),
                enrichment.licence(wheel.purl) or declared,
                [wheel.path.name],
                [digest(wheel.path.read_bytes())],
                path=wheel.place,
                architecture="" if wheel.pure else architecture_of(min(wheel.houses)),
                description=str(wheel.metadata.get("Summary", "")),
                source=enrichment.source if own else _source(wheel),
                website=_links(wheel.metadata).get("homepage", ""),
                executable=bool(wheel.code),
                requires={purls[other] for other in edges[wheel.path.name]},
                roles=set(roles.get(wheel.name, set())),
            )
        )
        _add_embedded(inventory, wheel, component, enrichment)
    return wheels


def _add_embedded(inventory: Inventory, wheel: Wheel, component: Component, enrichment: Enrichment) -> None:
    """What a compiled wheel carries: the components of the SBOMs inside it, and its shared libraries.

    Code that is linked into an extension has no file of its own: its file is the extension that contains it.
    """
    extensions = {name: sums for name, sums in wheel.code.items() if ".so" in name and ".libs/" not in name}
    for bom in wheel.sboms:
        root = str(bom.get("metadata", {}).get("component", {}).get("bom-ref", ""))
        refs: dict[str, str] = {}
        for one in bom.get("components", []):
            purl = re.sub(r"[?#].*$", "", str(one.get("purl", "")))
            if not purl or canonicalize_name(str(one.get("name"))) == wheel.name:
                continue
            refs[str(one.get("bom-ref", purl))] = purl
            name = str(one["name"])
            pattern = enrichment.file(purl)
            vendored = {
                file: sums
                for file, sums in wheel.code.items()
                if pattern and (match := _VENDORED.match(file)) and re.match(pattern, match["file"])
            }
            inside = vendored or extensions
            inventory.add(
                Component(
                    "library",
                    name,
                    str(one.get("version", "")),
                    purl,
                    _embedded_producer(one, purl, enrichment),
                    _embedded_licence(one, purl, enrichment),
                    [PurePosixPath(file).name for file in inside],
                    list(inside.values()),
                    description=str(one.get("description", "")).strip(),
                    archive=False,
                    source=_embedded_link(one, purl),
                    structured=False,
                    complete="complete" if bom.get("dependencies") else "unknown",
                    properties=[("ispvm:contained-in", component.purl)],
                )
            )
            component.requires.add(purl)
        for edge in bom.get("dependencies", []):
            owner = inventory.get(refs.get(str(edge["ref"]), ""))
            if owner is not None and edge["ref"] != root:
                owner.requires |= {refs[one] for one in edge.get("dependsOn", []) if one in refs} - {owner.purl}
    _add_unlisted(inventory, wheel, component, enrichment)


def _add_unlisted(inventory: Inventory, wheel: Wheel, component: Component, enrichment: Enrichment) -> None:
    """Shared libraries that no SBOM inside the wheel lists: what they are is read from themselves.

    A library that does not say its version has that of another one of the same project in this wheel, else that of its
    soname; a property says which.
    """
    listed = {sums for ref in component.requires if (one := inventory.get(ref)) for sums in one.digests}
    found: list[tuple[str, str, re.Match[str], Digest]] = []
    with zipfile.ZipFile(wheel.path) as archive:
        for file, sums in sorted(wheel.code.items()):
            if (match := _VENDORED.match(file)) and sums not in listed:
                found.append((*enrichment.identify(match["name"], archive.read(file)), match, sums))
    stated = {name: version for name, version, _, _ in found if version}
    for name, version, match, sums in found:
        known = version or stated.get(name, "")
        says = "the file" if version else "another library of the project" if known else "the soname"
        number = known or match["soname"].strip(".") or "UNKNOWN"
        purl = f"pkg:generic/{name}@{number}"
        inventory.add(
            Component(
                "library",
                name,
                number,
                purl,
                enrichment.producer(purl),
                enrichment.licence(purl),
                [match["file"]],
                [sums],
                ref=f"{purl}#{match['file']}",
                archive=False,
                structured=False,
                complete="unknown",
                source=enrichment.producer(purl).url,
                properties=[("ispvm:contained-in", component.purl), ("ispvm:version-from", says)],
            )
        )
        component.requires.add(f"{purl}#{match['file']}")
        component.complete = "incomplete"


def _embedded_producer(one: dict[str, Any], purl: str, enrichment: Enrichment) -> Producer:
    for shown, address in email.utils.getaddresses([str(one.get("author", ""))]):
        if "@" in address:
            return Producer(shown or address, email=address)
    if purl.startswith("pkg:cargo/") and (address := _embedded_link(one, "")):
        return Producer(str(one.get("author") or f"The {one['name']} project"), url=address)
    return enrichment.producer(purl)


def _embedded_link(one: dict[str, Any], fallback: str) -> str:
    links = {str(link["type"]): str(link["url"]) for link in one.get("externalReferences", [])}
    return links.get("vcs") or links.get("website") or links.get("documentation") or fallback


def _embedded_licence(one: dict[str, Any], purl: str, enrichment: Enrichment) -> str:
    for entry in one.get("licenses", []):
        text = str(entry.get("expression") or entry.get("license", {}).get("id") or "")
        if licences.is_expression(text):
            return text
    return enrichment.licence(purl)
