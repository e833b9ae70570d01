"""Licences as SPDX expressions: from Python metadata, and from debian/copyright files in DEP-5 form.

What has no SPDX identifier becomes a LicenseRef that says where the text is; nothing is ever NOASSERTION, and nothing
is guessed: an unknown name stays itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache

from license_expression import get_spdx_licensing

# DEP-5 short names that SPDX spells otherwise, lower case.
_DEBIAN_NAMES = {
    "0bsd": "0BSD",
    "afl-2.1": "AFL-2.1",
    "agpl-3": "AGPL-3.0-only",
    "agpl-3+": "AGPL-3.0-or-later",
    "apache-2": "Apache-2.0",
    "apache-2.0": "Apache-2.0",
    "artistic": "Artistic-1.0-Perl",
    "artistic-2": "Artistic-2.0",
    "beerware": "Beerware",
    "bsd-2": "BSD-2-Clause",
    "bsd-2-clause": "BSD-2-Clause",
    "bsd-3": "BSD-3-Clause",
    "bsd-3-clause": "BSD-3-Clause",
    "bsd-4-clause": "BSD-4-Clause",
    "bsd-4-clause-uc": "BSD-4-Clause-UC",
    "bsl-1": "BSL-1.0",
    "bsl-1.0": "BSL-1.0",
    "cc-by-3.0": "CC-BY-3.0",
    "cc-by-sa-4.0": "CC-BY-SA-4.0",
    "cc0-1.0": "CC0-1.0",
    "curl": "curl",
    "expat": "MIT",
    "mit": "MIT",
    "fsfap": "FSFAP",
    "fsful": "FSFUL",
    "fsfullr": "FSFULLR",
    "gpl-1": "GPL-1.0-only",
    "gpl-1+": "GPL-1.0-or-later",
    "gpl-2": "GPL-2.0-only",
    "gpl-2.0": "GPL-2.0-only",
    "gpl-2+": "GPL-2.0-or-later",
    "gpl-2.0+": "GPL-2.0-or-later",
    "gpl-3": "GPL-3.0-only",
    "gpl-3.0": "GPL-3.0-only",
    "gpl-3+": "GPL-3.0-or-later",
    "gpl-3.0+": "GPL-3.0-or-later",
    "gfdl-1.2": "GFDL-1.2-only",
    "gfdl-1.2+": "GFDL-1.2-or-later",
    "gfdl-1.3": "GFDL-1.3-only",
    "gfdl-1.3+": "GFDL-1.3-or-later",
    "gfdl-niv-1.3": "GFDL-1.3-no-invariants-only",
    "gfdl-niv-1.3+": "GFDL-1.3-no-invariants-or-later",
    "isc": "ISC",
    "lgpl-2": "LGPL-2.0-only",
    "lgpl-2+": "LGPL-2.0-or-later",
    "lgpl-2.0+": "LGPL-2.0-or-later",
    "lgpl-2.1": "LGPL-2.1-only",
    "lgpl-2.1+": "LGPL-2.1-or-later",
    "lgpl-3": "LGPL-3.0-only",
    "lgpl-3+": "LGPL-3.0-or-later",
    "lgpl-3.0+": "LGPL-3.0-or-later",
    "mit-cmu": "MIT-CMU",
    "mpl-1.1": "MPL-1.1",
    "mpl-2": "MPL-2.0",
    "mpl-2.0": "MPL-2.0",
    "ms-pl": "MS-PL",
    "openldap-2.8": "OLDAP-2.8",
    "postgresql": "PostgreSQL",
    "sleepycat": "Sleepycat",
    "unicode-dfs-2016": "Unicode-DFS-2016",
    "x11": "X11",
    "zlib": "Zlib",
}
_DEBIAN_EXCEPTIONS = {
    "linux-syscall-note": "Linux-syscall-note",
    "libtool": "Libtool-exception",
    "texinfo": "Texinfo-exception",
}
# Classifiers that name exactly one licence; "BSD License" names none and is read from the licence file.
_CLASSIFIERS = {
    "MIT License": "MIT",
    "MIT No Attribution License (MIT-0)": "MIT-0",
    "ISC License (ISCL)": "ISC",
    "Apache Software License": "Apache-2.0",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
}
_KNOWN_REF = re.compile(r"^LicenseRef-[A-Za-z0-9.-]+$")


@cache
def _symbols() -> dict[str, str]:
    """SPDX identifiers by their lower-case form."""
    return {key.lower(): key for key in get_spdx_licensing().known_symbols if not key.startswith("LicenseRef-")}


@cache
def is_expression(text: str) -> bool:
    """Whether this is a valid SPDX expression; LicenseRefs are, NOASSERTION and NONE are not."""
    if not text or not re.fullmatch(r"[A-Za-z0-9.+()\s-]+", text):
        return False
    # a LicenseRef may stand where an identifier may
    plain = re.sub(r"LicenseRef-[A-Za-z0-9.-]+", "MIT", text)
    try:
        return not get_spdx_licensing().validate(plain).errors
    except Exception:  # the library's own errors share no base class
        return False


def combine(expressions: Iterable[str]) -> str:
    """All of these at once, each named once, in a stable order."""
    unique = {part for one in expressions for part in _conjuncts(one)}
    return " AND ".join(sorted(unique)) if len(unique) > 1 else unique.pop().removeprefix("(").removesuffix(")")


def _conjuncts(expression: str) -> list[str]:
    """What an expression joins with AND at its top level; alternatives keep their brackets."""
    parts, depth, current = [], 0, ""
    for piece in re.split(r"( AND |\(|\))", expression):
        depth += {"(": 1, ")": -1}.get(piece, 0)
        if piece == " AND " and depth == 0:
            parts.append(current)
            current = ""
        else:
            current += piece
    return [f"({one})" if " OR " in one and not one.startswith("(") else one for one in [*parts, current]]


def licence_ref(*parts: str) -> str:
    """A LicenseRef of these words."""
    return "LicenseRef-" + "-".join(re.sub(r"[^A-Za-z0-9.]+", "-", part).strip("-") for part in parts if part)


def from_python(name: str, expression: str, licence: str, classifiers: list[str], text: str) -> str:
    """The declared licence of a wheel: its expression, else its field, its classifiers, or its licence file."""
    for declared in (expression, licence, licence.removesuffix(" License")):
        if declared and is_expression(declared):
            return declared
    named = [one.rsplit(" :: ", 1)[-1] for one in classifiers if one.startswith("License :: OSI Approved :: ")]
    known = sorted({_CLASSIFIERS[one] for one in named if one in _CLASSIFIERS})
    if known and len(known) == len(set(named)):
        return " OR ".join(known)
    if "BSD License" in named and "Neither the name of" in text and "advertising" not in text:
        return "BSD-3-Clause"
    return licence_ref("pypi", name)


def _one_debian_name(name: str, package: str) -> str:
    """The SPDX form of one DEP-5 short name, with its exception if it has one."""
    name = " ".join(name.split()).strip(" ,;.")
    base, _, exception = name.partition(" with ")
    key = base.strip().lower()
    identifier = _DEBIAN_NAMES.get(key) or _symbols().get(key, "")
    if identifier and exception:
        known = _DEBIAN_EXCEPTIONS.get(exception.lower().removesuffix(" exception").strip())
        return f"{identifier} WITH {known}" if known else licence_ref("debian", package, name)
    return identifier or licence_ref("debian", package, name)


def from_dep5_name(synopsis: str, package: str) -> str:
    """The SPDX expression of a `License:` synopsis such as `GPL-2+ or Artistic, and Expat`."""
    groups = []
    for group in re.split(r",\s+and\s+|,\s+(?!or\s)", synopsis):
        either = []
        for alternative in re.split(r",?\s+or\s+|\s+OR\s+|\|", group):
            both = [_one_debian_name(one, package) for one in re.split(r"\s+and\s+|\s+AND\s+", alternative) if one]
            either.append(" AND ".join(dict.fromkeys(both)))
        either = sorted(set(either))
        groups.append(either[0] if len(either) == 1 else f"({' OR '.join(either)})")
    return " AND ".join(dict.fromkeys(groups))


def from_debian_copyright(text: str, package: str) -> str:
    """The licences of everything a debian/copyright file covers, as one expression.

    A file that is not in DEP-5 form becomes `LicenseRef-debian-PACKAGE`: the text is
    /usr/share/doc/PACKAGE/copyright on every host, and in the package.
    """
    if not re.search(r"^Format(-Specification)?:", text[:2000], re.MULTILINE | re.IGNORECASE):
        return licence_ref("debian", package)
    found = []
    for paragraph in re.split(r"\n\s*\n", text):
        if not re.search(r"^Files\s*:", paragraph, re.MULTILINE | re.IGNORECASE):
            continue
        named = re.search(r"^Licen[sc]e\s*:[ \t]*(\S[^\n]*)$", paragraph, re.MULTILINE | re.IGNORECASE)
        if named:
            found.append(from_dep5_name(named[1].strip(), package))
    usable = [one for one in found if is_expression(one)]
    if not usable or len(usable) != len(found):
        usable.append(licence_ref("debian", package))
    return combine(usable)
