"""The source of a release: one commit and the browser libraries its lock pins, without a trace of the machine."""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import tarfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

VENDORED = "app/ispvm/web/static/vendor"
STATE = ".release.json"  # in a source archive: what git would say


class BuildError(Exception):
    """Something the caller can act on; printed as one line."""


@dataclass(frozen=True)
class Release:
    """What names a release. `source_date_epoch`: seconds, the time of the commit. `sequence`: grows with commits."""

    version: str
    commit: str
    source_date_epoch: int
    sequence: int


def git(root: Path, *args: str) -> str:
    """What git says, without the last newline."""
    done = subprocess.run(["git", *args], cwd=root, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BuildError(f"git {args[0]}: {done.stderr.strip()}")
    return done.stdout.rstrip("\n")


def dirt(root: Path) -> list[str]:
    """The files of a checkout that differ from its commit, as `git status` names them."""
    return git(root, "status", "--porcelain", "--untracked-files=normal").splitlines()


def describe(root: Path, version: str) -> Release:
    """What `version` is built from: the commit of a checkout, or what a source archive says of itself."""
    if (root / STATE).is_file():
        return Release(**json.loads((root / STATE).read_text()))
    written = (root / "VERSION").read_text().strip()
    if version != written:
        raise BuildError(
            f"--version {version}: the file VERSION says {written}; change it in a commit of its own first"
        )
    # a shallow clone would count too few commits, and the next release would look older than this one
    if git(root, "rev-parse", "--is-shallow-repository") == "true":
        raise BuildError("the checkout is shallow, so releases cannot be put in order: git fetch --unshallow")
    commit, epoch = git(root, "log", "-1", "--format=%H %ct").split()
    return Release(version, commit, int(epoch), int(git(root, "rev-list", "--count", "HEAD")))


def listed(root: Path) -> list[str]:
    """The files of the source, relative and sorted: what git tracks (or would), and the browser libraries."""
    if (root / STATE).is_file():
        return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file() or path.is_symlink())
    output = git(root, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    names = {name for name in output.split("\0") if name and ((root / name).is_file() or (root / name).is_symlink())}
    vendored = {str(path.relative_to(root)) for path in (root / VENDORED).rglob("*") if path.is_file()}
    if not vendored:
        raise BuildError(f"{VENDORED} is empty: fetch the browser libraries first (make assets)")
    return sorted(names | vendored)


def add(archive: tarfile.TarFile, name: str, content: bytes, mode: int, epoch: int) -> None:
    """Append one file: root's, with the release's time."""
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.mtime = len(content), mode, epoch
    archive.addfile(member, io.BytesIO(content))


def pack(root: Path, names: Iterable[str], release: Release, into: Path) -> Path:
    """Write `ispvm-<version>.tar.gz` and return its path. Sorted; modes 0644 and 0755; no user, no other time."""
    top = f"ispvm-{release.version}"
    into.mkdir(parents=True, exist_ok=True)
    path = into / f"{top}.tar.gz"
    with (
        path.open("wb") as file,
        gzip.GzipFile("", "wb", 9, file, mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.GNU_FORMAT) as archive,
    ):
        state = json.dumps(asdict(release), indent=2, sort_keys=True) + "\n"
        add(archive, f"{top}/{STATE}", state.encode(), 0o644, release.source_date_epoch)
        for name in names:
            if name == STATE:
                continue
            if (root / name).is_symlink():
                link = tarfile.TarInfo(f"{top}/{name}")
                link.type, link.linkname = tarfile.SYMTYPE, str((root / name).readlink())
                link.mode, link.mtime = 0o777, release.source_date_epoch
                archive.addfile(link)
                continue
            mode = 0o755 if (root / name).stat().st_mode & 0o100 else 0o644
            add(archive, f"{top}/{name}", (root / name).read_bytes(), mode, release.source_date_epoch)
    return path


def unpack(archive: Path, into: Path) -> Path:
    """Unpack a source archive and return its root; every member is a file, or a link to one, below one directory."""
    with tarfile.open(archive) as opened:
        for member in opened:
            path = into / member.name
            content = opened.extractfile(member) if member.isfile() else None
            inside = (
                (path.parent / member.linkname if member.issym() else path).resolve().is_relative_to(into.resolve())
            )
            if not inside or not (content or member.issym()):
                raise BuildError(f"{archive.name}: {member.name} is no file and no link below {into}")
            path.parent.mkdir(parents=True, exist_ok=True)
            if content is None:
                path.symlink_to(member.linkname)
                continue
            path.write_bytes(content.read())
            path.chmod(member.mode)
    (root,) = into.iterdir()
    return root
