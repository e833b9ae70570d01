"""Whether an SBOM says what CISA (2026) and BSI (TR-03183-2 v2.1.0) require, field by field, over every component.

Written against the two documents, not against what our generator does: it reads any CycloneDX 1.6 file. A field passes
only at 100 %.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from packageurl import PackageURL

from release.sbom.licences import is_expression

Bom = dict[str, Any]
Part = dict[str, Any]

_MAIL = re.compile(r"^[^@\s]+@[^@\s]+\.[^@\s]+$")
_URL = re.compile(r"^https?://[^\s/]+\.[^\s]+$")
_TIME = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$")
_SERIAL = re.compile(r"^urn:uuid:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")
_PHASES = {"design", "pre-build", "build", "post-build", "operations", "discovery", "decommission"}
_LENGTHS = {"SHA-256": 64, "SHA-384": 96, "SHA-512": 128, "SHA3-256": 64, "SHA3-512": 128}
_BSI = {
    "bsi:component:executable": {"executable", "non-executable"},
    "bsi:component:archive": {"archive", "no archive"},
    "bsi:component:structured": {"structured", "unstructured"},
}


@dataclass
class Result:
    """One field: of how many it was asked, and who lacks it."""

    standard: str
    name: str
    asked: int
    lacking: list[str] = field(default_factory=list)

    @property
    def percent(self) -> float:
        """How many have it. Nobody asked means nothing was shown, which is no pass."""
        return 100.0 * (self.asked - len(self.lacking)) / self.asked if self.asked else 0.0

    @property
    def passed(self) -> bool:
        """Whether every one has it, and there was one."""
        return self.asked > 0 and not self.lacking


def parts(bom: Bom) -> list[Part]:
    """The main component and all others, nested ones too."""
    found: list[Part] = []
    queue = [bom.get("metadata", {}).get("component") or {}, *bom.get("components", [])]
    while queue:
        one = queue.pop(0)
        found.append(one)
        queue += one.get("components", [])
    return found


def name_of(part: Part) -> str:
    """How a report calls a component."""
    return str(part.get("bom-ref") or part.get("purl") or part.get("name") or "a component without a name")


def _text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _contact(entity: object) -> bool:
    """Whether an organisation has an e-mail address or a URL, as BSI wants; a name alone is none."""
    if not isinstance(entity, dict):
        return False
    mails = [str(one.get("email", "")) for one in entity.get("contact", [])]
    return any(_MAIL.match(one) for one in mails) or any(_URL.match(str(one)) for one in entity.get("url", []))


def _hashes(entries: Iterable[Part], *algorithms: str) -> bool:
    """Whether there is a well-formed sum of each of these algorithms, or of any when none is named."""
    good = {
        one.get("alg")
        for one in entries
        if re.fullmatch(rf"[0-9a-f]{{{_LENGTHS.get(str(one.get('alg')), 0)}}}", str(one.get("content", "")))
        and one.get("alg") in _LENGTHS
    }
    return good >= set(algorithms) if algorithms else bool(good)


def _licences(part: Part, acknowledgement: str) -> list[str]:
    """The licences of a component with this acknowledgement. CycloneDX 1.6 allows one expression in `licenses`, so the
    second kind of statement stands in `evidence.licenses`; both places are read for both."""
    found = []
    for entry in [*part.get("licenses", []), *part.get("evidence", {}).get("licenses", [])]:
        inner = entry.get("license", entry)
        if inner.get("acknowledgement") == acknowledgement:
            found.append(str(inner.get("expression") or inner.get("id") or ""))
    return found


def _licensed(part: Part, acknowledgement: str) -> bool:
    found = _licences(part, acknowledgement)
    return bool(found) and all(is_expression(one) for one in found)


def _properties(part: Part, name: str) -> list[str]:
    return [str(one.get("value", "")) for one in part.get("properties", []) if one.get("name") == name]


def _references(part: Part, kind: str) -> list[Part]:
    return [one for one in part.get("externalReferences", []) if one.get("type") == kind and _text(one.get("url"))]


def _purl(part: Part) -> bool:
    if not _text(part.get("purl")):
        return (
            _text(part.get("cpe")) or bool(part.get("swid")) or bool(part.get("swhid")) or bool(part.get("omniborId"))
        )
    try:
        PackageURL.from_string(part["purl"])
    except ValueError:
        return False
    return True


def _signed(bom: Bom) -> bool:
    signature = bom.get("signature")
    return (
        isinstance(signature, dict)
        and _text(signature.get("algorithm"))
        and _text(signature.get("value"))
        and (bool(signature.get("publicKey")) or bool(signature.get("certificatePath")))
    )


def _tools(bom: Bom) -> list[Part]:
    tools = bom.get("metadata", {}).get("tools", {})
    return list(tools.get("components", [])) if isinstance(tools, dict) else list(tools)


def _edges(bom: Bom) -> dict[str, list[str]]:
    return {str(one.get("ref")): list(one.get("dependsOn", [])) for one in bom.get("dependencies", [])}


def _stated(bom: Bom) -> set[str]:
    """The refs whose completeness a composition states."""
    return {
        str(ref)
        for one in bom.get("compositions", [])
        if one.get("aggregate") and one["aggregate"] != "not_specified"
        for ref in (*one.get("dependencies", []), *one.get("assemblies", []))
    }


def _of_document(standard: str, bom: Bom, checks: dict[str, Callable[[Bom], bool]]) -> list[Result]:
    return [Result(standard, name, 1, [] if test(bom) else ["the document"]) for name, test in checks.items()]


def _of_parts(standard: str, everything: list[Part], checks: dict[str, Callable[[Part], bool]]) -> list[Result]:
    return [
        Result(standard, name, len(everything), [name_of(part) for part in everything if not test(part)])
        for name, test in checks.items()
    ]


def cisa(bom: Bom) -> list[Result]:
    """The 17 data fields of CISA's 2026 minimum elements."""
    about = bom.get("metadata", {})
    edges, everything = _edges(bom), parts(bom)
    main = about.get("component", {}).get("bom-ref")
    return [
        *_of_document(
            "CISA 2026",
            bom,
            {
                "SBOM author": lambda bom: any(_text(one.get("name")) for one in about.get("authors", [])),
                "SBOM author signature": _signed,
                "data format name": lambda bom: bom.get("bomFormat") == "CycloneDX",
                "data format version": lambda bom: bool(re.fullmatch(r"1\.[4-9]", str(bom.get("specVersion", "")))),
                "generation context": lambda bom: any(
                    one.get("phase") in _PHASES for one in about.get("lifecycles", [])
                ),
                "timestamp": lambda bom: bool(_TIME.match(str(about.get("timestamp", "")))),
                "tool name": lambda bom: bool(_tools(bom)) and all(_text(one.get("name")) for one in _tools(bom)),
                "tool version": lambda bom: bool(_tools(bom)) and all(_text(one.get("version")) for one in _tools(bom)),
                "SBOM version": lambda bom: (
                    bool(_SERIAL.match(str(bom.get("serialNumber", "")))) and bom.get("version", 0) >= 1
                ),
            },
        ),
        *_of_parts(
            "CISA 2026",
            everything,
            {
                "component producer": lambda part: (
                    _text(part.get("manufacturer", {}).get("name"))
                    or any(_text(one.get("name")) for one in part.get("authors", []))
                ),
                "dependency relationship": lambda part: (
                    part.get("bom-ref") in edges and (part.get("bom-ref") != main or bool(edges[main]))
                ),
                "component hash value": lambda part: _hashes(part.get("hashes", [])),
                "component hash algorithm": lambda part: (
                    bool(part.get("hashes")) and all(one.get("alg") in _LENGTHS for one in part["hashes"])
                ),
                "component identifier": _purl,
                "component licence": lambda part: _licensed(part, "declared"),
                "component name": lambda part: _text(part.get("name")),
                "component version": lambda part: _text(part.get("version")),
            },
        ),
    ]


def bsi(bom: Bom) -> list[Result]:
    """The required fields of BSI TR-03183-2 v2.1.0, then the additional ones, which must be given where they exist."""
    about = bom.get("metadata", {})
    edges, stated, everything = _edges(bom), _stated(bom), parts(bom)
    known = {part.get("bom-ref") for part in everything}

    def one_of(name: str) -> Callable[[Part], bool]:
        return lambda part: len(found := _properties(part, name)) == 1 and found[0] in _BSI[name]

    return [
        *_of_document(
            "BSI 2.1",
            bom,
            {
                "format: CycloneDX 1.6 or later": lambda bom: bool(
                    re.fullmatch(r"1\.[6-9]", str(bom.get("specVersion", "")))
                ),
                "no vulnerabilities inside": lambda bom: "vulnerabilities" not in bom,
                "SBOM creator: address or URL": lambda bom: _contact(about.get("manufacturer")),
                "timestamp": lambda bom: bool(_TIME.match(str(about.get("timestamp", "")))),
                "SBOM-URI": lambda bom: bool(_SERIAL.match(str(bom.get("serialNumber", "")))),
            },
        ),
        *_of_parts(
            "BSI 2.1",
            everything,
            {
                "component creator: address or URL": lambda part: _contact(part.get("manufacturer")),
                "component name": lambda part: _text(part.get("name")),
                "component version": lambda part: _text(part.get("version")),
                "filename": lambda part: (
                    bool(found := _properties(part, "bsi:component:filename"))
                    and all(one and "/" not in one for one in found)
                ),
                "dependencies": lambda part: part.get("bom-ref") in edges and set(edges[part["bom-ref"]]) <= known,
                "completeness of dependencies": lambda part: part.get("bom-ref") in stated,
                "distribution licences": lambda part: _licensed(part, "concluded"),
                "SHA-512 of the deployable form": lambda part: any(
                    _hashes(one.get("hashes", []), "SHA-512") for one in _references(part, "distribution")
                ),
                "executable property": one_of("bsi:component:executable"),
                "archive property": one_of("bsi:component:archive"),
                "structured property": one_of("bsi:component:structured"),
                "source code URI": lambda part: bool(_references(part, "source-distribution")),
                "URI of the deployable form": lambda part: bool(_references(part, "distribution")),
                "other unique identifiers": _purl,
                "original licences": lambda part: _licensed(part, "declared"),
            },
        ),
    ]


def structure(bom: Bom) -> list[Result]:
    """What makes an SBOM usable and no standard asks for: one graph, unique names, and a system for its packages."""
    everything, edges = parts(bom), _edges(bom)
    refs = [name_of(part) for part in everything]
    reached: set[str] = set()
    queue = refs[:1]
    while queue:
        ref = queue.pop()
        if ref not in reached:
            reached.add(ref)
            queue += edges.get(ref, [])
    packages = [part for part in everything if str(part.get("purl", "")).startswith("pkg:deb/")]
    system = any(part.get("type") == "operating-system" for part in everything)
    distro = [
        Result(
            "structure",
            "distribution of a .deb",
            len(packages),
            [name_of(part) for part in packages if "distro=" not in part["purl"] or not system],
        )
    ]
    return [
        Result("structure", "unique bom-ref", len(refs), sorted({ref for ref in refs if refs.count(ref) > 1})),
        Result(
            "structure", "reachable from the main component", len(refs), [ref for ref in refs if ref not in reached]
        ),
        Result(
            "structure",
            "no dangling dependency",
            max(1, len(edges)),
            sorted({one for ref, needs in edges.items() for one in (ref, *needs)} - set(refs)),
        ),
        *(distro if packages else []),
    ]


def run(bom: Bom) -> list[Result]:
    """Every check."""
    return [*cisa(bom), *bsi(bom), *structure(bom)]


def table(results: list[Result]) -> str:
    """The report: a line per field, the first few who lack it, and a sum per standard."""
    lines = [f"{'standard':<10} {'field':<38} {'asked':>6} {'have it':>8}"]
    for one in results:
        share = f"{int(one.percent * 10) / 10:.1f} %"
        lines.append(f"{one.standard:<10} {one.name:<38} {one.asked:>6} {share:>8}{'' if one.passed else '  MISSING'}")
        lines += [f"{'':<10}   - {name}" for name in one.lacking[:3] if name != "the document"]
    for standard in dict.fromkeys(one.standard for one in results):
        of = [one for one in results if one.standard == standard]
        lines.append(f"{standard}: {sum(one.passed for one in of)} of {len(of)} fields")
    return "\n".join(lines)
