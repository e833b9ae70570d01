"""The misconfiguration scan: what we ship must be hardened, and must not weaken the host it is installed on."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from release.gates import GateError

# What every service of ours has in its unit (or in the drop-in that hardens Debian's).
HARDENING = ("NoNewPrivileges=", "ProtectSystem=", "ProtectHome=", "PrivateTmp=", "CapabilityBoundingSet=",
             "RestrictAddressFamilies=", "SystemCallFilter=")  # fmt: skip
_TEXT: dict[str, re.Pattern[str]] = {
    "an apt source that trusts anything": re.compile(r"\btrusted\s*[=:]\s*(yes|true)\b", re.IGNORECASE),
    "apt without authentication": re.compile(r"AllowUnauthenticated|allow_unauthenticated:\s*(true|yes)|--allow-una"),
    "packages without signature check": re.compile(r"\bgpgcheck\s*=\s*0"),
    "TLS verification turned off": re.compile(
        r"validate_certs:\s*(false|no)\b|verify\s*=\s*False\b|--insecure\b"
        r"|curl\s+(-\w*k\b|-k)|ssl_verify\s+off"
    ),
    "host keys are not checked": re.compile(
        r"StrictHostKeyChecking[= ]no|host_key_checking\s*=\s*False", re.IGNORECASE
    ),
    "unencrypted download": re.compile(
        r"\bhttp://(?!(localhost|127\.|10\.|192\.168\.|\[?::1|169\.254\.|www\.w3\.org|[a-z.]*example|cyclonedx\.org/))"
        r"[a-z0-9-]+\.[a-z0-9.-]+",
        re.IGNORECASE,
    ),
    "database password method without encryption": re.compile(
        r"^\s*(host|local)\S*\s+\S+\s+\S+.*\b(trust|password)\s*$", re.MULTILINE
    ),
    "world-writable mode": re.compile(
        r"\bmode:\s*[\"']?0?[0-7]{1,2}[2367][\"']?\s*$|chmod\s+(-R\s+)?([0-7]?777|a\+w|o\+w)", re.MULTILINE
    ),
    "setuid or setgid mode": re.compile(
        r"\bmode:\s*[\"']?0?[2-7][0-7]{3}[\"']?\s*$|chmod\s+(u\+s|g\+s|[246]7[0-7]{2})", re.MULTILINE
    ),
    "password login for root": re.compile(r"PermitRootLogin\s+yes|PermitEmptyPasswords\s+yes", re.IGNORECASE),
}  # fmt: skip
# One example of each; every run must find them all.
PLANTED = {
    "an apt source that trusts anything": "deb [trusted=yes] file:/x ./",
    "apt without authentication": "apt-get --allow-unauthenticated install x",
    "packages without signature check": "gpgcheck=0",
    "TLS verification turned off": "    validate_certs: false",
    "host keys are not checked": "ssh -o StrictHostKeyChecking=no host",
    "unencrypted download": "url = http://download.invalid/x",
    "database password method without encryption": "host all all 0.0.0.0/0 trust",
    "world-writable mode": '    mode: "0666"',
    "setuid or setgid mode": '    mode: "4755"',
    "password login for root": "PermitRootLogin yes",
}
_UNIT = re.compile(r"\.service(\.j2)?$|/nginx-hardening\.conf$|/unit\.conf\.j2$")


@dataclass(frozen=True)
class Entry:
    """A file that is shipped: name, mode and content."""

    place: str
    mode: int
    content: bytes


def look(entry: Entry) -> list[str]:
    """What is wrong with a file, one line each."""
    found = []
    if entry.mode & 0o002:
        found.append(f"{entry.place}: everybody may write it")
    if entry.mode & 0o6000:
        found.append(f"{entry.place}: setuid or setgid")
    if b"\0" in entry.content[:1024]:
        return found
    text = entry.content.decode(errors="replace")
    for rule, pattern in _TEXT.items():
        for match in pattern.finditer(text):
            line = text.count("\n", 0, match.start(0)) + 1
            whole = text.splitlines()[line - 1] if text.splitlines() else ""
            if not re.match(r"^\s*(#|//|;|--\s)", whole):
                found.append(f"{entry.place}:{line}: {rule}")
    if _UNIT.search(entry.place) and re.search(r"^\[Service\]", text, re.MULTILINE):
        missing = [one for one in HARDENING if one not in text]
        if missing:
            found.append(f"{entry.place}: a service without {', '.join(one.rstrip('=') for one in missing)}")
    return found


def scan(entries: Iterable[Entry], exceptions: dict[str, str]) -> tuple[int, list[str], list[str]]:
    """Scan what is shipped. `exceptions`: start of a finding → reason. Returns files, faults, used exceptions."""
    for rule, example in PLANTED.items():
        if not any(rule in one for one in look(Entry("planted", 0o644, example.encode()))):
            raise GateError(f"misconfiguration scan: the planted example of “{rule}” was not found")
    bare = Entry("planted.service", 0o4646, b"[Service]\nExecStart=/bin/true\n")
    if len(look(bare)) != 3:
        raise GateError("misconfiguration scan: the planted unit without hardening was not found")
    number, faults, used = 0, [], set()
    for entry in entries:
        number += 1
        for fault in look(entry):
            reason = next((start for start in exceptions if fault.startswith(start)), None)
            if reason is None:
                faults.append(fault)
            else:
                used.add(reason)
    if not number:
        raise GateError("misconfiguration scan: no file was scanned")
    return number, faults, sorted(used)
