"""Writers of the signature formats. Each takes bytes and a key and returns the file; tools of others read them.

Everything but ECDSA is deterministic: the same key and bytes give the same signature.
"""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from dataclasses import dataclass

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

SSH_IDENTITY, SSH_NAMESPACE = "release@ispvm", "ispvm-release"
INTOTO = "application/vnd.in-toto+json"


def raw(key: Ed25519PrivateKey) -> bytes:
    """The 32 bytes of the public key."""
    return key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)


def encode(data: bytes) -> str:
    """Base64 on one line."""
    return base64.b64encode(data).decode()


# --- minisign ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Minisign:
    """A minisign key: Ed25519 and an id of 8 bytes, which says TESTONLY when it was made for tests."""

    key: Ed25519PrivateKey
    key_id: bytes

    def public(self, comment: str) -> str:
        """The public key file."""
        return f"untrusted comment: {comment}\n{encode(b'Ed' + self.key_id + raw(self.key))}\n"

    def sign(self, message: bytes, comment: str) -> str:
        """The signature file; `comment` is covered by the signature too."""
        signature = self.key.sign(hashlib.blake2b(message).digest())
        whole = self.key.sign(signature + comment.encode())
        return (
            f"untrusted comment: ispvm signature\n{encode(b'ED' + self.key_id + signature)}\n"
            f"trusted comment: {comment}\n{encode(whole)}\n"
        )


# --- ECDSA P-256: openssl and cosign ----------------------------------------------------------------------------------


def ecdsa(key: ec.EllipticCurvePrivateKey, message: bytes) -> str:
    """Base64 of the DER signature over SHA-256, as `cosign sign-blob --output-signature` writes it."""
    return encode(key.sign(message, ec.ECDSA(hashes.SHA256()))) + "\n"


def sigstore_bundle(key: ec.EllipticCurvePrivateKey, message: bytes, signature: str) -> str:
    """The signature as a sigstore bundle (v0.3) made with a key: no certificate, no transparency log."""
    der = key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )  # fmt: skip
    bundle = {
        "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "verificationMaterial": {"publicKey": {"hint": encode(hashlib.sha256(der).digest())}},
        "messageSignature": {
            "messageDigest": {"algorithm": "SHA2_256", "digest": encode(hashlib.sha256(message).digest())},
            "signature": signature.strip(),
        },
    }
    return json.dumps(bundle) + "\n"


def dsse(key: ec.EllipticCurvePrivateKey, payload: bytes) -> str:
    """An in-toto statement in a signed envelope (DSSE 1.0), one line."""
    message = b"DSSEv1 %d %s %d %s" % (len(INTOTO), INTOTO.encode(), len(payload), payload)
    signature = ecdsa(key, message).strip()
    envelope = {
        "payload": encode(payload), "payloadType": INTOTO, "signatures": [{"keyid": "release.ecdsa", "sig": signature}]
    }  # fmt: skip
    return json.dumps(envelope) + "\n"


# --- SSH --------------------------------------------------------------------------------------------------------------


def _string(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def ssh_public(key: Ed25519PrivateKey, comment: str) -> str:
    """One line of an allowed_signers file, good for this namespace only."""
    blob = encode(_string(b"ssh-ed25519") + _string(raw(key)))
    return f'{SSH_IDENTITY} namespaces="{SSH_NAMESPACE}" ssh-ed25519 {blob} {comment}\n'


def ssh(key: Ed25519PrivateKey, message: bytes) -> str:
    """What `ssh-keygen -Y sign -n ispvm-release` makes (PROTOCOL.sshsig)."""
    head = _string(SSH_NAMESPACE.encode()) + _string(b"") + _string(b"sha512")
    signature = key.sign(b"SSHSIG" + head + _string(hashlib.sha512(message).digest()))
    blob = (
        b"SSHSIG" + struct.pack(">I", 1) + _string(_string(b"ssh-ed25519") + _string(raw(key)))
        + head + _string(_string(b"ssh-ed25519") + _string(signature))
    )  # fmt: skip
    text = encode(blob)
    lines = [text[at : at + 70] for at in range(0, len(text), 70)]
    return "\n".join(["-----BEGIN SSH SIGNATURE-----", *lines, "-----END SSH SIGNATURE-----", ""])


# --- OpenPGP (version 4, EdDSA), for sqv, gpgv and apt ----------------------------------------------------------------


@dataclass(frozen=True)
class OpenPgp:
    """An OpenPGP key: Ed25519, when it was made (seconds since 1970) and whose it is."""

    key: Ed25519PrivateKey
    created: int
    user: str

    def _body(self) -> bytes:
        """The public key packet's body; the curve is Ed25519 by its object identifier."""
        point = b"\x40" + raw(self.key)
        return struct.pack(">BIB", 4, self.created, 22) + bytes.fromhex("092b06010401da470f01") + _mpi(point)

    def _fingerprint(self) -> bytes:
        return hashlib.sha1(b"\x99" + struct.pack(">H", len(self._body())) + self._body()).digest()  # noqa: S324 # v4

    def _signature(self, kind: int, message: bytes, when: int, *subpackets: bytes) -> bytes:
        """A signature packet over `message`; everything about it is under the signature."""
        print_ = self._fingerprint()
        hashed = b"".join(
            bytes([len(part)]) + part
            for part in (b"\x02" + struct.pack(">I", when), b"\x21\x04" + print_, b"\x10" + print_[-8:], *subpackets)
        )
        head = struct.pack(">BBBBH", 4, kind, 22, 10, len(hashed)) + hashed
        digest = hashlib.sha512(message + head + b"\x04\xff" + struct.pack(">I", len(head))).digest()
        signature = self.key.sign(digest)
        return _packet(2, head + b"\x00\x00" + digest[:2] + _mpi(signature[:32]) + _mpi(signature[32:]))

    def public(self) -> bytes:
        """The certificate, binary: what `signed-by`, `sqv --keyring` and `gpgv --keyring` take."""
        user = self.user.encode()
        message = b"\x99" + struct.pack(">H", len(self._body())) + self._body()
        message += b"\xb4" + struct.pack(">I", len(user)) + user
        binding = self._signature(0x13, message, self.created, b"\x1b\x03")
        return _packet(6, self._body()) + _packet(13, user) + binding

    def detached(self, message: bytes, when: int) -> str:
        """A detached signature, armoured."""
        return armour("SIGNATURE", self._signature(0x00, message, when))

    def clearsigned(self, message: bytes, when: int) -> str:
        """The text and its signature in one file (InRelease); `message` ends with a newline."""
        lines = [line.rstrip(" \t") for line in message.decode().removesuffix("\n").split("\n")]
        signature = self._signature(0x01, "\r\n".join(lines).encode(), when)
        escaped = "".join(("- " if line.startswith("-") else "") + line + "\n" for line in lines)
        return f"-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\n{escaped}{armour('SIGNATURE', signature)}"


def _mpi(data: bytes) -> bytes:
    data = data.lstrip(b"\x00")
    bits = len(data) * 8 - (8 - data[0].bit_length()) if data else 0
    return struct.pack(">H", bits) + data


def _packet(tag: int, body: bytes) -> bytes:
    size = bytes([len(body)]) if len(body) < 192 else bytes([(len(body) - 192) // 256 + 192, (len(body) - 192) % 256])
    return bytes([0xC0 | tag]) + size + body


def _crc24(data: bytes) -> bytes:
    crc = 0xB704CE
    for byte in data:
        crc ^= byte << 16
        for _ in range(8):
            crc = crc << 1 ^ (0x1864CFB if crc & 0x800000 else 0)
    return (crc & 0xFFFFFF).to_bytes(3, "big")


def armour(kind: str, data: bytes, comment: str = "") -> str:
    """OpenPGP bytes as text; `kind` as in SIGNATURE."""
    text = encode(data)
    lines = [text[at : at + 64] for at in range(0, len(text), 64)]
    head = [f"-----BEGIN PGP {kind}-----", *([f"Comment: {comment}"] if comment else []), ""]
    return "\n".join([*head, *lines, "=" + encode(_crc24(data)), f"-----END PGP {kind}-----", ""])
