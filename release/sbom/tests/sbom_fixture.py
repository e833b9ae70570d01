"""A release of a few kilobytes with everything that the real one has, for the tests."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import lzma
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
EPOCH = 1_790_000_000
COPYRIGHT = """Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: tool

Files: *
Copyright: somebody
License: GPL-2+ or Artistic, and Expat

License: GPL-2+
 On Debian systems …
"""


def wheel(
    folder: Path, name: str, version: str, files: dict[str, bytes], metadata: str = "", tag: str = "py3-none-any"
) -> Path:
    """Write a wheel. `metadata`: lines after name and version."""
    folder.mkdir(parents=True, exist_ok=True)
    plain = name.replace("-", "_")
    info = f"{plain}-{version}.dist-info"
    everything = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}\n{metadata}\n".encode(),
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n".encode(),
    }
    path = folder / f"{plain}-{version}-{tag}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for inside, content in sorted(everything.items()):
            archive.writestr(zipfile.ZipInfo(inside), content)
        record = ""
        for inside, content in sorted(everything.items()):
            sums = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
            record += f"{inside},sha256={sums},{len(content)}\n"
        archive.writestr(zipfile.ZipInfo(f"{info}/RECORD"), record)
    return path


def _tar(files: dict[str, tuple[bytes, int]]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, (content, mode) in sorted(files.items()):
            one = tarfile.TarInfo(f"./{name}")
            one.size, one.mode = len(content), mode
            archive.addfile(one, io.BytesIO(content))
    return lzma.compress(out.getvalue())


def deb(
    folder: Path, name: str, version: str, fields: str, files: dict[str, tuple[bytes, int]], script: bytes = b""
) -> Path:
    """Write a Debian package."""
    folder.mkdir(parents=True, exist_ok=True)
    who = "Maintainer: Debian Team <team@debian.example>"
    control = f"Package: {name}\nVersion: {version}\nArchitecture: amd64\n{who}\n{fields}"
    inside = {"control": (control.encode(), 0o644)}
    if script:
        inside["postinst"] = (script, 0o755)
    members = {"debian-binary": b"2.0\n", "control.tar.xz": _tar(inside), "data.tar.xz": _tar(files)}
    content = b"!<arch>\n"
    for member, body in members.items():
        content += (
            f"{member:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(body):<10}`\n".encode() + body + b"\n" * (len(body) % 2)
        )
    path = folder / f"{name}_{version.rpartition(':')[2]}_amd64.deb"  # as in Debian's pools, without the epoch
    path.write_bytes(content)
    return path


def make(tree: Path) -> Path:
    """Write the release; returns its folder."""
    house = tree / "wheelhouse" / "amd64"
    vendor = "ispvm/web/static/vendor"
    server = wheel(
        house,
        "ispvm-server",
        "0.1.0",
        {
            "ispvm/__init__.py": b"",
            "ispvm/cli.py": b"def main(): ...\n",
            f"{vendor}/htmx.min.js": b"htmx",
            f"{vendor}/uPlot.iife.min.js": b"uplot",
            f"{vendor}/uPlot.min.css": b"css",
            f"{vendor}/htmx.LICENSE": b"0BSD",
            "ispvm_server-0.1.0.dist-info/entry_points.txt": b"[console_scripts]\nispvm = ispvm.cli:main\n",
        },
        "License-Expression: Apache-2.0\nRequires-Dist: native[fast]\n",
    )
    crate = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "metadata": {"component": {"bom-ref": "root", "name": "native", "version": "2.0"}},
        "components": [
            {
                "type": "library",
                "bom-ref": "c",
                "name": "crate",
                "version": "1.2.3",
                "purl": "pkg:cargo/crate@1.2.3",
                "author": "A Crate <crate@example.org>",
                "licenses": [{"expression": "MIT OR Apache-2.0"}],
            }
        ],
        "dependencies": [{"ref": "root", "dependsOn": ["c"]}],
    }
    wheel(
        house,
        "native",
        "2.0",
        {
            "native/__init__.py": b"x = 1\n",
            "native/_native.so": b"\x7fELFnative",
            "native.libs/libcrypto-0123abcd.so.3": b"\x7fELF OpenSSL 3.0.1 14 Dec 2021 ",
            "native-2.0.dist-info/sboms/rust.cdx.json": json.dumps(crate).encode(),
        },
        "License: MIT\nAuthor-email: Nat <nat@example.org>\nRequires-Dist: extra; extra == 'fast'\n"
        "Project-URL: Source, https://example.org/native\n",
        "cp313-cp313-manylinux_2_28_x86_64",
    )
    wheel(
        house, "extra", "1.0", {"extra.py": b""}, "License-Expression: BSD-3-Clause\nAuthor-email: E <e@example.org>\n"
    )
    for name in ("native==2.0", "extra==1.0", "ispvm-server==0.1.0"):
        with (house / "server.txt").open("a") as file:
            file.write(f"{name} --hash=sha256:0\n")
    (tree / "server").mkdir()
    (tree / "server" / server.name).write_bytes(server.read_bytes())
    pool = tree / "apt" / "pool" / "main"
    deb(
        pool,
        "tool",
        "1:2.0-1+b1",
        "Depends: libtool1 (>= 1), absent | libtool1\nSource: tool-src (1:2.0-1)\n",
        {"usr/bin/tool": (b"\x7fELFtool", 0o755), "usr/share/doc/tool/copyright": (COPYRIGHT.encode(), 0o644)},
        b"#!/bin/sh\n",
    )
    deb(pool, "libtool1", "1.5-2", "", {"lib/libtool.so.1": (b"\x7fELFlib", 0o644)})
    roles = tree / "ansible" / "roles" / "base"
    (roles / "defaults").mkdir(parents=True)
    (roles / "files").mkdir()
    (roles / "defaults" / "main.yml").write_text("base_packages: [tool]\n")
    (roles / "files" / "helper").write_text("#!/bin/sh\necho helped\n")
    (tree / "release.json").write_text(json.dumps({"version": "0.1.0", "commit": "c" * 40, "source_date_epoch": EPOCH}))
    (tree / "install").write_text("#!/bin/sh\n")
    return tree
