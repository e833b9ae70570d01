"""The secret scan: nothing that opens anything may be in the repository or in a release.

Rules name what they look for; a line that is meant to look like a secret is listed in SBOM/allowed-secrets.txt with its
reason, by the hash of the match. Archives (wheels, source tars, OCI layers, .deb) are looked into.
"""

from __future__ import annotations

import hashlib
import io
import math
import re
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from release.gates import GateError
from release.gates.keys import PRIVATE

_LARGE = 64 << 20
_ASSIGNED = re.compile(
    rb"""(?i)\b(?:[a-z0-9_-]*(?:password|passwd|secret|token|api_?key|private_?key))["']?"""
    rb"""\s*[:=]\s*["']([A-Za-z0-9+/=_.!@#$%^&*-]{12,})["']"""
)
RULES: dict[str, re.Pattern[bytes]] = {
    "private key": PRIVATE,
    "AWS access key": re.compile(rb"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"),
    "forge token": re.compile(
        rb"\b(?:gh[pousr]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{60,}|glpat-[A-Za-z0-9_-]{20})\b"
    ),
    "package registry token": re.compile(rb"\b(?:pypi-AgE[A-Za-z0-9_-]{50,}|npm_[A-Za-z0-9]{36})\b"),
    "JSON web token": re.compile(rb"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}"),
    "password in a URL": re.compile(rb"\b[a-z][a-z0-9+]{2,}://[^\s/:@<>{}'\"$%]+:([^\s/:@<>{}'\"$%]{4,})@[a-z0-9]"),
    "password hash": re.compile(rb"\$(?:6|y|2[aby]|argon2id?)\$[A-Za-z0-9./+=,$-]{30,}"),
    "high-entropy assignment": _ASSIGNED,
}
# One planted example of each rule; every run must find them all.
PLANTED: dict[str, bytes] = {
    "private key": b"-----BEGIN PRIVATE " + b"KEY-----",
    "AWS access key": b"AKIA" + b"Q3EGRVXKZ7W2PDTS",
    "forge token": b"ghp_" + b"a1B2" * 9,
    "package registry token": b"npm_" + b"z9Y8" * 9,
    "JSON web token": b"eyJhbGciOiJIUzI1NiJ9" + b".eyJzdWIiOiIxMjM0NTY3ODkwIn0" + b".dozjgNryP4J3jVmNHl0w5N",
    "password in a URL": b"postgresql://admin:" + b"correct-horse@db",
    "password hash": b"$6$" + b"rounds=5000$abcdefgh" + b"i" * 40,
    "high-entropy assignment": b'api_key = "' + b'Zx81kQpT0vLmW3nR"',
}


@dataclass(frozen=True)
class Hit:
    """A match: where, by which rule, and the hash that an exception names. Never the secret itself."""

    place: str
    line: int
    rule: str
    digest: str

    def text(self) -> str:
        """One line of the report."""
        return f"{self.place}:{self.line}: {self.rule} ({self.digest})"


def entropy(text: bytes) -> float:
    """Shannon's entropy in bits per byte."""
    counts = Counter(text)
    return -sum(n / len(text) * math.log2(n / len(text)) for n in counts.values())


def look(place: str, content: bytes) -> list[Hit]:
    """Every match in one file."""
    hits = []
    for rule, pattern in RULES.items():
        for match in pattern.finditer(content):
            if pattern is _ASSIGNED and (entropy(match[1]) < 3.5 or not re.search(rb"\d", match[1])):
                continue
            digest = hashlib.sha256(match[0]).hexdigest()[:16]
            hits.append(Hit(place, content.count(b"\n", 0, match.start()) + 1, rule, digest))
    return hits


def unpack(place: str, content: bytes, depth: int = 0) -> Iterator[tuple[str, bytes]]:
    """A file, and what is in it where it is an archive, three levels deep."""
    yield place, content
    if depth >= 3:
        return
    try:
        if content.startswith(b"PK\x03\x04") or (zipfile.is_zipfile(io.BytesIO(content)) and place.endswith(".pex")):
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                for one in archive.infolist():
                    if not one.is_dir() and one.file_size < _LARGE:
                        yield from unpack(f"{place}!{one.filename}", archive.read(one), depth + 1)
        elif re.search(r"\.(tar|tgz|tar\.(gz|xz|bz2))$|blobs/sha256/", place):
            with tarfile.open(fileobj=io.BytesIO(content)) as tar:
                for member in tar:
                    if member.isfile() and member.size < _LARGE and (opened := tar.extractfile(member)):
                        yield from unpack(f"{place}!{member.name}", opened.read(), depth + 1)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError) as error:
        if "blobs/sha256/" not in place:  # a blob may be the configuration: no archive
            raise GateError(f"{place}: cannot be looked into ({error})") from error


def allowed(path: Path) -> dict[str, str]:
    """The exceptions: hash → reason. One without a reason is an error."""
    found = {}
    for number, line in enumerate(path.read_text().splitlines() if path.is_file() else [], 1):
        if line.strip() and not line.startswith("#"):
            digest, _, reason = line.partition(" ")
            if not reason.strip():
                raise GateError(f"{path.name}:{number}: an exception needs its reason")
            found[digest] = reason.strip()
    return found


def scan(files: Iterable[tuple[str, Callable[[], bytes]]], exceptions: dict[str, str]) -> tuple[int, list[Hit]]:
    """Scan files given by name and reader. Returns how many there were and every match that no exception names."""
    for rule, example in PLANTED.items():
        if rule not in {hit.rule for hit in look("planted", b"x\n" + example + b"\n")}:
            raise GateError(f"secret scan: the planted {rule} was not found")
    number, hits = 0, []
    for place, read in files:
        for inside, content in unpack(place, read()):
            number += 1
            hits += [hit for hit in look(inside, content) if hit.digest not in exceptions]
    if not number:
        raise GateError("secret scan: no file was scanned")
    return number, hits
