"""The same SBOM as SPDX 2.3 JSON, for tools that read only that. CycloneDX is the one to trust: it says more."""

from __future__ import annotations

import hashlib
import re
from typing import Any

_WHERE = (
    "The text is /usr/share/doc/PACKAGE/copyright of the Debian source package, or the licence file of the Python "
    "package, that this identifier names."
)


def _identifier(ref: str) -> str:
    """A stable SPDX identifier of a bom-ref."""
    return f"SPDXRef-{hashlib.sha256(ref.encode()).hexdigest()[:16]}"


def _agent(one: dict[str, Any]) -> str:
    contact = (one.get("contact") or [{}])[0].get("email", "") or (one.get("url") or [""])[0]
    return f"Organization: {one['name']} ({contact})"


def _package(one: dict[str, Any]) -> dict[str, Any]:
    licence = one["licenses"][0]["expression"]
    sums = {(entry["alg"].replace("-", ""), entry["content"]) for entry in one["hashes"][:2]}
    return {
        "SPDXID": _identifier(one["bom-ref"]),
        "name": one["name"],
        "versionInfo": one["version"],
        "packageFileName": next(p["value"] for p in one["properties"] if p["name"] == "bsi:component:filename"),
        "supplier": _agent(one["supplier"]),
        "originator": _agent(one["manufacturer"]),
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": False,
        "licenseConcluded": licence,
        "licenseDeclared": licence,
        "copyrightText": "NOASSERTION",
        "primaryPackagePurpose": one["type"].upper().replace("OPERATING-", "OPERATING_"),
        "checksums": [{"algorithm": name, "checksumValue": value} for name, value in sorted(sums)],
        "externalRefs": [
            {"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": one["purl"]}
        ],
    }


def document(bom: dict[str, Any]) -> dict[str, Any]:
    """The twin of a CycloneDX document of ours."""
    main = bom["metadata"]["component"]
    everything = [main, *bom["components"]]
    packages = [_package(one) for one in everything]
    texts = " ".join(one["licenses"][0]["expression"] for one in everything)
    references = sorted(set(re.findall(r"LicenseRef-[A-Za-z0-9.-]+", texts)))
    author = bom["metadata"]["manufacturer"]
    tool = bom["metadata"]["tools"]["components"][0]
    relations = [
        {
            "spdxElementId": "SPDXRef-DOCUMENT",
            "relationshipType": "DESCRIBES",
            "relatedSpdxElement": _identifier(main["bom-ref"]),
        }
    ]
    relations += [
        {
            "spdxElementId": _identifier(edge["ref"]),
            "relationshipType": "DEPENDS_ON",
            "relatedSpdxElement": _identifier(other),
        }
        for edge in bom["dependencies"]
        for other in edge["dependsOn"]
    ]
    return {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": f"{main['name']}-{main['version']}",
        "documentNamespace": f"{bom['serialNumber']}/{bom['version']}",
        "creationInfo": {
            "created": bom["metadata"]["timestamp"],
            "comment": "Build",
            "creators": [f"Tool: {tool['name']}-{tool['version']}", _agent(author)],
        },
        "packages": packages,
        "relationships": relations,
        "hasExtractedLicensingInfos": [{"licenseId": one, "extractedText": _WHERE} for one in references],
    }
