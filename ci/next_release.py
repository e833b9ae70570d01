#!/usr/bin/env python3
"""Build and sign the release that would follow this one, for upgrades: this commit with the next patch level."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("agent/ispvm_agent", "app/ispvm", "contract/ispvm_contract", "lab/ispvm_lab")
# what a checkout has besides its commit: tools, and what was fetched
CARRIED = (".venv", ".cache/wheels", ".cache/debs")


def raised(clone: Path) -> str:
    """Commit the next patch level in a clone; return it."""
    old = (clone / "VERSION").read_text().strip()
    major, minor, patch = old.split(".")
    new = f"{major}.{minor}.{int(patch) + 1}"
    for path in (clone / "VERSION", *(clone / room / "__init__.py" for room in ROOMS)):
        path.write_text(path.read_text().replace(old, new))
    who = ["-c", "user.name=next", "-c", "user.email=next@invalid"]
    subprocess.run(["git", *who, "commit", "--quiet", "--all", f"--message=Version {new}"], cwd=clone, check=True)
    return new


def main() -> None:
    """Clone, raise the version, build, sign; say where the tree is."""
    parser = argparse.ArgumentParser(prog="next_release.py", description=__doc__)
    parser.add_argument("--keys", type=Path, required=True, help="the keys that signed this release")
    parser.add_argument("--out", type=Path, default=ROOT / "dist" / "next", help="where the tree goes")
    args = parser.parse_args()
    out = args.out.resolve()
    shutil.rmtree(out, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir="/var/tmp") as scratch:
        clone = Path(scratch) / "clone"
        subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", ROOT, clone], check=True)
        for name in CARRIED:
            (clone / name).parent.mkdir(exist_ok=True)
            (clone / name).symlink_to((ROOT / name).resolve())
        (clone / ".git/info/exclude").write_text(".venv\n.cache\n")
        version = raised(clone)
        python = clone / ".venv/bin/python"
        build = [python, "-m", "release.build", "--version", version, "--out", out]
        subprocess.run(build, cwd=clone, check=True)
        sign = [python, "-m", "release.sign", out / f"ispvm-{version}", "--keys", args.keys.resolve()]
        subprocess.run(sign, cwd=clone, check=True)


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(f"next_release: {error}")
