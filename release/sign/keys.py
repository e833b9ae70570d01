"""The release keys: a directory with `private/` (never in a repository or CI), `builders/`, `tuf/` and `public/`.

`public/` becomes KEYS/ of a release. A key made for tests says so in its id, its comments and its user id; verifiers
refuse it unless told otherwise.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from getpass import getpass
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from release.sign.formats import Minisign, OpenPgp, armour, raw, ssh_public

TEST_MARK, TEST_ID = "TEST-ONLY", b"TESTONLY"
RELEASE_KEYS = ("apt.asc", "release.ecdsa.pub", "release.minisign.pub", "release.ssh.pub")
SIGNING = ("minisign", "ssh", "openpgp", "tuf-targets", "tuf-online")
ROOTS = ("tuf-root-1", "tuf-root-2", "tuf-root-3")


class SigningError(Exception):
    """Something that the person who signs can act on."""


def save(path: Path, key: Ed25519PrivateKey | ec.EllipticCurvePrivateKey) -> None:
    """Write a private key, readable by its owner only. Encrypt a real one with `openssl pkcs8 -topk8`."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    data = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )  # fmt: skip
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)


def load(path: Path) -> Ed25519PrivateKey | ec.EllipticCurvePrivateKey:
    """Read a private key; asks for the passphrase of an encrypted one."""
    if not path.exists():
        raise SigningError(f"{path}: this key is not here; `python -m release.sign keys --test DIR` makes test keys")
    data = path.read_bytes()
    password = getpass(f"passphrase of {path.name}: ").encode() if b"ENCRYPTED" in data else None
    key = serialization.load_pem_private_key(data, password)
    if not isinstance(key, Ed25519PrivateKey | ec.EllipticCurvePrivateKey):
        raise SigningError(f"{path}: neither Ed25519 nor ECDSA P-256")
    return key


@dataclass(frozen=True)
class Keys:
    """A key directory, opened for signing."""

    directory: Path

    def ed25519(self, name: str) -> Ed25519PrivateKey:
        """The Ed25519 key `private/<name>.pem`."""
        key = load(self.directory / "private" / f"{name}.pem")
        if not isinstance(key, Ed25519PrivateKey):
            raise SigningError(f"{self.directory}/private/{name}.pem: not Ed25519")
        return key

    def ecdsa(self) -> ec.EllipticCurvePrivateKey:
        """The ECDSA P-256 key."""
        key = load(self.directory / "private" / "ecdsa.pem")
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise SigningError(f"{self.directory}/private/ecdsa.pem: not ECDSA P-256")
        return key

    @property
    def test(self) -> bool:
        """Whether this set was made for tests."""
        return TEST_MARK in (self.directory / "public" / "release.minisign.pub").read_text()

    def minisign(self, name: str = "private/minisign") -> Minisign:
        """The minisign key of the release, or of a builder (`builders/<name>`)."""
        key = load(self.directory / f"{name}.pem")
        if not isinstance(key, Ed25519PrivateKey):
            raise SigningError(f"{self.directory}/{name}.pem: not Ed25519")
        return Minisign(
            key, TEST_ID if self.test and name == "private/minisign" else hashlib.sha256(raw(key)).digest()[:8]
        )

    def openpgp(self) -> OpenPgp:
        """The OpenPGP key; when it was made and whose it is are kept beside it."""
        created, user = (self.directory / "private" / "openpgp.txt").read_text().rstrip("\n").split(" ", 1)
        return OpenPgp(self.ed25519("openpgp"), int(created), user)

    def fingerprint(self) -> str:
        """What an operator compares: the SHA-256 over the four public keys."""
        return hashlib.sha256(b"".join((self.directory / "public" / n).read_bytes() for n in RELEASE_KEYS)).hexdigest()


def make(directory: Path, *, test: bool, created: int, builders: tuple[str, ...] = ()) -> Keys:
    """Make a set of keys in a directory that does not hold one; `created` is in seconds since 1970."""
    if (directory / "private").exists():
        raise SigningError(f"{directory}: there are keys already; a set is never overwritten")
    for name in (*SIGNING, *ROOTS, "ecdsa"):
        generate(directory, name)
    publish(directory, test=test, created=created)
    for builder in builders:
        add_builder(directory, builder)
    return Keys(directory)


def generate(directory: Path, name: str) -> None:
    """Make the private key of this name; of a root key, keep the public half beside the metadata too."""
    key = ec.generate_private_key(ec.SECP256R1()) if name == "ecdsa" else Ed25519PrivateKey.generate()
    save(directory / "private" / f"{name}.pem", key)
    if name in ROOTS:
        pem = key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )  # fmt: skip
        (directory / "tuf").mkdir(exist_ok=True)
        (directory / "tuf" / f"{name}.pub").write_bytes(pem)


def publish(directory: Path, *, test: bool, created: int) -> None:
    """Write the public keys of the release."""
    keys, public, mark = Keys(directory), directory / "public", f" {TEST_MARK}" if test else ""
    public.mkdir(exist_ok=True)
    (directory / "private" / "openpgp.txt").write_text(
        f"{created} ISPVisualMonitor release{mark} <release@ispvm.invalid>\n"
    )
    (public / "apt.asc").write_text(armour("PUBLIC KEY BLOCK", keys.openpgp().public(), f"ispvm release{mark}"))
    minisign_key = keys.ed25519("minisign")
    key_id = TEST_ID if test else hashlib.sha256(raw(minisign_key)).digest()[:8]
    (public / "release.minisign.pub").write_text(Minisign(minisign_key, key_id).public(f"ispvm release{mark}"))
    pem = keys.ecdsa().public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )  # fmt: skip
    (public / "release.ecdsa.pub").write_text(f"ispvm release{mark}\n{pem.decode()}")
    (public / "release.ssh.pub").write_text(ssh_public(keys.ed25519("ssh"), f"ispvm-release{mark.replace(' ', '-')}"))


def add_builder(directory: Path, builder: str) -> None:
    """Make the key of one more builder; a real builder makes his own and hands over the public half."""
    save(directory / "builders" / f"{builder}.pem", Ed25519PrivateKey.generate())
    keys = Keys(directory)
    public = directory / "public" / "builders" / f"{builder}.minisign.pub"
    public.parent.mkdir(exist_ok=True)
    mark = f" {TEST_MARK}" if keys.test else ""
    public.write_text(keys.minisign(f"builders/{builder}").public(f"ispvm builder {builder}{mark}"))


def replace(keys: Keys, names: tuple[str, ...]) -> None:
    """Make new private keys in the place of these; `publish` and a new root must follow."""
    for name in names:
        (keys.directory / "private" / f"{name}.pem").unlink()
        generate(keys.directory, name)
