#!/usr/bin/env python3
"""Write each role's variable table into its README, from meta/argument_specs.yml; `--check` only compares."""

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


def rendered(role: Path) -> str:
    """The README as it should be."""
    text = (role / "README.md").read_text(encoding="utf-8")
    before, _, rest = text.partition(START)
    _, mark, after = rest.partition(END)
    if not mark:
        sys.exit(f"{role.name}/README.md: put {START} and {END} where the table of variables goes")
    return f"{before}{START}\n{table(role)}\n{END}{after}"


def main() -> int:
    """Write, or say which READMEs are out of date."""
    stale = []
    for role in sorted(path.parent.parent for path in ROLES.glob("*/meta/argument_specs.yml")):
        readme = role / "README.md"
        if not readme.exists():
            stale.append(readme)
            continue
        wanted = rendered(role)
        if readme.read_text(encoding="utf-8") == wanted:
            continue
        stale.append(readme)
        if "--check" not in sys.argv:
            readme.write_text(wanted, encoding="utf-8")
    for readme in stale:
        state = "missing" if not readme.exists() else "out of date" if "--check" in sys.argv else "written"
        print(f"{readme.relative_to(ROLES.parent)}: {state}")
    return int(bool(stale) and "--check" in sys.argv)


if __name__ == "__main__":
    sys.exit(main())
