"""SBOMs of a release: CycloneDX 1.6, its SPDX twin, VEX, and the checks that they say all and only what is there.

`generate(tree, root)` writes them unsigned, as part of what is reproduced bit for bit. `sign` makes the signed copy,
which belongs into `signatures/sbom/`, outside of what is reproduced.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from release.sbom import cyclonedx, debs, parts, spdx, vex, wheels
from release.sbom.enrichment import Enrichment
from release.sbom.model import Component, Inventory, SbomError
from release.sbom.signature import sign

__all__ = ["SbomError", "generate", "inventory_of", "sign"]


def inventory_of(tree: Path, root: Path) -> tuple[Inventory, Component, dict[str, str]]:
    """Everything in the release: the inventory, the appliance, and file name → ref of each artefact."""
    release = parts.Release.read(tree)
    enrichment = Enrichment(root / "SBOM" / "enrichment.toml")
    inventory = Inventory()
    found_wheels = wheels.add(inventory, tree, enrichment)
    found_debs = debs.add(inventory, tree)
    parts.add_browser_libraries(inventory, root, found_wheels, enrichment)
    playbooks = parts.add_playbooks(inventory, tree, release, enrichment)
    system = parts.add_operating_system(inventory, tree, found_debs, enrichment)
    named = parts.role_packages(tree)
    playbooks.requires |= {deb.purl for deb in found_debs if deb.name in named}
    artefacts = parts.add_artefacts(inventory, tree, release, found_wheels, found_debs, enrichment)
    ours = {one.purl for one in found_wheels if one.name.startswith("ispvm-")}
    files = {one.ref for one in inventory.all() if one.ref.startswith(f"pkg:generic/ispvm@{release.version}#")}
    needed = {ref for one in inventory.all() for ref in one.requires}
    loose = {one.purl for one in found_wheels if one.purl not in needed}  # carried for whoever installs, not for a host
    top = ours | files | loose | {playbooks.ref, system.ref}
    return inventory, parts.add_appliance(inventory, tree, release, enrichment, top), artefacts


def generate(tree: Path, root: Path) -> None:
    """Write every SBOM of the release in `tree` to `tree/sbom/`. `root` is the repository (policy, locks).

    Reads `release.json` for version and time; the same tree gives the same bytes. Raises SbomError naming what cannot
    be described: nothing is left out silently.
    """
    release = parts.Release.read(tree)
    author = Enrichment(root / "SBOM" / "enrichment.toml").own
    inventory, appliance, artefacts = inventory_of(tree, root)
    into = tree / "sbom"
    into.mkdir(exist_ok=True)
    whole = cyclonedx.document(inventory, appliance, release.version, release.epoch, author)
    _write(into / "ispvm.cdx.json", cyclonedx.text(whole))
    _write(into / "ispvm.spdx.json", cyclonedx.text(spdx.document(whole)))
    for name, ref in artefacts.items():
        main = inventory.get(ref)
        if main is None:
            raise SbomError(f"{ref} is not in the release")
        part = cyclonedx.document(inventory, main, release.version, release.epoch, author)
        if any(one["purl"].startswith("pkg:deb/debian/") for one in part["components"]):
            _add_system(part, whole)
        _write(into / f"{name}.cdx.json", cyclonedx.text(part))
    for name, content in vex.documents(root / "SBOM" / "vex.toml", whole).items():
        _write(into / name, cyclonedx.text(content))


def _add_system(part: dict[str, Any], whole: dict[str, Any]) -> None:
    """An image has Debian in it: scanners need the operating system's component, without its other packages."""
    system = next(one for one in whole["components"] if one["type"] == "operating-system")
    here = {edge["ref"] for edge in part["dependencies"]}
    full = next(edge for edge in whole["dependencies"] if edge["ref"] == system["bom-ref"])
    main = part["metadata"]["component"]["bom-ref"]
    next(edge for edge in part["dependencies"] if edge["ref"] == main)["dependsOn"].append(system["bom-ref"])
    part["components"].append(system)
    part["dependencies"].append(
        {"ref": system["bom-ref"], "dependsOn": [one for one in full["dependsOn"] if one in here]}
    )
    part["compositions"].append({"aggregate": "incomplete", "dependencies": [system["bom-ref"]]})


def _write(path: Path, content: str) -> None:
    path.write_text(content, encoding="utf-8")
