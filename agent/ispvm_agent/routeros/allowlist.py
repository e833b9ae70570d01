"""The list of commands as somebody has approved it. A list that differs is refused before any router is contacted.

`DIGEST` is changed by hand, in the same commit as the list, so that no command comes in unnoticed; a site can approve a
digest of its own in agent.toml (`commands_sha256`). Why there is no signature here: docs/decisions/0018.
"""

from __future__ import annotations

import hashlib
import re

from ispvm_agent.routeros.commands import AIMS, Command

DIGEST = "a1253943bba56bd23b5f37a9e9671786790ef726a8224ba4c251f2e1568d4894"
# Print with named fields or as a count, or one reading of ports and modems; conditions after it.
_FORM = re.compile(
    r"((/[a-z0-9-]+)+/print|/interface/(ethernet|lte)/(monitor|info) =once=)"
    r"( =\.proplist=[a-z0-9.,-]+| =count-only=)( \?\S+)*"
)
# As imported: what a program changes in the Enum later is not in it.
SENTENCES = frozenset(command.words for command in Command)


class AllowListError(Exception):
    """The list of commands is not the approved one; the text says what to do."""


def listing() -> str:
    """Every command, one a line: its name, its words, and the word that aims it, if any. What the digest is of."""
    lines = [" ".join((command.name, *command.words, AIMS.get(command, ""))).rstrip() for command in Command]
    return "\n".join((*sorted(lines), ""))


def digest() -> str:
    """SHA-256 (hex) of `listing`."""
    return hashlib.sha256(listing().encode()).hexdigest()


def verify(approved: str | None = None) -> None:
    """Raise AllowListError unless every command only reads and the list is the one of DIGEST and of the site."""
    for command in Command:
        if not _FORM.fullmatch(" ".join(command.words)):
            raise AllowListError(f"command {command.name} is not of a form that only reads; install the agent again")
    found = digest()
    if found != DIGEST:
        raise AllowListError(
            f"the list of commands has been changed: its SHA-256 is {found}, released was {DIGEST}; "
            "install the agent again"
        )
    if approved is not None and found != approved.lower():
        raise AllowListError(
            f"agent.commands_sha256: this release asks routers other things than you approved; read `ispvm-agent "
            f"transparency`, then write commands_sha256 = {found!r}"
        )


if __name__ == "__main__":
    print(listing() + digest())
