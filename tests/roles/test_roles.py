"""What holds for every role."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent.parent
ROLES = sorted(path for path in (ROOT / "roles").iterdir() if path.is_dir())
by_name = pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8")) or {}


def specification(role: Path) -> dict[str, Any]:
    options: dict[str, Any] = load(role / "meta" / "argument_specs.yml")["argument_specs"]["main"].get("options", {})
    return options


@by_name
def test_specification_and_defaults_name_the_same_variables(role: Path) -> None:
    required = {name for name, option in specification(role).items() if option.get("required")}
    assert set(load(role / "defaults" / "main.yml")) == set(specification(role)) - required


@by_name
def test_defaults_are_what_the_specification_says(role: Path) -> None:
    defaults = load(role / "defaults" / "main.yml")
    for name, option in specification(role).items():
        if "default" in option and not (isinstance(defaults[name], str) and "{{" in defaults[name]):
            assert defaults[name] == option["default"], name


@by_name
def test_variables_carry_the_name_of_their_role(role: Path) -> None:
    strangers = [name for name in specification(role) if not name.startswith(f"{role.name}_")]
    private = [name for name in load(role / "vars" / "main.yml") if not name.startswith(f"_{role.name}_")] \
        if (role / "vars" / "main.yml").exists() else []  # fmt: skip
    assert strangers == []
    assert private == []


@by_name
def test_every_variable_is_described(role: Path) -> None:
    assert [name for name, option in specification(role).items() if not option.get("description")] == []


@by_name
def test_tasks_stay_short_and_main_is_a_table_of_contents(role: Path) -> None:
    long = {f.name: n for f in (role / "tasks").glob("*.yml") if (n := len(f.read_text().splitlines())) > 60}
    assert long == {}
    if (main := role / "tasks" / "main.yml").exists():
        wordings = {key for task in load(main) for key in task if key.startswith("ansible.builtin.")}
        assert wordings <= {"ansible.builtin.import_tasks", "ansible.builtin.include_tasks"}


def test_readmes_show_the_variables_as_specified() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "ci" / "generate.py", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
