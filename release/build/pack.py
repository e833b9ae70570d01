"""The last stage: release.json, the manifest over every file, and the packed tree."""

from __future__ import annotations

import hashlib
import json
import tarfile
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, cast

import zstandard

from release.build.source import Release
from release.build.wheelhouse import sha256

MANIFEST = "SHA256SUMS"
# made after the manifest: signatures over it, or over what it names
UNLISTED = ("signatures/", "apt/dists/trixie/InRelease", "apt/dists/trixie/Release.gpg", MANIFEST)
ARTEFACTS = ("agent", "server", "lab", "source")
# from which installed release one may upgrade to this one in one step, and for how long a bundle counts as fresh
MIN_UPGRADE_FROM = "0.1.0"
FRESH_SECONDS = 365 * 86400
# Packages and wheels are compressed already. What is left to gain is there several times (Python in every image, wheels
# in every wheelhouse): a window finds it, a high level only takes time. 128 MB is the most that zstd reads unasked.
COMPRESSION = zstandard.ZstdCompressionParameters.from_level(
    9, window_log=27, enable_ldm=True, threads=2, write_checksum=True
)


def files(tree: Path) -> list[str]:
    """Every file of a tree, relative, in the byte order of LC_ALL=C."""
    names = [path.relative_to(tree).as_posix() for path in tree.rglob("*") if path.is_file() or path.is_symlink()]
    return sorted(names, key=str.encode)


def describe(tree: Path, release: Release) -> None:
    """Write release.json: what the release is, and its own artefacts."""
    artefacts = [
        {"path": name, "size": (tree / name).stat().st_size, "sha256": sha256(tree / name)}
        for name in files(tree)
        if name.partition("/")[0] in ARTEFACTS
    ]
    until = datetime.fromtimestamp(release.source_date_epoch + FRESH_SECONDS, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    content = {**asdict(release), "min_upgrade_from": MIN_UPGRADE_FROM, "not_after": until, "artefacts": artefacts}
    (tree / "release.json").write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")


def manifest(tree: Path) -> None:
    """Write SHA512SUMS, then SHA256SUMS, which lists that too. Called last: what comes later is an extra file."""

    for algorithm, own in (("sha512", "SHA512SUMS"), ("sha256", MANIFEST)):
        lines = []
        for name in files(tree):
            if not name.startswith(UNLISTED[0]) and name not in (*UNLISTED, own):
                with (tree / name).open("rb") as file:
                    lines.append(f"{hashlib.file_digest(file, algorithm).hexdigest()}  {name}\n")
        (tree / own).write_text("".join(lines))


class _Hashed:
    """A stream that remembers the SHA-256 of what was written to it."""

    def __init__(self, below: zstandard.ZstdCompressionWriter) -> None:
        self.below, self.digest = below, hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        return self.below.write(data)


def archive(tree: Path) -> tuple[Path, str]:
    """Pack a tree beside itself as .tar.zst; return the path, and the SHA-256 of the tar inside.

    Sorted, root's, with the release's time, modes 0644 and 0755. The compressor is the locked zstandard wheel, so the
    packed bytes are the same too; whoever has another zstd compares the sum of the tar.
    """
    epoch = json.loads((tree / "release.json").read_text())["source_date_epoch"]
    out = tree.with_name(f"{tree.name}.tar.zst")
    compressor = zstandard.ZstdCompressor(compression_params=COMPRESSION)
    with out.open("wb") as file, compressor.stream_writer(file, closefd=False) as zipped:
        hashed = _Hashed(zipped)
        with tarfile.open(fileobj=cast("IO[bytes]", hashed), mode="w|", format=tarfile.GNU_FORMAT) as packed:
            directories = {str(path.relative_to(tree)) for path in tree.rglob("*") if path.is_dir()}
            for name in sorted([*directories, *files(tree)], key=str.encode):
                path = tree / name
                member = tarfile.TarInfo(f"{tree.name}/{name}")
                member.mtime = epoch
                if path.is_dir():
                    member.type, member.mode = tarfile.DIRTYPE, 0o755
                    packed.addfile(member)
                    continue
                member.size, member.mode = path.stat().st_size, 0o755 if path.stat().st_mode & 0o100 else 0o644
                with path.open("rb") as content:
                    packed.addfile(member, content)
    return out, hashed.digest.hexdigest()
