"""The signature inside a CycloneDX file: JSF over the RFC 8785 canonical form."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import rfc8785
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from release.sbom.model import SbomError

PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
PublicKey = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey


def _plain(number: int) -> str:
    return base64.urlsafe_b64encode(number.to_bytes(32, "big")).rstrip(b"=").decode()


def _encode(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _jwk(key: PublicKey) -> dict[str, str]:
    if isinstance(key, ed25519.Ed25519PublicKey):
        raw = key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        return {"kty": "OKP", "crv": "Ed25519", "x": _encode(raw)}
    numbers = key.public_numbers()
    return {"kty": "EC", "crv": "P-256", "x": _plain(numbers.x), "y": _plain(numbers.y)}


def _canonical(document: dict[str, Any]) -> bytes:
    """What is signed: the whole document with everything of the signature but its value."""
    core = {key: value for key, value in document["signature"].items() if key != "value"}
    return rfc8785.dumps({**document, "signature": core})


def load_private_key(path: Path) -> PrivateKey:
    """An unencrypted PEM key: Ed25519, or ECDSA P-256. Raises SbomError naming the file."""
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise SbomError(f"{path}: no PEM private key ({error})") from error
    return _supported(key, path)


def _supported(key: object, path: Path) -> PrivateKey:
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key
    if isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1):
        return key
    raise SbomError(f"{path}: the key must be Ed25519 or ECDSA P-256")


def sign_document(document: dict[str, Any], key: PrivateKey, key_id: str) -> dict[str, Any]:
    """A copy of the document with its signature; one that is there is replaced."""
    ed = isinstance(key, ed25519.Ed25519PrivateKey)
    core = {"algorithm": "Ed25519" if ed else "ES256", "keyId": key_id, "publicKey": _jwk(key.public_key())}
    signed = {**{name: value for name, value in document.items() if name != "signature"}, "signature": core}
    if isinstance(key, ed25519.Ed25519PrivateKey):
        value = key.sign(_canonical(signed))
    else:
        r, s = decode_dss_signature(key.sign(_canonical(signed), ec.ECDSA(hashes.SHA256())))
        value = r.to_bytes(32, "big") + s.to_bytes(32, "big")
    return {**signed, "signature": {**core, "value": _encode(value)}}


def verify_document(document: dict[str, Any], key: PublicKey) -> None:
    """Raises SbomError unless this key signed exactly this document. The key inside the document counts for nothing."""
    signature = document.get("signature")
    if not isinstance(signature, dict) or not isinstance(signature.get("value"), str):
        raise SbomError("signature: the document has none")
    try:
        value = _decode(signature["value"])
        if isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(value, _canonical(document))
        else:
            if len(value) != 64:
                raise InvalidSignature
            der = encode_dss_signature(int.from_bytes(value[:32], "big"), int.from_bytes(value[32:], "big"))
            key.verify(der, _canonical(document), ec.ECDSA(hashes.SHA256()))
    except (InvalidSignature, ValueError) as error:
        raise SbomError("signature: not made by this key over this document") from error
    if signature.get("publicKey") != _jwk(key):
        raise SbomError("signature: names another key than the one that made it")


def sign(unsigned: Path, key: Path, signed: Path, key_id: str) -> None:
    """Write the signed copy of an SBOM. The unsigned one stays as it is: it is part of what is reproduced."""
    document = json.loads(unsigned.read_text())
    signed.parent.mkdir(parents=True, exist_ok=True)
    signed.write_text(
        json.dumps(sign_document(document, load_private_key(key), key_id), indent=1, ensure_ascii=False) + "\n"
    )
