"""The Debian packages of a release: resolved by apt itself, locked, and laid out as an apt repository.

`release/apt.lock` names every package that the roles and the images need on Debian 13, with its dependencies, by
SHA-256. `python -m release.build.debian` resolves it anew. A mirror drops what Debian has superseded: then a release
can still be built from the cache or from the pool of an earlier bundle (`--pool`); a new lock takes the newer package.
"""

from __future__ import annotations

import email.utils
import io
import lzma
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import yaml

from release.build.source import BuildError, Release
from release.build.wheelhouse import sha256

SUITE = "trixie"
LOCK = "release/apt.lock"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
# what `install` and Ansible need on a host, beside the packages of the roles; minisign verifies bundles
INSTALLER = ("minisign", "python3", "python3-apt", "python3-venv")
IMAGE = ("base-files", "ca-certificates", "python3", "tzdata")
IMAGES = {"agent": IMAGE, "server": (*IMAGE, "libstdc++6")}  # numpy is C++, and its wheel brings no such library
# an image has no package manager, no shell and no tool: these would come along only for scripts that install packages
NOT_IN_IMAGES = {"debconf", "dpkg", "libacl1", "libmd0", "libpcre2-8-0", "libselinux1", "mawk", "openssl", "tar"}
# the appliance is amd64 only; agents and their images are both
ROLES = {"amd64": ("agent", "base", "pgbouncer", "postgresql", "proxy", "release", "timescaledb"),
         "arm64": ("agent", "base", "release")}  # fmt: skip


@dataclass(frozen=True, order=True)
class Package:
    """One line of the lock. `uses`: of `host` (the roles), `agent-image`, `server-image`. `path`: in any pool."""

    name: str
    architecture: str
    version: str
    size: int
    sha256: str
    uses: str
    path: str
    index: str  # the processor whose index names it: an `all` package may stand in both


def wanted(root: Path, architecture: str) -> dict[str, Sequence[str]]:
    """What is resolved for one processor: use → package names."""
    names = set(INSTALLER)
    for role in ROLES[architecture]:
        values = yaml.safe_load((root / f"roles/{role}/defaults/main.yml").read_text()) or {}
        names.update(values.get(f"{role}_packages", []))
    components = IMAGES if architecture == "amd64" else ("agent",)
    return {"host": sorted(names)} | {f"{component}-image": IMAGES[component] for component in components}


def mirrors() -> list[str]:
    """apt lines for Debian 13 from the archive that this machine itself uses; only Debian's own keys are trusted."""
    command = ["apt-get", "indextargets", "--format", "$(LABEL)|$(REPO_URI)", "Created-By: Packages"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = dict(reversed([line.split("|", 1) for line in listed.splitlines() if "|" in line]))
    if "Debian" not in found:
        raise BuildError("apt: no Debian archive among this machine's sources; run `apt-get update` first")
    archive, security = found["Debian"], found.get("Debian-Security", "")
    lines = [(archive, SUITE), (archive, f"{SUITE}-updates"), *([(security, f"{SUITE}-security")] if security else [])]
    return [f"deb [signed-by={KEYRING}] {address} {suite} main" for address, suite in lines]


def apt(state: Path, architecture: str, *args: str, cwd: Path | None = None) -> str:
    """Run apt-get for a Debian 13 that is not there: with a state of its own, in which nothing is installed."""
    for name in ("lists/partial", "archives/partial"):
        (state / name).mkdir(parents=True, exist_ok=True)
    (state / "status").touch()
    (state / "sources.list").write_text("".join(f"{line}\n" for line in mirrors()))
    settings = {
        "Dir::State": state, "Dir::State::status": state / "status", "Dir::State::lists": state / "lists",
        "Dir::Cache": state, "Dir::Cache::archives": state / "archives",
        "Dir::Etc::sourcelist": state / "sources.list", "Dir::Etc::sourceparts": "/dev/null",
        "Dir::Etc::preferences": "/dev/null", "Dir::Etc::preferencesparts": "/dev/null",
        "APT::Architecture": architecture, "APT::Architectures::": architecture, "APT::Install-Recommends": "false",
        "Acquire::Languages": "none", "Acquire::ForceHash": "SHA256", "APT::Sandbox::User": "root",
    }  # fmt: skip
    # `clear` needs a file: the list of processors would otherwise be this machine's and ours
    config = state / "apt.conf"
    config.write_text(
        "#clear APT::Architectures;\n" + "".join(f'{name} "{value}";\n' for name, value in settings.items())
    )
    environment = {"PATH": "/usr/bin:/usr/sbin:/bin:/sbin", "LC_ALL": "C.UTF-8", "APT_CONFIG": str(config)}
    done = subprocess.run(["apt-get", *args], env=environment, capture_output=True, text=True, check=False, cwd=cwd)
    if done.returncode != 0:
        raise BuildError(f"apt-get {args[0]} ({architecture}): {done.stderr.strip()[-1500:]}")
    return done.stdout


def resolve(root: Path) -> list[Package]:
    """Ask apt for every package that the roles and the images need, on a Debian 13 where none is there yet."""
    found: dict[tuple[str, str], Package] = {}
    for architecture in ROLES:
        with tempfile.TemporaryDirectory() as state:
            apt(Path(state), architecture, "update")
            for use, names in wanted(root, architecture).items():
                for line in apt(Path(state), architecture, "install", "--yes", "--print-uris", *names).splitlines():
                    if not line.startswith("'"):
                        continue
                    address, file, size, digest = line.split()
                    name, version, arch = file.removesuffix(".deb").split("_")
                    if use != "host" and name in NOT_IN_IMAGES:
                        continue
                    if not digest.startswith("SHA256:"):
                        raise BuildError(f"{name}: the index gives no SHA-256")
                    earlier = found.get((file, architecture))
                    path = "pool/" + unquote(address.strip("'")).partition("/pool/")[2]
                    found[file, architecture] = Package(name, arch, unquote(version), int(size), digest[7:],
                        f"{earlier.uses},{use}" if earlier else use, path, architecture)  # fmt: skip
    return sorted(found.values())


def write_lock(root: Path, packages: Iterable[Package]) -> None:
    """Write the lock, one package a line."""
    lines = ["# name architecture version size sha256 uses path index; made by `make lock`"]
    lines.extend(" ".join(map(str, vars(package).values())) for package in packages)
    (root / LOCK).write_text("".join(f"{line}\n" for line in lines))


def read_lock(root: Path) -> list[Package]:
    """The packages of the lock. Raises when a role has got a package that it does not have yet."""
    packages = []
    for line in (root / LOCK).read_text().splitlines():
        if not line.startswith("#"):
            name, architecture, version, size, digest, uses, path, index = line.split()
            packages.append(Package(name, architecture, version, int(size), digest, uses, path, index))
    for architecture in ROLES:
        have = {package.name for package in packages if package.index == architecture}
        missing = {name for names in wanted(root, architecture).values() for name in names} - have
        if missing:
            raise BuildError(f"{LOCK}: no {', '.join(sorted(missing))} for {architecture}; resolve it anew: make lock")
    return packages


def fetch(packages: Iterable[Package], cache: Path, pool: Path | None = None) -> dict[str, Path]:
    """Every package's file by SHA-256, from the cache, from the pool of another bundle, or else from the mirror."""
    cache.mkdir(parents=True, exist_ok=True)
    missing: dict[str, list[Package]] = {}
    files = {}
    for package in packages:
        kept = cache / f"{package.sha256}.deb"
        files[package.sha256] = kept
        offered = pool / package.path if pool else None
        if not kept.exists() and offered and offered.exists() and sha256(offered) == package.sha256:
            shutil.copyfile(offered, kept)
        if not kept.exists():
            missing.setdefault(package.index, []).append(package)
    for architecture, lacking in missing.items():
        with tempfile.TemporaryDirectory() as state, tempfile.TemporaryDirectory() as got:
            apt(Path(state), architecture, "update")
            try:
                names = [f"{package.name}={package.version}" for package in lacking]
                apt(Path(state), architecture, "download", *names, cwd=Path(got))
            except BuildError as error:
                raise BuildError(f"{error}\n{LOCK}: superseded packages are gone from the mirror; resolve it anew "
                                 "(make lock), or give the pool of an earlier bundle (--pool)") from None  # fmt: skip
            for path in Path(got).glob("*.deb"):
                shutil.copyfile(path, cache / f"{sha256(path)}.deb")
    for package in packages:
        if not files[package.sha256].exists():
            raise BuildError(f"{package.name} {package.version}: the mirror's file has not the SHA-256 of {LOCK}")
    return files


def parts(deb: Path) -> dict[str, bytes]:
    """The members of a .deb: name → content. Sizes of a few MB."""
    content = deb.read_bytes()
    found, offset = {}, 8
    while offset < len(content):
        name, size = content[offset : offset + 16].decode().rstrip(" /"), int(content[offset + 48 : offset + 58])
        found[name] = content[offset + 60 : offset + 60 + size]
        offset += 60 + size + size % 2
    return found


def unpacked(members: dict[str, bytes], which: str) -> tarfile.TarFile:
    """The `control` or `data` archive of a .deb."""
    for name, content in members.items():
        if name == f"{which}.tar":
            return tarfile.open(fileobj=io.BytesIO(content))
        if name == f"{which}.tar.xz":
            return tarfile.open(fileobj=io.BytesIO(lzma.decompress(content)))
        if name == f"{which}.tar.gz":
            return tarfile.open(fileobj=io.BytesIO(content), mode="r:gz")
    raise BuildError(f"a package has no {which} archive that Python can read; it has {', '.join(members)}")


def control(members: dict[str, bytes]) -> str:
    """The control file of a .deb, without a last newline."""
    with unpacked(members, "control") as archive:
        file = archive.extractfile("./control")
        assert file is not None  # noqa: S101 - a .deb without it is none
        return file.read().decode().strip("\n")


def repository(packages: Iterable[Package], files: dict[str, Path], release: Release, into: Path) -> None:
    """Lay out pool and indexes in `into`. The Release file is unsigned: signing is another stage."""
    stanzas: dict[str, list[str]] = {architecture: [] for architecture in ROLES}
    for package in sorted(packages):
        target = into / package.path
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(files[package.sha256], target)
        where = f"Filename: {package.path}\nSize: {package.size}\nSHA256: {package.sha256}"
        stanzas[package.index].append(f"{control(parts(files[package.sha256]))}\n{where}\n")
    indexes = {}
    for architecture, texts in stanzas.items():
        name = f"main/binary-{architecture}/Packages"
        path = into / "dists" / SUITE / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(texts))
        indexes[name] = path
    sums = "".join(f" {sha256(path)} {path.stat().st_size:>9} {name}\n" for name, path in sorted(indexes.items()))
    date = email.utils.formatdate(release.source_date_epoch, usegmt=True).replace("GMT", "UTC")
    (into / "dists" / SUITE / "Release").write_text(
        f"Origin: ISPVisualMonitor\nLabel: ISPVisualMonitor\nSuite: {SUITE}\nCodename: {SUITE}\n"
        f"Version: {release.version}\nDate: {date}\nArchitectures: {' '.join(stanzas)}\nComponents: main\n"
        f"Description: Debian packages of ISPVisualMonitor {release.version}, unchanged\nSHA256:\n{sums}"
    )


def main() -> None:
    """Resolve the lock anew."""
    root = Path(__file__).resolve().parents[2]
    packages = resolve(root)
    write_lock(root, packages)
    size = sum({package.path: package.size for package in packages}.values())
    print(f"{LOCK}: {len({package.path for package in packages})} packages, {size / 1e6:.0f} MB")


if __name__ == "__main__":
    try:
        main()
    except BuildError as error:
        sys.exit(f"release: {error}")
