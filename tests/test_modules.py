"""Our Ansible modules, the parts that need no host."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
from pathlib import Path
from typing import Any

MODULES = Path(__file__).resolve().parent.parent / "plugins" / "modules"
STATUS = """Package: a
Status: install ok installed
Version: 1.0-1
Description: words
 Status: deinstall ok config-files

Package: b
Status: hold ok installed
Version: 2:3

Package: gone
Status: deinstall ok config-files
Version: 1

Package: half
Status: install ok half-configured
Version: 1
"""


def test_only_wholly_installed_packages_count_and_a_hold_is_seen() -> None:
    spec = importlib.util.spec_from_file_location("installed_packages", MODULES / "installed_packages.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.installed(STATUS) == {"a": {"version": "1.0-1", "held": False}, "b": {"version": "2:3", "held": True}}


def config_files(files: list[dict[str, Any]], *options: str) -> dict[str, Any]:
    """Run the module on this machine; what it answered."""
    me = str(os.getuid())
    arguments = json.dumps({"files": [{"owner": me, "group": str(os.getgid()), **file} for file in files]})
    command = [
        "ansible",
        "localhost",
        "--inventory=localhost,",
        "--connection=local",
        "--module-name=config_files",
        f"--args={arguments}",
        *options,
    ]
    environment = {
        **os.environ,
        "ANSIBLE_LOAD_CALLBACK_PLUGINS": "1",
        "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.oneline",
    }
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=MODULES.parents[1])
    answer: dict[str, Any] = json.loads(done.stdout[done.stdout.index("{") :])
    return answer


def test_no_file_is_written_when_one_is_refused(tmp_path: Path) -> None:
    good = {"dest": str(tmp_path / "a.conf"), "content": "a"}
    bad = {"dest": str(tmp_path / "b.conf"), "content": "b", "validate": "grep -q wanted %s"}
    answer = config_files([good, bad])
    assert "b.conf was refused by" in answer["msg"]
    assert list(tmp_path.iterdir()) == []


def test_a_second_run_and_check_mode_change_nothing(tmp_path: Path) -> None:
    files = [
        {"dest": str(tmp_path / "d"), "state": "directory", "mode": "0700"},
        {"dest": str(tmp_path / "d" / "a.conf"), "content": "a", "mode": "0600", "validate": "grep -q a %s"},
        {"dest": str(tmp_path / "l"), "state": "link", "src": "d/a.conf"},
    ]
    assert config_files(files, "--check")["changed"] is True
    assert list(tmp_path.iterdir()) == []
    assert config_files(files)["changed"] is True
    assert (tmp_path / "l").read_text() == "a"
    assert (tmp_path / "d" / "a.conf").stat().st_mode & 0o777 == 0o600
    assert config_files(files)["changed"] is False
