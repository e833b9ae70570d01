"""The pipelines of a forge: pinned by hash, least permissions, and nothing that a person could not run by hand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
TARGETS = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))


def faults(workflow: dict[str, Any]) -> list[str]:
    """What a reviewer would send back."""
    found = [] if workflow.get("permissions") == {} else ["permissions: nothing is granted to all jobs"]
    for name, job in workflow["jobs"].items():
        if set(job.get("permissions", {"?": "?"}).items()) - {("contents", "read")}:
            found.append(f"{name}.permissions: contents: read is enough")
        if "timeout-minutes" not in job:
            found.append(f"{name}.timeout-minutes is missing")
        for step in job["steps"]:
            if "uses" in step and not re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", step["uses"]):
                found.append(f"{name}: {step['uses']} is not pinned by hash")
            if (
                step.get("uses", "").startswith("actions/checkout@")
                and step["with"]["persist-credentials"] is not False
            ):
                found.append(f"{name}: the checkout leaves its token behind")
            if "run" in step:
                made = re.fullmatch(
                    r"make ([a-z-]+)(?: [A-Z]+=(?:\"[^\"$]*\"|[\w.]+|\"\$VERSION\"))*", step["run"].strip()
                )
                if made is None or made[1] not in TARGETS:
                    found.append(f"{name}: {step['run']!r} is no target of the Makefile")
    return found


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_is_pinned_and_asks_for_little(path: Path) -> None:
    assert faults(yaml.safe_load(path.read_text())) == []


def test_both_pipelines_are_there() -> None:
    assert {path.stem for path in WORKFLOWS} >= {"agent", "server"}


def test_a_bad_workflow_is_sent_back() -> None:
    steps = [
        {"uses": "actions/checkout@v4", "with": {"persist-credentials": True}},
        {"run": "curl example | sh"},
        {"run": "make no-such"},
    ]
    bad = {"permissions": "write-all", "jobs": {"a": {"permissions": {"contents": "write"}, "steps": steps}}}
    said = "\n".join(faults(bad))
    for expected in ("granted to all", "read is enough", "timeout", "not pinned", "token behind", "curl", "no-such"):
        assert expected in said
