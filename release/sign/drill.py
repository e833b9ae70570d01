"""The key-compromise drill, offline: every release key is stolen, and customers recover with a USB stick.

    python -m release.sign.drill

Each step prints what is done and what the customer's checks answer; an answer that is not the expected one ends it.
"""

from __future__ import annotations

import contextlib
import io
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from release.sign import metadata, stage
from release.sign.keys import ROOTS, Keys, SigningError, make, publish, replace
from release.verify import verify

Maker = Callable[..., Path]
STOLEN = ("minisign", "ssh", "openpgp", "ecdsa", "tuf-targets", "tuf-online")


class DrillError(Exception):
    """A check did not answer as it must."""


class Customer:
    """An appliance: what it recorded, and the root that it trusts."""

    def __init__(self, home: Path, first_root: Path) -> None:
        """A customer who got the first root and its fingerprint with the contract."""
        self.state, self.trusted, self.first_root = home / "release-state", home / "tuf", first_root
        self.fingerprint = ""

    def take(self, tree: Path) -> str:
        """Check a bundle as an upgrade does: TUF metadata, then the verifier with the fingerprint that root names.

        Returns "accepted", or why not. What is accepted is recorded.
        """
        first = None if (self.trusted / "root.json").exists() else self.first_root
        try:
            fingerprint = metadata.check(tree, self.trusted, first)
        except metadata.UntrustedError as error:
            return str(error)
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            code = verify.main(
                ["--allow-test-key", "--fingerprint", fingerprint, "--state", str(self.state), "--record", str(tree)]
            )
        return "accepted" if code == 0 else said.getvalue().splitlines()[-1]


def expect(step: str, answer: str, wanted: str) -> None:
    """Print a step and its answer; raise DrillError when `wanted` is not in it."""
    print(f"{step:<64} {answer[:110]}")
    if wanted not in answer:
        raise DrillError(f"{step}: {answer!r}, where {wanted!r} was expected")


def drill(home: Path, release: Maker) -> None:
    """Run the drill in an empty directory; `release(path, keys, version=…, sequence=…)` makes a signed tree."""
    ours = make(home / "keys", test=True, created=1700000000)
    metadata.make_root(ours, 1, [metadata.signer(ours, name) for name in ROOTS], metadata.now())
    first_root = home / "root.json"
    shutil.copy(ours.directory / "public" / "root.json", first_root)
    customer = Customer(home / "customer", first_root)
    (home / "customer").mkdir()

    one = release(home / "one", ours, version="1.0.0", sequence=1)
    two = release(home / "two", ours, version="1.1.0", sequence=2)
    expect("release 1 is installed", customer.take(one), "accepted")
    expect("release 2 is installed", customer.take(two), "accepted")
    expect("release 1 again: an old one with a known hole", customer.take(one), "BadVersionNumberError")

    # The thief has every key of the signing machine, and one of the three root keys.
    thief = Keys(home / "thief")
    shutil.copytree(ours.directory, thief.directory)
    for name in ("tuf-root-2", "tuf-root-3"):
        (thief.directory / "private" / f"{name}.pem").unlink()
    evil = release(home / "evil", thief, version="9.0.0", sequence=90)
    victim = Customer(home / "victim", first_root)
    (home / "victim").mkdir()
    expect("the thief's release, before anybody knows: the theft is real", victim.take(evil), "accepted")
    alone = Keys(home / "alone")
    shutil.copytree(thief.directory, alone.directory)
    replace(alone, ("minisign",))
    publish(alone.directory, test=True, created=1700000000)
    metadata.make_root(alone, 2, [metadata.signer(alone, "tuf-root-1")], metadata.now())
    coup = release(home / "coup", alone, version="9.1.0", sequence=91)
    expect("the thief makes himself root with one key of three", customer.take(coup), "root was signed by 1/2 keys")

    # Two people with a root key each make new release keys and a new root; the stolen root key goes too.
    kept = [metadata.signer(ours, name) for name in ("tuf-root-2", "tuf-root-3")]
    replace(ours, (*STOLEN, "tuf-root-1"))
    publish(ours.directory, test=True, created=1700000000)
    metadata.make_root(ours, 2, kept, metadata.now())
    three = release(home / "three", ours, version="1.1.1", sequence=3)
    expect("release 3 comes on a stick, with root 2 and new keys", customer.take(three), "accepted")
    expect("the thief's release, afterwards", customer.take(evil), "Error")
    late = release(home / "late", thief, version="9.2.0", sequence=92)
    expect("a new one by the thief, with a higher number", customer.take(late), "Error")
    expect("the victim takes release 3: the thief's number was higher", victim.take(three), "rollback")
    victim.state.unlink()
    expect("the victim, who removed the record that the thief made", victim.take(three), "accepted")
    newcomer = Customer(home / "newcomer", first_root)
    (home / "newcomer").mkdir()
    expect("a customer who still has root 1 installs release 3", newcomer.take(three), "accepted")
    print("recovered: new keys, nobody had to be reached over a network")


def example(path: Path, keys: Keys, **changes: object) -> Path:
    """A small signed release."""
    sys.path.insert(0, str(Path(verify.__file__).with_name("tests")))
    import release_tree  # the example tree is a fixture of the tests

    release_tree.unsigned(path, min_upgrade_from="1.0.0", **changes)
    stage.sign(path, keys)
    return path


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        try:
            drill(Path(scratch), example)
        except (DrillError, SigningError) as error:
            sys.exit(f"drill: {error}")
