"""`python -m release.sbom`: generate, check, sign, verify, and compare an installed host with the SBOM."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from release.sbom import bijection, check, generate, signature
from release.sbom.model import SbomError

ROOT = Path(__file__).resolve().parents[2]


def _check(args: argparse.Namespace) -> bool:
    results = check.run(json.loads(args.file.read_text()))
    print(check.table(results))
    return all(one.passed for one in results)


def _generate(args: argparse.Namespace) -> bool:
    generate(args.tree, ROOT)
    return True


def _sign(args: argparse.Namespace) -> bool:
    signature.sign(args.file, args.key, args.out, args.key_id)
    return True


def _verify(args: argparse.Namespace) -> bool:
    key = serialization.load_pem_public_key(args.key.read_bytes())
    if not isinstance(key, ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey):
        raise SbomError(f"{args.key}: the key must be Ed25519 or ECDSA P-256")
    signature.verify_document(json.loads(args.file.read_text()), key)
    print("signature: made by this key over this document")
    return True


def _bijection(args: argparse.Namespace) -> bool:
    host = json.loads(args.files.read_text()) if args.files else bijection.read_host(args.host, args.ssh_option)
    report = bijection.compare(args.tree, host, args.without, args.before)
    print(report.text())
    return report.good


def main() -> int:
    """The command line. 0: good, 1: a check failed, 2: the input cannot be read."""
    parser = argparse.ArgumentParser(prog="python -m release.sbom", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    one = commands.add_parser("generate", help="write TREE/sbom/*.json")
    one.add_argument("tree", type=Path)
    one.set_defaults(run=_generate)
    one = commands.add_parser("check", help="CISA 2026 and BSI TR-03183-2 v2.1, field by field")
    one.add_argument("file", type=Path)
    one.set_defaults(run=_check)
    one = commands.add_parser("sign", help="write a copy of FILE with a signature inside")
    one.add_argument("file", type=Path)
    one.add_argument("--key", type=Path, required=True, help="PEM, Ed25519 or ECDSA P-256")
    one.add_argument("--key-id", required=True)
    one.add_argument("--out", type=Path, required=True)
    one.set_defaults(run=_sign)
    one = commands.add_parser("verify", help="verify the signature inside FILE against a key that you trust")
    one.add_argument("file", type=Path)
    one.add_argument("--key", type=Path, required=True, help="PEM, public")
    one.set_defaults(run=_verify)
    one = commands.add_parser("bijection", help="every executable file of an installed host, and every component")
    one.add_argument("tree", type=Path, help="the release that the host was installed from")
    where = one.add_mutually_exclusive_group(required=True)
    where.add_argument("--host", help="root@ADDRESS, reached over ssh")
    where.add_argument("--files", type=Path, help="what release/sbom/host_files.py printed on a host without a network")
    one.add_argument("--without", action="append", default=[], help="a Debian package that this inventory leaves out")
    one.add_argument("--before", type=Path, help="the release that this one replaced: it stays on the host")
    one.add_argument("--ssh-option", action="append", default=[], help="such as UserKnownHostsFile=…, as for ssh -o")
    one.set_defaults(run=_bijection)
    args = parser.parse_args()
    try:
        return 0 if args.run(args) else 1
    except (SbomError, OSError, ValueError) as error:
        print(f"sbom: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
