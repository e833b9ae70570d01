"""Debian packages as components: every .deb of the release's pool, read from the package itself."""

from __future__ import annotations

import email.utils
import io
import re
import tarfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from email.parser import Parser
from pathlib import Path
from typing import cast
from urllib.parse import quote

from release.sbom import licences
from release.sbom.model import Component, Digest, Inventory, Producer, SbomError, digest, is_code

DISTRO = "debian-13"


@dataclass
class Deb:
    """One .deb. `code` are its executable or importable files by absolute path, maintainer scripts among them."""

    place: str
    filename: str
    digest: Digest
    control: dict[str, str]
    copyright: str
    copyright_of: str  # the package whose copyright file counts (its documentation may be a link)
    code: dict[str, str] = field(default_factory=dict)  # path → SHA-256

    @property
    def name(self) -> str:
        """The binary package's name."""
        return self.control["Package"]

    @property
    def upstream(self) -> tuple[str, str]:
        """Source package and its version."""
        named = re.match(r"^(\S+)(?:\s+\((\S+)\))?$", self.control.get("Source", self.name))
        if named is None:
            raise SbomError(f"{self.place}: unreadable Source field")
        return named[1], named[2] or self.control["Version"]

    @property
    def purl(self) -> str:
        """With processor, distribution and source package: what a scanner needs to look it up in Debian's tracker."""
        source, version = self.upstream
        upstream = source if version == self.control["Version"] else f"{source}@{version}"
        return (
            f"pkg:deb/debian/{quote(self.name, safe='')}@{quote(self.control['Version'], safe='')}"
            f"?arch={self.control['Architecture']}&distro={DISTRO}&upstream={quote(upstream, safe='')}"
        )


def members(content: bytes) -> dict[str, bytes]:
    """The members of an ar archive."""
    if not content.startswith(b"!<arch>\n"):
        raise ValueError("no ar archive")
    found, at = {}, 8
    while at + 60 <= len(content):
        name, size = content[at : at + 16].decode().strip().rstrip("/"), int(content[at + 48 : at + 58])
        found[name] = content[at + 60 : at + 60 + size]
        at += 60 + size + size % 2
    return found


def _tar(parts: dict[str, bytes], name: str) -> tarfile.TarFile:
    full = next(one for one in parts if one.startswith(f"{name}.tar"))
    content = parts[full]
    if full.endswith(".zst"):
        import zstandard

        content = zstandard.ZstdDecompressor().decompressobj().decompress(content)
    return tarfile.open(fileobj=io.BytesIO(content))


def read(path: Path, place: str) -> Deb:
    """Read one package. Raises SbomError when it is none."""
    content = path.read_bytes()
    try:
        parts = members(content)
        code: dict[str, str] = {}
        with _tar(parts, "control") as archive:
            files = {
                one.name.removeprefix("./"): cast("io.BytesIO", archive.extractfile(one)).read()
                for one in archive
                if one.isfile()
            }
        control = {key: str(value) for key, value in Parser().parsestr(files["control"].decode()).items()}
        name, text, text_of = control["Package"], "", control["Package"]
        qualified = f"{name}:{control['Architecture']}" if control.get("Multi-Arch") == "same" else name
        for script in ("preinst", "postinst", "prerm", "postrm", "config"):
            if script in files:
                code[f"/var/lib/dpkg/info/{qualified}.{script}"] = digest(files[script]).sha256
        with _tar(parts, "data") as archive:
            for one in archive:
                inside = one.name.removeprefix(".")
                if one.islnk() and one.linkname.removeprefix(".") in code:  # a hard link: the same bytes
                    code[inside] = code[one.linkname.removeprefix(".")]
                if one.issym() and inside == f"/usr/share/doc/{name}":
                    text_of = one.linkname.rsplit("/", 1)[-1]
                if not one.isfile() or one.islnk():
                    continue
                body = cast("io.BytesIO", archive.extractfile(one)).read()
                if inside == f"/usr/share/doc/{name}/copyright":
                    text = body.decode(errors="replace")
                if is_code(inside, one.mode, body[:4]):
                    code[inside] = digest(body).sha256
    except (ValueError, KeyError, StopIteration, tarfile.TarError) as error:
        raise SbomError(f"{place}: no readable Debian package ({error})") from error
    return Deb(place, path.name, digest(content), control, text, text_of, code)


def read_all(pool: Path, tree: Path) -> list[Deb]:
    """Every package below the pool, in the order of their paths."""
    paths = sorted(pool.rglob("*.deb"))
    with ProcessPoolExecutor() as workers:
        return list(workers.map(read, paths, [path.relative_to(tree).as_posix() for path in paths], chunksize=8))


def _relations(text: str) -> list[list[str]]:
    """A Depends field: groups of alternatives, names only."""
    groups = [group for group in text.replace("\n", " ").split(",") if group.strip()]
    return [[re.split(r"[\s(:\[]", one.strip())[0] for one in group.split("|")] for group in groups]


def edges(debs: list[Deb]) -> dict[str, set[str]]:
    """Who needs whom: purl → purls. Of alternatives the first that is in the pool, as apt chose it."""
    by_name: dict[str, list[Deb]] = {}
    for deb in debs:
        provided = [names[0] for names in _relations(deb.control.get("Provides", ""))]
        for name in (deb.name, *provided):
            by_name.setdefault(name, []).append(deb)
    found: dict[str, set[str]] = {}
    for deb in debs:
        mine = found.setdefault(deb.purl, set())
        for group in _relations(f"{deb.control.get('Pre-Depends', '')},{deb.control.get('Depends', '')}"):
            for name in group:
                fitting = [one for one in by_name.get(name, []) if _together(deb, one) and one is not deb]
                if fitting:
                    mine |= {one.purl for one in fitting if one.name == name} or {fitting[0].purl}
                    break
    return found


def _together(one: Deb, other: Deb) -> bool:
    return len({one.control["Architecture"], other.control["Architecture"]} - {"all"}) < 2


def lock_uses(tree: Path) -> dict[str, set[str]]:
    """What each package is for, from apt.lock: file name → `host-amd64`, `image-arm64`, …; empty without a lock."""
    found: dict[str, set[str]] = {}
    lock = tree / "apt" / "apt.lock"
    for line in lock.read_text().splitlines() if lock.is_file() else []:
        if not line.startswith("#"):
            _, _, _, _, _, uses, path, index = line.split()
            found.setdefault(path.rsplit("/", 1)[-1], set()).update(f"{use}-{index}" for use in uses.split(","))
    return found


def add(inventory: Inventory, tree: Path) -> list[Deb]:
    """Add every package of the pool."""
    debs = read_all(tree / "apt" / "pool", tree)
    uses = lock_uses(tree)
    texts = {deb.name: deb.copyright for deb in debs}
    needs = edges(debs)
    for deb in debs:
        maintainer, address = email.utils.parseaddr(deb.control["Maintainer"])
        source, version = deb.upstream
        text = deb.copyright or texts.get(deb.copyright_of, "")
        inventory.add(
            Component(
                "library" if deb.name.startswith("lib") else "application",
                deb.name,
                deb.control["Version"],
                deb.purl,
                Producer(maintainer or address, email=address),
                licences.from_debian_copyright(text, source),
                [deb.filename],
                [deb.digest],
                path=deb.place,
                architecture=deb.control["Architecture"].replace("all", ""),
                description=deb.control.get("Description", "").split("\n")[0],
                source=f"pkg:deb/debian/{quote(source, safe='')}@{quote(version, safe='')}?arch=source&distro={DISTRO}",
                website=deb.control.get("Homepage", ""),
                executable=bool(deb.code),
                requires=needs[deb.purl],
                roles=set(uses.get(deb.filename, {"host-amd64"})),
            )
        )
    return debs
