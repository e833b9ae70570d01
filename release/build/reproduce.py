"""Build the same commit again and again in different surroundings, without a network, and compare every byte.

`python -m release.build.reproduce`           two builds that differ in every factor at once
`python -m release.build.reproduce --each`    one more build for each factor, which names the guilty one
`… --own`                                     only our own artefacts; seconds instead of minutes
`… --leak`                                    plants a build time in the tree: must be found, so this must fail

Needs root (other users, mounts, a clock of its own) and the package faketime. Nothing of the machine is changed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from release.build import debian, pack, source, wheelhouse
from release.build.source import BuildError, git

ROOT = Path(__file__).resolve().parents[2]
FAKETIME = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1"
NOBODY = 65534
# what a checkout has besides its commit: tools, what was fetched, and the browser libraries
CARRIED = (".venv", ".cache/wheels", ".cache/debs")
LEAK = '(tree / "built").write_text(f"{time.time_ns()}\\n"); pack.manifest(tree)'


@dataclass(frozen=True)
class Surroundings:
    """What one build sees. The defaults are the first build; every factor of FACTORS changes one of them."""

    directory: str = "checkout"
    umask: int = 0o022
    user: int = 0
    clock: str = ""
    tmpfs: bool = False
    processors: str = ""
    environment: dict[str, str] = field(default_factory=dict)


FACTORS: dict[str, Surroundings] = {
    "directory": Surroundings(directory="another place/of some other length/check out"),
    "umask": Surroundings(umask=0o077),
    "time zone": Surroundings(environment={"TZ": "Pacific/Kiritimati"}),
    "locale": Surroundings(environment={"LC_ALL": "POSIX", "LANG": "tr_TR.UTF-8"}),
    "user": Surroundings(user=NOBODY),
    "hash seed": Surroundings(environment={"PYTHONHASHSEED": "4242"}),
    "clock": Surroundings(clock="+400d"),
    "file order": Surroundings(tmpfs=True),  # a tmpfs lists the newest file first, a disk by hash or age
    "home": Surroundings(environment={"HOME": "elsewhere"}),
    "processors": Surroundings(processors="0"),
}
FIRST = Surroundings()


def together(factors: Sequence[str]) -> Surroundings:
    """Every factor at once."""
    values: dict[str, object] = {}
    environment: dict[str, str] = {}
    for name in factors:
        environment.update(FACTORS[name].environment)
        values.update({k: v for k, v in vars(FACTORS[name]).items() if v != getattr(FIRST, k) and k != "environment"})
    return Surroundings(**values, environment=environment)  # type: ignore[arg-type]


@contextmanager
def place(surroundings: Surroundings, base: Path) -> Iterator[Path]:
    """An empty directory on the wanted file system."""
    base.mkdir(parents=True)
    if surroundings.tmpfs:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6g,mode=0755", "none", base], check=True)
    try:
        yield base
    finally:
        if surroundings.tmpfs:
            subprocess.run(["umount", "--lazy", base], check=True)


def checkout(surroundings: Surroundings, base: Path, commit: str, *, leak: bool) -> Path:
    """A clean clone at the commit, with what was fetched for it; owned by who will build."""
    clone = base / surroundings.directory
    clone.parent.mkdir(parents=True, exist_ok=True)
    git(ROOT, "clone", "--quiet", "--no-hardlinks", "--no-checkout", str(ROOT), str(clone))
    git(clone, "checkout", "--quiet", "--detach", commit)  # whatever is committed meanwhile
    for name in CARRIED:
        (clone / name).parent.mkdir(exist_ok=True)
        (clone / name).symlink_to((ROOT / name).resolve())
    (clone / ".git/info/exclude").write_text(".venv\n.cache\n")
    shutil.copytree(ROOT / source.VENDORED, clone / source.VENDORED, dirs_exist_ok=True)
    if leak:
        guilty = clone / "release/build/__main__.py"
        guilty.write_text(guilty.read_text().replace("pack.manifest(tree)", LEAK))
        identity = ["-c", "user.name=leak", "-c", "user.email=leak@invalid"]
        os.environ.update(GIT_AUTHOR_DATE="2026-01-01T00:00:00Z", GIT_COMMITTER_DATE="2026-01-01T00:00:00Z")
        git(clone, *identity, "commit", "--quiet", "--all", "--message=a build time in the tree")
    home = base / "elsewhere"
    (home / ".config/pip").mkdir(parents=True)
    (home / ".config/pip/pip.conf").write_text("[global]\nno-binary = :all:\n")
    (home / ".gitconfig").write_text("[core]\n\tautocrlf = true\n\tquotePath = true\n[log]\n\tshowSignature = true\n")
    (base / "tmp").mkdir()
    if surroundings.user:
        for path in [base, *base.rglob("*")]:
            os.chown(path, surroundings.user, surroundings.user, follow_symlinks=False)
    return clone


def build(surroundings: Surroundings, base: Path, version: str, commit: str, *, own: bool, leak: bool) -> Path:
    """Build once; return the tree. The network is off."""
    clone = checkout(surroundings, base, commit, leak=leak)
    environment = {"PATH": "/usr/bin:/bin", "HOME": "/root", "LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "0",
                   "PYTHONDONTWRITEBYTECODE": "1", "TMPDIR": str(base / "tmp")}  # fmt: skip
    environment |= surroundings.environment
    if environment["HOME"] == "elsewhere":
        environment["HOME"] = str(base / "elsewhere")
    script = f"umask {surroundings.umask:03o}\n"
    if surroundings.clock:
        # a file that every program loads, in a mount namespace of its own: no variable that the build could strip
        script += (
            f'mkdir "{base}/etc"\ncp -a /etc/. "{base}/etc"\nmount --bind "{base}/etc" /etc\n'
            f"echo '{surroundings.clock}' > /etc/faketimerc\n: > /etc/ld.so.preload\n"
            f"chown {surroundings.user} /etc/ld.so.preload\nchmod 644 /etc/faketimerc /etc/ld.so.preload\n"
        )
    command = [str(clone / ".venv/bin/python"), "-m", "release.build", "--version", version, "--out", str(base / "out")]
    command += ["--own"] if own else []
    if surroundings.clock:
        # only after the change of user: its shared memory belongs to who loads it first
        command = ["sh", "-euc", f'echo {FAKETIME} > /etc/ld.so.preload; "$@"; exit', "sh", *command]
    if surroundings.user:
        (base / "out").mkdir()
        os.chown(base / "out", surroundings.user, surroundings.user)
        user = str(surroundings.user)
        command = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", *command]
    if surroundings.processors:
        command = ["taskset", "--cpu-list", surroundings.processors, *command]
    wrapped = ["unshare", "--mount", "--net", "--propagation", "private", "sh", "-euc", f'{script}exec "$@"', "sh"]
    done = subprocess.run([*wrapped, *command], cwd=clone, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BuildError(f"the build in {base.name} failed:\n{done.stdout[-1500:]}{done.stderr[-2500:]}")
    return base / "out" / f"ispvm-{version}"


def kind(name: str) -> str:
    """The row of the table that a file belongs to."""
    if name.endswith(".tar.zst"):
        return "archive"
    top = name.partition("/")[0]
    endings = {
        ".whl": "wheels",
        ".pex": "agent PEX",
        ".deb": "agent deb",
        ".oci.tar": "OCI images",
        ".tar.gz": "sdists",
    }
    if top in pack.ARTEFACTS and top != "source":
        return next((row for ending, row in endings.items() if name.endswith(ending)), "other")
    rows = {"source": "source", "apt": "apt repository", "wheelhouse": "wheelhouses", "sbom": "SBOMs"}
    return rows.get(top, "manifest" if name.endswith("SUMS") else "everything else")


def built(tree: Path) -> set[str]:
    """What a build made, seen from its tree: every file, and the archive beside it if it was packed."""
    return {*pack.files(tree), *(f"../{path.name}" for path in tree.parent.glob("*.tar.zst"))}


def differences(first: Path, second: Path) -> list[str]:
    """What is not the same in two builds, or is in one only."""
    ours, theirs = built(first), built(second)
    unlike = {name for name in ours & theirs if wheelhouse.sha256(first / name) != wheelhouse.sha256(second / name)}
    return sorted(unlike | (ours ^ theirs))


def members(path: Path) -> dict[str, object]:
    """What an archive holds, each member with all that could differ; empty when it is no archive."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as opened:
            return {
                i.filename: (i.CRC, i.file_size, i.date_time, oct(i.external_attr >> 16)) for i in opened.infolist()
            }
    if tarfile.is_tarfile(path):
        with tarfile.open(path) as archive:
            return {m.name: (m.chksum, m.size, m.mtime, oct(m.mode), m.uid, m.uname) for m in archive}
    return {}


def explain(first: Path, second: Path) -> str:
    """Where two files differ first: a member of an archive, or a byte."""
    if not (first.is_file() and second.is_file()):
        return "only one build made it"
    ours, theirs = members(first), members(second)
    for name in [*ours, *(name for name in theirs if name not in ours)]:
        if ours.get(name) != theirs.get(name):
            return f"member {name}: {ours.get(name, 'absent')} / {theirs.get(name, 'absent')}"
    if list(ours) != list(theirs):
        return "the same members in another order"
    left, right = first.read_bytes(), second.read_bytes()
    at = next((i for i, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right)))
    return f"byte {at}: {left[at : at + 40]!r} / {right[at : at + 40]!r}"


def table(rows: Sequence[str], columns: dict[str, list[str]]) -> str:
    """Artefact × factor: `=` or the number of files that differ."""
    width = max(map(len, rows))
    lines = [" " * width + "  " + "  ".join(columns)]
    for row in rows:
        cells = []
        for factor, unlike in columns.items():
            count = sum(kind(name) == row for name in unlike)
            cells.append(f"{count or '=':>{len(factor)}}")
        lines.append(f"{row:<{width}}  " + "  ".join(cells))
    return "\n".join(lines)


def compare(first: Path, second: Path, factor: str) -> list[str]:
    """The files that differ, each explained on the way; diffoscope says more where it is installed."""
    unlike = differences(first, second)
    for name in unlike[:5]:
        print(f"{factor}: {name}: {explain(first / name, second / name)}", flush=True)
    if unlike and (diffoscope := shutil.which("diffoscope")):
        subprocess.run([diffoscope, "--max-report-size=20000", first / unlike[0], second / unlike[0]], check=False)
    return unlike


def fetch(version: str, *, own: bool) -> None:
    """Bring what the builds need while there is a network."""
    source.describe(ROOT, version)
    subprocess.run([ROOT / "ci" / "assets"], check=True)
    cache = ROOT / ".cache" / "wheels"
    for architecture in wheelhouse.ARCHITECTURES:
        for lock in ("agent",) if own else (*wheelhouse.COMPONENTS, "installer"):
            wheelhouse.download(ROOT / f"requirements/{lock}.txt", cache, architecture)
    wheelhouse.download(ROOT / "requirements/build.txt", cache, "amd64")
    (ROOT / ".cache/debs").mkdir(exist_ok=True)
    if not own:
        debian.fetch(debian.read_lock(ROOT), ROOT / ".cache/debs")


def main() -> None:
    """Build, compare, print the table; exit 1 when a byte differs."""
    parser = argparse.ArgumentParser(prog="reproduce", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--each", action="store_true", help="one build for each factor, instead of all at once")
    parser.add_argument("--own", action="store_true", help="only our own artefacts")
    parser.add_argument("--leak", action="store_true", help="plant a build time, which must be found")
    args = parser.parse_args()
    if os.geteuid() != 0:
        raise BuildError("reproduce needs root: it builds as another user, on another file system, at another time")
    if not Path(FAKETIME).exists():
        raise BuildError("reproduce needs the package faketime: apt-get install faketime")
    version, commit = (ROOT / "VERSION").read_text().strip(), git(ROOT, "rev-parse", "HEAD").strip()
    fetch(version, own=args.own)
    variants = {name: together([name]) for name in FACTORS} if args.each else {"all at once": together(list(FACTORS))}
    columns: dict[str, list[str]] = {}
    with tempfile.TemporaryDirectory(dir="/var/tmp") as scratch:
        Path(scratch).chmod(0o755)
        with place(FIRST, Path(scratch) / "first") as base:
            first = build(FIRST, base, version, commit, own=args.own, leak=args.leak)
            for number, (factor, surroundings) in enumerate(variants.items()):
                with place(surroundings, Path(scratch) / f"other{number}") as other:
                    second = build(surroundings, other, version, commit, own=args.own, leak=args.leak)
                    columns[factor] = compare(first, second, factor)
                print(f"{factor}: {len(columns[factor])} of {len(built(first))} files differ", flush=True)
                shutil.rmtree(Path(scratch) / f"other{number}")
            rows = sorted(
                {kind(name) for name in [*built(first), *(name for unlike in columns.values() for name in unlike)]}
            )
            files = len(built(first))
            digest = wheelhouse.sha256(first / pack.MANIFEST)
    print(table(rows, columns))
    unlike = sum(map(len, columns.values()))
    print(f"{files} files, {len(variants)} further builds, {unlike} differences; SHA256SUMS is {digest}")
    if not args.each:
        print(f"all at once: {', '.join(FACTORS)}")
    if unlike:
        raise BuildError("the release depends on where it was built")


if __name__ == "__main__":
    try:
        main()
    except BuildError as error:
        sys.exit(f"reproduce: {error}")
