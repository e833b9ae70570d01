"""The signing stage: checks an unsigned tree against its manifest, adds signatures, and verifies its own work.

It only adds files: KEYS/, signatures/ and the two signatures of the apt repository. The unsigned tree stays as it was,
so whoever rebuilds it compares SHA256SUMS alone.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

from release.sbom.signature import sign_document
from release.sign import formats, metadata
from release.sign.keys import TEST_MARK, Keys, SigningError
from release.verify import verify

FIELDS = {
    "version": r"[0-9]+\.[0-9]+\.[0-9]+",
    "sequence": "[1-9][0-9]{0,8}",
    "min_upgrade_from": r"[0-9]+\.[0-9]+\.[0-9]+",
    "not_after": "[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z",
    "commit": "[0-9a-f]{40}",
    "source_date_epoch": "[0-9]+",
}
APT = "apt/dists/trixie"


def read_release(tree: Path) -> dict[str, Any]:
    """release.json, with its fields checked; it must be written as verify.sh reads it: indented by 2, sorted."""
    text = (tree / "release.json").read_text()
    release: dict[str, Any] = json.loads(text)
    if json.dumps(release, indent=2, sort_keys=True) + "\n" != text:
        raise SigningError("release.json: not written with indent 2 and sorted keys")
    for name, pattern in FIELDS.items():
        if not re.fullmatch(pattern, str(release.get(name, ""))):
            raise SigningError(f"release.json: {name} is {release.get(name)!r}, not {pattern}")
    if not release.get("artefacts"):
        raise SigningError("release.json: no artefacts")
    return release


def check_unsigned(tree: Path) -> None:
    """Refuse a tree that is not exactly what both of its manifests say."""
    try:
        found = {name for name in verify.walk(tree) if not name.startswith(("signatures/", "KEYS/"))}
        found -= {"SHA256SUMS", *verify.APT_SIGNATURES}
        listed = verify.manifest(tree, "SHA256SUMS")
    except verify.RefusedError as error:
        raise SigningError(f"not signed: {error}") from error
    problems = [f"{name} is listed and missing" for name in sorted(set(listed) - found)]
    problems += [f"{name} is not listed" for name in sorted(found - set(listed))]
    problems += [
        f"{name} has changed" for name in sorted(set(listed) & found) if verify.sha256(tree / name) != listed[name]
    ]
    wide = [(line[130:], line[:128]) for line in (tree / "SHA512SUMS").read_text().splitlines()]
    if [name for name, _ in wide] != [name for name in sorted(listed) if name != "SHA512SUMS"]:
        problems.append("SHA512SUMS does not list the files of SHA256SUMS")
    problems += [
        f"{name} is not as SHA512SUMS says"
        for name, digest in wide
        if name in found and hashlib.sha512((tree / name).read_bytes()).hexdigest() != digest
    ]
    for name in verify.REQUIRED:
        if not (name in listed or (name.endswith("/") and any(each.startswith(name) for each in listed))):
            problems.append(f"{name} is missing in the release")
    if problems:
        raise SigningError("not signed: " + "; ".join(problems[:10]))


def sign(tree: Path, keys: Keys) -> None:
    """Sign the tree in place. Attestations that are there stay; earlier signatures are replaced."""
    check_unsigned(tree)
    release = read_release(tree)
    folder = tree / "signatures"
    folder.mkdir(exist_ok=True)
    for path in folder.iterdir():
        if path.name != "attestations":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.rmtree(tree / "KEYS", ignore_errors=True)
    shutil.copytree(keys.directory / "public", tree / "KEYS")
    message, epoch = (tree / "SHA256SUMS").read_bytes(), int(release["source_date_epoch"])
    pgp, ecdsa = keys.openpgp(), keys.ecdsa()
    when = max(epoch, pgp.created)
    apt = (tree / APT / "Release").read_bytes()
    (tree / APT / "InRelease").write_text(pgp.clearsigned(apt, when))
    (tree / APT / "Release.gpg").write_text(pgp.detached(apt, when))
    signature = formats.ecdsa(ecdsa, message)
    (folder / "SHA256SUMS.sig").write_text(signature)
    (folder / "SHA256SUMS.sigstore.json").write_text(formats.sigstore_bundle(ecdsa, message, signature))
    (folder / "SHA256SUMS.sshsig").write_text(formats.ssh(keys.ed25519("ssh"), message))
    (folder / "SHA256SUMS.asc").write_text(pgp.detached(message, when))
    (folder / "provenance.intoto.jsonl").write_text(formats.dsse(ecdsa, (tree / "provenance.json").read_bytes()))
    _sign_sbom(tree, ecdsa, keys)
    not_after = datetime.strptime(release["not_after"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    metadata.sign(tree, keys, int(release["sequence"]), not_after)
    seal(tree, keys, release)
    check_signed(tree, keys)


def _sign_sbom(tree: Path, key: EllipticCurvePrivateKey, keys: Keys) -> None:
    """A copy of the appliance's SBOM with our signature inside; the unsigned one stays part of what is reproduced."""
    document = json.loads((tree / "sbom" / "ispvm.cdx.json").read_text())
    name = f"release.ecdsa {hashlib.sha256((tree / 'KEYS' / 'release.ecdsa.pub').read_bytes()).hexdigest()[:16]}"
    signed = sign_document(document, key, name + (f" {TEST_MARK}" if keys.test else ""))
    into = tree / "signatures" / "sbom"
    into.mkdir()
    (into / "ispvm.cdx.json").write_text(json.dumps(signed, indent=1, ensure_ascii=False) + "\n")


def seal(tree: Path, keys: Keys, release: dict[str, Any]) -> None:
    """Write signatures/INDEX over all that signing made, then the minisign signature that binds it to the manifest."""
    names = [
        name
        for name in sorted(verify.walk(tree))
        if name.startswith(("KEYS/", "signatures/")) or name in verify.APT_SIGNATURES
        if name not in verify.UNLISTED and not name.startswith("signatures/attestations/")
    ]
    index = "".join(f"{verify.sha256(tree / name)}  {name}\n" for name in names)
    (tree / "signatures" / "INDEX").write_text(index)
    comment = (
        f"ispvm-release version={release['version']} sequence={release['sequence']}"
        f" min-upgrade-from={release['min_upgrade_from']} not-after={release['not_after']} commit={release['commit']}"
        f" index={hashlib.sha256(index.encode()).hexdigest()}" + (f" {TEST_MARK}" if keys.test else "")
    )
    message = (tree / "SHA256SUMS").read_bytes()
    (tree / "signatures" / "SHA256SUMS.minisig").write_text(keys.minisign().sign(message, comment))


def check_signed(tree: Path, keys: Keys) -> None:
    """Both verifiers accept what was signed; an expired release is signed all the same, they say so."""
    options = ["--fingerprint", keys.fingerprint(), "--accept-stale", "the signing stage", "--allow-test-key"]
    commands: list[list[str | Path]] = [[sys.executable, "-I", "-B", tree / "verify.py"], ["sh", tree / "verify.sh"]]
    for command in commands:
        done = subprocess.run(  # our own files, which the manifest lists
            [*command, *options, tree], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise SigningError(f"signed, but {Path(command[-1]).name} says: {done.stdout}{done.stderr}")


def attest(tree: Path, keys: Keys, builder: str, buildinfo: bytes) -> None:
    """A builder says that he got the bytes of this tree; `buildinfo` (JSON) says on what. Signs with his own key."""
    check_unsigned(tree)
    folder = tree / "signatures" / "attestations" / builder
    folder.mkdir(parents=True, exist_ok=True)
    message = (tree / "SHA256SUMS").read_bytes()
    comment = f"ispvm-attestation builder={builder} buildinfo={hashlib.sha256(buildinfo).hexdigest()}"
    (folder / "SHA256SUMS").write_bytes(message)
    (folder / "SHA256SUMS.minisig").write_text(keys.minisign(f"builders/{builder}").sign(message, comment))
    (folder / "buildinfo.json").write_bytes(buildinfo)
