"""The SBOM of a small release: what is in it, that it is the same each time, and that its checks can fail."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from sbom_fixture import EPOCH, ROOT, deb, make, wheel

from release.sbom import SbomError, check, generate, licences, signature, vex

Bom = dict[str, Any]
HOUSE = "wheelhouse/amd64"


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = make(tmp_path_factory.mktemp("release") / "ispvm-0.1.0")
    generate(made, ROOT)
    return made


@pytest.fixture(scope="module")
def whole(tree: Path) -> Bom:
    return dict(json.loads((tree / "sbom" / "ispvm.cdx.json").read_text()))


def part(bom: Bom, start: str) -> Bom:
    return next(dict(one) for one in bom["components"] if one["purl"].startswith(start))


def needs(bom: Bom, ref: str) -> list[str]:
    return list(next(one["dependsOn"] for one in bom["dependencies"] if one["ref"] == ref))


def test_every_file_is_valid_cyclonedx(tree: Path) -> None:
    validator = JsonStrictValidator(SchemaVersion.V1_6)
    files = sorted((tree / "sbom").glob("*.cdx.json"))
    assert {path.name for path in files} == {
        "ispvm.cdx.json",
        "ispvm_server-0.1.0-py3-none-any.whl.cdx.json",
        "vex.cdx.json",
    }
    for path in files:
        assert validator.validate_str(path.read_text()) is None, path.name


def test_same_release_gives_same_bytes(tree: Path, tmp_path: Path) -> None:
    again = make(tmp_path / "elsewhere" / "ispvm-0.1.0")
    generate(again, ROOT)
    for path in sorted((tree / "sbom").iterdir()):
        assert (again / "sbom" / path.name).read_bytes() == path.read_bytes()


def test_graph_follows_extras_alternatives_and_embedded_sboms(whole: Bom) -> None:
    native = part(whole, "pkg:pypi/native")
    assert needs(whole, part(whole, "pkg:pypi/ispvm-server")["bom-ref"]) == [
        "pkg:npm/htmx.org@2.0.7",
        "pkg:npm/uplot@1.6.32",
        native["bom-ref"],
    ]
    assert needs(whole, native["bom-ref"]) == [
        "pkg:cargo/crate@1.2.3",
        "pkg:generic/openssl@3.0.1#libcrypto-0123abcd.so.3",
        "pkg:pypi/extra@1.0",
    ]
    tool = part(whole, "pkg:deb/debian/tool")
    assert (
        tool["purl"] == "pkg:deb/debian/tool@1%3A2.0-1%2Bb1?arch=amd64&distro=debian-13&upstream=tool-src%401%3A2.0-1"
    )
    assert needs(whole, tool["bom-ref"]) == [part(whole, "pkg:deb/debian/libtool1")["bom-ref"]]
    assert tool["bom-ref"] in needs(whole, "pkg:generic/ispvm-playbooks@0.1.0")  # a role names it
    assert needs(whole, whole["metadata"]["component"]["bom-ref"])


def test_says_what_it_does_not_know(whole: Bom) -> None:
    stated = {ref: one["aggregate"] for one in whole["compositions"] for ref in one["dependencies"]}
    assert stated[part(whole, "pkg:pypi/native")["bom-ref"]] == "incomplete"  # a library inside that no SBOM lists
    assert stated["pkg:generic/debian@13"] == "incomplete"
    assert part(whole, "pkg:deb/debian/libtool1")["licenses"][0]["expression"] == "LicenseRef-debian-libtool1"


def test_time_and_serial_come_from_the_release(whole: Bom) -> None:
    assert whole["metadata"]["timestamp"] == "2026-09-21T14:13:20Z"
    assert EPOCH == 1_790_000_000
    assert whole["serialNumber"] == "urn:uuid:" + whole["serialNumber"][9:]
    assert whole["serialNumber"][23] == "5"  # a version 5 UUID: derived from the name


def test_spdx_twin_has_the_same_packages_and_edges(tree: Path, whole: Bom) -> None:
    twin = json.loads((tree / "sbom" / "ispvm.spdx.json").read_text())
    purls = sorted(one["externalRefs"][0]["referenceLocator"] for one in twin["packages"])
    assert purls == sorted(one["purl"] for one in check.parts(whole))
    edges = sum(len(one["dependsOn"]) for one in whole["dependencies"])
    assert sum(one["relationshipType"] == "DEPENDS_ON" for one in twin["relationships"]) == edges


# ---- what cannot be described stops the generator ----


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lambda tree: wheel(tree / HOUSE, "no", "1", {"no.py": b""}, "License: MIT"), "pkg:pypi/no"),
        (lambda tree: wheel(tree / HOUSE, "bundled", "1", {"bundled.libs/libodd-0123abcd.so.1": b"\x7fELF"},
                            "Author-email: b@example.org"), "libodd.so"),
        (lambda tree: (tree / "apt/pool/broken_1_all.deb").write_bytes(b"no archive"), "broken_1_all.deb"),
        (lambda tree: (tree / "server/ispvm_server-0.1.0-py3-none-any.whl").write_bytes(b"other"), "not the wheel"),
        (lambda tree: (tree / "release.json").write_text('{"version": "1"}'), "commit"),
    ],
)  # fmt: skip
def test_what_nobody_can_describe_is_refused(tmp_path: Path, spoil: Callable[[Path], object], complaint: str) -> None:
    tree = make(tmp_path / "ispvm-0.1.0")
    spoil(tree)
    with pytest.raises(SbomError, match=complaint):
        generate(tree, ROOT)


# ---- signature ----


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa"])
def test_signed_copy_is_valid_and_every_change_shows(tree: Path, tmp_path: Path, kind: str) -> None:
    key = ed25519.Ed25519PrivateKey.generate() if kind == "ed25519" else ec.generate_private_key(ec.SECP256R1())
    other = ed25519.Ed25519PrivateKey.generate() if kind == "ed25519" else ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (tmp_path / "key.pem").write_bytes(pem)
    out = tmp_path / "signatures" / "ispvm.cdx.json"
    signature.sign(tree / "sbom" / "ispvm.cdx.json", tmp_path / "key.pem", out, "TEST-ONLY")
    signed = json.loads(out.read_text())
    signature.verify_document(signed, key.public_key())
    small = {**signed, "components": signed["components"][:1], "dependencies": [], "compositions": []}
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(small)) is None
    for result in check.cisa(signed):
        assert result.passed, result
    spoiled = [{**signed, "version": 2}, {key: value for key, value in signed.items() if key != "signature"}]
    for name, value in (("keyId", "other"), ("value", ""), ("algorithm", "ES512")):
        spoiled.append({**signed, "signature": {**signed["signature"], name: value}})
    for one in spoiled:
        with pytest.raises(SbomError, match="signature"):
            signature.verify_document(one, key.public_key())
    with pytest.raises(SbomError, match="signature"):
        signature.verify_document(signed, other.public_key())


# ---- the checker can fail: each field taken away once is reported, and nothing else ----


def _drop(*path: str) -> Callable[[Bom, Bom], None]:
    def take(bom: Bom, one: Bom) -> None:
        where = bom if path[0] == "bom" else one
        for name in path[1:-1]:
            where = where[name]
        del where[path[-1]]

    return take


def _property(name: str, value: str | None = None) -> Callable[[Bom, Bom], None]:
    def take(bom: Bom, one: Bom) -> None:
        kept = [entry for entry in one["properties"] if entry["name"] != name]
        one["properties"] = kept + ([{"name": name, "value": value}] if value is not None else [])

    return take


def _set(name: str, value: object) -> Callable[[Bom, Bom], None]:
    return lambda bom, one: one.__setitem__(name, value)


def _reference(kind: str) -> Callable[[Bom, Bom], None]:
    return lambda bom, one: one.__setitem__(
        "externalReferences", [entry for entry in one["externalReferences"] if entry["type"] != kind])  # fmt: skip


def _short_hash(bom: Bom, one: Bom) -> None:
    one["hashes"] = [{"alg": "SHA-256", "content": "abc"}]


def _no_sha512(bom: Bom, one: Bom) -> None:
    for entry in one["externalReferences"]:
        entry["hashes"] = [sums for sums in entry.get("hashes", []) if sums["alg"] != "SHA-512"]


def _no_edge(bom: Bom, one: Bom) -> None:
    bom["dependencies"] = [entry for entry in bom["dependencies"] if entry["ref"] != one["bom-ref"]]


def _no_statement(bom: Bom, one: Bom) -> None:
    for entry in bom["compositions"]:
        entry["dependencies"] = [ref for ref in entry["dependencies"] if ref != one["bom-ref"]]


def _unreachable(bom: Bom, one: Bom) -> None:
    for entry in bom["dependencies"]:
        entry["dependsOn"] = [ref for ref in entry["dependsOn"] if ref != one["bom-ref"]]


def _dangling(bom: Bom, one: Bom) -> None:
    bom["dependencies"].append({"ref": "pkg:generic/phantom@1", "dependsOn": []})


def _empty_root(bom: Bom, one: Bom) -> None:
    root = bom["metadata"]["component"]["bom-ref"]
    next(entry for entry in bom["dependencies"] if entry["ref"] == root)["dependsOn"] = []


SPOILED: list[tuple[Callable[[Bom, Bom], None], set[str]]] = [
    (_drop("bom", "metadata", "authors"), {"SBOM author"}),
    (_drop("bom", "signature"), {"SBOM author signature"}),
    (_drop("bom", "bomFormat"), {"data format name"}),
    (_drop("bom", "specVersion"), {"data format version", "format: CycloneDX 1.6 or later"}),
    (_drop("bom", "metadata", "lifecycles"), {"generation context"}),
    (_drop("bom", "metadata", "timestamp"), {"timestamp"}),
    (lambda bom, one: bom["metadata"]["tools"]["components"][0].pop("name"), {"tool name"}),
    (lambda bom, one: bom["metadata"]["tools"]["components"][0].pop("version"), {"tool version"}),
    (_drop("bom", "serialNumber"), {"SBOM version", "SBOM-URI"}),
    (_drop("bom", "version"), {"SBOM version"}),
    (_drop("one", "manufacturer"), {"component producer", "component creator: address or URL"}),
    (_set("manufacturer", {"name": "only a name"}), {"component creator: address or URL"}),
    (_no_edge, {"dependency relationship", "dependencies"}),
    (_empty_root, {"dependency relationship", "reachable from the main component"}),
    (_drop("one", "hashes"), {"component hash value", "component hash algorithm"}),
    (_short_hash, {"component hash value"}),
    (lambda bom, one: one["hashes"].append({"alg": "ROT13", "content": "x"}), {"component hash algorithm"}),
    (_drop("one", "purl"), {"component identifier", "other unique identifiers"}),
    (_set("purl", "no purl"), {"component identifier", "other unique identifiers"}),
    (_drop("one", "licenses"), {"component licence", "original licences"}),
    (_set("licenses", [{"expression": "NOASSERTION", "acknowledgement": "declared"}]),
     {"component licence", "original licences"}),
    (_drop("one", "evidence"), {"distribution licences"}),
    (_drop("one", "name"), {"component name"}),
    (_drop("one", "version"), {"component version"}),
    (_property("bsi:component:filename"), {"filename"}),
    (_property("bsi:component:filename", "a/path"), {"filename"}),
    (_property("bsi:component:executable"), {"executable property"}),
    (_property("bsi:component:executable", "yes"), {"executable property"}),
    (_property("bsi:component:archive"), {"archive property"}),
    (_property("bsi:component:structured"), {"structured property"}),
    (_reference("source-distribution"), {"source code URI"}),
    (_reference("distribution"), {"SHA-512 of the deployable form", "URI of the deployable form"}),
    (_no_sha512, {"SHA-512 of the deployable form"}),
    (_no_statement, {"completeness of dependencies"}),
    (_unreachable, {"reachable from the main component"}),
    (_dangling, {"no dangling dependency"}),
    (lambda bom, one: bom["metadata"]["manufacturer"].pop("url"), {"SBOM creator: address or URL"}),
    (lambda bom, one: bom.__setitem__("vulnerabilities", []), {"no vulnerabilities inside"}),
    (lambda bom, one: bom["components"].append(copy.deepcopy(one)), {"unique bom-ref"}),
]  # fmt: skip


def test_a_good_one_passes_every_field(whole: Bom) -> None:
    signed = signature.sign_document(whole, ed25519.Ed25519PrivateKey.generate(), "TEST-ONLY")
    results = check.run(signed)
    assert [one.name for one in results if not one.passed] == []
    assert sum(one.standard == "CISA 2026" for one in results) == 17


@pytest.mark.parametrize("number", range(len(SPOILED)))
def test_each_missing_field_is_reported(whole: Bom, number: int) -> None:
    spoil, expected = SPOILED[number]
    bom = signature.sign_document(copy.deepcopy(whole), ed25519.Ed25519PrivateKey.generate(), "TEST-ONLY")
    # a leaf that one other component needs
    spoil(bom, next(one for one in bom["components"] if one["purl"] == "pkg:cargo/crate@1.2.3"))
    assert {one.name for one in check.run(bom) if not one.passed} >= expected
    if "reachable from the main component" not in expected and "component name" not in expected:
        assert {one.name for one in check.run(bom) if not one.passed} == expected


def test_every_field_of_the_checker_is_spoiled_once(whole: Bom) -> None:
    covered = {name for _, names in SPOILED for name in names}
    assert {one.name for one in check.run(whole)} - covered == {"distribution of a .deb"}  # the next test


@pytest.mark.parametrize("what", ["distro", "system"])
def test_a_package_without_distribution_is_reported(whole: Bom, what: str) -> None:
    bom = copy.deepcopy(whole)
    if what == "distro":
        one = next(one for one in bom["components"] if one["purl"].startswith("pkg:deb/"))
        one["purl"] = one["purl"].split("?")[0]
    else:
        bom["components"] = [one for one in bom["components"] if one["type"] != "operating-system"]
    assert "distribution of a .deb" in {one.name for one in check.run(bom) if not one.passed}


def test_an_empty_document_passes_nothing_that_is_asked_of_components() -> None:
    passed = {one.name for one in check.cisa({}) + check.bsi({}) if one.passed}
    assert passed == {"no vulnerabilities inside"}


# ---- licences ----


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("GPL-2+ or Artistic, and Expat", "(Artistic-1.0-Perl OR GPL-2.0-or-later) AND MIT"),
        ("GPL-2 with Linux-syscall-note exception", "GPL-2.0-only WITH Linux-syscall-note"),
        ("GPL-3+ with Odd exception", "LicenseRef-debian-x-GPL-3-with-Odd-exception"),
        ("public-domain", "LicenseRef-debian-x-public-domain"),
        ("BSD-3-clause and ISC", "BSD-3-Clause AND ISC"),
    ],
)
def test_debian_short_names(text: str, expected: str) -> None:
    assert licences.from_dep5_name(text, "x") == expected
    assert licences.is_expression(expected)


@pytest.mark.parametrize("text", ["NOASSERTION", "NONE", "", "see file", "MIT/X11", "GPL-9.9"])
def test_no_licence_is_no_expression(text: str) -> None:
    assert not licences.is_expression(text)


# ---- VEX ----

STATEMENT = """[[statement]]
id = "CVE-2026-0001"
package = "pkg:cargo/crate"
state = "not_affected"
justification = "code_not_reachable"
detail = "Nothing calls it."
evidence = ["release/sbom/tests/test_sbom.py::test_each_missing_field_is_reported"]
author = "Somebody"
date = 2026-11-22
expires = 2027-05-22
"""


def test_vex_names_the_component_by_bom_link(tmp_path: Path, whole: Bom) -> None:
    (tmp_path / "SBOM").mkdir()
    path = tmp_path / "SBOM" / "vex.toml"
    path.write_text(
        STATEMENT.replace("release/sbom/tests/test_sbom.py::test_each_missing_field_is_reported", "proof.py")
    )
    (tmp_path / "proof.py").write_text("")
    made = vex.documents(path, whole)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(made["vex.cdx.json"])) is None
    (ref,) = [entry["ref"] for entry in made["vex.cdx.json"]["vulnerabilities"][0]["affects"]]
    assert ref == f"urn:cdx:{whole['serialNumber'][9:]}/1#pkg%3Acargo%2Fcrate%401.2.3"
    statement = made["vex.openvex.json"]["statements"][0]
    assert statement["justification"] == "vulnerable_code_not_in_execute_path"
    assert statement["products"][0]["subcomponents"] == [{"@id": "pkg:cargo/crate@1.2.3"}]


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ('"not_affected"', '"fine"', "state"),
        ('"code_not_reachable"', '""', "justification"),
        ("Nothing calls it.", "", "detail"),
        ("test_each_missing_field_is_reported", "test_that_is_not_there", "evidence"),
        ("release/sbom/tests/test_sbom.py", "no/file.py", "evidence"),
        ("expires = 2027-05-22\n", "", "expires"),
    ],
)
def test_vex_without_proof_is_refused(tmp_path: Path, old: str, new: str, complaint: str) -> None:
    (tmp_path / "vex.toml").write_text(STATEMENT.replace(old, new))
    with pytest.raises(SbomError, match=complaint):
        vex.read(tmp_path / "vex.toml", ROOT)


def test_the_repository_s_own_statements_have_proof() -> None:
    assert isinstance(vex.read(ROOT / "SBOM" / "vex.toml", ROOT), list)


def test_debian_package_that_is_none_is_named(tmp_path: Path) -> None:
    good = deb(tmp_path, "x", "1", "", {})
    good.write_bytes(good.read_bytes()[:100])
    from release.sbom import debs

    with pytest.raises(SbomError, match="x_1_amd64"):
        debs.read(good, good.name)
