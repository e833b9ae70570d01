"""The contract: what a faulty registry, batch or seed is told, and that ids are stable for ever."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest
from ispvm_contract import identity, ingest, registry, seed

ROOT = Path(__file__).resolve().parents[2]


def test_device_ids_never_change() -> None:
    assert identity.device_id("demo", "CORE-NTH-1") == UUID("d79ade34-0308-5eae-b6ff-71a87339cfd3")
    assert identity.device_id("demo", "A") != identity.device_id("other", "A")


def test_set_id_knows_where_a_key_ends() -> None:
    assert identity.set_id(["ab", "c"]) != identity.set_id(["a", "bc"])
    assert identity.set_id(["a", "b"]) != identity.set_id(["b", "a"])


def test_every_metric_of_the_registry_has_its_own_column() -> None:
    known = registry.registry()
    for entity_type in known.entity_types:
        columns = [metric.column for metric in known.of(entity_type)]
        assert len(columns) == len(set(columns)), entity_type


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ('name = "Interface.RX"', "lowercase"),
        ('name = "a.b"\ntype = "enum"', "lists its values"),
    ],
)
def test_a_faulty_entry_is_named(entry: str, said: str) -> None:
    defaults = {
        "name": '"a.b"', "entity_type": '"device"', "type": '"gauge"', "unit": '"1"', "description": '"d"',
        "expected_frequency": '"fast"', "sources": '["probe"]', "label": '"l"',
    }  # fmt: skip
    given = dict(line.split(" = ", 1) for line in entry.splitlines())
    text = "version = 1\nevent = []\n[[metric]]\n" + "\n".join(f"{k} = {v}" for k, v in (defaults | given).items())
    with pytest.raises(ValueError, match=said):
        registry.parse(text)


def minimal_seed(**changes: Any) -> bytes:
    bundle: dict[str, Any] = {
        "schema_version": 1, "name": "s", "tenant": {"key": "demo", "name": "Demo"},
        "sites": [{"key": "a", "name": "A", "latitude": 1, "longitude": 2}],
        "devices": [{
            "name": "R1", "role": "core", "site": "a", "model": "m", "routeros": "7.16", "address": "10.0.0.1",
            "loopback": "10.255.0.1", "interfaces": [{"key": "ether1", "capacity_bps": 1000}],
        }],
        "links": [], "dependencies": [],
    }  # fmt: skip
    return msgspec.json.encode(bundle | changes)


LINK_TO_NOWHERE = {
    "name": "l", "a": {"device": "R1", "interface": "ether9"}, "b": {"device": "R1", "interface": "ether1"},
    "capacity_bps": 1, "medium": "fiber",
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sites": []}, "devices\\[R1\\].site: 'a' is not one of the sites"),
        ({"links": [LINK_TO_NOWHERE]}, "links\\[l\\].a: no interface 'ether9'"),
        ({"dependencies": [{"child": "R1", "mode": "kofn", "members": ["R1"]}]}, "k: given with mode kofn"),
        ({"sites": [{"key": "a", "name": "A", "latitude": 91, "longitude": 2}]}, "latitude"),
        ({"pasword": "x"}, "pasword"),
        ({"devices": [{
            "name": "R1", "role": "core", "site": "a", "model": "m", "routeros": "7.16", "address": "10.0.0.1",
            "loopback": "10.255.0.1", "interfaces": [], "tags": ["two tags"],
        }]}, r"devices\[0\]\.tags"),
    ],
)  # fmt: skip
def test_a_faulty_seed_names_the_field(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    file = tmp_path / "s.json"
    file.write_bytes(minimal_seed(**changes))
    with pytest.raises(ValueError, match=said):
        seed.load(file)


def test_every_shipped_seed_is_sound() -> None:
    files = sorted((ROOT / "seeds").glob("*.json"))
    assert files
    for file in files:
        assert seed.load(file).devices


@pytest.mark.parametrize(("name", "sites", "routers"), [("demo_small", 3, 6), ("demo_mid", 10, 40), ("lab_eve", 1, 9)])
def test_a_shipped_bundle_has_all_that_a_demonstration_needs(name: str, sites: int, routers: int) -> None:
    bundle = seed.load(ROOT / "seeds" / f"{name}.json")
    assert (len(bundle.sites), len(bundle.devices)) == (sites, routers)
    assert len({(site.latitude, site.longitude) for site in bundle.sites}) == sites
    assert {device.role for device in bundle.devices} >= {"core", "edge", "agg", "access"}
    assert all(f"role:{device.role}" in device.tags for device in bundle.devices)
    assert any("uplink:true" in port.tags for device in bundle.devices for port in device.interfaces)
    linked = {end.device for link in bundle.links for end in (link.a, link.b)}
    assert linked == {device.name for device in bundle.devices}
    depending = {dependency.child for dependency in bundle.dependencies}
    assert depending >= {device.name for device in bundle.devices if device.role in ("agg", "access")}
    assert bundle.probe_targets
    assert bundle.alert_packs


def test_shipped_bundles_have_tenants_of_their_own() -> None:
    keys = [seed.load(file).tenant.key for file in sorted((ROOT / "seeds").glob("*.json"))]
    assert len(keys) == len(set(keys)) >= 3


def test_a_batch_of_another_version_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError, match="schema_version"):
        msgspec.json.decode(b'{"schema_version": 2}', type=ingest.Batch)


@pytest.mark.parametrize(
    ("room", "forbidden"),
    [
        ("contract", {"ispvm", "ispvm_agent", "ispvm_lab"}),
        ("app/ispvm", {"ispvm_agent", "ispvm_lab"}),
        ("agent/ispvm_agent", {"ispvm", "ispvm_lab"}),
        ("lab/ispvm_lab", {"ispvm", "ispvm_agent"}),
    ],
)
def test_rooms_share_nothing_but_the_contract(room: str, forbidden: set[str]) -> None:
    files = [file for file in (ROOT / room).rglob("*.py") if "tests" not in file.parts]
    assert files
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
                names.append(node.module)
            assert not {name.split(".")[0] for name in names} & forbidden, f"{file.name} imports {names}"


def test_the_release_has_one_version() -> None:
    version = (ROOT / "VERSION").read_text().strip()
    for package in ("contract/ispvm_contract", "app/ispvm", "agent/ispvm_agent", "lab/ispvm_lab"):
        assert f'__version__ = "{version}"' in (ROOT / package / "__init__.py").read_text(), package
