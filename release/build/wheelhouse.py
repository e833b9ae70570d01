"""Wheelhouses: every third-party wheel that a lock names, for one processor, and our own; requirements with hashes.

`ci/build.py` makes the development wheelhouse of the demo with the same functions.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from packaging.requirements import Requirement
from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import parse_wheel_filename

from release.build.source import BuildError

COMPONENTS = {"server": "ispvm-server", "agent": "ispvm-agent", "lab": "ispvm-lab"}
ARCHITECTURES = {"amd64": "x86_64", "arm64": "aarch64"}
# Debian 13's Python, and every glibc that a wheel for it may be tagged with.
TARGET_PYTHON = "3.13"
GLIBC = ("2_41", "2_40", "2_39", "2_36", "2_35", "2_34", "2_31", "2_28", "2_27", "2_26", "2_24", "2_17")
OLDER = {"amd64": ("2014", "_2_12", "2010", "_2_5", "1"), "arm64": ("2014",)}


def platforms(architecture: str) -> list[str]:
    """The platform tags of wheels that run on Debian 13 on `architecture`, best first."""
    machine = ARCHITECTURES[architecture]
    return [f"manylinux{tag}_{machine}" for tag in (*(f"_{glibc}" for glibc in GLIBC), *OLDER[architecture])]


def tags(architecture: str) -> list[Tag]:
    """Every tag of a wheel that Debian 13's Python on `architecture` takes, best first."""
    version, abi = tuple(int(part) for part in TARGET_PYTHON.split(".")), f"cp{TARGET_PYTHON.replace('.', '')}"
    where = platforms(architecture)
    return [*cpython_tags(version, [abi], where), *compatible_tags(version, abi, where)]


def marker_environment(architecture: str) -> dict[str, str]:
    """What a lock's markers are read with: Debian 13's Python on `architecture`, not the machine that builds."""
    return {
        "implementation_name": "cpython", "implementation_version": f"{TARGET_PYTHON}.5", "os_name": "posix",
        "platform_machine": ARCHITECTURES[architecture], "platform_python_implementation": "CPython",
        "platform_release": "", "platform_system": "Linux", "platform_version": "", "sys_platform": "linux",
        "python_full_version": f"{TARGET_PYTHON}.5", "python_version": TARGET_PYTHON,
    }  # fmt: skip


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def pip(*args: str | Path) -> None:
    """Run pip; on failure raise with what it said."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BuildError(f"pip {args[0]} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")


def locked(lock: Path, architecture: str) -> list[tuple[str, set[str]]]:
    """The lock's entries that are for Debian 13 on `architecture`: requirement without marker, and its SHA-256 sums."""
    entries: list[tuple[str, set[str]]] = []
    wanted = True
    for line in lock.read_text().splitlines():
        text = line.strip().removesuffix("\\").strip()
        if not text or text.startswith("#"):
            continue
        if not text.startswith("--hash=sha256:"):
            requirement = Requirement(text)
            wanted = requirement.marker is None or requirement.marker.evaluate(marker_environment(architecture))
            if wanted:
                entries.append((text.partition(";")[0].strip(), set()))
        elif wanted:
            entries[-1][1].add(text.removeprefix("--hash=sha256:"))
    return entries


def download(lock: Path, cache: Path, architecture: str) -> None:
    """Fetch what `lock` names for `architecture` into a cache that outlives the build."""
    cache.mkdir(parents=True, exist_ok=True)
    stamp = cache / f"{lock.stem}-{architecture}.stamp"
    if stamp.exists() and stamp.read_text() == sha256(lock):
        return
    target = [f"--python-version={TARGET_PYTHON}", "--implementation=cp", "--only-binary=:all:"]
    target += [f"--platform={platform}" for platform in platforms(architecture)]
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        for requirement, hashes in locked(lock, architecture):
            file.write(" ".join([requirement, *(f"--hash=sha256:{digest}" for digest in sorted(hashes))]) + "\n")
        file.flush()
        pip("download", "--quiet", "--require-hashes", "--no-deps", *target, f"--dest={cache}", f"--find-links={cache}",
            "--requirement", file.name)  # fmt: skip
    stamp.write_text(sha256(lock))


def fits(wheel: Path, architecture: str) -> bool:
    """Whether a wheel is for `architecture` and Debian 13's Python, by its name."""
    return bool(parse_wheel_filename(wheel.name)[3] & set(tags(architecture)))


def collect(lock: Path, cache: Path, architecture: str, into: Path, own: Iterable[Path] = ()) -> list[str]:
    """Copy the lock's wheels for `architecture` from the cache, and our own; return the requirements with hashes."""
    cached = {sha256(path): path for path in sorted(cache.glob("*.whl")) if fits(path, architecture)}
    lines = []
    into.mkdir(parents=True, exist_ok=True)
    for requirement, hashes in locked(lock, architecture):
        found = sorted(hashes & cached.keys())
        if not found:
            raise BuildError(f"{lock.name}: no wheel for {requirement} on {architecture}")
        for digest in found:
            shutil.copyfile(cached[digest], into / cached[digest].name)
        lines.append(" ".join([requirement, *(f"--hash=sha256:{digest}" for digest in found)]))
    for wheel in own:
        name, version = wheel.name.split("-")[:2]
        shutil.copyfile(wheel, into / wheel.name)
        lines.append(f"{name.replace('_', '-')}=={version} --hash=sha256:{sha256(wheel)}")
    return sorted(lines)


def assemble(root: Path, cache: Path, architecture: str, own: Iterable[Path], into: Path, release: str = "") -> str:
    """Make one wheelhouse: wheels, `{server,agent,lab}.txt`, `SHA256SUMS`, and `RELEASE` with the release's name.

    `release`: that name; empty for a development build, whose name is the version and eight digits of what is in it.
    """
    wheels = {path.name.split("-")[0].replace("_", "-"): path for path in own}
    for component, distribution in COMPONENTS.items():
        ours = (wheels["ispvm-contract"], wheels[distribution])
        lines = collect(root / "requirements" / f"{component}.txt", cache, architecture, into, ours)
        (into / f"{component}.txt").write_text("".join(f"{line}\n" for line in lines))
    files = sorted(path for path in into.iterdir() if path.is_file())
    sums = "".join(f"{sha256(path)}  {path.name}\n" for path in files)
    (into / "SHA256SUMS").write_text(sums)
    name = release or f"{(root / 'VERSION').read_text().strip()}+{hashlib.sha256(sums.encode()).hexdigest()[:8]}"
    (into / "RELEASE").write_text(f"{name}\n")
    return name
