"""SBOM ⇔ bytes on a made-up host: a good one, and one planted fault at a time."""

from __future__ import annotations

import copy
import hashlib
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sbom_fixture import ROOT, make, wheel

from release.sbom import SbomError, bijection, debs, generate, host_files, model

Host = dict[str, Any]
VENV = "/opt/ispvm/releases/0.1.0/server"
SITE = f"{VENV}/lib/python3.13/site-packages"


def file(content: bytes, *, code: bool = True) -> dict[str, Any]:
    return {"sha256": hashlib.sha256(content).hexdigest(), "md5": hashlib.md5(content).hexdigest(), "code": code}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = make(tmp_path_factory.mktemp("release") / "ispvm-0.1.0")
    generate(made, ROOT)
    return made


@pytest.fixture(scope="module")
def host(tree: Path) -> Host:
    """A host as the roles leave it: packages, a venv, a helper of a role, and an editor that Debian brought."""
    files: dict[str, Any] = {}
    for path in sorted((tree / "wheelhouse" / "amd64").glob("*.whl")):
        with zipfile.ZipFile(path) as archive:
            for inside in archive.namelist():
                code = model.is_code(inside, 0, archive.read(inside)[:4])
                files[f"{SITE}/{inside}"] = file(archive.read(inside), code=code)
    names = {"venv": VENV, "module": "ispvm.cli", "top": "main", "function": "main"}
    script = bijection._SCRIPT.format(**names)
    files[f"{VENV}/bin/ispvm"] = {**file(script.encode()), "text": script}
    files["/usr/local/sbin/helper"] = file(b"#!/bin/sh\necho helped\n")
    files["/usr/bin/tool"] = file(b"\x7fELFtool")
    files["/usr/lib/libtool.so.1"] = file(b"\x7fELFlib")
    files["/var/lib/dpkg/info/tool.postinst"] = file(b"#!/bin/sh\n")
    files["/usr/bin/editor"] = file(b"\x7fELFeditor")
    files[f"{SITE}/__pycache__/extra.cpython-313.pyc"] = {**file(b"compiled"), "source": f"{SITE}/extra.py"}
    packages = [
        {"name": "tool", "version": "1:2.0-1+b1", "architecture": "amd64", "md5": "{}"},
        {"name": "libtool1", "version": "1.5-2", "architecture": "amd64", "md5": "{}"},
        {"name": "editor", "version": "1", "architecture": "amd64",
         "md5": json.dumps({"/usr/bin/editor": hashlib.md5(b"\x7fELFeditor").hexdigest()})},
    ]  # fmt: skip
    return {"components": ["appliance"], "architecture": "amd64", "files": files, "packages": packages}


def test_installed_host_and_sbom_are_one_to_one(tree: Path, host: Host) -> None:
    report = bijection.compare(tree, host)
    assert report.good, report.text()
    assert report.files == sum(entry["code"] for entry in host["files"].values())
    assert report.components > 10


def _set(path: str, content: bytes) -> Callable[[Host], None]:
    return lambda host: host["files"].__setitem__(path, file(content))


PLANTED: list[tuple[Callable[[Host], None], str]] = [
    (_set("/usr/local/bin/unknown", b"#!/bin/sh\nevil\n"), "/usr/local/bin/unknown"),
    (_set("/usr/bin/tool", b"\x7fELFother"), "/usr/bin/tool"),
    (_set("/usr/bin/editor", b"\x7fELFother"), "/usr/bin/editor"),
    (_set(f"{SITE}/extra.py", b"import os\n"), f"{SITE}/extra.py"),
    (_set(f"{SITE}/added.py", b""), f"{SITE}/added.py"),
    (_set(f"{SITE}/evil.pth", b"import evil\n"), f"{SITE}/evil.pth"),
    (_set("/var/lib/dpkg/info/tool.prerm", b"#!/bin/sh\nmore\n"), "tool.prerm"),
    (lambda host: host["files"][f"{VENV}/bin/ispvm"].update(text="#!/bin/sh\n"), f"{VENV}/bin/ispvm"),
    (
        lambda host: host["files"][f"{SITE}/__pycache__/extra.cpython-313.pyc"].update(source=""),
        "extra.cpython-313.pyc",
    ),
    # what another component's file is called explains nothing
    (_set(f"{VENV.replace('server', 'agent')}/lib/python3.13/site-packages/extra.py", b"x"), "agent/lib"),
]


@pytest.mark.parametrize("number", range(len(PLANTED)))
def test_planted_file_is_unexplained(tree: Path, host: Host, number: int) -> None:
    plant, where = PLANTED[number]
    spoiled = copy.deepcopy(host)
    plant(spoiled)
    report = bijection.compare(tree, spoiled)
    assert not report.good
    assert any(where in one for one in report.unexplained), report.text()


def _without(start: str) -> Callable[[Host], None]:
    def take(host: Host) -> None:
        host["files"] = {path: entry for path, entry in host["files"].items() if not path.startswith(start)}

    return take


@pytest.mark.parametrize(
    ("take", "phantom"),
    [
        (lambda host: host["packages"].pop(1), "pkg:deb/debian/libtool1"),
        (_without(f"{SITE}/native"), "pkg:cargo/crate"),
        (_without(f"{SITE}/native"), "pkg:pypi/native"),
        (_without(f"{SITE}/ispvm/web/static/vendor"), "pkg:npm/htmx.org"),
    ],
)
def test_component_without_a_file_is_a_phantom(
    tree: Path, host: Host, take: Callable[[Host], object], phantom: str
) -> None:
    spoiled = copy.deepcopy(host)
    take(spoiled)
    report = bijection.compare(tree, spoiled)
    assert not report.good
    assert any(one.startswith(phantom) for one in report.phantoms), report.text()


def test_package_that_the_inventory_leaves_out_is_no_phantom_nor_is_what_only_it_needs(tree: Path, host: Host) -> None:
    smaller = copy.deepcopy(host)
    gone = {"tool", "libtool1"}
    smaller["packages"] = [one for one in smaller["packages"] if one["name"] not in gone]
    smaller["files"].pop("/usr/bin/tool")
    found = bijection.compare(tree, smaller).phantoms
    assert {one.partition("@")[0] for one in found} == {f"pkg:deb/debian/{name}" for name in gone}
    assert bijection.compare(tree, smaller, ["tool"]).phantoms == []


def test_release_before_is_explained_by_its_own_sbom_alone(tree: Path, host: Host, tmp_path: Path) -> None:
    before = make(tmp_path / "ispvm-0.0.9")
    path = before / "release.json"
    path.write_text(path.read_text().replace("0.1.0", "0.0.9"))
    about = "License-Expression: MIT\nAuthor-email: E <e@example.org>\n"
    wheel(before / "wheelhouse" / "amd64", "extra", "1.0", {"extra.py": b"old = 1\n"}, about)
    generate(before, ROOT)
    both = copy.deepcopy(host)
    old = SITE.replace("0.1.0", "0.0.9")
    both["files"][f"{old}/extra.py"] = file(b"old = 1\n")
    assert bijection.compare(tree, both).unexplained == [f"{old}/extra.py"]
    assert bijection.compare(tree, both, before=before).good
    both["files"][f"{SITE}/extra.py"], both["files"][f"{old}/extra.py"] = file(b"old = 1\n"), file(b"")
    assert {f"{old}/extra.py", f"{SITE}/extra.py"} <= set(bijection.compare(tree, both, before=before).unexplained)
    both["files"] = {path.replace("0.1.0", "0.0.9"): entry for path, entry in host["files"].items()}
    assert "pkg:pypi/extra@1.0" in bijection.compare(tree, both, before=before).phantoms


def test_phantom_in_the_sbom_is_reported(tmp_path: Path, host: Host) -> None:
    tree = make(tmp_path / "ispvm-0.1.0")
    generate(tree, ROOT)
    path = tree / "sbom" / "ispvm.cdx.json"
    bom = json.loads(path.read_text())
    invented = copy.deepcopy(next(one for one in bom["components"] if one["purl"] == "pkg:pypi/extra@1.0"))
    invented |= {"bom-ref": "pkg:pypi/invented@1", "purl": "pkg:pypi/invented@1", "hashes": []}
    bom["components"].append(invented)
    path.write_text(json.dumps(bom))
    assert bijection.compare(tree, host).phantoms == ["pkg:pypi/invented@1"]


def test_release_whose_sbom_lists_other_bytes_is_refused(tmp_path: Path, host: Host) -> None:
    tree = make(tmp_path / "ispvm-0.1.0")
    generate(tree, ROOT)
    path = next((tree / "apt" / "pool").rglob("tool_*.deb"))
    path.write_bytes(path.read_bytes() + b"\n")
    with pytest.raises(SbomError, match="does not list these bytes"):
        bijection.compare(tree, host)


def test_nothing_compared_is_no_bijection() -> None:
    assert not bijection.Report().good


def test_both_sides_agree_on_what_is_code() -> None:
    assert host_files.SUFFIXES == model.CODE_SUFFIXES
    for name, mode, head in (("a.so.1.2", 0, b""), ("a.txt", 0o755, b""), ("a", 0o644, b"#!"), ("a.so.conf", 0, b"x")):
        assert host_files.is_code(name, mode, head) == model.is_code(name, mode, head)
    assert debs.DISTRO == "debian-13"


@pytest.mark.parametrize(("kept", "explained"), [("x = 1\n", True), ("x = 2\n", False)])
def test_compiled_file_counts_only_when_its_source_gives_it(tmp_path: Path, kept: str, explained: bool) -> None:
    import py_compile

    source = tmp_path / "module.py"
    source.write_text("x = 1\n")
    compiled = py_compile.compile(str(source))
    assert compiled is not None
    source.write_text(kept)
    assert (host_files.compiled_from(compiled) == str(source)) is explained
