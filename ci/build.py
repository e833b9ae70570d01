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
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DIST = ROOT / "dist"
WHEELHOUSE = DIST / "wheelhouse"
DOWNLOADS = ROOT / ".cache" / "wheels"
OURS = {"contract": "ispvm-contract", "app": "ispvm-server", "agent": "ispvm-agent", "lab": "ispvm-lab"}
COMPONENTS = {"server": "ispvm-server", "agent": "ispvm-agent", "lab": "ispvm-lab"}
# Debian 13's Python on amd64, and every manylinux a wheel for it may be tagged with.
TARGET_PYTHON = "3.13"
PLATFORMS = ("manylinux_2_39_x86_64", "manylinux_2_34_x86_64", "manylinux_2_28_x86_64", "manylinux_2_17_x86_64",
             "manylinux2014_x86_64", "manylinux_2_12_x86_64", "manylinux2010_x86_64", "manylinux_2_5_x86_64",
             "manylinux1_x86_64")  # fmt: skip


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hex."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def inputs() -> str:
    """One digest over everything the wheelhouse is made from."""
    digest = hashlib.sha256()
    sources = (*OURS, "requirements", "ci/build.py", "ci/assets", "VERSION")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *sources]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    for name in sorted(listed.stdout.decode().split("\0")):
        path = ROOT / name
        if name and path.is_file():
            digest.update(f"{name}\0{sha256(path)}\0".encode())
    return digest.hexdigest()


def pip(*args: str | Path, environment: dict[str, str] | None = None) -> None:
    """Run pip; on failure show what it said and stop."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=ROOT)
    if done.returncode != 0:
        sys.exit(f"build: pip {args[0]} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")


def third_party() -> None:
    """Fetch every locked wheel once into a cache that outlives the wheelhouse."""
    DOWNLOADS.mkdir(parents=True, exist_ok=True)
    target = [f"--python-version={TARGET_PYTHON}", "--implementation=cp", "--only-binary=:all:"]
    target += [f"--platform={platform}" for platform in PLATFORMS]
    for component in COMPONENTS:
        lock = ROOT / "requirements" / f"{component}.txt"
        stamp = DOWNLOADS / f"{component}.stamp"
        if stamp.exists() and stamp.read_text() == sha256(lock):
            continue
        pip("download", "--quiet", "--require-hashes", *target, f"--dest={DOWNLOADS}", f"--find-links={DOWNLOADS}",
            "--requirement", lock)  # fmt: skip
        stamp.write_text(sha256(lock))


def our_wheels(into: Path) -> None:
    """Build our own wheels with the locked backend; the files inside carry the time of the last commit."""
    epoch = subprocess.run(["git", "log", "-1", "--format=%ct"], cwd=ROOT, capture_output=True, text=True, check=True)
    environment = {**os.environ, "SOURCE_DATE_EPOCH": epoch.stdout.strip(), "PYTHONHASHSEED": "0"}
    for room in OURS:
        pip("wheel", "--quiet", "--no-deps", "--no-build-isolation", f"--wheel-dir={into}", ROOT / room,
            environment=environment)  # fmt: skip


def requirement_lines(lock: Path) -> list[tuple[str, set[str]]]:
    """The lock's entries: requirement without hashes, and its SHA-256 sums."""
    entries: list[tuple[str, set[str]]] = []
    for line in lock.read_text().splitlines():
        text = line.strip().removesuffix("\\").strip()
        if not text or text.startswith("#"):
            continue
        if text.startswith("--hash=sha256:"):
            entries[-1][1].add(text.removeprefix("--hash=sha256:"))
        else:
            entries.append((text, set()))
    return entries


def assemble() -> str:
    """Make the wheelhouse in a temporary place, then put it where it belongs. Returns the release's name."""
    staging = DIST / "wheelhouse.new"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    our_wheels(staging)
    own = {path.name.split("-")[0].replace("_", "-"): path for path in staging.glob("*.whl")}
    cached = {sha256(path): path for path in DOWNLOADS.glob("*.whl")}
    for component, distribution in COMPONENTS.items():
        lines = []
        for requirement, hashes in requirement_lines(ROOT / "requirements" / f"{component}.txt"):
            found = hashes & cached.keys()
            if not found:  # not for this platform: its marker excludes it
                if ";" not in requirement:
                    sys.exit(f"build: no wheel for {requirement}")
                continue
            for digest in found:
                shutil.copy2(cached[digest], staging)
            # a wheel that is here is for here: the marker has done its work
            lines.append(" ".join([requirement, *(f"--hash=sha256:{digest}" for digest in sorted(found))]))
        for name in ("ispvm-contract", distribution):
            version = own[name].name.split("-")[1]
            lines.append(f"{name}=={version} --hash=sha256:{sha256(own[name])}")
        (staging / f"{component}.txt").write_text("".join(f"{line}\n" for line in sorted(lines)))
    files = sorted(path for path in staging.iterdir() if path.is_file())
    sums = "".join(f"{sha256(path)}  {path.name}\n" for path in files)
    (staging / "SHA256SUMS").write_text(sums)
    release = f"{(ROOT / 'VERSION').read_text().strip()}+{hashlib.sha256(sums.encode()).hexdigest()[:8]}"
    (staging / "RELEASE").write_text(f"{release}\n")
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
    third_party()
    release = assemble()
    stamp.write_text(current)
    print(release)


if __name__ == "__main__":
    main()
