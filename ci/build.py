#!/usr/bin/env python3
"""Build the wheelhouse that the appliance is installed from: our wheels, every third-party wheel, hashed requirements.

`dist/wheelhouse/` is made anew when any input changed. It holds `*.whl`, `{server,agent,lab}.txt` (requirements with
hashes, ours included), `SHA256SUMS`, and `RELEASE` with the release's name: the version, and for a development build
eight digits of what is in it, so that two different builds never share a directory on a host.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from release.build import wheelhouse  # noqa: E402
from release.build.source import BuildError  # noqa: E402

DIST = ROOT / "dist"
WHEELHOUSE = DIST / "wheelhouse"
DOWNLOADS = ROOT / ".cache" / "wheels"
OURS = ("contract", "app", "agent", "lab")
ARCHITECTURE = "amd64"


def inputs() -> str:
    """One digest over everything the wheelhouse is made from."""
    digest = hashlib.sha256()
    sources = (*OURS, "requirements", "ci/build.py", "ci/assets", "release/build/wheelhouse.py", "VERSION")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *sources]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    for name in sorted(listed.stdout.decode().split("\0")):
        path = ROOT / name
        if name and path.is_file():
            digest.update(f"{name}\0{wheelhouse.sha256(path)}\0".encode())
    return digest.hexdigest()


def our_wheels(into: Path) -> list[Path]:
    """Build our own wheels with the locked backend; the files inside carry the time of the last commit."""
    epoch = subprocess.run(["git", "log", "-1", "--format=%ct"], cwd=ROOT, capture_output=True, text=True, check=True)
    environment = {**os.environ, "SOURCE_DATE_EPOCH": epoch.stdout.strip(), "PYTHONHASHSEED": "0"}
    for room in OURS:
        command: list[str | Path] = [
            sys.executable,
            "-m",
            "hatchling",
            "build",
            "--target",
            "wheel",
            "--directory",
            into,
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=ROOT / room)
        if done.returncode != 0:
            raise BuildError(f"hatchling {room} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return sorted(into.glob("*.whl"))


def assemble() -> str:
    """Make the wheelhouse in a temporary place, then put it where it belongs. Returns the release's name."""
    for component in wheelhouse.COMPONENTS:
        wheelhouse.download(ROOT / "requirements" / f"{component}.txt", DOWNLOADS, ARCHITECTURE)
    staging = DIST / "wheelhouse.new"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as own:
        release = wheelhouse.assemble(ROOT, DOWNLOADS, ARCHITECTURE, our_wheels(Path(own)), staging)
    shutil.rmtree(WHEELHOUSE, ignore_errors=True)
    staging.rename(WHEELHOUSE)
    return release


def main() -> None:
    """Build when an input changed; print the release's name."""
    argparse.ArgumentParser(prog="build.py", description=(__doc__ or "").splitlines()[0]).parse_args()
    subprocess.run([ROOT / "ci" / "assets"], check=True)
    stamp = DIST / "wheelhouse.inputs"
    current = inputs()
    if stamp.exists() and stamp.read_text() == current and (WHEELHOUSE / "RELEASE").exists():
        print((WHEELHOUSE / "RELEASE").read_text().strip())
        return
    release = assemble()
    stamp.write_text(current)
    print(release)


if __name__ == "__main__":
    try:
        main()
    except BuildError as error:
        sys.exit(f"build: {error}")
