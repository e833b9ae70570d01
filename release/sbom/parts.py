"""Our own parts as components: browser libraries, playbooks, artefacts, operating system, and the appliance itself."""

from __future__ import annotations

import json
import re
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import yaml

from release.sbom.debs import DISTRO, Deb, lock_uses
from release.sbom.enrichment import Enrichment
from release.sbom.model import Component, Inventory, SbomError, digest, digest_of_manifest, files_under, is_code
from release.sbom.wheels import Wheel

VENDOR = "ispvm/web/static/vendor/"
# Written after the SBOM, or describing it: no part of what it describes.
AFTERWARDS = re.compile(r"^(sbom/|signatures/|attestations/|SHA256SUMS|SHA512SUMS|provenance\.)")
_ARCHIVES = (".tar", ".gz", ".zst", ".xz", ".zip", ".whl", ".deb", ".pex")


@dataclass(frozen=True)
class Release:
    """What release.json says: version, and the time of the commit that everything is dated with."""

    version: str
    commit: str
    epoch: int

    @classmethod
    def read(cls, tree: Path) -> Release:
        """Read it. Raises SbomError naming the field."""
        try:
            data = json.loads((tree / "release.json").read_text())
            return cls(str(data["version"]), str(data["commit"]), int(data["source_date_epoch"]))
        except (OSError, ValueError, KeyError) as error:
            raise SbomError(f"release.json: {error}") from error


def add_browser_libraries(inventory: Inventory, root: Path, wheels: list[Wheel], enrichment: Enrichment) -> None:
    """What package-lock.json pins, with the files that the server's pages really load."""
    server = next((one for one in wheels if one.name == "ispvm-server"), None)
    if server is None:
        raise SbomError("wheelhouse: no ispvm-server wheel")
    lock = json.loads((root / "app" / "package-lock.json").read_text())["packages"]
    with zipfile.ZipFile(server.path) as archive:
        shipped = {
            name.removeprefix(VENDOR): archive.read(name)
            for name in archive.namelist()
            if name.startswith(VENDOR) and not name.endswith((".LICENSE", "/stamp"))
        }
    for place, locked in sorted(lock.items()):
        if not place:
            continue
        name = place.removeprefix("node_modules/")
        purl = f"pkg:npm/{quote(name)}@{locked['version']}"
        producer, files = (
            enrichment.producer(purl),
            sorted(one for one in shipped if one.lower().startswith(name.split(".")[0])),
        )
        if not files:
            raise SbomError(f"{name}: locked in app/package-lock.json, but the server ships no file of it")
        main = next(one for one in files if one.endswith(".js"))
        component = inventory.add(
            Component(
                "library",
                name,
                locked["version"],
                purl,
                producer,
                locked["license"],
                [main],
                [digest(shipped.pop(main))],
                archive=False,
                structured=False,
                source=producer.url,
                roles={"server"},
                properties=[("ispvm:contained-in", server.purl), ("ispvm:npm-integrity", locked["integrity"])],
            )
        )
        for other in files:
            if other in shipped:
                component.requires.add(
                    inventory.add(
                        Component(
                            "file",
                            other,
                            locked["version"],
                            f"{purl}#{other}",
                            producer,
                            locked["license"],
                            [other],
                            [digest(shipped.pop(other))],
                            executable=other.endswith(".js"),
                            archive=False,
                            structured=False,
                            source=producer.url,
                            roles={"server"},
                            properties=[("ispvm:contained-in", server.purl)],
                        )
                    ).ref
                )
        _of(inventory, server.purl).requires.add(purl)
    if shipped:
        raise SbomError(f"{VENDOR}: not from app/package-lock.json: {', '.join(sorted(shipped))}")


def _of(inventory: Inventory, ref: str) -> Component:
    found = inventory.get(ref)
    if found is None:
        raise SbomError(f"{ref} is not in the release")
    return found


def _own(
    release: Release, enrichment: Enrichment, kind: str, name: str, purl: str, content: bytes, path: str = ""
) -> Component:
    head = content[:4]
    return Component(
        kind,
        name,
        release.version,
        purl,
        enrichment.own,
        "Apache-2.0",
        [Path(path or name).name],
        [digest(content)],
        path=path,
        source=enrichment.source,
        executable=is_code(path or name, 0, head),
        archive=name.endswith(_ARCHIVES),
        structured=name.endswith(_ARCHIVES),
    )


def add_playbooks(inventory: Inventory, tree: Path, release: Release, enrichment: Enrichment) -> Component:
    """The playbooks as one component, each of their executable files as one of its own, and vendored collections."""
    folder = tree / "ansible"
    listed = [(name, path.read_bytes()) for name, path in files_under(folder)]
    base = f"pkg:generic/ispvm-playbooks@{quote(release.version, safe='')}"
    whole = inventory.add(
        Component(
            "application",
            "ispvm-playbooks",
            release.version,
            base,
            enrichment.own,
            "Apache-2.0",
            ["ansible"],
            [digest_of_manifest((name, digest(content).sha512) for name, content in listed)],
            path="ansible",
            source=enrichment.source,
            archive=False,
            description="Playbooks, roles and plugins that install the appliance",
            properties=[("ispvm:digest-of", "the sorted lines `sha512  path` of the files below this directory")],
        )
    )
    for name, content in listed:
        manifest = re.match(r"collections/ansible_collections/([^/]+)/([^/]+)/MANIFEST\.json$", name)
        if manifest:
            whole.requires.add(_add_collection(inventory, folder, name, content, enrichment).ref)
        elif not name.startswith("collections/") and is_code(name, 0, content[:4]):
            part = _own(release, enrichment, "file", name, f"{base}#{quote(name)}", content, f"ansible/{name}")
            whole.requires.add(inventory.add(part).ref)
        if not re.match(r"roles/[^/]+/(tasks|handlers|vars|defaults)/[^/]+\.yml$", name):
            continue
        for dest, text in _written(yaml.safe_load(content)):
            if is_code(dest, 0, text[:4].encode()):
                ref = f"{base}#{quote(name + dest)}"
                part = _own(release, enrichment, "file", Path(dest).name, ref, text.encode(), f"ansible/{name}")
                whole.requires.add(inventory.add(part).ref)
    return whole


def _written(value: object) -> list[tuple[str, str]]:
    """The files that a YAML document of a role has as plain text: pairs of destination and content."""
    if isinstance(value, list):
        return [pair for one in value for pair in _written(one)]
    if not isinstance(value, dict):
        return []
    dest, content = value.get("dest"), value.get("content")
    if isinstance(dest, str) and isinstance(content, str) and "{{" not in content:
        return [(dest, content)]
    return _written(list(value.values()))


def _add_collection(inventory: Inventory, folder: Path, name: str, content: bytes, enrichment: Enrichment) -> Component:
    about = json.loads(content)["collection_info"]
    title, purl = f"{about['namespace']}.{about['name']}", ""
    purl = f"pkg:generic/ansible-collections/{title}@{about['version']}"
    place = (folder / name).parent
    licence = " AND ".join(about.get("license") or []) or enrichment.licence(purl)
    return inventory.add(
        Component(
            "library",
            title,
            about["version"],
            purl,
            enrichment.producer(purl),
            licence,
            [title],
            [digest_of_manifest((one, digest(path.read_bytes()).sha512) for one, path in files_under(place))],
            path=place.relative_to(folder.parent).as_posix(),
            archive=False,
            source=about.get("repository") or purl,
            properties=[("ispvm:digest-of", "the sorted lines `sha512  path` of the files below this directory")],
        )
    )


def role_packages(tree: Path) -> set[str]:
    """The Debian packages that the roles name: every list in their defaults and variables that ends in `_packages`."""
    named: set[str] = set()
    for path in sorted((tree / "ansible" / "roles").glob("*/*/main.yml")):
        if path.parent.name in ("defaults", "vars"):
            for key, value in (yaml.safe_load(path.read_text()) or {}).items():
                if key.endswith("_packages") and isinstance(value, list):
                    named |= {str(one) for one in value}
    return named


def add_operating_system(inventory: Inventory, tree: Path, debs: list[Deb], enrichment: Enrichment) -> Component:
    """Debian 13: without this component, scanners find no distribution and drop every .deb."""
    lock = tree / "apt" / "apt.lock"
    listed = [(deb.place, deb.digest.sha512) for deb in debs]
    # by no other package needed: they belong to the system as such
    needed = {ref for deb in debs for ref in _of(inventory, deb.purl).requires}
    return inventory.add(
        Component(
            "operating-system",
            "debian",
            "13",
            "pkg:generic/debian@13",
            enrichment.producer("pkg:generic/debian"),
            enrichment.licence("pkg:generic/debian"),
            [lock.name if lock.is_file() else "pool"],
            [digest(lock.read_bytes()) if lock.is_file() else digest_of_manifest(listed)],
            description="Debian GNU/Linux 13",
            source=enrichment.producer("pkg:generic/debian").url,
            website=enrichment.producer("pkg:generic/debian").url,
            executable=False,
            archive=False,
            complete="incomplete",
            roles={"host-amd64", "host-arm64"},
            requires={deb.purl for deb in debs if deb.purl not in needed},
            properties=[
                ("ispvm:distro", DISTRO),
                ("ispvm:digest-of", "the list of the packages that the release carries"),
                ("ispvm:unknown", "what else the host's own Debian installation has"),
            ],
        )
    )


def _image_digest(path: Path) -> str:
    """The digest of the only manifest in an OCI layout archive."""
    with tarfile.open(path) as archive:
        index = archive.extractfile("index.json") or archive.extractfile("./index.json")
        if index is None:
            raise SbomError(f"{path.name}: an OCI layout without index.json")
        return str(json.load(index)["manifests"][0]["digest"])


def add_artefacts(
    inventory: Inventory, tree: Path, release: Release, wheels: list[Wheel], debs: list[Deb], enrichment: Enrichment
) -> dict[str, str]:
    """What is built from our parts: PEX, .deb, images, sdists, and every other file of the release that is code.

    Returns file name → ref of the artefacts that get an SBOM of their own.
    """
    described: dict[str, str] = {}
    ours = {one.name: one for one in wheels if one.name.startswith("ispvm-")}
    uses = lock_uses(tree)
    known = {digest(one.path.read_bytes()): one.purl for one in ours.values()}
    for name, path in files_under(tree):
        if AFTERWARDS.match(name) or name.startswith(("apt/", "wheelhouse/", "ansible/")):
            continue
        content = path.read_bytes()
        product = ours.get(f"ispvm-{name.split('/')[0]}")
        if name.endswith(".whl"):
            if digest(content) not in known:
                raise SbomError(f"{name}: not the wheel of this name in the wheelhouse")
            described[path.name] = known[digest(content)]
            continue
        archive = path.name.endswith(_ARCHIVES)
        if not archive and not is_code(name, path.stat().st_mode, content[:4]):
            continue
        version = quote(release.version, safe="")
        purl = f"pkg:generic/ispvm@{version}#{quote(name)}"
        part = _own(release, enrichment, "file", path.name, purl, content, name)
        part.executable = True
        inventory.add(part)
        if product is not None and not path.name.endswith((".gz", ".py", ".sh")):
            part.requires.add(product.purl)
            part.kind = "application"
            described[path.name] = part.ref
            if "oci" in name.lower() or "image" in name.lower():
                part.kind = "container"
                part.properties.append(("ispvm:oci-manifest", _image_digest(path)))
                part.architecture = "arm64" if "arm64" in path.name else "amd64"
                inside = {deb.purl for deb in debs if f"image-{part.architecture}" in uses.get(deb.filename, ())}
                part.requires |= inside
                part.complete = "complete" if inside else "incomplete"
    return described


def add_appliance(
    inventory: Inventory, tree: Path, release: Release, enrichment: Enrichment, parts: set[str]
) -> Component:
    """The appliance itself: what everything else hangs on."""
    listed = [
        (name, digest(path.read_bytes()).sha512) for name, path in files_under(tree) if not AFTERWARDS.match(name)
    ]
    return inventory.add(
        Component(
            "application",
            "ispvm",
            release.version,
            f"pkg:generic/ispvm@{quote(release.version, safe='')}",
            enrichment.own,
            "Apache-2.0",
            [f"ispvm-{release.version}"],
            [digest_of_manifest(listed)],
            source=enrichment.source,
            requires=parts,
            description="ISPVisualMonitor appliance: monitoring of MikroTik routers for internet providers",
            properties=[
                ("ispvm:commit", release.commit),
                ("ispvm:digest-of", "the sorted lines `sha512  path` of every file but sums, signatures and SBOMs"),
            ],
        )
    )
