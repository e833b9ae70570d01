"""The compatibility matrix in every form it is read in, from SBOM/compatibility.yml."""

from __future__ import annotations

import html
import sys
from datetime import date
from pathlib import Path

import msgspec
import yaml
from ispvm_contract.compatibility import Cell, Compatibility

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "SBOM" / "compatibility.yml"
NOTICE_DAYS = 180
_LEGEND = {
    "tested": "a test runs it and fails when the version it meets is another one",
    "emulated": "the agent runs against our emulator with that version's field set; no real router was seen",
    "untested": "expected to work, not seen",
    "refused": "the installer or the server says no",
}


def matrix() -> Compatibility:
    """The source, checked; exits with one line per fault."""
    try:
        found = msgspec.convert(yaml.safe_load(SOURCE.read_text(encoding="utf-8")), Compatibility)
    except (msgspec.ValidationError, yaml.YAMLError) as error:
        sys.exit(f"{SOURCE.name}: {error}")
    if faults := problems(found, (ROOT / "VERSION").read_text().strip()):
        sys.exit("\n".join(f"{SOURCE.name}: {fault}" for fault in faults))
    return found


def problems(found: Compatibility, version: str) -> list[str]:
    """What cannot stand in a matrix that is to be believed."""
    faults = []
    if not version.startswith(f"{found.server}."):
        faults.append(f"server: is {found.server}, the file VERSION says {version}")
    for at, cell in enumerate(found.cells):
        where = f"cells[{at}] ({cell.part} {cell.version})"
        if cell.state == "untested":
            if cell.evidence or cell.fact or not cell.note:
                faults.append(f"{where}: an untested cell has a note and no evidence")
        elif not cell.evidence or not (ROOT / cell.evidence).exists():
            faults.append(f"{where}.evidence: {cell.evidence or 'nothing'} is not in the repository")
        if cell.state == "tested" and cell.evidence.startswith("molecule/") and not cell.fact:
            faults.append(f"{where}.fact: say which version the test must meet on the host")
    for at, going in enumerate(found.deprecations):
        notice = (date.fromisoformat(going.removed_not_before) - date.fromisoformat(going.deprecated_on)).days
        if notice < NOTICE_DAYS:
            faults.append(f"deprecations[{at}].removed_not_before: {notice} days' notice, {NOTICE_DAYS} are promised")
    return faults


def as_json(found: Compatibility) -> str:
    """For programs."""
    return msgspec.json.format(msgspec.json.encode(found), indent=2).decode() + "\n"


def _range(found: Compatibility) -> str:
    return found.server if found.oldest_agent == found.server else f"{found.oldest_agent} to {found.server}"


def _rules(found: Compatibility) -> list[tuple[str, str]]:
    schemas = ", ".join(f"v{schema.version} ({schema.state})" for schema in found.ingest_schemas)
    return [
        ("Server", f"{found.server}"),
        ("Agents it takes", f"{_range(found)}; others are answered with HTTP 426"),
        ("Agents released before", ", ".join(found.agents.released) or "none: this is the first release"),
        ("Ingest contract", schemas),
        ("Upgrade in one step from", ", ".join(found.upgrade.sources)),
        ("Downgrade", "never by the installer; a release goes back with its own rollback"),
    ]


def _evidence(cell: Cell) -> str:
    return "; ".join(part for part in (cell.evidence, cell.note) if part)


def as_markdown(found: Compatibility) -> str:
    """For readers of the documentation."""
    lines = [
        "# Compatibility",
        "",
        "What works with what, generated from `SBOM/compatibility.yml` by `make docs`. A running server answers the"
        " same under `/api/v1/compatibility` and shows it under `/compatibility`.",
        "",
        "| rule | value |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in _rules(found)),
        "",
        "| part | version | state | shown by, or why not |",
        "|---|---|---|---|",
        *(f"| {cell.part} | {cell.version} | **{cell.state}** | {_evidence(cell)} |" for cell in found.cells),
        "",
        *(f"- **{state}**: {meaning}." for state, meaning in _LEGEND.items()),
        "",
        "## What will go",
        "",
    ]
    lines += [
        f"- {going.what}: deprecated on {going.deprecated_on}, removed not before {going.removed_not_before};"
        f" use {going.instead}."
        for going in found.deprecations
    ] or ["Nothing is deprecated."]
    return "\n".join(lines) + "\n"


def as_html(found: Compatibility) -> str:
    """For a browser without a server: one file, nothing loaded."""

    def row(*cells: str, tag: str = "td") -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    going = [row(one.what, one.deprecated_on, one.removed_not_before, one.instead) for one in found.deprecations] or [
        row("Nothing is deprecated.", "", "", "")
    ]
    parts = [
        "<!doctype html>",
        '<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>Compatibility of ISPVisualMonitor {found.server}</title>",
        "<style>body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;"
        "color-scheme:light dark}table{border-collapse:collapse;width:100%;margin:1rem 0}td,th{border-bottom:1px solid"
        " #8884;padding:.35rem .6rem;text-align:left;vertical-align:top;overflow-wrap:anywhere}</style>",
        f"<h1>Compatibility of ISPVisualMonitor {found.server}</h1>",
        "<table>",
        *(row(name, value) for name, value in _rules(found)),
        "</table><table>",
        row("part", "version", "state", "shown by, or why not", tag="th"),
        *(row(cell.part, cell.version, cell.state, _evidence(cell)) for cell in found.cells),
        "</table><dl>",
        *(f"<dt>{state}</dt><dd>{html.escape(meaning)}</dd>" for state, meaning in _LEGEND.items()),
        "</dl><h2>What will go</h2><table>",
        row("what", "deprecated on", "removed not before", "instead", tag="th"),
        *going,
        "</table></html>",
    ]
    return "\n".join(parts) + "\n"


def files() -> dict[Path, str]:
    """Every generated file with its text."""
    found = matrix()
    return {
        ROOT / "contract" / "ispvm_contract" / "compatibility.json": as_json(found),
        ROOT / "roles" / "ispvm" / "files" / "compatibility.json": as_json(found),
        ROOT / "docs" / "reference" / "compatibility.md": as_markdown(found),
        ROOT / "docs" / "reference" / "compatibility.html": as_html(found),
    }
