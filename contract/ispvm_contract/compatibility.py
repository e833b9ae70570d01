"""Which versions work together. The source is `SBOM/compatibility.yml`; `compatibility.json` beside this file is made
from it, so that a running server, the agent and the documents say the same.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from typing import Annotated, Literal

import msgspec

State = Literal["tested", "emulated", "untested", "refused"]
Minor = Annotated[str, msgspec.Meta(pattern=r"^\d+\.\d+$")]
Day = Annotated[str, msgspec.Meta(pattern=r"^\d{4}-\d{2}-\d{2}$")]
_VERSION = re.compile(r"(\d+)\.(\d+)(?:\.\d+)?(?:[+-][0-9A-Za-z.+-]*)?", re.ASCII)


class Agents(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which agents a server takes: its own minor release and `minors_back` before it, from the `first` one on."""

    minors_back: Annotated[int, msgspec.Meta(ge=2)]
    first: Minor
    released: tuple[Minor, ...] = ()


class IngestSchema(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A version of the ingest contract."""

    version: int
    state: Literal["current", "accepted"]


class Upgrade(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"sources": "from"}):
    """From where one step leads here."""

    sources: tuple[Minor, ...]


class Deprecation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What will go, since when that is known, and what to use instead."""

    what: str
    deprecated_on: Day
    removed_not_before: Day
    instead: str


class Cell(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One promise. `fact` names what a test must meet on the host: the beginning of the version it finds there."""

    part: str
    version: str
    state: State
    evidence: str = ""
    note: str = ""
    fact: dict[str, str] = {}


class Compatibility(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The matrix of one minor release."""

    version: Literal[1]
    server: Minor
    agents: Agents
    ingest_schemas: tuple[IngestSchema, ...]
    upgrade: Upgrade
    deprecations: tuple[Deprecation, ...]
    cells: tuple[Cell, ...]

    def agent_fault(self, agent: str) -> str | None:
        """Why an agent of this version cannot speak to a server of this matrix; None when it can."""
        found = minor_of(agent)
        if found is None:
            return f"{agent!r} is no version such as {self.server}.0"
        if found > _pair(self.server):
            return f"agent {agent} is newer than this server ({self.server}); upgrade the server first"
        if found < _pair(self.oldest_agent):
            return f"agent {agent} is too old for this server, which takes {self.oldest_agent} to {self.server}"
        return None

    @property
    def oldest_agent(self) -> str:
        """The oldest minor release of the agent that is taken."""
        major, minor = _pair(self.server)
        return max(f"{major}.{max(0, minor - self.agents.minors_back)}", self.agents.first, key=_pair)


def _pair(minor: str) -> tuple[int, int]:
    major, _, rest = minor.partition(".")
    return int(major), int(rest)


def minor_of(version: str) -> tuple[int, int] | None:
    """(major, minor) of "0.1", "0.1.2" or "0.1.2+abc"; None when it is no version."""
    match = _VERSION.fullmatch(version)
    return (int(match[1]), int(match[2])) if match else None


@cache
def compatibility() -> Compatibility:
    """The matrix that this package was built with."""
    text = files("ispvm_contract").joinpath("compatibility.json").read_bytes()
    return msgspec.json.decode(text, type=Compatibility)
