"""TUF metadata, carried in the bundle: root is 2 of 3 keys and names the release keys, so keys can be replaced offline.

`sign` writes signatures/tuf/ of a release; `check` is the client side: it reads those files (no network), keeps what it
trusts in a directory, and refuses rollback, freeze, metadata by revoked keys, and release keys that root does not name.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import unquote, urlparse

from cryptography.hazmat.primitives import serialization
from securesystemslib.signer import CryptoSigner, SSlibKey
from tuf.api.exceptions import DownloadHTTPError, LengthOrHashMismatchError, RepositoryError
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, TargetFile, Targets, Timestamp
from tuf.api.serialization.json import JSONSerializer
from tuf.ngclient import FetcherInterface, Updater

from release.sign.keys import RELEASE_KEYS, ROOTS, Keys, SigningError

ROOT_YEARS = 10
NAMED = ("SHA256SUMS", "release.json")
# A custom field of root, under its signatures: which release keys (KEYS/ of a bundle) are ours now.
FINGERPRINT = "x-ispvm-release-keys"


class UntrustedError(Exception):
    """The bundle's metadata are refused; the text says why."""


def signer(keys: Keys, name: str) -> CryptoSigner:
    """A TUF signer of the key `private/<name>.pem`."""
    return CryptoSigner(keys.ed25519(name))


def make_root(keys: Keys, version: int, signers: Sequence[CryptoSigner], when: datetime) -> None:
    """Write `tuf/<version>.root.json` of a key directory for its keys as they are now.

    `signers` are at least two root keys of the version before and two of this one; the others are not needed.
    """
    root = Root(version=version, expires=when + timedelta(days=365 * ROOT_YEARS), consistent_snapshot=True)
    root.unrecognized_fields[FINGERPRINT] = keys.fingerprint()
    for name in ROOTS:
        public = serialization.load_pem_public_key((keys.directory / "tuf" / f"{name}.pub").read_bytes())
        root.add_key(SSlibKey.from_crypto(public), "root")
    root.roles["root"].threshold = 2
    root.add_key(signer(keys, "tuf-targets").public_key, "targets")
    for role in ("snapshot", "timestamp"):
        root.add_key(signer(keys, "tuf-online").public_key, role)
    metadata = Metadata(root)
    for each in signers:
        metadata.sign(each, append=True)
    folder = keys.directory / "tuf"
    metadata.to_file(str(folder / f"{version}.root.json"), JSONSerializer(compact=False))
    shutil.copyfile(folder / f"{version}.root.json", keys.directory / "public" / "root.json")


def roots(keys: Keys) -> list[Path]:
    """All roots of a key directory, oldest first."""
    return sorted((keys.directory / "tuf").glob("*.root.json"), key=lambda path: int(path.name.split(".")[0]))


def sign(tree: Path, keys: Keys, sequence: int, not_after: datetime) -> None:
    """Write signatures/tuf/ for a release: every root so far, and targets, snapshot and timestamp of this sequence."""
    folder = tree / "signatures" / "tuf"
    folder.mkdir(parents=True)
    chain = roots(keys)
    if not chain:
        raise SigningError(f"{keys.directory}/tuf: no root metadata")
    for root in chain:
        shutil.copyfile(root, folder / root.name)
    named = {name: TargetFile.from_file(name, str(tree / name), ["sha256"]) for name in NAMED}
    targets = Metadata(Targets(version=sequence, expires=not_after, targets=named))
    snapshot = Metadata(
        Snapshot(version=sequence, expires=not_after, meta={"targets.json": MetaFile(version=sequence)})
    )
    timestamp = Metadata(Timestamp(version=sequence, expires=not_after, snapshot_meta=MetaFile(version=sequence)))
    serializer = JSONSerializer(compact=False)
    for metadata, name, key in (
        (targets, f"{sequence}.targets.json", "tuf-targets"),
        (snapshot, f"{sequence}.snapshot.json", "tuf-online"),
        (timestamp, "timestamp.json", "tuf-online"),
    ):
        metadata.sign(signer(keys, key))
        metadata.to_file(str(folder / name), serializer)


class LocalFetcher(FetcherInterface):
    """Reads metadata from a directory; there is no network to ask."""

    def _fetch(self, url: str) -> Iterator[bytes]:
        path = Path(unquote(urlparse(url).path))
        if not path.is_file():
            raise DownloadHTTPError(f"{path.name} is not in the bundle", 404)
        yield path.read_bytes()


def check(tree: Path, state: Path, first_root: Path | None = None) -> str:
    """Check a bundle's metadata against what `state` trusts and return the fingerprint of the release keys.

    `first_root` is the root to start from, got another way; only for a `state` that trusts nothing yet. Raises
    UntrustedError.
    """
    if (state / "root.json").exists() == (first_root is not None):
        raise UntrustedError(f"{state}: give the first root once, and only once")
    state.mkdir(parents=True, exist_ok=True)
    try:
        updater = Updater(
            str(state), (tree / "signatures" / "tuf").absolute().as_uri(), fetcher=LocalFetcher(),
            bootstrap=first_root.read_bytes() if first_root else None,
        )  # fmt: skip
        updater.refresh()
        for name in NAMED:
            info = updater.get_targetinfo(name)
            if info is None:
                raise UntrustedError(f"{name} is not in the targets metadata")
            info.verify_length_and_hashes((tree / name).read_bytes())
    except (RepositoryError, LengthOrHashMismatchError, DownloadHTTPError) as error:
        raise UntrustedError(f"{type(error).__name__}: {error}") from error
    root = Metadata[Root].from_file(str(state / "root.json")).signed
    found = hashlib.sha256(b"".join((tree / "KEYS" / name).read_bytes() for name in RELEASE_KEYS)).hexdigest()
    if root.unrecognized_fields.get(FINGERPRINT) != found:
        raise UntrustedError("KEYS/ are not the release keys that root names")
    return found


def now() -> datetime:
    """The time, in whole seconds, as TUF wants it."""
    return datetime.now(UTC).replace(microsecond=0)
