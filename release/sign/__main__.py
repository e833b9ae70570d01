"""Sign a release: the second stage, over the unsigned tree that `make release` leaves.

python -m release.sign keys --test DIR [--builder NAME …]      make a key set for tests
python -m release.sign TREE --keys DIR [--pack]                sign a tree; pack it as .tar.zst again
python -m release.sign attest TREE --keys DIR --builder NAME   say that this builder got the same bytes
python -m release.sign trust TREE --state DIR [--first-root FILE]   check the TUF metadata of a bundle
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from pathlib import Path

from release.build import pack
from release.sign import metadata, stage
from release.sign.keys import ROOTS, Keys, SigningError, make

# Test keys were all made at this time, which no release is older than.
TEST_CREATED = 1700000000


def make_keys(directory: Path, *, test: bool, builders: tuple[str, ...]) -> Keys:
    """A key set with its first root."""
    keys = make(directory, test=test, created=TEST_CREATED if test else int(time.time()), builders=builders)
    metadata.make_root(keys, 1, [metadata.signer(keys, name) for name in ROOTS], metadata.now())
    return keys


def buildinfo() -> bytes:
    """On what this builder built: nothing that names the machine."""
    system = platform.freedesktop_os_release()
    content = {
        "system": f"{system.get('ID')} {system.get('VERSION_ID')}",
        "machine": platform.machine(),
        "python": platform.python_version(),
        "umask": f"{os.umask(0o022):04o}",
        "timezone": time.tzname[0],
    }
    return json.dumps(content, indent=2, sort_keys=True).encode() + b"\n"


def main() -> None:
    """Read the command line and do it."""
    commands = ("keys", "attest", "trust")
    parser = argparse.ArgumentParser(
        prog="release.sign", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments = sys.argv[1:]
    command = arguments.pop(0) if arguments and arguments[0] in commands else "sign"
    if command == "keys":
        parser.add_argument("--test", action="store_true", help="mark the keys TEST-ONLY; verifiers refuse them")
        parser.add_argument("--builder", action="append", default=[], help="make a builder's key too")
        parser.add_argument("directory", type=Path, metavar="DIR")
    else:
        parser.add_argument("tree", type=Path, metavar="TREE")
    if command in ("sign", "attest"):
        parser.add_argument("--keys", type=Path, required=True, metavar="DIR")
    if command == "sign":
        parser.add_argument("--pack", action="store_true", help="write TREE.tar.zst again, with the signatures")
    if command == "attest":
        parser.add_argument("--builder", required=True, metavar="NAME")
    if command == "trust":
        parser.add_argument("--state", type=Path, required=True, metavar="DIR")
        parser.add_argument("--first-root", type=Path, metavar="FILE")
    options = parser.parse_args(arguments)
    if command == "keys":
        keys = make_keys(options.directory, test=options.test, builders=tuple(options.builder))
        print(f"fingerprint {keys.fingerprint()}")
    elif command == "sign":
        stage.sign(options.tree, Keys(options.keys))
        if options.pack:
            print(f"packed {pack.archive(options.tree)[0]}")
        print(f"signed {options.tree}; fingerprint of the keys {Keys(options.keys).fingerprint()}")
    elif command == "attest":
        stage.attest(options.tree, Keys(options.keys), options.builder, buildinfo())
        print(f"attested {options.tree} as {options.builder}")
    else:
        print(f"fingerprint {metadata.check(options.tree, options.state, options.first_root)}")


if __name__ == "__main__":
    try:
        main()
    except (SigningError, metadata.UntrustedError) as error:
        sys.exit(f"release.sign: {error}")
