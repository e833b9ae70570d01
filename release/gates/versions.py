"""Whether a version is in the range of an advisory, as its ecosystem orders versions."""

from __future__ import annotations

import re
from itertools import zip_longest
from typing import Any

from packaging.version import InvalidVersion, Version

from release.gates import GateError


def _weight(character: str) -> int:
    """dpkg's order: `~` before the end, letters before everything else."""
    if character == "~":
        return -1
    return ord(character) if character.isalpha() else ord(character) + 256


def _compare_text(one: str, other: str) -> int:
    for left, right in zip_longest(one, other):
        difference = (_weight(left) if left else 0) - (_weight(right) if right else 0)
        if difference:
            return difference
    return 0


def _compare_part(one: str, other: str) -> int:
    left, right = re.findall(r"(\D*)(\d*)", one), re.findall(r"(\D*)(\d*)", other)
    for (text, digits), (other_text, other_digits) in zip_longest(left, right, fillvalue=("", "")):
        difference = _compare_text(text, other_text) or int(digits or 0) - int(other_digits or 0)
        if difference:
            return difference
    return 0


def compare_debian(one: str, other: str) -> int:
    """dpkg's comparison: negative when `one` is older."""

    def split(version: str) -> tuple[int, str, str]:
        epoch, _, rest = version.rpartition(":")
        upstream, _, revision = rest.rpartition("-")
        return int(epoch or 0), upstream or rest, revision if upstream else ""

    left, right = split(one), split(other)
    return left[0] - right[0] or _compare_part(left[1], right[1]) or _compare_part(left[2], right[2])


def compare_pypi(one: str, other: str) -> int:
    """PEP 440. Raises GateError on a version that is none."""
    try:
        left, right = Version(one), Version(other)
    except InvalidVersion as error:
        raise GateError(f"{error}") from error
    return (left > right) - (left < right)


def compare_semver(one: str, other: str) -> int:
    """Semantic versions: a pre-release is older than its release. Numbers are compared as numbers."""

    def key(version: str) -> tuple[list[int], int, list[tuple[int, int, str]]]:
        plain, _, before = version.split("+")[0].partition("-")
        numbers = [int(part) for part in re.findall(r"\d+", plain)]
        parts = [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in before.split(".") if part]
        return numbers + [0] * (4 - len(numbers)), 0 if before else 1, parts

    left, right = key(one), key(other)
    return (left > right) - (left < right)


def compare_upstream(one: str, other: str) -> int:
    """Versions of anything else (an rpm, a C library): the upstream part, by its numbers."""
    return _compare_part(one.split("-")[0], other.split("-")[0])


COMPARISONS = {
    "PyPI": compare_pypi,
    "Debian": compare_debian,
    "npm": compare_semver,
    "crates.io": compare_semver,
    "upstream": compare_upstream,
}


def affected(ecosystem: str, version: str, entry: dict[str, Any]) -> bool:
    """Whether an OSV `affected` entry covers this version. Raises GateError where the entry cannot be read."""
    compare = COMPARISONS.get(ecosystem.split(":")[0])
    if compare is None:
        raise GateError(f"nobody has said how {ecosystem} orders versions")
    if version in entry.get("versions", []):
        return True
    for one in entry.get("ranges", []):
        if one.get("type") == "GIT":
            continue
        inside = False
        for event in sorted(one["events"], key=_first):
            if "introduced" in event and (event["introduced"] == "0" or compare(version, event["introduced"]) >= 0):
                inside = True
            elif "fixed" in event:
                inside = inside and compare(version, event["fixed"]) < 0
            elif "last_affected" in event:
                inside = inside and compare(version, event["last_affected"]) <= 0
        if inside:
            return True
    if not entry.get("ranges") and not entry.get("versions"):
        raise GateError("an advisory without versions covers everything or nothing: say which")
    return False


def _first(event: dict[str, str]) -> int:
    """Events stand in order already; only an `introduced: 0` must come first."""
    return 0 if event.get("introduced") == "0" else 1
