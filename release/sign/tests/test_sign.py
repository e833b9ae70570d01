"""The signing stage: what it refuses to sign, what its files look like, TUF metadata, and the key-compromise drill."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
import release_tree
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from release.sbom import SbomError
from release.sbom.signature import verify_document
from release.sign import drill, metadata, stage
from release.sign.__main__ import make_keys
from release.sign.keys import ROOTS, Keys, SigningError, replace
from release.verify import verify


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return make_keys(tmp_path_factory.mktemp("keys") / "set", test=True, builders=("trixie",))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return release_tree.unsigned(tmp_path / "tree")


# --- what is signed, and what is not ----------------------------------------------------------------------------------


def test_signing_only_adds_files(tree: Path, keys: Keys) -> None:
    before = {p.relative_to(tree): p.read_bytes() for p in tree.rglob("*") if p.is_file()}
    stage.sign(tree, keys)
    after = {p.relative_to(tree): p.read_bytes() for p in tree.rglob("*") if p.is_file()}
    assert {name: after[name] for name in before} == before
    added = {name.as_posix() for name in after.keys() - before.keys()}
    assert all(name.startswith(("KEYS/", "signatures/")) or name in verify.APT_SIGNATURES for name in added)
    deterministic = {name for name in added if "sig" not in Path(name).suffix and "ecdsa" not in name}
    stage.sign(tree, keys)
    again = {p.relative_to(tree).as_posix(): p.read_bytes() for p in tree.rglob("*") if p.is_file()}
    # everything but ECDSA, and what covers it, is the same when it is signed again
    varies = {n for n in deterministic if again[n] != after[Path(n)]}
    assert varies == {
        "signatures/SHA256SUMS.sigstore.json",
        "signatures/provenance.intoto.jsonl",
        "signatures/sbom/ispvm.cdx.json",
        "signatures/INDEX",
    }


def test_the_copy_of_the_sbom_carries_our_signature(tree: Path, keys: Keys) -> None:
    stage.sign(tree, keys)
    signed = json.loads((tree / "signatures" / "sbom" / "ispvm.cdx.json").read_text())
    verify_document(signed, keys.ecdsa().public_key())
    assert signed["signature"]["keyId"].endswith("TEST-ONLY")
    unsigned = json.loads((tree / "sbom" / "ispvm.cdx.json").read_text())
    assert {name: value for name, value in signed.items() if name != "signature"} == unsigned
    with pytest.raises(SbomError, match="not made by this key"):
        verify_document({**signed, "version": 99}, keys.ecdsa().public_key())


def without_seeds(tree: Path) -> None:
    shutil.rmtree(tree / "seeds")
    release_tree.sums(tree)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: (t / "install").write_text("x"), "install has changed"),
        (lambda t: (t / "x").write_text("x"), "x is not listed"),
        (lambda t: (t / "install").unlink(), "install is listed and missing"),
        (lambda t: (t / "x").symlink_to("install"), "'x': a link"),
        (lambda t: (t / "SHA256SUMS").write_text("x\n"), "SHA256SUMS line 1"),
        (lambda t: (t / "SHA256SUMS").unlink(), "SHA256SUMS"),
        (without_seeds, "seeds/ is missing"),
        (lambda t: release_tree.describe(t, version="1.4"), "version is '1.4'"),
        (lambda t: release_tree.describe(t, sequence=0), "sequence is 0"),
        (lambda t: release_tree.describe(t, not_after="soon"), "not_after is 'soon'"),
        (lambda t: release_tree.describe(t, artefacts=[]), "no artefacts"),
    ],
)  # fmt: skip
def test_a_tree_that_is_not_what_it_says_is_not_signed(
    tree: Path, keys: Keys, change: Callable[[Path], object], message: str
) -> None:
    change(tree)
    with pytest.raises((SigningError, FileNotFoundError), match=message):
        stage.sign(tree, keys)
    assert not (tree / "signatures").exists()


def test_both_manifests_must_agree(tree: Path, keys: Keys) -> None:
    wide = (tree / "SHA512SUMS").read_text()
    digest = verify.sha256(tree / "SHA512SUMS")
    (tree / "SHA512SUMS").write_text("0" * 128 + wide[128:])
    sums = (tree / "SHA256SUMS").read_text().replace(digest, verify.sha256(tree / "SHA512SUMS"))
    (tree / "SHA256SUMS").write_text(sums)
    with pytest.raises(SigningError, match="not as SHA512SUMS says"):
        stage.sign(tree, keys)


def test_keys_are_private_and_never_overwritten(keys: Keys) -> None:
    for path in (keys.directory / "private").glob("*.pem"):
        assert path.stat().st_mode & 0o077 == 0
    with pytest.raises(SigningError, match="never overwritten"):
        make_keys(keys.directory, test=True, builders=())
    public = b"".join(path.read_bytes() for path in (keys.directory / "public").rglob("*") if path.is_file())
    assert b"PRIVATE" not in public


def test_the_command_line_makes_keys_attests_signs_and_checks_trust(tree: Path, tmp_path: Path) -> None:
    def run(*arguments: str | Path) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "release.sign", *arguments],
            capture_output=True,
            text=True,
            cwd=release_tree.ROOM.parents[1],
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    made = run("keys", "--test", tmp_path / "set", "--builder", "trixie").split()
    run("attest", tree, "--keys", tmp_path / "set", "--builder", "trixie")
    assert made[1] in run(tree, "--keys", tmp_path / "set", "--pack")
    assert tree.with_name(f"{tree.name}.tar.zst").stat().st_size > 1000
    assert verify.main(["--allow-test-key", "--attestations", "1", str(tree)]) == 0
    trusted = run("trust", tree, "--state", tmp_path / "tuf", "--first-root", tmp_path / "set/public/root.json").split()
    assert trusted == made


# --- provenance -------------------------------------------------------------------------------------------------------


def test_provenance_is_a_statement_about_every_file(tree: Path, keys: Keys) -> None:
    stage.sign(tree, keys)
    envelope = json.loads((tree / "signatures/provenance.intoto.jsonl").read_text())
    payload = base64.b64decode(envelope["payload"])
    assert payload == (tree / "provenance.json").read_bytes()
    statement = json.loads(payload)
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["predicateType"] == "https://slsa.dev/provenance/v1"
    definition = statement["predicate"]["buildDefinition"]
    assert {"buildType", "externalParameters", "resolvedDependencies"} <= definition.keys()
    assert {"name": "source", "digest": {"gitCommit": "c0ffee" * 6 + "c0de"}} in definition["resolvedDependencies"]
    names = [subject["name"] for subject in statement["subject"]]
    listed = verify.manifest(tree, "SHA256SUMS")
    assert names == [name for name in listed if name not in ("provenance.json", "SHA512SUMS")]
    message = b"DSSEv1 28 application/vnd.in-toto+json %d %s" % (len(payload), payload)
    signature = base64.b64decode(envelope["signatures"][0]["sig"])
    keys.ecdsa().public_key().verify(signature, message, ec.ECDSA(hashes.SHA256()))


# --- TUF --------------------------------------------------------------------------------------------------------------


def signed(path: Path, keys: Keys, **changes: object) -> Path:
    release_tree.unsigned(path, **changes)
    stage.sign(path, keys)
    return path


def test_tuf_refuses_rollback_freeze_and_foreign_metadata(tmp_path: Path, keys: Keys) -> None:
    first = keys.directory / "public/root.json"
    one = signed(tmp_path / "one", keys, sequence=1)
    two = signed(tmp_path / "two", keys, sequence=2)
    state = tmp_path / "state"
    assert metadata.check(two, state, first) == keys.fingerprint()
    assert metadata.check(two, state) == keys.fingerprint()
    with pytest.raises(metadata.UntrustedError, match="BadVersionNumberError"):
        metadata.check(one, state)
    with pytest.raises(metadata.UntrustedError, match="ExpiredMetadataError"):
        metadata.check(signed(tmp_path / "old", keys, sequence=3, not_after=release_tree.PAST), state)
    other = make_keys(tmp_path / "other", test=True, builders=())
    with pytest.raises(metadata.UntrustedError, match="UnsignedMetadataError"):
        metadata.check(signed(tmp_path / "foreign", other, sequence=4), state)
    with pytest.raises(metadata.UntrustedError, match="give the first root once"):
        metadata.check(two, state, first)
    with pytest.raises(metadata.UntrustedError, match="give the first root once"):
        metadata.check(two, tmp_path / "nothing")


def test_tuf_binds_the_files_and_the_keys(tmp_path: Path, keys: Keys) -> None:
    first = keys.directory / "public/root.json"
    tree = signed(tmp_path / "tree", keys)
    for name, error in (
        ("SHA256SUMS", "LengthOrHash"),
        ("KEYS/release.ssh.pub", "not the release keys"),
    ):
        kept = (tree / name).read_bytes()
        (tree / name).write_bytes(kept.replace(b"r", b"R"))
        with pytest.raises(metadata.UntrustedError, match=error):
            metadata.check(tree, tmp_path / name.replace("/", "-"), first)
        (tree / name).write_bytes(kept)
    (tree / "signatures/tuf/timestamp.json").unlink()
    with pytest.raises(metadata.UntrustedError, match=r"timestamp\.json is not in the bundle"):
        metadata.check(tree, tmp_path / "state", first)


def test_a_root_key_is_replaced_by_two_of_three_and_not_by_one(tmp_path: Path) -> None:
    keys = make_keys(tmp_path / "set", test=True, builders=())
    first = tmp_path / "root.json"
    shutil.copy(keys.directory / "public/root.json", first)
    signers = [metadata.signer(keys, name) for name in ROOTS]
    replace(keys, (ROOTS[0],))
    later = metadata.now() + timedelta(seconds=1)
    metadata.make_root(keys, 2, signers[1:2], later)
    alone = signed(tmp_path / "alone", keys)
    with pytest.raises(metadata.UntrustedError, match="root was signed by 1/2 keys"):
        metadata.check(alone, tmp_path / "state", first)
    metadata.make_root(keys, 2, signers[1:], later)
    assert metadata.check(signed(tmp_path / "two", keys), tmp_path / "state2", first) == keys.fingerprint()


def test_key_compromise_drill(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    drill.drill(tmp_path, drill.example)
    assert "recovered" in capsys.readouterr().out


def test_the_drill_can_fail() -> None:
    with pytest.raises(drill.DrillError, match="expected"):
        drill.expect("a step", "accepted", "rollback")
