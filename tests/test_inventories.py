"""The shipped inventories: every name in them is read by something, and the examples say what to edit."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent


def plugin(name: str) -> ModuleType:
    """A filter plugin as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "plugins" / "filter" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


preflight, seed = plugin("preflight"), plugin("seed")


def variables(inventory: str) -> dict[str, dict[str, Any]]:
    """Host → its variables, as Ansible reads the inventory."""
    command = ["ansible-inventory", "--inventory", str(ROOT / "inventories" / inventory), "--list"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    found: dict[str, dict[str, Any]] = json.loads(done.stdout)["_meta"]["hostvars"]
    return found


@pytest.mark.parametrize("inventory", ["production", "demo", "lab_eve"])
def test_every_variable_is_known(inventory: str) -> None:
    known = set(preflight.argument_names(str(ROOT)))
    hosts = variables(inventory)
    assert hosts
    for host, values in hosts.items():
        unknown = {name for name in values if name.startswith("ispvm_")} - known
        assert not unknown, f"{inventory}, {host}: {unknown}"
        assert not any("password" in name or "secret" in name for name in values), host


def test_the_wiring_sets_only_what_roles_take() -> None:
    known = set(preflight.argument_names(str(ROOT)))
    wiring = yaml.safe_load((ROOT / "group_vars/all/wiring.yml").read_text())
    assert {name for name in wiring if not name.startswith("_")} <= known


def unordered(text: str) -> list[str]:
    """Every use of a set filter whose result is neither sorted nor only counted: its order changes from run to run."""
    faults = []
    for found in re.finditer(r"\|\s*(union|intersect|difference|symmetric_difference)\(", text):
        depth, end = 1, found.end()
        while depth:
            depth += {"(": 1, ")": -1}.get(text[end], 0)
            end += 1
        rest = text[end:].partition("}}")[0]
        if not re.search(r"\|\s*(sort|length)\b", rest):
            faults.append(text[found.start() : end])
    return faults


def test_nothing_on_a_host_depends_on_the_order_of_a_set() -> None:
    """Ansible's set filters answer in the order of a hash that differs in every run: a second run changed the host."""
    known_bad = "{{ [a, b] | union(c | default([])) | unique }}"
    assert unordered(known_bad) == ["| union(c | default([]))"]
    assert unordered("{{ a | difference(b.keys()) | length > 0 }}") == []
    where = [ROOT / "group_vars", ROOT / "roles", ROOT / "playbooks", ROOT / "inventories", ROOT / "site.yml"]
    files = [path for top in where for path in ([top] if top.is_file() else top.rglob("*"))]
    read = [path for path in files if path.suffix in (".yml", ".j2") and path.is_file()]
    assert len(read) > 100
    assert [f"{path}: {fault}" for path in read for fault in unordered(path.read_text())] == []


def test_the_production_example_is_refused_until_it_was_edited() -> None:
    """Its placeholder fingerprints are not fingerprints: nobody installs the example by accident."""
    routers = variables("production")["monitor"]["ispvm_routers"]
    faults = preflight.router_faults(routers)
    assert len(faults) == len(routers)
    assert all("fingerprint_sha256" in fault for fault in faults)


@pytest.mark.parametrize(
    ("routers", "fault"),
    [
        ("R1", "must be a list"),
        (["R1"], "ispvm_routers[0] must be a mapping"),
        ([{"name": "R1", "site": "a"}], "ispvm_routers[0].address is missing."),
        ([{"name": "R1", "site": "a", "address": "192.0.2.1", "tls": "maybe"}], "maybe is not one of"),
        ([{"name": "R1", "site": "a", "address": "192.0.2.1", "password": "x"}], "credential set NAME"),
    ],
)
def test_a_faulty_router_is_named(routers: object, fault: str) -> None:
    assert any(fault in said for said in preflight.router_faults(routers))


def test_advice_names_the_new_or_the_closest_name() -> None:
    said = preflight.name_advice(["ispvm_old", "ispvm_sed", "zzz"], ["ispvm_seed"], {"ispvm_old": "ispvm_new"})
    assert said == [
        "ispvm_old is now called ispvm_new.",
        "Nothing reads ispvm_sed: did you mean ispvm_seed?",
        "Nothing reads zzz: remove it.",
    ]


@pytest.mark.parametrize("name", ["demo_small", "lab_eve"])
def test_the_routers_of_a_seed_are_sound(name: str) -> None:
    bundle = json.loads((ROOT / "seeds" / f"{name}.json").read_text())
    routers = seed.seed_routers(bundle)
    names = {router["name"] for router in routers}
    assert {probe["router"] for probe in seed.seed_probes(bundle)} <= names
    assert [probe["name"] for probe in seed.seed_probes(bundle)] == [one["name"] for one in bundle["probe_targets"]]
    assert preflight.router_faults(routers) == []
    assert len(routers) == len(bundle["devices"])
