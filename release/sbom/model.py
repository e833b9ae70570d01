"""What an SBOM is made of, whatever format it is written in: components, their files, and who needs whom."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

# Files whose execution or import runs code, by name; a mode with an x bit, a `#!` or an ELF header counts as well.
CODE_SUFFIXES = (
    ".py",
    ".pyc",
    ".pth",
    ".so",
    ".pm",
    ".pl",
    ".js",
    ".mjs",
    ".sh",
    ".wasm",
    ".rb",
    ".lua",
    ".tcl",
    ".whl",
    ".pex",
)
_SHARED_OBJECT = re.compile(r"\.so(\.[0-9]+)*$")


class SbomError(Exception):
    """The release cannot be described: the text names the file and what to do."""


@dataclass(frozen=True)
class Digest:
    """SHA-256 and SHA-512 of the same bytes, in hex."""

    sha256: str
    sha512: str


def digest(content: bytes) -> Digest:
    """Both sums of these bytes."""
    return Digest(hashlib.sha256(content).hexdigest(), hashlib.sha512(content).hexdigest())


def digest_of_manifest(entries: Iterable[tuple[str, str]]) -> Digest:
    """Both sums of a sorted `sha512  path` manifest: the sum of a directory, made as `sha512sum` prints it."""
    return digest("".join(f"{sha512}  {name}\n" for name, sha512 in sorted(entries)).encode())


def is_code(name: str, mode: int, head: bytes) -> bool:
    """Whether a file can be executed or imported. `head` is at least its first four bytes."""
    named = name.endswith(CODE_SUFFIXES) or _SHARED_OBJECT.search(name) is not None
    return named or bool(mode & 0o111) or head.startswith((b"#!", b"\x7fELF"))


@dataclass(frozen=True)
class Producer:
    """Who makes a component. BSI accepts an e-mail address or a URL as contact, nothing else."""

    name: str
    email: str = ""
    url: str = ""


@dataclass
class Component:
    """One component of a release.

    `ref` is its purl, with a fragment only where one purl names two things. `requires` are refs. `roles` are the kinds
    of host it is installed on (`server`, `agent`, `lab`, `os`); empty for what is only carried in the bundle.
    `digests` has more than one entry where the same code is built for more than one architecture.
    """

    kind: str  # a CycloneDX component type
    name: str
    version: str
    purl: str
    producer: Producer
    licence: str  # an SPDX expression, as its producer declares it
    filenames: list[str]
    digests: list[Digest]
    path: str = ""  # inside the release
    architecture: str = ""  # the one processor it is for
    ref: str = ""
    description: str = ""
    source: str = ""  # URI of the source code
    website: str = ""
    executable: bool = True
    archive: bool = True
    structured: bool = True
    complete: str = "complete"  # of its `requires`: complete, incomplete or unknown
    requires: set[str] = field(default_factory=set)
    roles: set[str] = field(default_factory=set)
    properties: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """The ref is the purl unless one is given."""
        self.ref = self.ref or self.purl


class Inventory:
    """The components of a release, by ref."""

    def __init__(self) -> None:
        """An empty inventory."""
        self._components: dict[str, Component] = {}

    def add(self, component: Component) -> Component:
        """Add a component. One that is there already is merged: in both files, on both kinds of host."""
        known = self._components.get(component.ref)
        if known is None:
            self._components[component.ref] = component
            return component
        if (known.name, known.version) != (component.name, component.version):
            raise SbomError(f"{component.ref} names two things: {known.name} and {component.name}")
        known.requires |= component.requires
        known.roles |= component.roles
        known.filenames += [name for name in component.filenames if name not in known.filenames]
        known.properties += [one for one in component.properties if one not in known.properties]
        known.digests += [one for one in component.digests if one not in known.digests]
        return known

    def get(self, ref: str) -> Component | None:
        """The component of this ref, if it is here."""
        return self._components.get(ref)

    def all(self) -> list[Component]:
        """Every component, sorted by ref."""
        return [self._components[ref] for ref in sorted(self._components)]

    def reach(self, start: Component) -> Inventory:
        """What a component needs, itself included, through every level; of its processor, if it has one."""
        part, queue = Inventory(), [start.ref]
        while queue:
            component = self._components.get(queue.pop())
            if component is None or part.get(component.ref) is not None:
                continue
            if not start.architecture or component.architecture in ("", start.architecture):
                part.add(component)
                queue += component.requires
        return part


def files_under(folder: Path) -> list[tuple[str, Path]]:
    """Regular files below a folder, as sorted pairs of relative POSIX path and place."""
    found = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return sorted((path.relative_to(folder).as_posix(), path) for path in found)
