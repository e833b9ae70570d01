"""What no package says about itself and somebody had to look up: SBOM/enrichment.toml."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from release.sbom.model import Producer, SbomError


def key_of(purl: str) -> str:
    """A purl without version; of an rpm without its distribution, which rebuilds what others make."""
    return re.sub(r"^pkg:rpm/[^/]+/", "pkg:rpm/", re.split(r"[@?#]", purl)[0])


class Enrichment:
    """Producers, licences and version patterns, by purl without version."""

    def __init__(self, path: Path) -> None:
        """Read the file. Raises SbomError naming what is wrong with it."""
        try:
            self._data: dict[str, Any] = tomllib.loads(path.read_text())
            own = self._data["own"]
            self.own = Producer(own["producer"], email=own.get("email", ""), url=own.get("url", ""))
            self.source = str(own["source"])
            self.policy = self._data["sbom"]
        except (OSError, tomllib.TOMLDecodeError, KeyError) as error:
            raise SbomError(f"{path.name}: {error}") from error

    def _entry(self, purl: str) -> dict[str, Any]:
        key = key_of(purl)
        found = self._data.get("component", {}).get(key)
        if found is None:
            raise SbomError(
                f"{key}: its metadata does not say who makes it or under which licence; "
                f'add [component."{key}"] to SBOM/enrichment.toml'
            )
        return dict(found)

    def producer(self, purl: str) -> Producer:
        """Who makes it. Raises SbomError when nobody has looked it up."""
        entry = self._entry(purl)
        return Producer(entry["producer"], email=entry.get("email", ""), url=entry.get("url", ""))

    def licence(self, purl: str) -> str:
        """Its licence where somebody looked it up, else the empty text for wheels; others must be there."""
        key = key_of(purl)
        if key.startswith("pkg:pypi/"):
            return str(self._data.get("component", {}).get(key, {}).get("licence", ""))
        return str(self._entry(purl)["licence"])

    def file(self, purl: str) -> str:
        """A pattern for the file that is this component, where it has one of its own inside another; or nothing."""
        return str(self._data.get("component", {}).get(key_of(purl), {}).get("file", ""))

    def identify(self, library: str, content: bytes) -> tuple[str, str]:
        """Name and version of a vendored shared library from what is written in it; the version may be empty."""
        for name, one in self._data.get("library", {}).items():
            if library in one["files"]:
                found = re.search(one["version"].encode(), content) if "version" in one else None
                return name, found[1].decode() if found else ""
        raise SbomError(f"lib{library}.so: nobody has said what this library is; add it to SBOM/enrichment.toml")
