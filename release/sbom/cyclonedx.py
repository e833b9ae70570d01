"""An inventory as CycloneDX 1.6 JSON: the same bytes for the same release."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from release.sbom.model import Component, Inventory, Producer

SPEC_VERSION = "1.6"
# the name space of our serial numbers: stable, so that VEX statements can name an SBOM by BOM-Link
_NAMESPACE = uuid.UUID("a6d3f7c2-90d1-5e0f-9b0e-6d6f52b1a1c4")
TOOL = ("ispvm-sbom", "1")


def serial_number(product: str, version: str) -> str:
    """The serial number of a product's SBOM: derived from name and version only."""
    return uuid.uuid5(_NAMESPACE, f"{product}/{version}").urn


def bom_link(product: str, version: str, revision: int, ref: str) -> str:
    """How another document names a component of this SBOM."""
    serial = serial_number(product, version).removeprefix("urn:uuid:")
    return f"urn:cdx:{serial}/{revision}#{quote(ref, safe='')}"


def timestamp(epoch: int) -> str:
    """A point in time as RFC 3339, in UTC."""
    return datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _producer(producer: Producer) -> dict[str, Any]:
    found: dict[str, Any] = {"name": producer.name}
    if producer.email:
        found["contact"] = [{"name": producer.name, "email": producer.email}]
    else:
        found["url"] = [producer.url]
    return found


def _component(one: Component) -> dict[str, Any]:
    hashes = [
        entry
        for sums in one.digests
        for entry in ({"alg": "SHA-256", "content": sums.sha256}, {"alg": "SHA-512", "content": sums.sha512})
    ]
    references: list[dict[str, Any]] = [
        {"type": "distribution", "url": one.path or "/".join(one.filenames[:1]), "hashes": hashes},
        {"type": "source-distribution", "url": one.source},
    ]
    if one.website:
        references.append({"type": "website", "url": one.website})
    properties = [
        ("bsi:component:archive", "archive" if one.archive else "no archive"),
        ("bsi:component:effectiveLicence", one.licence),
        ("bsi:component:executable", "executable" if one.executable else "non-executable"),
        *(("bsi:component:filename", name) for name in one.filenames),
        ("bsi:component:structured", "structured" if one.structured else "unstructured"),
        *([("ispvm:architecture", one.architecture)] if one.architecture else []),
        *(("ispvm:installed-on", role) for role in sorted(one.roles)),
        *one.properties,
    ]
    described: dict[str, Any] = {
        "type": one.kind,
        "bom-ref": one.ref,
        "manufacturer": _producer(one.producer),
        "supplier": _producer(one.producer),
        "name": one.name,
        "version": one.version,
        "description": one.description,
        "scope": "required",
        "hashes": hashes,
        # one expression is all that 1.6 allows here: as declared; what we pass it on under is concluded, below
        "licenses": [{"expression": one.licence, "acknowledgement": "declared"}],
        "purl": one.purl,
        "externalReferences": references,
        "properties": [{"name": name, "value": value} for name, value in properties],
        "evidence": {"licenses": [{"expression": one.licence, "acknowledgement": "concluded"}]},
    }
    if not one.description:
        del described["description"]
    return described


def document(
    inventory: Inventory,
    main: Component,
    version: str,
    epoch: int,
    author: Producer,
    revision: int = 1,
    phase: str = "build",
) -> dict[str, Any]:
    """The SBOM of `main`: everything it needs, through every level. `revision` counts corrections of one release."""
    part = inventory.reach(main)
    listed = [one for one in part.all() if one.ref != main.ref]
    refs = {one.ref for one in part.all()}
    aggregates: dict[str, list[str]] = {}
    for one in part.all():
        aggregates.setdefault(one.complete, []).append(one.ref)
    top = _component(main)
    del top["scope"]
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": SPEC_VERSION,
        "serialNumber": serial_number(main.purl, version),
        "version": revision,
        "metadata": {
            "timestamp": timestamp(epoch),
            "lifecycles": [{"phase": phase}],
            "tools": {
                "components": [
                    {"type": "application", "name": TOOL[0], "version": TOOL[1], "manufacturer": _producer(author)}
                ]
            },
            "authors": [{"name": author.name, "email": author.email} if author.email else {"name": author.name}],
            "component": top,
            "manufacturer": _producer(author),
            "supplier": _producer(author),
            "licenses": [{"license": {"id": "Apache-2.0", "acknowledgement": "declared"}}],
        },
        "components": [_component(one) for one in listed],
        "dependencies": [{"ref": one.ref, "dependsOn": sorted(one.requires & refs)} for one in part.all()],
        "compositions": [
            {"aggregate": aggregate, "dependencies": sorted(aggregates[aggregate])} for aggregate in sorted(aggregates)
        ],
    }


def text(document: dict[str, Any]) -> str:
    """The file's content."""
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"
