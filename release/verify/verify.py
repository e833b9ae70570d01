#!/usr/bin/env python3
"""Check a release of the ISPVisualMonitor appliance: whole, ours, fresh. No network, nothing but Python's own library.

    verify.py --fingerprint HEX [--attestations N] [--state FILE [--record]] [--accept-stale REASON]
              [--allow-test-key] [--demo-attacks] [TREE]

TREE is the unpacked release (default: the directory of this file). HEX is `cat KEYS/*.asc KEYS/*.pub | sha256sum`,
compared with what you got from us another way: a bundle cannot vouch for its own keys. verify.sh gives the same answers
with the tools of a bare Debian 13. Exit 0: good. 1: refused, with a code, a file and a reason. 2: could not be decided.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import hashlib
import json
import os
import re
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

RELEASE_KEYS = ("apt.asc", "release.ecdsa.pub", "release.minisign.pub", "release.ssh.pub")
COMMENT = re.compile(
    r"ispvm-release version=(?P<version>[0-9]+\.[0-9]+\.[0-9]+) sequence=(?P<sequence>[1-9][0-9]{0,8})"
    r" min-upgrade-from=(?P<min_upgrade_from>[0-9]+\.[0-9]+\.[0-9]+) not-after=(?P<not_after>[0-9T:Z-]{20})"
    r" commit=(?P<commit>[0-9a-f]{40}) index=(?P<index>[0-9a-f]{64})(?: TEST-ONLY)?"
)
STATE = re.compile(
    r"ispvm-release-state sequence=(?P<sequence>[1-9][0-9]{0,8}) version=(?P<version>[0-9]+\.[0-9]+\.[0-9]+)"
    r" manifest=(?P<manifest>[0-9a-f]{64}) fingerprint=(?P<fingerprint>[0-9a-f]{64}) seen=(?P<seen>[0-9T:Z-]{20})\n"
    r"(?:stale [ -~]+\n)*"
)
# Printable ASCII without the backslash and the double quote; the parts of the path are checked one by one.
LINE = re.compile(r"[0-9a-f]{64}  [ !#-\[\]-~]+")
# What signing adds, besides the INDEX that lists it and the signature that covers the INDEX.
APT_SIGNATURES = ("apt/dists/trixie/InRelease", "apt/dists/trixie/Release.gpg")
SIGNATURES = (
    *(f"KEYS/{name}" for name in (*RELEASE_KEYS, "root.json")), *APT_SIGNATURES,
    "signatures/SHA256SUMS.asc", "signatures/SHA256SUMS.sig", "signatures/SHA256SUMS.sigstore.json",
    "signatures/SHA256SUMS.sshsig", "signatures/provenance.intoto.jsonl", "signatures/tuf/1.root.json",
    "signatures/tuf/timestamp.json",
)  # fmt: skip
UNLISTED = ("SHA256SUMS", "signatures/INDEX", "signatures/SHA256SUMS.minisig")
ATTESTATION = re.compile(r"signatures/attestations/([a-z0-9-]+)/(SHA256SUMS|SHA256SUMS\.minisig|buildinfo\.json)")
# What every release holds; a name that ends with "/" stands for at least one file below it.
REQUIRED = (
    "SHA512SUMS", "VERIFY.md", "agent/", "ansible/", "apt/dists/trixie/Release", "apt/pool/", "compat/", "docs/",
    "install", "licences/", "provenance.json", "release.json", "sbom/", "seeds/", "server/", "source/", "verify.py",
    "verify.sh", "wheelhouse/amd64/", "wheelhouse/arm64/",
)  # fmt: skip
CARRIED = re.compile(r".*\.(?:whl|deb|pex)")


class RefusedError(Exception):
    """The release fails a check: `code` names the check, the text the file and the reason."""

    def __init__(self, code: str, reason: str) -> None:
        """Say which check and why."""
        super().__init__(f"{code}: {reason}")
        self.code = code


class UndecidedError(Exception):
    """The question cannot be answered as it was put; exit 2."""


def refuse(code: str, reason: str) -> NoReturn:
    """Give up on this release."""
    raise RefusedError(code, reason)


# --- the two signature algorithms -------------------------------------------------------------------------------------

ED_P = 2**255 - 19
ED_L = 2**252 + 27742317777372353535851937790883648493
ED_D = -121665 * pow(121666, -1, ED_P) % ED_P
Point = tuple[int, int, int, int]


def _ed_add(a: Point, b: Point) -> Point:
    """Add two points of edwards25519 in extended coordinates (RFC 8032, 5.1.4)."""
    w = (a[1] - a[0]) * (b[1] - b[0]) % ED_P
    x = (a[1] + a[0]) * (b[1] + b[0]) % ED_P
    y = 2 * a[3] * b[3] * ED_D % ED_P
    z = 2 * a[2] * b[2] % ED_P
    e, f, g, h = x - w, z - y, z + y, x + w
    return e * f % ED_P, g * h % ED_P, f * g % ED_P, e * h % ED_P


def _ed_times(n: int, point: Point) -> Point:
    total: Point = (0, 1, 1, 0)
    for bit in f"{n:b}":
        total = _ed_add(total, total)
        if bit == "1":
            total = _ed_add(total, point)
    return total


def _ed_point(data: bytes) -> Point | None:
    """Decode 32 bytes (RFC 8032, 5.1.3); None when they are no point."""
    y = int.from_bytes(data, "little")
    sign, y = y >> 255, y & (2**255 - 1)
    if y >= ED_P:
        return None
    square = (y * y - 1) * pow(ED_D * y * y + 1, -1, ED_P) % ED_P
    x = pow(square, (ED_P + 3) // 8, ED_P)
    if (x * x - square) % ED_P:
        x = x * pow(2, (ED_P - 1) // 4, ED_P) % ED_P
    if (x * x - square) % ED_P or (x == 0 and sign):
        return None
    if x & 1 != sign:
        x = ED_P - x
    return x, y, 1, x * y % ED_P


ED_BASE = _ed_point((4 * pow(5, -1, ED_P) % ED_P).to_bytes(32, "little")) or (0, 1, 1, 0)


def ed25519(key: bytes, message: bytes, signature: bytes) -> bool:
    """Whether `signature` (64 bytes) by `key` (32 bytes) covers `message` (RFC 8032, 5.1.7, without the cofactor)."""
    point = _ed_point(key)
    s = int.from_bytes(signature[32:], "little")
    if point is None or len(key) != 32 or len(signature) != 64 or s >= ED_L:
        return False
    h = int.from_bytes(hashlib.sha512(signature[:32] + key + message).digest(), "little") % ED_L
    minus = (ED_P - point[0], point[1], 1, ED_P - point[3])
    x, y, z, _ = _ed_add(_ed_times(s, ED_BASE), _ed_times(h, minus))
    inverse = pow(z, -1, ED_P)
    return (y * inverse % ED_P | (x * inverse % ED_P & 1) << 255).to_bytes(32, "little") == signature[:32]


P = 2**256 - 2**224 + 2**192 + 2**96 - 1
P_N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
P_B = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
P_G = (
    0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
    0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
)
Affine = tuple[int, int] | None


def _p_add(a: Affine, b: Affine) -> Affine:
    """Add two points of P-256; None is the point at infinity."""
    if a is None or b is None:
        return a or b
    if a[0] == b[0]:
        if (a[1] + b[1]) % P == 0:
            return None
        slope = (3 * a[0] * a[0] - 3) * pow(2 * a[1], -1, P) % P
    else:
        slope = (b[1] - a[1]) * pow(b[0] - a[0], -1, P) % P
    x = (slope * slope - a[0] - b[0]) % P
    return x, (slope * (a[0] - x) - a[1]) % P


def _p_times(n: int, point: Affine) -> Affine:
    total: Affine = None
    for bit in f"{n:b}":
        total = _p_add(total, total)
        if bit == "1":
            total = _p_add(total, point)
    return total


P_DER = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d03010703420004")


def _der_pair(data: bytes) -> tuple[int, int] | None:
    """Read r and s from a DER signature; None when it is not exactly one."""
    numbers = []
    if len(data) < 8 or data[0] != 0x30 or data[1] != len(data) - 2:
        return None
    at = 2
    for _ in range(2):
        if len(data[at : at + 2]) != 2 or data[at] != 0x02:
            return None
        number = data[at + 2 : at + 2 + data[at + 1]]
        if len(number) != data[at + 1] or not number or number[0] > 127:
            return None
        if len(number) > 1 and number[0] == 0 and number[1] < 128:
            return None  # a zero more than it needs: openssl does not take that either
        numbers.append(int.from_bytes(number, "big"))
        at += 2 + len(number)
    return (numbers[0], numbers[1]) if at == len(data) else None


def ecdsa_p256(key: bytes, message: bytes, signature: bytes) -> bool:
    """Whether the DER `signature` by the DER public `key` covers `message`, hashed with SHA-256 (FIPS 186-5, 6.4.2)."""
    pair = _der_pair(signature)
    x, y = int.from_bytes(key[27:59], "big"), int.from_bytes(key[59:], "big")
    if pair is None or len(key) != 91 or not key.startswith(P_DER) or (y * y - x**3 + 3 * x - P_B) % P:
        return False
    r, s = pair
    if not (0 < r < P_N and 0 < s < P_N):
        return False
    w = pow(s, -1, P_N)
    e = int.from_bytes(hashlib.sha256(message).digest(), "big")
    point = _p_add(_p_times(e * w % P_N, P_G), _p_times(r * w % P_N, (x, y)))
    return point is not None and point[0] % P_N == r


# --- files ------------------------------------------------------------------------------------------------------------


def unbase64(text: str) -> bytes | None:
    """Decode canonical base64; None for anything else."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return data if base64.b64encode(data).decode() == text else None


def text_of(path: Path) -> str:
    """A file's text; a byte that is not ASCII becomes one that no check accepts."""
    return path.read_bytes().decode("ascii", "replace")


def minisign(tree: Path, signed: str, signature: str, key: str) -> str:
    """Check a minisign signature (prehashed Ed25519) and return its trusted comment; paths are relative to `tree`."""
    public = text_of(tree / key).split("\n")
    lines = text_of(tree / signature).split("\n")
    packed = unbase64(public[1]) if len(public) == 3 else None
    if packed is None or packed[:2] != b"Ed" or public[2]:
        refuse("bad-signature", f"{key} is no minisign public key")
    if len(lines) != 5 or lines[0] != "untrusted comment: ispvm signature" or lines[4]:
        refuse("bad-signature", f"{signature} is no minisign signature of ours")
    data, whole = unbase64(lines[1]), unbase64(lines[3])
    prefix, comment = lines[2][:17], lines[2][17:]
    if data is None or data[:2] != b"ED" or whole is None or prefix != "trusted comment: ":
        refuse("bad-signature", f"{signature} is no minisign signature of ours")
    if data[2:10] != packed[2:10]:
        refuse("bad-signature", f"{signature} was made by another key than {key}")
    digest = hashlib.blake2b((tree / signed).read_bytes()).digest()
    if not ed25519(packed[10:], digest, data[10:]):
        refuse("bad-signature", f"{signature} does not cover {signed}")
    if not ed25519(packed[10:], data[10:] + comment.encode("ascii", "replace"), whole):
        refuse("bad-signature", f"{signature}: its trusted comment was changed")
    return comment


def ecdsa(tree: Path) -> None:
    """Check the raw ECDSA signature over the manifest."""
    pem = re.search(
        r"-----BEGIN PUBLIC KEY-----\n([^-]*)\n-----END PUBLIC KEY-----\n", text_of(tree / "KEYS/release.ecdsa.pub")
    )
    key = unbase64(pem[1].replace("\n", "")) if pem else None
    text = text_of(tree / "signatures/SHA256SUMS.sig")
    signature = unbase64(text[:-1]) if text.endswith("\n") else None
    if key is None or signature is None or not ecdsa_p256(key, (tree / "SHA256SUMS").read_bytes(), signature):
        refuse("bad-signature", "signatures/SHA256SUMS.sig does not cover SHA256SUMS")


def manifest(tree: Path, name: str) -> dict[str, str]:
    """Read a manifest: path to SHA-256. Refuses what is not sorted, unique, printable and inside the tree."""
    text = text_of(tree / name)
    entries: dict[str, str] = {}
    last = ""
    if not text.endswith("\n"):
        refuse("bad-manifest", f"{name}: empty, or its last line is cut")
    for number, line in enumerate(text[:-1].split("\n"), 1):
        path = line[66:]
        if not LINE.fullmatch(line) or path[0] == "-" or {"", ".", ".."} & set(path.split("/")):
            refuse("bad-manifest", f"{name} line {number}: not a SHA-256, two spaces and a clean relative path")
        if path <= last:
            refuse("bad-manifest", f"{name} line {number}: not sorted, or there twice")
        signing = path.startswith(("signatures/", "KEYS/")) or path in APT_SIGNATURES
        if path in UNLISTED or ATTESTATION.fullmatch(path) or signing != (name == "signatures/INDEX"):
            refuse("bad-manifest", f"{name} line {number}: this path is not for this manifest")
        last = path
        entries[path] = line[:64]
    return entries


def walk(tree: Path) -> set[str]:
    """Every file of the tree; refuses anything that is neither a plain file nor a directory."""
    found: set[str] = set()
    for folder, folders, files in os.walk(tree):
        for name in sorted([*folders, *files]):
            path = Path(folder, name)
            mode = path.lstat().st_mode
            relative = path.relative_to(tree).as_posix()
            if stat.S_ISREG(mode):
                found.add(relative)
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)) or (stat.S_ISREG(mode) and mode & 0o6000):
                refuse("odd-file", f"{relative!a}: a link, not a plain file, or set-user-id")
    return found


def sha256(path: Path) -> str:
    """A file's SHA-256 in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def triple(version: str) -> tuple[int, ...]:
    """A version as numbers, to compare."""
    return tuple(int(part) for part in version.split("."))


# --- the checks, in the order in which verify.sh makes them ----------------------------------------------------------


class Verification:
    """One run over one tree; every `check_` raises RefusedError or adds a line to `said`."""

    def __init__(self, tree: Path, options: argparse.Namespace) -> None:
        """Nothing is read yet."""
        self.tree = tree
        self.options = options
        self.now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        self.said: list[str] = []
        self.stale = False
        self.state: dict[str, str] | None = None

    def say(self, subject: str, text: str) -> None:
        """Add a line to the report."""
        self.said.append(f"ok  {subject:<12} {text}")

    def run(self) -> str:
        """All checks; the verdict in one line."""
        self.check_state_file()
        self.found = walk(self.tree)
        for name in (*UNLISTED, "signatures/SHA256SUMS.sig", *(f"KEYS/{key}" for key in RELEASE_KEYS)):
            if name not in self.found:
                refuse("missing-file", name)
        self.check_keys()
        self.check_signatures()
        self.check_files()
        self.check_release()
        self.check_provenance()
        self.check_sbom()
        self.check_attestations()
        self.check_history()
        self.check_expiry()
        if self.options.record:
            self.record()
        return f"GOOD  ispvm {self.comment['version']}, sequence {self.comment['sequence']}" + (
            ", but signed with a TEST KEY: this proves nothing about who made it" if self.test_key else ""
        )

    def check_state_file(self) -> None:
        """What was installed before, if the operator keeps it."""
        file = self.options.state
        if file is not None and file.exists():
            read = STATE.fullmatch(text_of(file))
            if read is None:
                refuse("bad-state", f"{file} is not what --record writes; restore it from a backup")
            self.state = read.groupdict()

    def check_keys(self) -> None:
        """The keys are those that the operator knows, and not test keys."""
        joined = b"".join((self.tree / "KEYS" / name).read_bytes() for name in RELEASE_KEYS)
        self.fingerprint = hashlib.sha256(joined).hexdigest()
        known = self.options.fingerprint or (self.state or {}).get("fingerprint")
        if known is None and not self.options.allow_test_key:
            raise UndecidedError("--fingerprint is missing: whose keys do you trust? See VERIFY.md, step 1")
        if known is not None and known != self.fingerprint:
            refuse("unknown-key", "KEYS/: their fingerprint is not the one you gave")
        keys = [name for name in sorted(self.found) if name.startswith("KEYS/")]
        marked = [name for name in keys if b"TEST-ONLY" in (self.tree / name).read_bytes()]
        key_id = unbase64((text_of(self.tree / "KEYS/release.minisign.pub") + "\n").split("\n")[1]) or b""
        comment = text_of(self.tree / "signatures/SHA256SUMS.minisig")
        self.test_key = bool(marked) or key_id[2:10] == b"TESTONLY" or "TEST-ONLY" in comment
        if self.test_key and not self.options.allow_test_key:
            refuse("test-key", "KEYS/: a key made for tests (TEST-ONLY); --allow-test-key accepts it")
        self.say("keys", f"fingerprint {self.fingerprint}" + (" TEST-ONLY" if self.test_key else ""))

    def check_signatures(self) -> None:
        """Two algorithms over the manifest; the trusted comment binds the INDEX of all else that signing made."""
        comment = minisign(self.tree, "SHA256SUMS", "signatures/SHA256SUMS.minisig", "KEYS/release.minisign.pub")
        ecdsa(self.tree)
        self.say("signatures", "Ed25519 (minisign) and ECDSA P-256 over SHA256SUMS, by verify.py")
        read = COMMENT.fullmatch(comment)
        if read is None:
            refuse("bad-comment", "signatures/SHA256SUMS.minisig: its trusted comment is not that of a release")
        self.comment = read.groupdict()
        if sha256(self.tree / "signatures/INDEX") != self.comment["index"]:
            refuse("bad-index", "signatures/INDEX is not the one that was signed")

    def check_files(self) -> None:
        """Every file is listed, and as it was signed; nothing is missing, nothing is extra."""
        self.manifest = manifest(self.tree, "SHA256SUMS")
        index = manifest(self.tree, "signatures/INDEX")
        listed = self.manifest | index
        free = {name for name in self.found if ATTESTATION.fullmatch(name)}
        for name in sorted(set(listed) - self.found):
            refuse("missing-file", name)
        for name in sorted(self.found - set(listed) - set(UNLISTED) - free):
            refuse("extra-file", f"{name!a}")
        changed = [name for name in sorted(listed) if sha256(self.tree / name) != listed[name]]
        if changed:
            refuse("changed-file", ", ".join(changed[:5]) + (f" and {len(changed) - 5} more" if changed[5:] else ""))
        for name in REQUIRED:
            if not (name in self.manifest or (name.endswith("/") and any(p.startswith(name) for p in self.manifest))):
                refuse("incomplete", f"the release was made without {name}")
        for name in SIGNATURES:
            if name not in index:
                refuse("incomplete", f"the release was signed without {name}")
        self.say("files", f"{len(listed)} as signed, none missing, none extra, no links")

    def check_release(self) -> None:
        """release.json says what the signed comment says, and its artefacts are those of the manifest."""
        try:
            data: dict[str, Any] = json.loads((self.tree / "release.json").read_text())
            said = {name: str(data[name]) for name in COMMENT.groupindex if name != "index"}
            artefacts = [(str(item["path"]), str(item["sha256"])) for item in data["artefacts"]]
        except (ValueError, KeyError, TypeError) as error:
            refuse("bad-release", f"release.json cannot be read: {error!r}")
        for name, value in said.items():
            if value != self.comment[name]:
                refuse("bad-comment", f"release.json: {name} is not that of the signed comment")
        if not artefacts or any(self.manifest.get(path) != digest for path, digest in artefacts):
            refuse("bad-release", "release.json: its artefacts are not those of SHA256SUMS")
        self.say("release", f"commit {self.comment['commit']}, {len(artefacts)} artefacts")

    def check_provenance(self) -> None:
        """provenance.json speaks of exactly the files of the manifest (but itself and the second manifest)."""
        try:
            data = json.loads((self.tree / "provenance.json").read_text())
            subjects = [(item["name"], item["digest"]["sha256"]) for item in data["subject"]]
        except (ValueError, KeyError, TypeError) as error:
            refuse("bad-provenance", f"provenance.json cannot be read: {error!r}")
        if subjects != [pair for pair in self.manifest.items() if pair[0] not in ("SHA512SUMS", "provenance.json")]:
            refuse("bad-provenance", "provenance.json: its subjects are not the files of SHA256SUMS")
        self.say("provenance", f"{len(subjects)} subjects, as in SHA256SUMS")

    def check_sbom(self) -> None:
        """Every wheel, Debian package and PEX is in the CycloneDX SBOM by its SHA-256."""
        texts = [text_of(self.tree / name) for name in self.manifest if re.fullmatch(r"sbom/.*\.cdx\.json", name)]
        known = {digest for text in texts for digest in re.findall(r'"([0-9a-f]{64})"', text)}
        carried = {name: digest for name, digest in self.manifest.items() if CARRIED.fullmatch(name)}
        for name, digest in carried.items():
            if digest not in known:
                refuse("bad-sbom", f"{name}: no SBOM under sbom/ has its SHA-256")
        self.say("sbom", f"{len(carried)} wheels, Debian packages and PEX files, all in the SBOM")

    def check_attestations(self) -> None:
        """Builders who got the same bytes; any attestation that is there must hold."""
        builders = sorted({part[1] for name in self.found if (part := ATTESTATION.fullmatch(name))})
        keys = set()
        for builder in builders:
            folder, key = f"signatures/attestations/{builder}", f"KEYS/builders/{builder}.minisign.pub"
            for name in (f"{folder}/SHA256SUMS", f"{folder}/SHA256SUMS.minisig", f"{folder}/buildinfo.json", key):
                if name not in self.found:
                    refuse("bad-attestation", f"{builder}: {name} is missing")
            try:
                comment = minisign(self.tree, f"{folder}/SHA256SUMS", f"{folder}/SHA256SUMS.minisig", key)
            except RefusedError as error:
                refuse("bad-attestation", f"{builder}: {error}")
            built = sha256(self.tree / folder / "buildinfo.json")
            if comment != f"ispvm-attestation builder={builder} buildinfo={built}":
                refuse("bad-attestation", f"{builder}: its trusted comment names another builder or buildinfo.json")
            if (self.tree / folder / "SHA256SUMS").read_bytes() != (self.tree / "SHA256SUMS").read_bytes():
                refuse("bad-attestation", f"{builder} got other files than this release")
            keys.add(text_of(self.tree / key).split("\n")[1])
        if len(keys) != len(builders):
            refuse("bad-attestation", "two builders have one key")
        if len(builders) < self.options.attestations:
            refuse("few-attestations", f"{len(builders)} of {self.options.attestations} builders got these bytes")
        self.say("attestations", " ".join([f"{len(builders)} ({self.options.attestations} asked for)", *builders]))

    def check_history(self) -> None:
        """No way back to an older release, no second release of one number, no leap over an upgrade stop."""
        if self.state is None:
            self.say("history", "nothing recorded before" if self.options.state else "not kept (--state FILE)")
            return
        old, new = int(self.state["sequence"]), int(self.comment["sequence"])
        if new < old:
            refuse("rollback", f"sequence {new} is older than {old}, which was recorded here")
        if new == old and self.state["manifest"] != sha256(self.tree / "SHA256SUMS"):
            refuse("second-release", f"sequence {new} was recorded here with other files")
        if triple(self.state["version"]) < triple(self.comment["min_upgrade_from"]):
            least = self.comment["min_upgrade_from"]
            refuse("upgrade-path", f"upgrade from {self.state['version']} to {least} or later first")
        self.say("history", f"sequence {new} after {old}")

    def check_expiry(self) -> None:
        """Not a release that is kept from its updates: the time is never earlier than one that was recorded."""
        limit = self.comment["not_after"]
        now = self.now = max(self.now, (self.state or {}).get("seen", ""))  # a clock that was set back changes nothing
        self.stale = now > limit
        if self.stale and not self.options.accept_stale:
            refuse("expired", f"not after {limit}, and it is {now}; --accept-stale REASON accepts it")
        accepted = f", STALE, accepted: {self.options.accept_stale}" if self.stale else ""
        self.say("freshness", f"not after {limit}{accepted}")

    def record(self) -> None:
        """Remember this release, for the next one."""
        file: Path = self.options.state
        stale = re.findall(r"(?m)^stale .*\n", text_of(file)) if file.exists() else []
        if self.stale:
            stale.append(f"stale {self.now} {self.comment['version']} {self.options.accept_stale}\n")
        part = file.with_name(file.name + ".part")
        part.write_text(
            f"ispvm-release-state sequence={self.comment['sequence']} version={self.comment['version']}"
            f" manifest={sha256(self.tree / 'SHA256SUMS')} fingerprint={self.fingerprint}"
            f" seen={self.now}\n" + "".join(stale)
        )
        part.replace(file)


# --- showing that it can fail -----------------------------------------------------------------------------------------


def _rewrite(path: Path, change: Callable[[bytes], bytes]) -> None:
    """Change a file of the copy, never the original that it may share its blocks with."""
    data = change(path.read_bytes())
    path.unlink()
    path.write_bytes(data)


def _flip(data: bytes) -> bytes:
    return data[:-2] + bytes([data[-2] ^ 1]) + data[-1:]


def _link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/passwd")


ATTACKS: tuple[tuple[str, Callable[[Path], object]], ...] = (
    ("one bit of the installer is flipped", lambda t: _rewrite(t / "install", _flip)),
    ("a file is added", lambda t: (t / "ansible/extra.yml").write_text("- hosts: all\n")),
    ("a file is missing", lambda t: (t / "VERIFY.md").unlink()),
    ("a file is renamed", lambda t: (t / "install").rename(t / "install2")),
    ("a file is a link out of the tree", lambda t: _link(t / "install")),
    ("a line is added to the manifest", lambda t: _rewrite(t / "SHA256SUMS", lambda d: d + b"0" * 64 + b"  zz\n")),
    ("the manifest is empty", lambda t: _rewrite(t / "SHA256SUMS", lambda _: b"")),
    ("the minisign signature is stripped", lambda t: (t / "signatures/SHA256SUMS.minisig").unlink()),
    ("the ECDSA signature is stripped", lambda t: (t / "signatures/SHA256SUMS.sig").unlink()),
    ("a signature is emptied", lambda t: _rewrite(t / "signatures/SHA256SUMS.minisig", lambda _: b"")),
    ("the sequence in the signed comment is raised",
     lambda t: _rewrite(t / "signatures/SHA256SUMS.minisig", lambda d: d.replace(b" sequence=", b" sequence=9"))),
    ("a public key is exchanged", lambda t: _rewrite(t / "KEYS/release.minisign.pub", _flip)),
)  # fmt: skip


def demo(tree: Path, options: argparse.Namespace) -> int:
    """Make each attack on a copy of the tree and show the answer; 0 when every one was caught."""
    caught = 0
    with tempfile.TemporaryDirectory(dir=tree.parent, prefix=".demo-attacks-") as scratch:
        for name, attack in ATTACKS:
            copy = Path(scratch, "tree")
            shutil.copytree(tree, copy, copy_function=os.link, symlinks=True)
            attack(copy)
            try:
                answer = "NOT CAUGHT  " + Verification(copy, options).run()
            except RefusedError as error:
                answer, caught = f"caught  {error}", caught + 1
            print(f"{name:<46} {answer}")
            shutil.rmtree(copy)
    print(f"{caught} of {len(ATTACKS)} attacks caught")
    return 0 if caught == len(ATTACKS) else 1


def hexadecimal(text: str) -> str:
    """Option type: a SHA-256."""
    if not re.fullmatch("[0-9a-f]{64}", text):
        raise argparse.ArgumentTypeError("64 hexadecimal digits, as sha256sum prints them")
    return text


def count(text: str) -> int:
    """Option type: how many."""
    if not re.fullmatch("0|[1-9][0-9]{0,2}", text):
        raise argparse.ArgumentTypeError("a number")
    return int(text)


def reason(text: str) -> str:
    """Option type: why a stale release is installed all the same; it is recorded."""
    if not re.fullmatch("[ -~]*[!-~][ -~]*", text):
        raise argparse.ArgumentTypeError("a reason in one line of plain text")
    return text


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; the exit code."""
    parser = argparse.ArgumentParser(usage=(__doc__ or "").split("\n\n")[1], allow_abbrev=False)
    parser.add_argument("--fingerprint", type=hexadecimal)
    parser.add_argument("--attestations", type=count, default=0)
    parser.add_argument("--state", type=Path)
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--accept-stale", type=reason)
    parser.add_argument("--allow-test-key", action="store_true")
    parser.add_argument("--demo-attacks", action="store_true")
    parser.add_argument("tree", nargs="?", type=Path, default=Path(__file__).resolve().parent)
    options = parser.parse_args(arguments)
    if options.record and options.state is None:
        parser.error("--record needs --state FILE")
    if not (options.tree / "SHA256SUMS").exists() and not (options.tree / "signatures").exists():
        parser.error(f"{options.tree} is no unpacked release")
    run = Verification(options.tree, options)
    try:
        if options.demo_attacks:
            return demo(options.tree, options)
        verdict = run.run()
    except RefusedError as error:
        print(*run.said, f"REFUSED  {error}", sep="\n")
        return 1
    except UndecidedError as error:
        print(*run.said, f"UNDECIDED  {error}", sep="\n")
        return 2
    print(*run.said, verdict, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
