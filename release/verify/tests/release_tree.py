"""A small release of the real layout, made in a moment, for the tests of the verifiers and of the signing stage."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

from release.sign.slsa import provenance

ROOM = Path(__file__).resolve().parent.parent
EPOCH = 1790000000
NEVER, PAST = "2096-11-22T00:00:00Z", "2026-10-01T00:00:00Z"
CONTENT = {
    "install": "#!/bin/sh\nexec ansible-playbook site.yml\n",
    "VERSION": "1.4.0\n",
    "VERIFY.md": "# Verify\n",
    "ansible/site.yml": "- hosts: all\n",
    "ansible/roles/base/tasks/main.yml": "- name: Base\n",
    "ansible/collections/x/a file with spaces.yml": "- name: Spaces\n",
    "ansible/group_vars/all/bundle.yml": "x: 1\n",
    "wheelhouse/amd64/ispvm_server-1.4.0-py3-none-any.whl": "server wheel",
    "wheelhouse/amd64/pydantic_core-2.1-cp313-cp313-manylinux_x86_64.whl": "pydantic amd64",
    "wheelhouse/amd64/server.txt": "ispvm-server==1.4.0\n",
    "wheelhouse/arm64/pydantic_core-2.1-cp313-cp313-manylinux_aarch64.whl": "pydantic arm64",
    "apt/dists/trixie/main/binary-amd64/Packages": "",
    "apt/dists/trixie/Release": (
        "Origin: ISPVisualMonitor\nSuite: trixie\nCodename: trixie\nDate: Mon, 21 Sep 2026 14:13:20 UTC\n"
        "Architectures: amd64\nComponents: main\nSHA256:\n"
        f" {hashlib.sha256().hexdigest()} 0 main/binary-amd64/Packages\n"
    ),
    "apt/pool/ispvm-agent_1.4.0_all.deb": "deb one",
    "apt/pool/libssl3t64_3.5.4-1~deb13u1_amd64.deb": "deb two",
    "apt/pool/g++_4%3a14.2.0-1_amd64.deb": "deb three",
    "agent/ispvm-agent.pex": "pex",
    "agent/ispvm_agent-1.4.0.tar.gz": "agent sdist",
    "server/ispvm-server-amd64.oci.tar": "oci",
    "server/ispvm_server-1.4.0.tar.gz": "server sdist",
    "source/ispvm-1.4.0.tar.gz": "source",
    "sbom/ispvm.spdx.json": "{}\n",
    "compat/compatibility.json": "{}\n",
    "docs/verify.md": "# Verify\n",
    "docs/install.md": "# Install\n",
    "seeds/six-pops.json": "{}\n",
    "licences/Apache-2.0.txt": "Apache License\n",
}


def sums(tree: Path) -> None:
    """Write both manifests of an unsigned tree."""
    skip = ("SHA256SUMS", "apt/dists/trixie/InRelease", "apt/dists/trixie/Release.gpg")
    for kind, without in (("sha512", "SHA512SUMS"), ("sha256", "")):
        names = sorted(
            name
            for path in tree.rglob("*")
            if path.is_file() and (name := path.relative_to(tree).as_posix()) not in (*skip, without)
            if not name.startswith(("signatures/", "KEYS/"))
        )
        lines = [f"{hashlib.new(kind, (tree / name).read_bytes()).hexdigest()}  {name}\n" for name in names]
        (tree / f"{kind.upper()}SUMS").write_text("".join(lines))


def describe(tree: Path, **changes: object) -> None:
    """Write release.json, SBOM, provenance and manifests for the files that are there."""
    content: dict[str, object] = {
        "version": "1.4.0",
        "sequence": 17,
        "commit": "c0ffee" * 6 + "c0de",
        "source_date_epoch": EPOCH,
        "min_upgrade_from": "1.2.0",
        "not_after": NEVER,
        "artefacts": [
            {"path": name, "sha256": hashlib.sha256((tree / name).read_bytes()).hexdigest(), "size": 3}
            for name in sorted(CONTENT)
            if name.startswith(("agent/", "server/", "source/")) and (tree / name).exists()
        ],
    }
    content.update(changes)
    (tree / "release.json").write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
    carried = [p for p in sorted(tree.rglob("*")) if p.suffix in (".whl", ".deb", ".pex")]
    hashes = [{"alg": "SHA-256", "content": hashlib.sha256(p.read_bytes()).hexdigest()} for p in carried]
    (tree / "sbom/ispvm.cdx.json").write_text(json.dumps({"components": [{"hashes": hashes}]}, indent=1) + "\n")
    provenance(tree, tree)
    sums(tree)


def unsigned(tree: Path, **changes: object) -> Path:
    """Make an unsigned tree at `tree`; `changes` are fields of release.json."""
    for name, text in CONTENT.items():
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for name in ("verify.sh", "verify.py"):
        shutil.copy(ROOM / name, tree / name)
    (tree / "install").chmod(0o755)
    describe(tree, **changes)
    return tree
