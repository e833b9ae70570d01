"""The verifier's own Ed25519 and ECDSA against a library; `module` is verify.py or a mutant of it."""

from __future__ import annotations

import hashlib
import types

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
LAST = 2**252 + 27742317777372353535851937790883648493


def flipped(data: bytes, at: int, bit: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1 << bit % 8]) + data[at + 1 :]


def ed25519(module: types.ModuleType, rounds: int) -> None:
    for number in range(rounds):
        key = Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32)
        public = key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        message = bytes(number)
        signature = key.sign(message)
        assert module.ed25519(public, message, signature)
        assert not module.ed25519(public, message + b"x", signature)
        for at in (0, 31, 32, 62):
            assert not module.ed25519(public, message, flipped(signature, at, number))
            assert not module.ed25519(flipped(public, at % 32, number), message, signature)
        longer = int.from_bytes(signature[32:], "little") + LAST
        assert not module.ed25519(public, message, signature[:32] + longer.to_bytes(32, "little"))
        assert not module.ed25519(public, message, signature + b"x")
        assert not module.ed25519(public, message, signature + b"\0")
    for number in range(16):  # both ways to a square root, both signs
        key = Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32)
        public = key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        point = module._ed_point(public)
        assert point is not None
        assert point[0] & 1 == public[31] >> 7
    # The neutral point as a key makes any R = sB good: only its encodings differ in whether they are allowed.
    assert module._ed_point((2).to_bytes(32, "little")) is None
    neutral = (1).to_bytes(32, "little")
    zero = neutral + bytes(32)
    assert module.ed25519(neutral, b"", zero)
    assert not module.ed25519(neutral + b"\0", b"", zero)  # the same number in 33 bytes
    assert not module.ed25519(neutral[:31], b"", zero)
    assert not module.ed25519((2**255 - 19 + 1).to_bytes(32, "little"), b"", zero)  # y is not reduced
    # y = p is 0 that is not reduced: a point of order 4, under which every fourth message has this signature
    assert not any(module.ed25519((2**255 - 19).to_bytes(32, "little"), bytes(n), zero) for n in range(32))
    assert not module.ed25519((1 | 1 << 255).to_bytes(32, "little"), b"", zero)  # x = 0 with a sign
    assert not module.ed25519((2).to_bytes(32, "little"), b"", zero)  # no x for this y
    assert not module.ed25519(neutral, b"", neutral + LAST.to_bytes(32, "little"))  # s is not reduced


def ecdsa(module: types.ModuleType, rounds: int) -> None:
    def check(key: bytes, message: bytes, signature: bytes) -> bool:
        return bool(module.ecdsa_p256(key, message, signature))

    for number in range(rounds):
        key = ec.derive_private_key(number + 1, ec.SECP256R1())
        public = key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )  # fmt: skip
        message = bytes(number)
        signature = key.sign(message, ec.ECDSA(hashes.SHA256()))
        assert check(public, message, signature)
        assert not check(public, message + b"x", signature)
        for at in range(0, len(signature), 1 if number == 0 else 9):
            assert not check(public, message, flipped(signature, at, number)), at
        for end in range(8):
            assert not check(public, message, signature[:end]), end
        assert not check(flipped(public, 90, 0), message, signature)
        assert not check(flipped(public, 0, 0), message, signature)
        assert not check(public + b"x", message, signature)
        assert not check(public[:59] + b"\0" + public[59:], message, signature)
        assert not check(public, message, signature + b"x")
        r, s = decode_dss_signature(signature)

        def der(*numbers: bytes) -> bytes:
            body = b"".join(b"\x02" + bytes([len(n)]) + n for n in numbers)
            return b"\x30" + bytes([len(body)]) + body

        def plain(value: int) -> bytes:
            return value.to_bytes(value.bit_length() // 8 + 1, "big")

        assert check(public, message, der(plain(r), plain(s)))
        # a zero more than needed, not reduced, zero, negative, too few, too many
        assert not check(public, message, der(b"\0" + plain(r), plain(s)))
        assert not check(public, message, der(plain(r), plain(s + ORDER)))
        assert not check(public, message, der(plain(r + ORDER), plain(s)))
        assert not check(public, message, der(b"", plain(s)))
        assert not check(public, message, der(plain(r), b""))
        assert not check(public, message, der(plain(0), plain(s)))
        assert not check(public, message, der(plain(r), plain(0)))
        assert not check(public, message, der(plain(r), plain(ORDER)))
        assert not check(public, message, der(plain(r)))
        assert not check(public, message, der(plain(r), plain(s), plain(1)))
        for value in (r, s):
            if value >> 255:
                assert not check(
                    public, message, der(*(v.to_bytes(32, "big") if v == value else plain(v) for v in (r, s)))
                )
    assert not check(public, b"", bytes.fromhex("3006020100020100"))
    # a signature that leads to the point at infinity
    generator = ec.derive_private_key(1, ec.SECP256R1()).public_key()
    one = generator.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    e = int.from_bytes(hashlib.sha256(b"").digest(), "big")
    assert not check(one, b"", encode_dss_signature(-e % ORDER, 1))
    # (5, 0) is not on the curve and has order 2 on another one: under it, anybody can sign
    e = int.from_bytes(hashlib.sha256(b"").digest(), "big")
    for k in range(1, 9):
        r = module._p_times(k, module.P_G)[0] % ORDER
        s = e * pow(k, -1, ORDER) % ORDER
        outside = public[:27] + (5).to_bytes(32, "big") + bytes(32)
        assert not check(outside, b"", encode_dss_signature(r, s))
    assert module._der_pair(bytes.fromhex("3006020101020102")) == (1, 2)
    assert module._der_pair(bytes.fromhex("300602017f020102")) == (127, 2)
    assert module._der_pair(bytes.fromhex("300702020080020102")) == (128, 2)
    assert module._der_pair(bytes.fromhex("300702020101020102")) == (257, 2)
    for text in ("3006020180020102", "3106020101020102", "3007020101020102", "3006030101020102", "3006020101020202",
                 "30060200020201ff", "30070202007f020102", "300602010102", "300702040102030402"):  # fmt: skip
        assert module._der_pair(bytes.fromhex(text)) is None, text


def points(module: types.ModuleType) -> None:
    """The group law where the usual formula does not hold."""
    base = module.P_G
    minus = (base[0], module.P - base[1])
    assert module._p_add(base, minus) is None
    assert module._p_add(None, base) == base == module._p_add(base, None)
    assert module._p_add(module._p_add(base, base), minus) == base
    assert module._p_times(ORDER, base) is None
    assert module._p_times(ORDER + 1, base) == base


def check(module: types.ModuleType, rounds: int = 2) -> None:
    """All of it."""
    ed25519(module, rounds)
    ecdsa(module, rounds)
    points(module)
