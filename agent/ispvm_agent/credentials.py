"""Secrets: encrypted systemd credentials only. Never in the configuration, the environment or an argument."""

from __future__ import annotations

import hashlib
import os
import secrets
import subprocess
from pathlib import Path

STORE = Path("/etc/credstore.encrypted")
SERVER_TOKEN = "ispvm-agent.server-token"  # noqa: S105 - a name


class CredentialError(Exception):
    """A secret cannot be read or stored; the text says what to do."""


def router_credential(name: str) -> str:
    """The credential's name for `credential = "NAME"` of a router."""
    return f"ispvm-agent.router.{name}"


def read(name: str) -> str:
    """The secret, from the directory that systemd gave the unit; root outside the unit decrypts the stored one."""
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    if directory:
        path = Path(directory) / name
        try:
            return _text(path.read_bytes(), name)
        except OSError as error:
            raise CredentialError(f"credential {name}: {error.strerror}; {_fix(name)}") from None
    path = STORE / name
    if not path.exists():
        raise CredentialError(f"credential {name} is not in {STORE}; {_fix(name)}")
    return _text(_systemd_creds("decrypt", name, str(path), "-"), name)


def _fix(name: str) -> str:
    if name == SERVER_TOKEN:
        return "run `ispvm-agent token ensure`, then restart the unit"
    return f"run `ispvm-agent credential set {name.removeprefix('ispvm-agent.router.')}`, then restart the unit"


def _text(raw: bytes, name: str) -> str:
    try:
        text = raw.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise CredentialError(f"credential {name} is not UTF-8 text; {_fix(name)}") from None
    if not text or not text.isprintable():
        raise CredentialError(f"credential {name} is empty or has control characters; {_fix(name)}")
    return text


def _systemd_creds(verb: str, name: str, source: str, target: str, secret: bytes | None = None) -> bytes:
    command = ["systemd-creds", verb, f"--name={name}", source, target]
    try:
        done = subprocess.run(command, input=secret, capture_output=True, check=False)  # noqa: S603
    except OSError as error:
        raise CredentialError(f"systemd-creds cannot be run: {error.strerror}; it is part of systemd") from None
    if done.returncode != 0:
        raise CredentialError(f"systemd-creds {verb} {name}: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


def store(name: str, secret: str) -> bool:
    """Encrypt the secret to this machine. True if that changed what was stored."""
    secret = _text(secret.encode(), name)
    path = STORE / name
    if path.exists():
        try:
            if read(name) == secret:
                return False
        except CredentialError:
            pass  # unreadable, for instance encrypted to another machine: replace it
    STORE.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = STORE / f".{name}.new"
    fresh.unlink(missing_ok=True)
    _systemd_creds("encrypt", name, "-", str(fresh), secret.encode())
    fresh.chmod(0o400)
    fresh.replace(path)
    return True


def ensure_token() -> tuple[str, bool]:
    """SHA-256 (hex) of the server token, made if there is none, and whether it was made."""
    made = not (STORE / SERVER_TOKEN).exists()
    if made:
        store(SERVER_TOKEN, secrets.token_urlsafe(32))
    return hashlib.sha256(read(SERVER_TOKEN).encode()).hexdigest(), made
