"""SBOM ⇔ bytes: every executable or importable file of an installed host belongs to exactly one component, and back.

A file is explained by its SHA-256 in the .deb or wheel that the release carries, never by its name alone. What the
host's own Debian installation brought (an SSH server, say) is explained by dpkg's sums and belongs to the operating
system's component. A component that should be on such a host and has no file there is a phantom. The release before,
which stays on a host to go back to, is explained by its own SBOM and by no other.
"""

from __future__ import annotations

import configparser
import json
import re
import subprocess
import zipfile
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from release.sbom import debs, wheels
from release.sbom.model import SbomError, digest

_SITE = re.compile(r"^/opt/ispvm/releases/[^/]+/(?P<component>[^/]+)/lib/python3\.\d+/site-packages/(?P<inside>.+)$")
_COMMAND = re.compile(r"^(?P<venv>/opt/ispvm/releases/[^/]+/(?P<component>[^/]+))/bin/(?P<name>[^/]+)$")
# exactly what Debian 13's pip writes for a console script
_SCRIPT = """#!{venv}/bin/python
# -*- coding: utf-8 -*-
import re
import sys
from {module} import {top}
if __name__ == '__main__':
    sys.argv[0] = re.sub(r'(-script\\.pyw|\\.exe)?$', '', sys.argv[0])
    sys.exit({function}())
"""
# which wheels a kind of host has: names of the local fact → names of the requirement lists
_COMPONENTS = {"appliance": "server", "agent": "agent", "lab": "lab"}


@dataclass
class Report:
    """What was compared. `owners` says whose how many files are."""

    files: int = 0
    owners: Counter[str] = field(default_factory=Counter)
    unexplained: list[str] = field(default_factory=list)
    ambiguous: list[str] = field(default_factory=list)
    components: int = 0
    phantoms: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Whether it is a bijection, and something was compared at all."""
        return self.files > 0 and self.components > 0 and not (self.unexplained or self.ambiguous or self.phantoms)

    def text(self) -> str:
        """The report in lines."""
        kinds = Counter(owner.split("/")[0] for owner in self.owners.elements())
        lines = [f"executable or importable files  {self.files}"]
        lines += [f"  of {kind:<27} {number}" for kind, number in sorted(kinds.items())]
        lines += [
            f"unexplained                     {len(self.unexplained)}",
            *(f"  {one}" for one in self.unexplained[:20]),
        ]
        lines += [
            f"of more than one component      {len(self.ambiguous)}",
            *(f"  {one}" for one in self.ambiguous[:20]),
        ]
        lines += [f"components expected on the host {self.components}"]
        lines += [f"phantom                         {len(self.phantoms)}", *(f"  {one}" for one in self.phantoms[:20])]
        return "\n".join(lines)


def read_host(target: str, options: list[str]) -> dict[str, Any]:
    """What is on a host, over ssh. Raises SbomError when it cannot be read."""
    script = Path(__file__).with_name("host_files.py").read_text()
    command = ["ssh", "-o", "BatchMode=yes", *(word for one in options for word in ("-o", one)), target, "python3", "-"]
    done = subprocess.run(command, input=script, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SbomError(f"{target}: {done.stderr.strip()[-500:]}")
    return dict(json.loads(done.stdout))


def _merged(path: str) -> str:
    """A path on a host with merged /usr."""
    return f"/usr{path}" if re.match(r"^/(bin|sbin|lib|lib64)/", path) else path


def _skeleton(template: str) -> re.Pattern[str]:
    """A pattern of what a Jinja template renders: its text outside of loops and conditions, with anything between."""
    plain = re.sub(r"\{#.*?#\}\n?", "", template, flags=re.DOTALL)
    plain = re.sub(r"\{%-?\s*(for|if)\b.*\{%-?\s*end\1\b.*?%\}\n?", "{{}}", plain, flags=re.DOTALL)
    pieces = re.split(r"\{\{.*?\}\}|\{%.*?%\}\n?", plain, flags=re.DOTALL)
    return re.compile(".*?".join(re.escape(one) for one in pieces), re.DOTALL)


def _needed(bom: dict[str, Any], without: Sequence[str]) -> set[str]:
    """The components that the playbooks need, each with what it needs itself; not by way of packages left out."""
    edges = {one["ref"]: one["dependsOn"] for one in bom["dependencies"]}
    names = {one["bom-ref"]: one["name"] for one in bom["components"]}
    new = [one["bom-ref"] for one in bom["components"] if one["name"] == "ispvm-playbooks"]
    needed: set[str] = set()
    while new:
        needed |= set(new)
        further = {ref for one in new for ref in edges.get(one, ()) if names[ref] not in without}
        new = sorted(further - needed)
    return needed


class Known:
    """What the release says: who owns which bytes."""

    def __init__(self, tree: Path, host: dict[str, Any], without: Sequence[str] = ()) -> None:
        """Read the SBOM, and the packages and wheels that it names; they must be what it says."""
        bom = json.loads((tree / "sbom" / "ispvm.cdx.json").read_text())
        self.place = f"/opt/ispvm/releases/{bom['metadata']['component']['version']}/"
        self.components: list[dict[str, Any]] = bom["components"]
        self.refs = {one["bom-ref"] for one in self.components}
        self.sums = {one["content"]: part["bom-ref"] for part in self.components for one in part["hashes"]}
        self.system = next(one["bom-ref"] for one in self.components if one["type"] == "operating-system")
        self.architecture = str(host["architecture"])
        self.lists = {_COMPONENTS[one] for one in host["components"] if one in _COMPONENTS}
        self.needed = _needed(bom, without)
        # a file in a pool is named without the epoch of its version
        installed = {(one["name"], one["version"].rpartition(":")[2]) for one in host["packages"]}
        pool = sorted((tree / "apt" / "pool").rglob("*.deb"))
        paths = [path for path in pool if tuple(path.stem.split("_")[:2]) in installed]
        with ProcessPoolExecutor() as workers:
            found = list(
                workers.map(debs.read, paths, [path.relative_to(tree).as_posix() for path in paths], chunksize=8)
            )
        present = {(one["name"], one["version"], one["architecture"]) for one in host["packages"]}
        self.debs = [deb for deb in found if (deb.name, deb.control["Version"], deb.control["Architecture"]) in present]
        for deb in self.debs:
            self._as_listed(deb.purl, deb.digest.sha512, deb.place)
        self.by_path: dict[str, set[tuple[str, str]]] = {}
        for deb in self.debs:
            for inside, sha256 in deb.code.items():
                self.by_path.setdefault(_merged(inside), set()).add((sha256, deb.purl))
        house = tree / "wheelhouse"
        self.wheels = [one for one in wheels.read_all(house, tree) if self.architecture in one.houses]
        for wheel in self.wheels:
            self._as_listed(wheel.purl, digest(wheel.path.read_bytes()).sha512, wheel.place)
        roles = wheels.requirements_of(sorted((house / self.architecture).glob("*.txt")))
        self.by_venv: dict[str, dict[str, tuple[str, str]]] = {one: {} for one in self.lists}
        self.commands: dict[str, dict[str, tuple[str, str]]] = {one: {} for one in self.lists}
        for wheel in self.wheels:
            for component in roles.get(wheel.name, set()) & self.lists:
                self._take(wheel, component)
        shipped = {(deb.name, deb.control["Version"], deb.control["Architecture"]) for deb in self.debs}
        self.templates = [
            (_skeleton(path.read_text()), self.sums[digest(path.read_bytes()).sha256])
            for path in sorted((tree / "ansible" / "roles").glob("*/templates/*"))
            if path.read_bytes().startswith(b"#!")
        ]
        self.md5: dict[str, str] = {}
        for one in host["packages"]:
            if (one["name"], one["version"], one["architecture"]) not in shipped:
                self.md5 |= {_merged(path): sums for path, sums in json.loads(one["md5"]).items()}
                self.md5 |= {
                    f"/var/lib/dpkg/info/{stem}": "script"
                    for stem in (one["name"], f"{one['name']}:{one['architecture']}")
                }

    def _as_listed(self, purl: str, sha512: str, place: str) -> None:
        if purl not in self.refs or self.sums.get(sha512) != purl:
            raise SbomError(f"{place}: the SBOM does not list these bytes as {purl}")

    def _take(self, wheel: wheels.Wheel, component: str) -> None:
        with zipfile.ZipFile(wheel.path) as archive:
            for inside in archive.namelist():
                if not inside.endswith("/"):
                    sha256 = digest(archive.read(inside)).sha256
                    self.by_venv[component][inside] = (sha256, wheel.purl)
                if inside.endswith(".dist-info/entry_points.txt"):
                    parser = configparser.ConfigParser(delimiters=("=",))
                    parser.optionxform = str  # type: ignore[assignment,method-assign]
                    parser.read_string(archive.read(inside).decode())
                    for name, entry in parser["console_scripts"].items() if "console_scripts" in parser else ():
                        self.commands[component][name] = (entry.split("[")[0].strip(), wheel.purl)

    def owners(self, path: str, entry: dict[str, Any], files: dict[str, dict[str, Any]]) -> set[str]:
        """The components that own a file, by its content. Empty: nobody can say what it is."""
        if path.endswith(".pyc") and entry.get("source"):
            source = entry["source"]
            return self.owners(source, files[source], files) if source in files else set()
        found = {ref for sha256, ref in self.by_path.get(_merged(path), ()) if sha256 == entry["sha256"]}
        site, command = _SITE.match(path), _COMMAND.match(path)
        if site and site["component"] in self.lists:
            sha256, ref = self.by_venv[site["component"]].get(site["inside"], ("", ""))
            if sha256 == entry["sha256"]:
                found.add(ref)
        elif command and command["component"] in self.lists:
            named, ref = self.commands[command["component"]].get(command["name"], ("", ""))
            module, _, function = named.partition(":")
            expected = _SCRIPT.format(
                venv=command["venv"], module=module, top=function.split(".")[0], function=function
            )
            if named and entry.get("text") == expected:
                found.add(ref)
        elif not found and entry["sha256"] in self.sums:
            found.add(self.sums[entry["sha256"]])
        # what a role rendered: all but its variables is the template
        if not found and path.startswith("/etc/"):
            found |= {ref for skeleton, ref in self.templates if skeleton.fullmatch(entry.get("text", ""))}
        if not found and self._of_the_system(path, entry):
            found.add(self.system)
        return found

    def _of_the_system(self, path: str, entry: dict[str, Any]) -> bool:
        script = re.match(r"^(/var/lib/dpkg/info/[^/]+)\.(preinst|postinst|prerm|postrm|config)$", path)
        if script:
            return self.md5.get(script[1]) == "script"
        return bool(entry.get("md5")) and self.md5.get(_merged(path)) == entry["md5"]


def compare(tree: Path, host: dict[str, Any], without: Sequence[str] = (), before: Path | None = None) -> Report:
    """Compare a release with a host installed from it. Raises SbomError when the release contradicts itself.

    `without`: Debian packages that this host's inventory leaves out. `before`: the release that this one replaced.
    """
    known = Known(tree, host, without)
    old = Known(before, host, without) if before else None
    report = Report()
    files: dict[str, dict[str, Any]] = host["files"]
    present: set[str] = {deb.purl for deb in known.debs} | ({known.system} if host["packages"] else set())
    bytes_here: set[str] = set()
    for path, entry in sorted(files.items()):
        whose = old if old and path.startswith(old.place) else known
        owners = whose.owners(path, entry, files)
        if whose is known:
            present |= owners
            bytes_here.add(entry["sha256"])
        if not entry["code"]:
            continue
        report.files += 1
        if not owners:
            report.unexplained.append(path)
        elif len(owners) > 1:
            report.ambiguous.append(f"{path}: {', '.join(sorted(owners))}")
        else:
            report.owners[owners.pop()] += 1
    for part in known.components:
        wanted = _expected(part, known)
        if not wanted:
            continue
        report.components += 1
        here = part["bom-ref"] in present or any(one["content"] in bytes_here for one in part["hashes"])
        if not here:
            report.phantoms.append(part["bom-ref"])
    return report


def _expected(part: dict[str, Any], known: Known) -> bool:
    """Whether such a host should have this component: by its lists, or inside something that it should have."""
    properties: dict[str, set[str]] = {}
    for one in part["properties"]:
        properties.setdefault(one["name"], set()).add(one["value"])
    if not properties.get("ispvm:architecture", {known.architecture}) & {known.architecture}:
        return False
    roles = properties.get("ispvm:installed-on", set())
    if part["type"] == "operating-system":
        return True
    if part["bom-ref"].startswith("pkg:deb/") and part["bom-ref"] not in known.needed:
        return False  # in the bundle for whoever verifies or installs, or left out by the inventory
    if roles:
        return bool(roles & {*known.lists, f"host-{known.architecture}"})
    containers = properties.get("ispvm:contained-in", set())
    return any(_expected(one, known) for one in known.components if one["bom-ref"] in containers)
