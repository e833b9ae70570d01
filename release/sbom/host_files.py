"""Runs on the host, sent over ssh and fed to its python3 as root: prints what is there as JSON, changes nothing.

Standard library only. `model.is_code` says the same about which files count; a test compares the two.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import marshal
import os
import re
import subprocess
import sys
from typing import Any

SKIPPED = ("/proc", "/sys", "/dev", "/run")
SUFFIXES = (
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
RELEASES = "/opt/ispvm/releases/"


def is_code(name: str, mode: int, head: bytes) -> bool:
    """Whether a file can be executed or imported."""
    named = name.endswith(SUFFIXES) or re.search(r"\.so(\.[0-9]+)*$", name) is not None
    return named or bool(mode & 0o111) or head.startswith((b"#!", b"\x7fELF"))


def compiled_from(path: str) -> str:
    """The source that a .pyc was compiled from, when compiling it again gives the same code; else the empty text."""
    try:
        source = os.path.realpath(importlib.util.source_from_cache(path))
        optimised = re.search(r"\.opt-(\d)\.pyc$", path)
        with open(path, "rb") as file:  # noqa: PTH123 - nothing but what every Python has
            kept = marshal.loads(file.read()[16:])  # noqa: S302 - on a host that runs this file anyway
        with open(source, "rb") as file:  # noqa: PTH123
            level = int(optimised[1]) if optimised else 0
            made = compile(file.read(), source, "exec", dont_inherit=True, optimize=level)
    except (OSError, ValueError, EOFError, TypeError, SyntaxError):
        return ""
    return source if kept == made else ""


def output(command: list[str]) -> str:
    """What a command prints."""
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def files() -> dict[str, dict[str, Any]]:
    """Every executable or importable file, and every file of an installed release: path → sums and kind."""
    found: dict[str, dict[str, Any]] = {}
    for folder, below, names in os.walk("/"):
        below[:] = [one for one in below if os.path.join(folder, one) not in SKIPPED]  # noqa: PTH118
        for name in names:
            path = os.path.join(folder, name)  # noqa: PTH118
            status = os.lstat(path)
            if status.st_mode & 0o170000 != 0o100000:
                continue
            try:
                with open(path, "rb") as file:  # noqa: PTH123
                    content = file.read(4)
                    code = is_code(path, status.st_mode, content)
                    if not code and not path.startswith(RELEASES):
                        continue
                    content += file.read()
            except FileNotFoundError:
                continue  # gone since: a temporary file
            entry: dict[str, Any] = {"sha256": hashlib.sha256(content).hexdigest(), "code": code}
            if path.endswith(".pyc"):
                entry["source"] = compiled_from(path)
            elif re.fullmatch(RELEASES + r"[^/]+/[^/]+/bin/[^/]+", path):
                entry["text"] = content.decode(errors="replace")
            else:
                if path.startswith("/etc/") and content.startswith(b"#!"):
                    entry["text"] = content.decode(errors="replace")
                entry["md5"] = hashlib.md5(content, usedforsecurity=False).hexdigest()
            found[path] = entry
    return found


def packages() -> list[dict[str, str]]:
    """Every installed Debian package, with the md5 sums that dpkg keeps of its files."""
    shown = "${Package}\t${Version}\t${Architecture}\t${db:Status-Abbrev}\t${Conffiles}\x1e"
    text = output(["dpkg-query", "-W", "-f", shown])
    found = []
    for record in filter(None, text.split("\x1e")):
        name, version, architecture, status, conffiles = record.strip("\n").split("\t", 4)
        if status[1:2] == "i":
            sums = {}
            for stem in (name, f"{name}:{architecture}"):
                kept = f"/var/lib/dpkg/info/{stem}.md5sums"
                if os.path.exists(kept):  # noqa: PTH110
                    with open(kept) as file:  # noqa: PTH123
                        for line in file:
                            digest, _, path = line.rstrip("\n").partition("  ")
                            sums["/" + path] = digest
            for line in conffiles.splitlines():
                if len(words := line.split()) >= 2:
                    sums[words[0]] = words[1]
            found.append({"name": name, "version": version, "architecture": architecture, "md5": json.dumps(sums)})
    return found


def main() -> None:
    """Print it all."""
    try:
        with open("/etc/ansible/facts.d/ispvm.fact") as file:  # noqa: PTH123
            components = json.load(file)["components"]
    except FileNotFoundError:
        components = []
    if os.path.exists("/opt/ispvm/current/lab/.complete"):  # noqa: PTH110 # no part of the product, so not in the fact
        components.append("lab")
    architecture = output(["dpkg", "--print-architecture"]).strip()
    known = {"components": components, "architecture": architecture, "files": files(), "packages": packages()}
    json.dump(known, sys.stdout)


if __name__ == "__main__":
    main()
