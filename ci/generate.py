#!/usr/bin/env python3
"""Write what is generated from a source of truth, or with --check say what no longer agrees with its source."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import msgspec
import role_docs

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "contract"))

import compatibility  # noqa: E402
from ispvm_contract import ingest, registry, seed  # noqa: E402 - a checkout is not an installation


def schema(kind: type, title: str) -> str:
    """The JSON Schema (2020-12) of a wire type."""
    document = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": title,
        **msgspec.json.schema(kind),
    }
    return msgspec.json.format(msgspec.json.encode(document), indent=2).decode() + "\n"


def telemetry_page() -> str:
    """The reference page of the registry."""
    known = registry.registry()
    lines = [
        "# Telemetry reference",
        "",
        f"Registry version {known.version}, generated from `contract/ispvm_contract/registry.toml` by `make docs`.",
        "",
    ]
    for entity_type in known.entity_types:
        lines += [
            f"## {entity_type}",
            "",
            "| metric | type | unit | read | from | meaning |",
            "|---|---|---|---|---|---|",
        ]
        for metric in known.of(entity_type):
            meaning = metric.description
            if metric.values:
                meaning += " Codes: " + ", ".join(f"{code} {name}" for code, name in enumerate(metric.values)) + "."
            if metric.notes:
                meaning += f" {metric.notes}"
            cells = [f"`{metric.name}`", metric.type, metric.unit, metric.expected_frequency]
            lines.append(f"| {' | '.join([*cells, ', '.join(metric.sources), meaning])} |")
        lines.append("")
    lines += ["## Events", "", "| event | about | severity | meaning |", "|---|---|---|---|"]
    lines += [f"| `{e.name}` | {e.entity_type} | {e.severity} | {e.description} |" for e in known.events.values()]
    return "\n".join(lines) + "\n"


def generated() -> dict[Path, str]:
    """Every generated file with its text."""
    schemas = ROOT / "contract" / "schemas"
    return {
        schemas / "batch.v1.json": schema(ingest.Batch, "ISPVisualMonitor ingest v1 batch"),
        schemas / "heartbeat.v1.json": schema(ingest.Heartbeat, "ISPVisualMonitor ingest v1 heartbeat"),
        schemas / "seed.v1.json": schema(seed.Seed, "ISPVisualMonitor seed v1"),
        ROOT / "docs" / "reference" / "telemetry.md": telemetry_page(),
        **compatibility.files(),
        **role_docs.readmes(),
    }


def main() -> None:
    """Write, or check."""
    parser = argparse.ArgumentParser(prog="generate.py", description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; fail when a file differs from its source")
    check: bool = parser.parse_args().check
    stale = []
    for path, text in generated().items():
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale.append(str(path.relative_to(ROOT)))
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    if check and stale:
        sys.exit(f"out of date, run `make docs`: {', '.join(stale)}")


if __name__ == "__main__":
    main()
