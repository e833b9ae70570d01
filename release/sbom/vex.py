"""VEX: what we say about the vulnerabilities that were found, in files of their own, each statement with its evidence.

BSI forbids vulnerabilities in an SBOM: they change while the release does not.
"""

from __future__ import annotations

import datetime
import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from release.sbom.cyclonedx import bom_link, serial_number
from release.sbom.model import SbomError

# CycloneDX states, and what OpenVEX calls them
STATES = {
    "not_affected": "not_affected",
    "exploitable": "affected",
    "resolved": "fixed",
    "in_triage": "under_investigation",
}
# CycloneDX justifications that we use, and what OpenVEX calls them
JUSTIFICATIONS = {
    "code_not_present": "vulnerable_code_not_present",
    "code_not_reachable": "vulnerable_code_not_in_execute_path",
    "protected_by_mitigating_control": "inline_mitigations_already_exist",
    "requires_configuration": "vulnerable_code_cannot_be_controlled_by_adversary",
}


@dataclass(frozen=True)
class Statement:
    """One statement: a vulnerability in a package, our judgement, and what proves it."""

    id: str
    package: str  # purl without version
    state: str
    justification: str
    detail: str
    evidence: tuple[str, ...]  # files of this repository, with the test's name after `::`
    author: str
    date: datetime.date
    expires: datetime.date


def read(path: Path, root: Path) -> list[Statement]:
    """Every statement. Raises SbomError naming the statement and what it lacks; evidence must be there."""
    try:
        entries = tomllib.loads(path.read_text()).get("statement", [])
        statements = [Statement(**{**one, "evidence": tuple(one["evidence"])}) for one in entries]
    except (OSError, tomllib.TOMLDecodeError, TypeError, KeyError) as error:
        raise SbomError(f"{path.name}: {error}") from error
    for one in statements:
        where = f"{path.name}: {one.id} of {one.package}"
        if one.state not in STATES:
            raise SbomError(f"{where}: state must be one of {', '.join(STATES)}")
        if (one.justification in JUSTIFICATIONS) != (one.state == "not_affected"):
            raise SbomError(
                f"{where}: not_affected, and only that, needs a justification ({', '.join(JUSTIFICATIONS)})"
            )
        if not one.detail or not one.evidence:
            raise SbomError(f"{where}: a statement needs detail and evidence")
        for proof in one.evidence:
            file, _, name = proof.partition("::")
            if not (root / file).is_file() or (name and f"def {name}(" not in (root / file).read_text()):
                raise SbomError(f"{where}: evidence {proof} is not there")
    return statements


def matching(components: Iterable[dict[str, Any]], package: str) -> list[dict[str, Any]]:
    """The components of a CycloneDX document that this package names."""
    return [one for one in components if re.split(r"[@?#]", str(one.get("purl", "")))[0] == package]


def documents(path: Path, bom: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Both VEX files of a release: file name → document. Statements about what is not in the release are left out."""
    root = path.resolve().parent.parent
    statements = read(path, root)
    main = bom["metadata"]["component"]
    everything = [main, *bom["components"]]
    cyclonedx: list[dict[str, Any]] = []
    openvex: list[dict[str, Any]] = []
    for one in statements:
        affected = matching(everything, one.package)
        if not affected:
            continue
        links = [bom_link(main["purl"], main["version"], bom["version"], part["bom-ref"]) for part in affected]
        analysis: dict[str, Any] = {"state": one.state, "detail": f"{one.detail} Evidence: {', '.join(one.evidence)}."}
        if one.justification:
            analysis["justification"] = one.justification
        stated = f"{one.date.isoformat()}T00:00:00Z"
        cyclonedx.append(
            {
                "bom-ref": f"{one.id}/{one.package}",
                "id": one.id,
                "source": {"name": "SBOM/advisories of the release"},
                "analysis": {**analysis, "firstIssued": stated, "lastUpdated": stated},
                "credits": {"individuals": [{"name": one.author}]},
                "affects": [{"ref": link} for link in links],
                "properties": [{"name": "ispvm:evidence", "value": proof} for proof in one.evidence]
                + [{"name": "ispvm:expires", "value": one.expires.isoformat()}],
            }
        )
        statement: dict[str, Any] = {
            "vulnerability": {"name": one.id},
            "timestamp": stated,
            "status": STATES[one.state],
            "products": [
                {
                    "@id": main["purl"],
                    "identifiers": {"purl": main["purl"]},
                    "subcomponents": [{"@id": part["purl"]} for part in affected],
                }
            ],
        }
        if one.justification:
            statement |= {"justification": JUSTIFICATIONS[one.justification], "impact_statement": analysis["detail"]}
        else:
            statement["action_statement"] = analysis["detail"]
        openvex.append(statement)
    serial = serial_number(f"{main['purl']}/vex", main["version"])
    return {
        "vex.cdx.json": {
            "$schema": bom["$schema"],
            "bomFormat": "CycloneDX",
            "specVersion": bom["specVersion"],
            "serialNumber": serial,
            "version": bom["version"],
            "metadata": {
                "timestamp": bom["metadata"]["timestamp"],
                "authors": bom["metadata"]["authors"],
                "tools": bom["metadata"]["tools"],
                "component": {key: main[key] for key in ("type", "bom-ref", "name", "version", "purl")},
            },
            "vulnerabilities": cyclonedx,
        },
        "vex.openvex.json": {
            "@context": "https://openvex.dev/ns/v0.2.0",
            "@id": serial,
            "author": bom["metadata"]["manufacturer"]["name"],
            "timestamp": bom["metadata"]["timestamp"],
            "version": bom["version"],
            "statements": openvex,
        },
    }
