"""No scanner runs where a key is: what it reads is foreign input, and scanners were turned against their users."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from release.gates import GateError

# of a signing key's variable: by name, or by what is in it
_NAMED = re.compile(
    r"(SIGN|MINISIGN|COSIGN|GPG|RELEASE)[A-Z_]*(KEY|PASSWORD|PASSPHRASE|SECRET)|SSH_AUTH_SOCK$", re.IGNORECASE
)
PRIVATE = re.compile(
    rb"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----|untrusted comment: [^\n]*(?:secret|encrypted) key"
)
_KEY_FILES = ("*.key", "*.pem", "*.sec", "*.minisign", "minisign.key", "id_ed25519", "id_ecdsa", "id_rsa", "*.pgp")


def refuse_with_key(environment: Mapping[str, str], folders: list[Path]) -> None:
    """Raise GateError when a signing key is in the environment or lies in one of these folders (not below)."""
    for name, value in environment.items():
        if _NAMED.search(name) or PRIVATE.search(value.encode(errors="replace")):
            raise GateError(f"environment: {name} gives access to a key; run the gates without it (env -u {name} …)")
    for folder in folders:
        for pattern in _KEY_FILES:
            for path in sorted(folder.glob(pattern)):
                if path.is_file() and os.access(path, os.R_OK) and PRIVATE.search(path.read_bytes()[:4096]):
                    raise GateError(f"{path}: a private key; run the gates where no key is")


def usual_places(home: Path) -> list[Path]:
    """Where signing tools keep keys. Debian's keys of a host (SSH, TLS) sign no release and are not looked for."""
    return [
        home / ".minisign",
        home / ".sigstore",
        home / ".cosign",
        home / ".config" / "ispvm-release",
        Path("/etc/ispvm-release"),
    ]
