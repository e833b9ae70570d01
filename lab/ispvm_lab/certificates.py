"""The routers' certificate authority and one certificate a router, kept across restarts."""

from __future__ import annotations

import os
import ssl
from hashlib import blake2b
from pathlib import Path

import trustme

CA_FILE = "routers-ca.crt"
_LONGEST_COMMON_NAME = 64  # bytes
# The group ffdhe2048 of RFC 7919; a public constant.
_DH_GROUP = b"""\
-----BEGIN DH PARAMETERS-----
MIIBCAKCAQEA//////////+t+FRYortKmq/cViAnPTzx2LnFg84tNpWp4TZBFGQz
+8yTnc4kmz75fS/jY2MMddj2gbICrsRhetPfHtXV/WVhJDP1H18GbtCFY2VVPe0a
87VXE15/V8k1mE8McODmi3fipona8+/och3xWKE2rec1MKzKT0g6eXq8CrGCsyT7
YdEIqUuyyOP7uWrat2DX9GgdT0Kj3jlN9K5W7edjcrsZCwenyO4KbXCeAvzhzffi
7MA0BM0oNC9hkXL+nOmFg/+OTxIy7vKBg8P+OxtMb61zO7X8vC7CIAXFjvGDfRaD
ssbzSibBsu/6iGtCOGEoXJf//////////wIBAg==
-----END DH PARAMETERS-----
"""


def write_secret(path: Path, data: bytes) -> None:
    """Write a file that only its owner may read, whole or not at all."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
    temporary.rename(path)


def _common_name(name: str) -> str:
    return name.encode()[:_LONGEST_COMMON_NAME].decode(errors="ignore")


class Authority:
    """Issues the routers' certificates. `<state>/routers-ca.crt` is what clients trust."""

    def __init__(self, state: Path) -> None:
        """Load the authority of a state directory, or found one."""
        """Load the authority of a state directory, or found one."""
        self._directory = state / "certificates"
        self._directory.mkdir(mode=0o700, exist_ok=True)
        certificate, key = state / CA_FILE, self._directory / "ca.key"
        if certificate.exists() and key.exists():
            self._ca = trustme.CA.from_pem(certificate.read_bytes(), key.read_bytes())
            return
        self._ca = trustme.CA(organization_name="ISPVisualMonitor lab", organization_unit_name="routers")
        for stale in self._directory.glob("*.pem"):
            stale.unlink()
        write_secret(key, self._ca.private_key_pem.bytes())
        self._ca.cert_pem.write_to_path(str(certificate))

    def context(self, name: str, address: str) -> ssl.SSLContext:
        """A TLS server for the router of that name at that address."""
        file = self._directory / f"{address}-{blake2b(name.encode(), digest_size=8).hexdigest()}.pem"
        if not file.exists():
            issued = self._ca.issue_cert(address, common_name=_common_name(name))
            parts = [issued.private_key_pem.bytes(), *(part.bytes() for part in issued.cert_chain_pems)]
            write_secret(file, b"".join(parts))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(file)
        return context

    def anonymous(self) -> ssl.SSLContext:
        """A TLS server without a certificate, as api-ssl is before one is set: anonymous Diffie-Hellman, TLS 1.2."""
        group = self._directory / "ffdhe2048.dh"
        group.write_bytes(_DH_GROUP)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers("ADH:@SECLEVEL=0")
        context.load_dh_params(str(group))
        return context
