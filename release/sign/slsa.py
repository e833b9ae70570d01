"""What was built from what: an in-toto Statement v1 with an SLSA provenance v1 predicate, unsigned.

It is part of the unsigned tree and the same on every builder; who built is said by the attestations. It claims Build
L1 only (provenance exists); that others got the same bytes is worth more than a level, and can be checked.
"""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

# Not a subject: the statement itself, and the manifests, which list it.
WITHOUT = ("provenance.json", "SHA512SUMS", "SHA256SUMS")
BUILD_TYPE = "urn:ispvm:build:release:1"


def sha256(path: Path) -> str:
    """A file's SHA-256 in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def provenance(tree: Path, root: Path) -> None:
    """Write `tree`/provenance.json: subjects are all files of the unsigned tree, one a line so that a shell reads them.

    The locks below `root`/requirements and the packages of the bundle are what it was resolved from.
    """
    release = json.loads((tree / "release.json").read_text())
    when = datetime.fromtimestamp(release["source_date_epoch"], UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    names = sorted(
        name
        for path in tree.rglob("*")
        if path.is_file() and not (name := path.relative_to(tree).as_posix()).startswith(("signatures/", "KEYS/"))
        if name not in (*WITHOUT, "apt/dists/trixie/InRelease", "apt/dists/trixie/Release.gpg")
    )
    locks = sorted((root / "requirements").glob("*.txt"))
    carried = [name for name in names if name.startswith(("apt/pool/", "wheelhouse/"))]
    statement: dict[str, Any] = {
        "_type": "https://in-toto.io/Statement/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {"version": release["version"], "sequence": release["sequence"]},
                "internalParameters": {"source_date_epoch": release["source_date_epoch"]},
                "resolvedDependencies": [
                    {"name": "source", "digest": {"gitCommit": release["commit"]}},
                    *({"name": f"requirements/{lock.name}", "digest": {"sha256": sha256(lock)}} for lock in locks),
                    *({"name": name, "digest": {"sha256": sha256(tree / name)}} for name in carried),
                ],
            },
            "runDetails": {
                "builder": {"id": "urn:ispvm:builder:make-release"},
                "metadata": {"startedOn": when, "finishedOn": when},
            },
        },
        "predicateType": "https://slsa.dev/provenance/v1",
        "subject": [],
    }
    subjects = ",\n".join(
        f'    {{"name": "{name}", "digest": {{"sha256": "{sha256(tree / name)}"}}}}' for name in names
    )
    text = json.dumps(statement, indent=2, sort_keys=True)
    (tree / "provenance.json").write_text(text.replace('"subject": []', f'"subject": [\n{subjects}\n  ]') + "\n")
