"""`python -m release.gates`: vulnerabilities, secrets and misconfiguration, over the repository or over a release.

0: pass, 1: the gate found something, 2: the gate did not run or cannot be trusted.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from release.gates import GateError, keys, misconfiguration, secrets, vulnerabilities
from release.sbom import SbomError, vex
from release.sbom.parts import AFTERWARDS

ROOT = Path(__file__).resolve().parents[2]
SNAPSHOT = ROOT / "SBOM" / "advisories"


def today() -> datetime.date:
    """The day, in UTC."""
    return datetime.datetime.now(datetime.UTC).date()


def repository(root: Path) -> list[str]:
    """The files of a checkout: tracked ones, and new ones that are not ignored."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=root, capture_output=True, check=True).stdout.decode().split("\0")
    return sorted(name for name in listed if name and (root / name).is_file() and not (root / name).is_symlink())


def below(folder: Path) -> list[str]:
    """The files of a release; a checkout is asked for its own."""
    if (folder / ".git").exists():
        return repository(folder)
    found = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return sorted(path.relative_to(folder).as_posix() for path in found)


def run_vulnerabilities(args: argparse.Namespace) -> bool:
    """The SBOM against the snapshot."""
    statements = vex.read(ROOT / "SBOM" / "vex.toml", ROOT)
    report = vulnerabilities.check(json.loads(args.sbom.read_text()), SNAPSHOT, statements, args.today or today())
    print(report.text())
    return not report.errors


def run_secrets(args: argparse.Namespace) -> bool:
    """Every file below a folder, archives included. Debian's own packages and others' wheels are not ours to scan."""
    names = [name for name in below(args.folder) if not name.startswith(("apt/pool/", "wheelhouse/"))]
    files: Iterator[tuple[str, Callable[[], bytes]]] = (
        (name, partial((args.folder / name).read_bytes)) for name in names
    )
    number, hits = secrets.scan(files, secrets.allowed(ROOT / "SBOM" / "allowed-secrets.txt"))
    print(f"secrets: {number} files, {len(secrets.PLANTED)} planted found, {len(hits)} hits")
    for hit in hits:
        print(f"  {hit.text()}")
    return not hits


def shipped(path: Path) -> bytes:
    """What is in a file; in a template, also what it includes from beside it."""
    content = path.read_bytes()
    for name in re.findall(rb"\{% include '([^'/]+)' %\}", content) if path.suffix == ".j2" else []:
        content += (path.parent / name.decode()).read_bytes()
    return content


def run_misconfiguration(args: argparse.Namespace) -> bool:
    """What is shipped: roles, playbooks, units, scripts, documents of a release or of the repository."""
    names = [name for name in below(args.folder)
             if not name.startswith(("apt/pool/", "wheelhouse/", "release/gates/")) and "/tests/" not in f"/{name}"
             and not AFTERWARDS.match(name) and not name.startswith(("LICENSES/", "licences/"))]  # fmt: skip
    # a release has the playbooks one folder deeper; exceptions name them as the repository does
    entries = (
        misconfiguration.Entry(
            name.removeprefix("ansible/"), (args.folder / name).stat().st_mode, shipped(args.folder / name)
        )
        for name in names
    )
    exceptions = secrets.allowed(ROOT / "SBOM" / "allowed-configurations.txt")
    number, faults, used = misconfiguration.scan(entries, exceptions)
    print(f"misconfiguration: {number} files, {len(misconfiguration.PLANTED) + 1} planted found, "
          f"{len(used)} exceptions used, {len(faults)} faults")  # fmt: skip
    for fault in faults:
        print(f"  {fault}")
    return not faults


def run_refresh(args: argparse.Namespace) -> bool:
    """Make the Debian part of the snapshot anew from a `Packages` file of the security suite."""
    made = vulnerabilities.debian_snapshot(args.packages.read_text(), args.taken or today())
    entries = made["advisories"][0]["affected"]
    if len(entries) < 100:
        raise GateError(f"{args.packages}: {len(entries)} packages; that is no security suite")
    lines = ",\n".join(json.dumps(entry, separators=(",", ":")) for entry in entries)
    made["advisories"][0]["affected"] = []
    text = json.dumps(made, indent=1).replace('"affected": []', f'"affected": [\n{lines}\n]')
    (SNAPSHOT / "debian-13-security.json").write_text(f"{text}\n")
    print(f"advisories: {len(entries)} packages of Debian 13's security suite")
    return True


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m release.gates", description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(required=True, metavar="GATE")
    one = commands.add_parser("vulnerabilities", help="an SBOM against SBOM/advisories and SBOM/vex.toml")
    one.add_argument("sbom", type=Path)
    one.add_argument("--today", type=datetime.date.fromisoformat, help="another day, to see what will expire")
    one.set_defaults(run=run_vulnerabilities)
    for name, run, what in (("secrets", run_secrets, "keys, tokens and passwords"),
                            ("misconfiguration", run_misconfiguration, "what weakens a host")):  # fmt: skip
        one = commands.add_parser(name, help=f"{what} in a release or in the repository")
        one.add_argument("folder", type=Path, nargs="?", default=ROOT)
        one.set_defaults(run=run)
    one = commands.add_parser("refresh", help="make the Debian part of the snapshot anew")
    one.add_argument("packages", type=Path, help="Packages of Debian 13's security suite, as apt has it in its lists")
    one.add_argument("--taken", type=datetime.date.fromisoformat, help="the day it is from")
    one.set_defaults(run=run_refresh)
    args = parser.parse_args()
    try:
        keys.refuse_with_key(os.environ, [Path.cwd(), ROOT, *keys.usual_places(Path.home())])
        return 0 if args.run(args) else 1
    except (GateError, SbomError, OSError, ValueError, KeyError) as error:
        print(f"gate: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
