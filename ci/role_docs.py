"""Each role's variable table for its README, from meta/argument_specs.yml; written and checked by generate.py."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import yaml

ROLES = Path(__file__).resolve().parent.parent / "roles"
START, END = "<!-- variables -->", "<!-- /variables -->"


def cell(value: object) -> str:
    """Text that stays inside one cell of a Markdown table."""
    return str(value).replace("|", "\\|").replace("\n", " ").strip()


def kind(option: dict[str, Any]) -> str:
    """The type as people say it: `list of str`, `one of a, b`."""
    if option.get("choices"):
        return "one of " + ", ".join(f"`{choice}`" if choice != "" else '`""`' for choice in option["choices"])
    elements = option.get("elements")
    return f"list of {elements}" if elements else str(option.get("type", "str"))


def rows(options: dict[str, Any], prefix: str = "") -> list[str]:
    """One table row for each option, fields of a dictionary below it."""
    lines = []
    for name, option in options.items():
        default = "required" if option.get("required") else ""
        if "default" in option:
            default = f"`{json.dumps(option['default'], ensure_ascii=False)}`"
        described = option["description"]
        text = " ".join(described) if isinstance(described, list) else described
        lines.append(f"| `{prefix}{name}` | {cell(kind(option))} | {cell(default)} | {cell(text)} |")
        lines += rows(option.get("options", {}), f"{prefix}{name}.")
    return lines


def table(role: Path) -> str:
    """The whole table of a role's main entry point."""
    spec = yaml.safe_load((role / "meta" / "argument_specs.yml").read_text(encoding="utf-8"))
    options = spec["argument_specs"]["main"].get("options", {})
    return "\n".join(["| variable | type | default | meaning |", "|---|---|---|---|", *rows(options)])


def readmes() -> dict[Path, str]:
    """Every role's README as it should be."""
    return {role / "README.md": rendered(role) for role in sorted(ROLES.iterdir()) if (role / "meta").is_dir()}


def rendered(role: Path) -> str:
    """The README as it should be."""
    text = (role / "README.md").read_text(encoding="utf-8")
    before, _, rest = text.partition(START)
    _, mark, after = rest.partition(END)
    if not mark:
        sys.exit(f"{role.name}/README.md: put {START} and {END} where the table of variables goes")
    return f"{before}{START}\n{table(role)}\n{END}{after}"
