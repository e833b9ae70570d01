"""The vulnerability gate: every component of an SBOM against the advisory snapshot in SBOM/advisories/, offline.

It fails on a finding without a VEX statement, on a statement that has expired or is about nothing, on a snapshot that
is too old, and on itself: in every run, known-vulnerable canaries in each ecosystem must be found.
"""

from __future__ import annotations

import datetime
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from release.gates import GateError
from release.gates.versions import affected, compare_debian
from release.sbom import vex

STALE_DAYS = 30  # the release stops; `python -m release.gates refresh` makes the Debian part anew
_ECOSYSTEMS = {"pypi": "PyPI", "npm": "npm", "cargo": "crates.io", "deb": "Debian:13"}
# Old versions with a well-known hole, one in each ecosystem: never shipped, always looked for.
CANARIES = (
    ("pkg:pypi/jinja2@2.4.1", "CVE-2014-1402"),
    ("pkg:deb/debian/openssl@3.0.11-1~deb12u1?arch=amd64&distro=debian-13", "DEBIAN-13-SECURITY"),
    ("pkg:npm/uplot@1.6.30", "CVE-2024-21489"),
)


@dataclass(frozen=True)
class Finding:
    """An advisory that covers a component."""

    id: str
    purl: str

    @property
    def package(self) -> str:
        """The purl without version, as VEX statements name it."""
        return re.split(r"[@?#]", self.purl)[0]


@dataclass
class Report:
    """What the gate found. `errors` make it fail."""

    components: int
    advisories: int
    taken: datetime.date
    findings: list[Finding] = field(default_factory=list)
    explained: list[Finding] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def text(self) -> str:
        """The report in lines."""
        lines = [
            f"vulnerabilities: {self.components} components, {self.advisories} advisories of {self.taken}, "
            f"{len(CANARIES)} canaries found, {len(self.findings)} findings, {len(self.explained)} with a statement"
        ]
        return "\n".join([*lines, *(f"  explained {one.id}  {one.purl}" for one in self.explained), *self.errors])


def load(folder: Path) -> tuple[list[dict[str, Any]], datetime.date]:
    """Every advisory of the snapshot, and the day of its oldest part. Raises GateError naming the file."""
    advisories, days = [], []
    for path in sorted(folder.glob("*.json")):
        try:
            data = json.loads(path.read_text())
            days.append(datetime.date.fromisoformat(data["taken"]))
            advisories += data["advisories"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise GateError(f"{path.name}: no advisory snapshot ({error})") from error
    if not advisories:
        raise GateError(f"{folder}: no advisories; a gate that knows none finds none")
    return advisories, min(days)


def split(purl: str) -> tuple[str, str, str]:
    """Ecosystem, name and version of a purl; what is in no ecosystem is compared by its purl without distribution."""
    kind, _, rest = purl.removeprefix("pkg:").partition("/")
    name, _, version = re.split(r"[?#]", rest)[0].partition("@")
    if kind in _ECOSYSTEMS:
        return _ECOSYSTEMS[kind], unquote(name.removeprefix("debian/")), unquote(version)
    return "upstream", f"{kind}/{name.rsplit('/', 1)[-1]}", unquote(version)


class Index:
    """The snapshot by ecosystem and name."""

    def __init__(self, advisories: list[dict[str, Any]]) -> None:
        """Sort the advisories; one without id or package is an error."""
        self._entries: dict[tuple[str, str], list[tuple[str, dict[str, Any]]]] = {}
        for one in advisories:
            for entry in one.get("affected", []):
                package = entry["package"]
                self._entries.setdefault((package["ecosystem"], package["name"]), []).append((one["id"], entry))

    def find(self, purl: str) -> list[Finding]:
        """The advisories that cover a component; a Debian package is looked for by binary and by source name."""
        ecosystem, name, version = split(purl)
        return [
            Finding(identifier, purl)
            for identifier, entry in self._entries.get((ecosystem, name), [])
            if affected(ecosystem, version, entry)
        ]


def check(bom: dict[str, Any], snapshot: Path, statements: list[vex.Statement], today: datetime.date) -> Report:
    """Run the gate over a CycloneDX document. Raises GateError when the gate itself cannot be trusted."""
    advisories, taken = load(snapshot)
    index = Index(advisories)
    for purl, identifier in CANARIES:
        if identifier not in {one.id for one in index.find(purl)}:
            raise GateError(f"canary {purl} was not found ({identifier}): the gate is blind there")
    purls = sorted({str(one["purl"]) for one in bom.get("components", []) if one.get("purl")})
    if not purls:
        raise GateError("the SBOM has no component with a purl: nothing was checked")
    report = Report(len(purls), len(advisories), taken)
    age = (today - taken).days
    if age > STALE_DAYS or age < 0:
        report.errors.append(
            f"stale: the snapshot is {age} days old, {STALE_DAYS} are allowed; refresh SBOM/advisories"
        )
    report.findings = [one for purl in purls for one in index.find(purl)]
    keyed = {(one.id, one.package): one for one in statements}
    used = set()
    for finding in report.findings:
        key = (finding.id, finding.package)
        statement = keyed.get(key)
        used.add(key)
        if statement is None:
            report.errors.append(f"{finding.id}  {finding.purl}: no statement in SBOM/vex.toml")
        elif statement.expires < today:
            report.errors.append(f"{finding.id}  {finding.purl}: the statement expired on {statement.expires}")
        elif statement.state in ("exploitable", "in_triage"):
            report.errors.append(f"{finding.id}  {finding.purl}: {statement.state}; no release with that")
        else:
            report.explained.append(finding)
    report.errors += [
        f"{identifier} of {package}: a statement about nothing that was found; take it out"
        for identifier, package in sorted(keyed.keys() - used)
    ]
    return report


def debian_snapshot(packages: str, taken: datetime.date) -> dict[str, Any]:
    """A snapshot from the `Packages` file of Debian's security suite: what is older than its version lacks a fix.

    Kernels are left out: the appliance brings none.
    """
    newest: dict[str, str] = {}
    for paragraph in packages.split("\n\n"):
        fields = dict(re.findall(r"^(Package|Version|Source): (\S+)", paragraph, re.MULTILINE))
        if fields and not str(fields.get("Source", fields["Package"])).startswith("linux"):
            known = newest.get(fields["Package"])
            if known is None or compare_debian(known, fields["Version"]) < 0:
                newest[fields["Package"]] = fields["Version"]
    entries = [
        {
            "package": {"ecosystem": "Debian:13", "name": name},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": version}]}],
        }
        for name, version in sorted(newest.items())
    ]
    summary = "A package older than the one in Debian 13's security suite"
    return {
        "taken": taken.isoformat(),
        "source": "Packages of Debian 13's security suite, main, amd64",
        "advisories": [{"id": "DEBIAN-13-SECURITY", "summary": summary, "affected": entries}],
    }
