"""Our Ansible modules, the parts that need no host."""

from __future__ import annotations

import importlib.util
from pathlib import Path

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
