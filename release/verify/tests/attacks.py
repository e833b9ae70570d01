"""The attack matrix: every way to damage a release that we could think of, and good variants that must pass.

`Lab` signs a handful of small releases once; a case is a copy of one of them with one thing done to it, the options it
is verified with, and the code that both verifiers must give (None: any refusal, as long as it is the same).
"""

# lambdas that bind a loop variable, and changes whose results nobody reads
# mypy: disable-error-code="misc, func-returns-value"

from __future__ import annotations

import base64
import hashlib
import json
import os
import random
import re
import shutil
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import release_tree
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from release.sign import formats, stage
from release.sign.__main__ import make_keys
from release.sign.formats import Minisign
from release.sign.keys import Keys
from release.sign.slsa import provenance
from release.verify import verify

BUILDERS = ("bookworm", "trixie")
MINISIG, ECDSA = "signatures/SHA256SUMS.minisig", "signatures/SHA256SUMS.sig"
NOW = "2026-11-22T00:00:00Z"
Change = Callable[[Path], object]


@dataclass(frozen=True)
class Case:
    """One row of the matrix."""

    name: str
    base: str
    change: Change
    options: tuple[str, ...] = ()
    code: str | None = None
    key: bool = True  # whether --fingerprint of our keys is given
    lines: tuple[str, ...] = field(default=())  # texts that the report must hold


def each(path: Path, kind: str, do: Callable[[Path], object]) -> None:
    for found in path.rglob("*"):
        if (kind == "file") == found.is_file():
            do(found)


def edit(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(path.read_bytes()))


def sub(old: str, new: str) -> Callable[[bytes], bytes]:
    """An edit that must find what it replaces."""

    def change(data: bytes) -> bytes:
        assert old.encode() in data, old
        return data.replace(old.encode(), new.encode("utf-8", "surrogateescape"))

    return change


def nothing(_: Path) -> None:
    """No damage."""


class Lab:
    """Keys and signed releases to damage."""

    def __init__(self, home: Path) -> None:
        """Makes everything below `home`."""
        self.home = home
        self.keys = make_keys(home / "keys", test=False, builders=BUILDERS)
        self.other = make_keys(home / "other", test=False, builders=BUILDERS)
        self.test = make_keys(home / "test", test=True, builders=BUILDERS)
        self.bases = {
            "good": self.make("good", self.keys),
            "older": self.make("older", self.keys, version="1.3.0", sequence=16),
            "ten": self.make("ten", self.keys, version="1.10.0", sequence=100, min_upgrade_from="1.4.0"),
            "expired": self.make("expired", self.keys, not_after=release_tree.PAST),
            "foreign": self.make("foreign", self.other),
            "test": self.make("test", self.test),
            "plain": self.make("plain", self.keys, attested=()),
        }
        self.fingerprint = self.keys.fingerprint()

    def make(self, name: str, keys: Keys, attested: tuple[str, ...] = BUILDERS, **changes: object) -> Path:
        """A signed and attested release."""
        path = release_tree.unsigned(self.home / "bases" / name, **changes)
        for builder in attested:
            stage.attest(path, keys, builder, json.dumps({"builder": builder}).encode())
        stage.sign(path, keys)
        return path

    def reseal(self, path: Path, comment: Callable[[str], str] = lambda text: text) -> None:
        """Sign SHA256SUMS, INDEX and the comment as they are now: a signer who makes mistakes, or is malicious."""
        for name in ("SHA256SUMS.sig", "SHA256SUMS.minisig"):
            (path / "signatures" / name).unlink(missing_ok=True)
        message = (path / "SHA256SUMS").read_bytes()
        (path / ECDSA).write_text(formats.ecdsa(self.keys.ecdsa(), message))
        index = path / "signatures/INDEX"
        if index.exists():
            digest = verify.sha256(path / ECDSA)
            edit(index, lambda data: re.sub(rb"(?m)^.{64}(?=  signatures/SHA256SUMS\.sig$)", digest.encode(), data))
        text = (
            "ispvm-release version=1.4.0 sequence=17 min-upgrade-from=1.2.0 not-after="
            + release_tree.NEVER
            + " commit="
            + "c0ffee" * 6
            + "c0de index="
            + verify.sha256(index)
        )
        (path / MINISIG).write_text(self.keys.minisign().sign(message, comment(text)))
        for folder in (path / "signatures/attestations").glob("*"):
            built, name = verify.sha256(folder / "buildinfo.json"), folder.name
            note = f"ispvm-attestation builder={name} buildinfo={built}"
            (folder / "SHA256SUMS").write_bytes(message)
            (folder / "SHA256SUMS.minisig").write_text(self.keys.minisign(f"builders/{name}").sign(message, note))

    def relist(self, path: Path) -> None:
        """Write both manifests for the files that are there, then sign."""
        release_tree.sums(path)
        names = sorted(
            name
            for file in path.rglob("*")
            if file.is_file() and (name := file.relative_to(path).as_posix()) not in verify.UNLISTED
            if name.startswith(("KEYS/", "signatures/")) or name in verify.APT_SIGNATURES
            if not name.startswith("signatures/attestations/")
        )
        (path / "signatures/INDEX").write_text("".join(f"{verify.sha256(path / n)}  {n}\n" for n in names))
        self.reseal(path)

    def sealed(self, change: Change) -> Change:
        """A change to SHA256SUMS or INDEX, signed."""

        def run(path: Path) -> None:
            change(path)
            self.reseal(path)

        return run

    def relisted(self, change: Change) -> Change:
        """A change to the files, listed and signed."""

        def run(path: Path) -> None:
            change(path)
            self.relist(path)

        return run

    # --- damage to one file after the other ---------------------------------------------------------------------------

    def files(self) -> Iterator[Case]:
        """Flip, delete, cut, empty, move each file of the good release."""
        names = sorted(
            p.relative_to(self.bases["good"]).as_posix() for p in self.bases["good"].rglob("*") if p.is_file()
        )
        chance = random.Random(17)
        for name in names:
            size = (self.bases["good"] / name).stat().st_size
            at, bit = chance.randrange(max(size, 1)), 1 << chance.randrange(8)

            def flip(path: Path, name: str = name, at: int = at, bit: int = bit) -> None:
                edit(path / name, lambda d: d[:at] + bytes([d[at] ^ bit]) + d[at + 1 :])

            def cut(path: Path, name: str = name) -> None:
                edit(path / name, lambda d: d[:-1])

            def delete(path: Path, name: str = name) -> None:
                (path / name).unlink()

            def append(path: Path, name: str = name) -> None:
                edit(path / name, lambda d: d + b"\n")

            if size:
                yield Case(f"flip {name}", "good", flip)
            yield Case(f"delete {name}", "good", delete)
            if name.startswith(("signatures/", "KEYS/")) or name in ("SHA256SUMS", "install"):
                yield Case(f"cut {name}", "good", cut)
                yield Case(f"append {name}", "good", append)
                yield Case(f"empty {name}", "good", lambda p, name=name: (p / name).write_bytes(b""))
                yield Case(f"rename {name}", "good", lambda p, name=name: (p / name).rename(p / f"{name}x"))

    def swaps(self) -> Iterator[Case]:
        """Files of another release of ours, or of another signer, in their place."""
        for source in ("older", "foreign"):
            for name in (
                "SHA256SUMS",
                "SHA512SUMS",
                "release.json",
                "provenance.json",
                "sbom/ispvm.cdx.json",
                MINISIG,
                ECDSA,
                "signatures/INDEX",
                "signatures/SHA256SUMS.asc",
                "signatures/SHA256SUMS.sshsig",
                "signatures/SHA256SUMS.sigstore.json",
                "signatures/provenance.intoto.jsonl",
                "KEYS/root.json",
                "signatures/tuf/1.root.json",
                "signatures/tuf/timestamp.json",
                "apt/dists/trixie/InRelease",
                "signatures/attestations/trixie/SHA256SUMS.minisig",
                "signatures/attestations/trixie/SHA256SUMS",
            ):
                if (self.bases[source] / name).read_bytes() != (self.bases["good"] / name).read_bytes():
                    yield Case(f"{name} of the {source} release", "good", self._take(source, name))
            for name in ("signatures", "KEYS", "signatures/tuf", "signatures/attestations"):
                if source == "foreign" or name != "KEYS":
                    yield Case(f"{name}/ of the {source} release", "good", self._take(source, name))
            yield Case(f"manifest and signatures of {source}", "good", self._take(source, "SHA256SUMS", "signatures"))
        yield Case("everything of another signer", "foreign", nothing, code="unknown-key")
        yield Case(
            "keys and signatures of another", "good", self._take("foreign", "KEYS", "signatures"), code="unknown-key"
        )
        yield Case("builders' keys of another", "good", self._take("foreign", "KEYS/builders"), code="changed-file")

    def _take(self, source: str, *names: str) -> Change:
        def run(path: Path) -> None:
            for name in names:
                target, origin = path / name, self.bases[source] / name
                if origin.is_dir():
                    shutil.rmtree(target)
                    shutil.copytree(origin, target)
                else:
                    shutil.copy(origin, target)

        return run

    # --- what is on the disk ------------------------------------------------------------------------------------------

    def odd(self) -> Iterator[Case]:
        """Extra files, links, devices."""
        for name in (
            "x",
            ".hidden",
            "ansible/x.yml",
            "apt/pool/x.deb",
            "apt/dists/trixie/x",
            "wheelhouse/amd64/x.whl",
            "KEYS/x.pub",
            "KEYS/builders/x.minisign.pub",
            "signatures/x",
            "signatures/attestations/x",
            "signatures/attestations/trixie/x",
            "signatures/attestations/UPPER/SHA256SUMS",
            "signatures/tuf/x.json",
            "new\nline",
            "es\x1b[2Jcape",
            r"back\033[2Jslash",
            "tab\there",
            "caf\u00e9",
            "\udcff",
            "SHA256SUMS.bak",
            "signatures/attestations/a/b/SHA256SUMS",
        ):
            yield Case(f"add {name!a}", "good", lambda p, name=name: self._add(p / name), code="extra-file")

        def link(name: str, to: str) -> Change:
            def run(path: Path) -> None:
                if (path / name).is_dir():
                    (path / name).rename(path.parent / f"{path.name}-moved")
                else:
                    (path / name).unlink(missing_ok=True)
                (path / name).symlink_to(to.replace("MOVED", str(path.parent / f"{path.name}-moved")))

            return run

        for name, to in (
            ("install", "/etc/passwd"),
            ("install", "VERIFY.md"),
            ("VERIFY.md", "/nowhere"),
            ("extra", "install"),
            ("docs", "MOVED"),
            ("KEYS", "MOVED"),
            ("SHA256SUMS", "MOVED"),
            ("apt/pool", "MOVED"),
            ("loop", "."),
            ("signatures/tuf", "MOVED"),
            (MINISIG, "SHA256SUMS.sig"),
            ("signatures/INDEX", "../SHA256SUMS"),
        ):
            if name == "SHA256SUMS":

                def run(path: Path) -> None:
                    shutil.move(path / "SHA256SUMS", path.parent / f"{path.name}-sums")
                    (path / "SHA256SUMS").symlink_to(path.parent / f"{path.name}-sums")

                yield Case("SHA256SUMS is a link to itself", "good", run, code="odd-file")
            else:
                yield Case(f"link {name} -> {to}", "good", link(name, to), code="odd-file")
        yield Case("fifo", "good", lambda p: os.mkfifo(p / "fifo"), code="odd-file")
        yield Case(
            "fifo in place", "good", lambda p: ((p / "install").unlink(), os.mkfifo(p / "install")), code="odd-file"
        )
        yield Case("socket", "good", self._socket, code="odd-file")
        yield Case("setuid", "good", lambda p: (p / "install").chmod(0o4755), code="odd-file")
        yield Case("setgid", "good", lambda p: (p / "install").chmod(0o2755), code="odd-file")
        yield Case(
            "a directory in place of a file",
            "good",
            lambda p: ((p / "install").unlink(), (p / "install").mkdir()),
            code="missing-file",
        )
        yield Case(
            "a directory in place of the manifest",
            "good",
            lambda p: ((p / "SHA256SUMS").unlink(), (p / "SHA256SUMS").mkdir()),
            code="missing-file",
        )
        yield Case("no signatures", "good", lambda p: shutil.rmtree(p / "signatures"), code="missing-file")
        yield Case("no keys", "good", lambda p: shutil.rmtree(p / "KEYS"), code="missing-file")

    @staticmethod
    def _add(path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x\n")

    @staticmethod
    def _socket(path: Path) -> None:
        with socket.socket(socket.AF_UNIX) as made:
            here = Path.cwd()
            os.chdir(path)  # the address is limited to 107 bytes
            made.bind("socket")
            os.chdir(here)

    # --- manifests that a signer should never have signed -------------------------------------------------------------

    def manifests(self) -> Iterator[Case]:
        """Malformed manifests with good signatures."""

        def add(line: str) -> Callable[[bytes], bytes]:
            def change(data: bytes) -> bytes:
                lines = [*data.decode().splitlines(), line]
                return "".join(f"{each}\n" for each in sorted(lines, key=lambda each: each[66:])).encode(
                    "utf-8", "surrogateescape"
                )

            return change

        zero = "0" * 64
        for name in ("SHA256SUMS", "signatures/INDEX"):
            within = "install" if name == "SHA256SUMS" else "signatures/SHA256SUMS.asc"
            pre = "" if name == "SHA256SUMS" else "signatures/"
            for what, change in {
                "traversal": add(f"{zero}  {pre}../x"),
                "traversal inside": add(f"{zero}  {pre}docs/../../x"),
                "traversal at the end": add(f"{zero}  {pre}zz/.."),
                "dot": add(f"{zero}  {pre}./install"),
                "dot at the end": add(f"{zero}  {pre}zz/."),
                "absolute": add(f"{zero}  /etc/passwd"),
                "two slashes": add(f"{zero}  {pre}docs//install.md"),
                "slash at the end": add(f"{zero}  {pre}docs/"),
                "standard input": add(f"{zero}  -"),
                "an option": add(f"{zero}  --check"),
                "twice": lambda d: d.split(b"\n")[0] + b"\n" + d,
                "unsorted": lambda d: b"\n".join(d.split(b"\n")[-2::-1]) + b"\n",
                "CRLF": lambda d: d.replace(b"\n", b"\r\n"),
                "one CRLF": lambda d: d.replace(b"\n", b"\r\n", 1),
                "no last newline": lambda d: d[:-1],
                "empty": lambda _: b"",
                "only a newline": lambda _: b"\n",
                "an empty line": lambda d: b"\n" + d,
                "an empty line at the end": lambda d: d + b"\n",
                "a comment": lambda d: b"# comment\n" + d,
                "upper case": lambda d: re.sub(rb"(?m)^.{64}", lambda m: m[0].upper(), d),
                "one space": sub(f"  {within}\n", f" {within}\n"),
                "three spaces": sub(f"  {within}\n", f"   {within}\n"),
                "binary mark": sub(f"  {within}\n", f" *{within}\n"),
                "tab": sub(f"  {within}\n", f"\t{within}\n"),
                "short hash": lambda d: d[1:],
                "long hash": lambda d: b"0" + d,
                "not hexadecimal": lambda d: b"g" + d[1:],
                "escaped": lambda d: b"\\" + d,
                "backslash": add(f"{zero}  {pre}zz\\x"),
                "quote": add(f'{zero}  {pre}zz"x'),
                "NUL": add(f"{zero}  {pre}zz\0x"),
                "not ASCII": add(f"{zero}  {pre}caf\u00e9"),
                "not UTF-8": add(f"{zero}  {pre}\udcff"),
                "control character": add(f"{zero}  {pre}zz\x1b[2J"),
                "no path": add(f"{zero}  "),
                "itself": add(f"{zero}  {name}"),
                "the minisign signature": add(f"{zero}  {MINISIG}"),
                "an attestation": add(f"{zero}  signatures/attestations/trixie/buildinfo.json"),
                "a file of the other manifest": add(f"{zero}  {'KEYS/apt.asc' if not pre else 'install'}"),
                "a second of the other": add(f"{zero}  {'apt/dists/trixie/InRelease' if not pre else 'SHA512SUMS'}"),
                "a third of the other": add(f"{zero}  {'signatures/x' if not pre else 'apt/dists/trixie/Release'}"),
            }.items():
                yield Case(
                    f"{name}: {what}",
                    "good",
                    self.sealed(lambda p, n=name, c=change: edit(p / n, c)),
                    code="bad-manifest",
                )
            more = add(f"{zero}  {pre}zz")
            yield Case(
                f"{name}: a file that is not there",
                "good",
                self.sealed(lambda p, n=name, a=more: edit(p / n, a)),
                code="missing-file",
            )
            yield Case(
                f"{name}: a wrong hash",
                "good",
                self.sealed(
                    lambda p, n=name, w=within: edit(
                        p / n,
                        lambda d: re.sub(rb"(?m)^.{64}(?=  " + w.encode() + b"$)", zero.encode(), d),
                    )
                ),
                code="changed-file",
            )
            yield Case(
                f"{name}: a file is not listed",
                "good",
                self.sealed(
                    lambda p, n=name, w=within: edit(
                        p / n,
                        lambda d: re.sub(rb"(?m)^.{64}  " + w.encode() + b"\n", b"", d),
                    )
                ),
                code="extra-file",
            )

    def comments(self) -> Iterator[Case]:
        """Trusted comments that no release has."""
        for what, old, new in (
            ("another product", "ispvm-release", "other-release"),
            ("nothing before", "ispvm-release ", ""),
            ("no version", "version=1.4.0 ", ""),
            ("two versions", "version=", "version=1.4.0 version="),
            ("letters in the version", "=1.4.0", "=1.4.0rc1"),
            ("a short version", "=1.4.0", "=1.4"),
            ("a long version", "=1.4.0", "=1.4.0.0"),
            ("sequence 0", "=17 ", "=0 "),
            ("sequence -1", "=17 ", "=-1 "),
            ("a leading zero", "=17 ", "=017 "),
            ("ten digits", "=17 ", "=1234567890 "),
            ("no sequence", "sequence=17 ", ""),
            ("no index", " index=", " other="),
            ("upper case", "commit=c0", "commit=C0"),
            ("a short commit", "=c0ffee", "="),
            ("no commit", "commit=", "made="),
            ("a date only", "T00:00:00Z", ""),
            ("a space more", " sequence", "  sequence"),
            ("other order", "version=1.4.0 sequence=17", "sequence=17 version=1.4.0"),
            ("a letter date", "2096", "20x6"),
            ("min-upgrade-from of two", "from=1.2.0", "from=1.2"),
            ("no not-after", "not-after=", "until="),
        ):
            yield Case(
                f"comment: {what}",
                "good",
                self._comment(lambda text, o=old, n=new: self._change(text, o, n)),
                code="bad-comment",
            )
        for what, end in (
            ("text after it", " more"),
            ("a space after it", " "),
            ("another mark", " TEST"),
            ("CR", "\r"),
        ):
            yield Case(f"comment: {what}", "good", self._comment(lambda text, e=end: text + e), code="bad-comment")
        for name, old, new in (
            ("version", "version=1.4.0", "version=1.5.0"),
            ("sequence", "=17", "=18"),
            ("min_upgrade_from", "from=1.2.0", "from=1.1.0"),
            ("not_after", "=2096", "=2097"),
            ("commit", "=c0", "=d0"),
        ):
            yield Case(
                f"comment: other {name} than release.json",
                "good",
                self._comment(lambda text, o=old, n=new: self._change(text, o, n)),
                code="bad-comment",
            )
        yield Case(
            "comment: another index",
            "good",
            self._comment(lambda text: text[:-1] + ("0" if text[-1] != "0" else "1")),
            code="bad-index",
        )
        yield Case(
            "comment: INDEX of the older release",
            "good",
            lambda p: shutil.copy(self.bases["older"] / "signatures/INDEX", p / "signatures/INDEX"),
            code="bad-index",
        )

    @staticmethod
    def _change(text: str, old: str, new: str) -> str:
        assert old in text, old
        return text.replace(old, new, 1)

    def _comment(self, change: Callable[[str], str]) -> Change:
        return lambda path: self.reseal(path, change)

    # --- the signatures themselves ------------------------------------------------------------------------------------

    def signatures(self) -> Iterator[Case]:
        """Signature files that are nearly right."""
        minisign, other = self.keys.minisign(), self.other.minisign()
        wrong_id = Minisign(minisign.key, b"\x01" * 8)

        def write(name: str, make: Callable[[Path], str | bytes]) -> Change:
            def run(path: Path) -> None:
                made = make(path)
                (path / name).write_bytes(made.encode() if isinstance(made, str) else made)

            return run

        def lines(change: Callable[[list[str]], list[str]]) -> Change:
            return lambda path: edit(path / MINISIG, lambda d: "\n".join(change(d.decode().split("\n"))).encode())

        def comment(path: Path) -> str:
            return (path / MINISIG).read_text().split("\n")[2][17:]

        def message(path: Path) -> bytes:
            return (path / "SHA256SUMS").read_bytes()

        def spare_bits(text: str) -> str:
            """The same bytes in base64 that is not canonical."""
            digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
            body, end = text.rstrip("="), "=" * (len(text) - len(text.rstrip("=")))
            return body[:-1] + digits[digits.index(body[-1]) ^ 1] + end

        def legacy(path: Path) -> str:
            signature = minisign.key.sign(message(path))
            whole = formats.encode(minisign.key.sign(signature + comment(path).encode()))
            data = formats.encode(b"Ed" + minisign.key_id + signature)
            return f"untrusted comment: ispvm signature\n{data}\ntrusted comment: {comment(path)}\n{whole}\n"

        bad: dict[str, Change] = {
            "minisign by another key": write(MINISIG, lambda p: other.sign(message(p), comment(p))),
            "minisign by another key under our id": write(
                MINISIG, lambda p: Minisign(other.key, minisign.key_id).sign(message(p), comment(p))
            ),
            "minisign under another id": write(MINISIG, lambda p: wrong_id.sign(message(p), comment(p))),
            "minisign of another file": write(MINISIG, lambda p: minisign.sign(b"x", comment(p))),
            "minisign without prehash": write(MINISIG, legacy),
            "minisign that only claims to be without prehash": lines(
                lambda t: [t[0], formats.encode(b"Ed" + base64.b64decode(t[1])[2:]), *t[2:]]
            ),
            "minisign with another untrusted comment": lines(lambda t: ["untrusted comment: x", *t[1:]]),
            "minisign with a raised sequence": lines(lambda t: [*t[:2], t[2].replace("=17", "=99"), *t[3:]]),
            "minisign with CRLF": lambda p: edit(p / MINISIG, lambda d: d.replace(b"\n", b"\r\n")),
            "minisign with a fifth line": lines(lambda t: [*t[:4], "x", ""]),
            "minisign with text after it": lambda p: edit(p / MINISIG, lambda d: d + b"x"),
            "minisign without its last newline": lambda p: edit(p / MINISIG, lambda d: d[:-1]),
            "minisign with other spare bits": lines(lambda t: [*t[:3], spare_bits(t[3]), ""]),
            "minisign with a NUL": lambda p: edit(p / MINISIG, lambda d: d.replace(b"=1.4.0", b"=1.4.0\0", 1)),
            "minisign with a space in the base64": lines(lambda t: [t[0], t[1] + " ", *t[2:]]),
            "minisign with lines swapped": lines(lambda t: [t[0], t[3], t[2], t[1], ""]),
            "minisign cut to the first signature": lines(lambda t: [*t[:2], ""]),
            "minisign with a longer signature": lines(
                lambda t: [t[0], formats.encode(base64.b64decode(t[1]) + b"x"), *t[2:]]
            ),
            "minisign with a longer second signature": lines(
                lambda t: [*t[:3], formats.encode(base64.b64decode(t[3]) + b"x"), ""]
            ),
            "minisign with a shorter signature": lines(
                lambda t: [t[0], formats.encode(base64.b64decode(t[1])[:-1]), *t[2:]]
            ),
            "minisign with S + L": lines(lambda t: [t[0], self._add_order(t[1]), *t[2:]]),
            "minisign without the word trusted": lines(lambda t: [*t[:2], t[2].replace("trusted", "TRUSTED"), *t[3:]]),
            "minisign with the second signature of another release": lines(
                lambda t: [*t[:3], (self.bases["older"] / MINISIG).read_text().split("\n")[3], ""]
            ),
            "minisign with zeros": lines(
                lambda t: [t[0], formats.encode(base64.b64decode(t[1])[:10] + bytes(64)), *t[2:]]
            ),
            "ECDSA by another key": write(ECDSA, lambda p: formats.ecdsa(self.other.ecdsa(), message(p))),
            "ECDSA of another file": write(ECDSA, lambda p: formats.ecdsa(self.keys.ecdsa(), b"x")),
            "ECDSA with CRLF": lambda p: edit(p / ECDSA, lambda d: d.replace(b"\n", b"\r\n")),
            "ECDSA with a second line": lambda p: edit(p / ECDSA, lambda d: d + b"x\n"),
            "ECDSA with a NUL": lambda p: edit(p / ECDSA, lambda d: b"\0" + d),
            "ECDSA of zeros": write(ECDSA, lambda _: formats.encode(bytes.fromhex("3006020100020100")) + "\n"),
            "ECDSA with bytes after it": lambda p: edit(
                p / ECDSA, lambda d: formats.encode(base64.b64decode(d) + b"x").encode() + b"\n"
            ),
            "ECDSA of full length with bytes after it": write(
                ECDSA, lambda p: formats.encode(self._longest(message(p)) + b"x") + "\n"
            ),
            "ECDSA with a zero more than the numbers need": lambda p: edit(p / ECDSA, self._padded),
            "ECDSA that is no DER": write(ECDSA, lambda _: formats.encode(b"x" * 70) + "\n"),
        }
        for name, change in bad.items():
            yield Case(name, "good", change, code="bad-signature")
        yield Case(
            "ECDSA with n - s, which is valid too",
            "good",
            lambda p: edit(p / ECDSA, self._other_s),
            code="changed-file",
        )
        public, pem = "KEYS/release.minisign.pub", "KEYS/release.ecdsa.pub"
        for what, name, change in (
            ("is empty", public, lambda d: b""),
            ("has one line", public, lambda d: d.split(b"\n")[0] + b"\n"),
            ("has three lines", public, lambda d: d + b"x\n"),
            ("has text after it", public, lambda d: d + b"x"),
            ("is of another algorithm", public, lambda d: d.replace(b"\nRW", b"\nRX")),
            ("is too short", public, lambda d: d.split(b"\n")[0] + b"\n" + base64.b64encode(bytes(41)) + b"\n"),
            ("is not base64", public, lambda d: d.replace(b"\nRW", b"\n*W")),
            ("is empty", pem, lambda d: b""),
            ("is no PEM", pem, lambda d: d.replace(b"BEGIN", b"BEGUN")),
            ("is not base64", pem, lambda d: d.replace(b"\nMF", b"\n*F")),
        ):
            yield Case(
                f"{name} {what}",
                "test",
                lambda p, n=name, c=change: edit(p / n, c),
                ("--allow-test-key",),
                code="bad-signature",
                key=False,
            )
        for name in ("asc", "sshsig", "sigstore.json"):
            yield Case(
                f"SHA256SUMS.{name} by another signer",
                "good",
                self._take("foreign", f"signatures/SHA256SUMS.{name}"),
                code="changed-file",
            )

    @staticmethod
    def _add_order(text: str) -> str:
        data = base64.b64decode(text)
        s = int.from_bytes(data[42:], "little") + verify.ED_L
        return formats.encode(data[:42] + s.to_bytes(32, "little"))

    def _longest(self, message: bytes) -> bytes:
        """A signature whose numbers both need all their bytes: one of four is as long as that."""
        while True:
            made = base64.b64decode(formats.ecdsa(self.keys.ecdsa(), message))
            if len(made) == 72:
                return made

    @staticmethod
    def _padded(data: bytes) -> bytes:
        """The same two numbers, each with a zero more than DER allows."""
        r, s = (
            b"\0" + n.to_bytes(n.bit_length() // 8 + 1, "big") for n in decode_dss_signature(base64.b64decode(data))
        )
        body = b"\x02" + bytes([len(r)]) + r + b"\x02" + bytes([len(s)]) + s
        return formats.encode(b"\x30" + bytes([len(body)]) + body).encode() + b"\n"

    @staticmethod
    def _other_s(data: bytes) -> bytes:
        r, s = decode_dss_signature(base64.b64decode(data))
        return formats.encode(encode_dss_signature(r, verify.P_N - s)).encode() + b"\n"

    # --- content that does not fit ------------------------------------------------------------------------------------

    def contents(self) -> Iterator[Case]:
        """Releases that were made wrong, and signed."""
        for name in verify.REQUIRED:
            if name == "SHA512SUMS":
                yield Case(f"made without {name}", "good", self.sealed(self._without_wide_sums), code="incomplete")
            elif name not in ("release.json", "provenance.json"):
                yield Case(
                    f"made without {name}",
                    "good",
                    self.relisted(lambda p, n=name: self._remove(p, n)),
                    code="incomplete",
                )
        yield Case(
            "made with a file whose name only begins like the installer's",
            "good",
            self.relisted(lambda p: (p / "install").rename(p / "install.sh")),
            code="incomplete",
        )
        for name in ("release.json", "provenance.json"):
            yield Case(
                f"made without {name}", "good", self.relisted(lambda p, n=name: (p / n).unlink()), code="incomplete"
            )
        for name in verify.SIGNATURES:
            early = name == ECDSA or name in tuple(f"KEYS/{key}" for key in verify.RELEASE_KEYS)
            if not early:
                yield Case(
                    f"signed without {name}",
                    "good",
                    self.relisted(lambda p, n=name: (p / n).unlink()),
                    code="incomplete",
                )
            if name != ECDSA:
                yield Case(
                    f"INDEX without {name}",
                    "good",
                    self.sealed(
                        lambda p, n=name: edit(
                            p / "signatures/INDEX", lambda d: re.sub(b"(?m)^.{64}  " + n.encode() + b"\n", b"", d)
                        )
                    ),
                    code="extra-file",
                )
        for what, old, new, code in (
            ("another version", '"1.4.0"', '"1.5.0"', "bad-comment"),
            ("another sequence", "17,", "18,", "bad-comment"),
            ("another commit", '"c0ffee', '"d0ffee', "bad-comment"),
            ("no version", '  "version"', '  "other"', "bad-release"),
            ("another not_after", "2096", "2097", "bad-comment"),
            ("another min", '"1.2.0"', '"1.1.0"', "bad-comment"),
            ("no artefacts", '"artefacts"', '"other"', None),
            ("a wrong hash", '"sha256": "', '"sha256": "0', "bad-release"),
            ("a wrong path", '"path": "agent/', '"path": "agents/', "bad-release"),
            ("no sequence", '"sequence"', '"other"', "bad-release"),
            ("no commit", '"commit"', '"other"', "bad-release"),
        ):
            if code:
                yield Case(
                    f"release.json: {what}",
                    "good",
                    self.relisted(lambda p, o=old, n=new: edit(p / "release.json", sub(o, n))),
                    code=code,
                )
        yield Case(
            "release.json: empty list of artefacts",
            "good",
            self.relisted(
                lambda p: (p / "release.json").write_text(
                    json.dumps(
                        json.loads((p / "release.json").read_text()) | {"artefacts": []}, indent=2, sort_keys=True
                    )
                )
            ),
            code="bad-release",
        )
        yield Case(
            "release.json: empty",
            "good",
            self.relisted(lambda p: (p / "release.json").write_text("")),
            code="bad-release",
        )
        good = (self.bases["good"] / "provenance.json").read_text()
        subject = re.findall(r'    \{"name": .*\n', good)
        for what, text in {
            "a subject less": good.replace(subject[3], ""),
            "the last subject less": good.replace(",\n" + subject[-1], "\n"),
            "a subject more": good.replace(subject[3], subject[3] + subject[3].replace('"name": "', '"name": "a')),
            "a wrong hash": good.replace(subject[3], re.sub('"[0-9a-f]{64}"', f'"{"0" * 64}"', subject[3])),
            "subjects in another order": good.replace(subject[3] + subject[4], subject[4] + subject[3]),
            "no subjects": re.sub(r'(?s)"subject": \[.*\n  \]', '"subject": []', good),
            "empty": "",
        }.items():
            yield Case(
                f"provenance: {what}",
                "good",
                self.relisted(lambda p, t=text: (p / "provenance.json").write_text(t)),
                code="bad-provenance",
            )
        for name in (
            "apt/pool/ispvm-agent_1.4.0_all.deb",
            "agent/ispvm-agent.pex",
            "wheelhouse/arm64/pydantic_core-2.1-cp313-cp313-manylinux_aarch64.whl",
        ):
            digest = verify.sha256(self.bases["good"] / name)
            yield Case(
                f"SBOM without {name}", "good", self.relisted(lambda p, d=digest: self._sbom(p, d)), code="bad-sbom"
            )
        yield Case(
            "no CycloneDX SBOM",
            "good",
            self.relisted(lambda p: (p / "sbom/ispvm.cdx.json").rename(p / "sbom/x.json")),
            code="bad-provenance",
        )
        yield Case("an empty SBOM", "good", self.relisted(lambda p: self._sbom(p, None)), code="bad-sbom")

    @staticmethod
    def _sbom(path: Path, digest: str | None) -> None:
        edit(path / "sbom/ispvm.cdx.json", sub(digest, "0" * 64) if digest else lambda _: b"{}\n")
        provenance(path, path)

    @staticmethod
    def _without_wide_sums(path: Path) -> None:
        (path / "SHA512SUMS").unlink()
        edit(path / "SHA256SUMS", lambda d: re.sub(b"(?m)^.{64}  SHA512SUMS\n", b"", d))

    @staticmethod
    def _remove(path: Path, name: str) -> None:
        """Take a required file or directory out of what the manifest is made of."""
        if (path / name).is_dir():
            shutil.rmtree(path / name)
        else:
            (path / name).unlink(missing_ok=True)

    def attestations(self) -> Iterator[Case]:
        """Builders who did not say what it looks like."""
        folder = "signatures/attestations"
        key = self.keys.minisign

        def note(path: Path, builder: str) -> str:
            built = verify.sha256(path / folder / builder / "buildinfo.json")
            return f"ispvm-attestation builder={builder} buildinfo={built}"

        def signed(signer: Minisign, builder: str, text: Callable[[Path], str] | None = None) -> Change:
            def run(path: Path) -> None:
                message = (path / folder / builder / "SHA256SUMS").read_bytes()
                comment = text(path) if text else note(path, builder)
                (path / folder / builder / "SHA256SUMS.minisig").write_text(signer.sign(message, comment))

            return run

        def others(path: Path) -> None:
            shutil.copy(self.bases["older"] / "SHA256SUMS", path / folder / "trixie/SHA256SUMS")
            signed(key("builders/trixie"), "trixie")(path)

        def one_key(path: Path) -> None:
            shutil.copy(path / "KEYS/builders/trixie.minisign.pub", path / "KEYS/builders/bookworm.minisign.pub")
            self.relist(path)
            signed(key("builders/trixie"), "bookworm")(path)

        bad: dict[str, Change] = {
            "by the key of another builder": signed(key("builders/bookworm"), "trixie"),
            "by the release key": signed(key(), "trixie"),
            "by another's builder key": signed(self.other.minisign("builders/trixie"), "trixie"),
            "with another buildinfo": lambda p: (p / folder / "trixie/buildinfo.json").write_text("{}"),
            "that names another builder": signed(key("builders/trixie"), "trixie", lambda p: note(p, "bookworm")),
            "that names no builder": signed(key("builders/trixie"), "trixie", lambda _: "hello"),
            "that is a release comment": signed(
                key("builders/trixie"), "trixie", lambda p: (p / MINISIG).read_text().split("\n")[2][17:]
            ),
            "of other files": others,
            "by one key under two names": one_key,
            "by an unknown builder": lambda p: (p / folder / "trixie").rename(p / folder / "sid"),
            "copied under another name": lambda p: shutil.copytree(p / folder / "trixie", p / folder / "sid"),
            "whose builder's key is gone": self.relisted(lambda p: (p / "KEYS/builders/trixie.minisign.pub").unlink()),
            "without buildinfo": lambda p: (p / folder / "trixie/buildinfo.json").unlink(),
            "without sums": lambda p: (p / folder / "trixie/SHA256SUMS").unlink(),
            "without signature": lambda p: (p / folder / "trixie/SHA256SUMS.minisig").unlink(),
        }
        for name, change in bad.items():
            yield Case(f"attestation {name}", "good", change, code="bad-attestation")
        yield Case("three attestations asked for", "good", nothing, ("--attestations", "3"), code="few-attestations")
        yield Case(
            "one attestation asked for, none there", "plain", nothing, ("--attestations", "1"), code="few-attestations"
        )
        yield Case(
            "two asked for, one stripped",
            "good",
            lambda p: shutil.rmtree(p / folder / "trixie"),
            ("--attestations", "2"),
            code="few-attestations",
        )

    # --- keys, time and history ---------------------------------------------------------------------------------------

    def marks(self) -> Iterator[Case]:
        """Test keys: one mark is enough to be refused."""

        def marked(name: str, old: str, new: str) -> Change:
            return self.relisted(lambda p: edit(p / name, sub(old, new)))

        def key_id(path: Path) -> None:
            test = Minisign(self.keys.minisign().key, b"TESTONLY")
            (path / "KEYS/release.minisign.pub").write_text(test.public("ispvm release"))
            self.relist(path)
            comment = (path / MINISIG).read_text().split("\n")[2][17:]
            (path / MINISIG).write_text(test.sign((path / "SHA256SUMS").read_bytes(), comment))

        yield Case(
            "a test key", "test", nothing, ("--fingerprint", self.test.fingerprint()), code="test-key", key=False
        )
        changes: dict[str, Change] = {
            "minisign comment": marked("KEYS/release.minisign.pub", "ispvm release", "ispvm release TEST-ONLY"),
            "ECDSA comment": marked("KEYS/release.ecdsa.pub", "ispvm release", "TEST-ONLY"),
            "SSH comment": marked("KEYS/release.ssh.pub", "ispvm-release\n", "TEST-ONLY\n"),
            "OpenPGP comment": marked("KEYS/apt.asc", "Comment: ispvm", "Comment: TEST-ONLY"),
            "builder's key": marked("KEYS/builders/trixie.minisign.pub", "ispvm", "TEST-ONLY"),
            "key id": key_id,
            "signed comment": self._comment(lambda text: text + " TEST-ONLY"),
        }
        for name, change in changes.items():
            yield Case(f"test key marked by {name} only", "good", self._and_print(change), code="test-key", key=False)
        yield Case("another fingerprint", "good", nothing, ("--fingerprint", "0" * 64), code="unknown-key", key=False)
        yield Case(
            "another fingerprint with --allow-test-key",
            "test",
            nothing,
            ("--fingerprint", self.fingerprint, "--allow-test-key"),
            code="unknown-key",
            key=False,
        )

    def _and_print(self, change: Change) -> Change:
        """Run a change, then leave the tree's own fingerprint where the runner takes it from."""

        def run(path: Path) -> None:
            change(path)
            joined = b"".join((path / "KEYS" / name).read_bytes() for name in verify.RELEASE_KEYS)
            (path.parent / f"{path.name}.fingerprint").write_text(hashlib.sha256(joined).hexdigest())

        return run

    def state(
        self, sequence: int = 16, version: str = "1.3.0", base: str = "older", seen: str = NOW, key: str = ""
    ) -> str:
        """A state file's text."""
        manifest = verify.sha256(self.bases[base] / "SHA256SUMS")
        return (
            f"ispvm-release-state sequence={sequence} version={version} manifest={manifest}"
            f" fingerprint={key or self.fingerprint} seen={seen}\n"
        )

    def kept(self, text: str | bytes) -> Change:
        """Put a state file beside the tree; the runner passes it for the option value STATE."""
        data = text.encode() if isinstance(text, str) else text
        return lambda path: (path.parent / f"{path.name}.state").write_bytes(data)

    def history(self) -> Iterator[Case]:
        """Rollback, freeze, state files that are not ours."""
        use = ("--state", "STATE")
        good = self.state()
        yield Case("expired", "expired", nothing, code="expired")
        yield Case(
            "the clock was set back", "good", self.kept(self.state(seen="2097-01-01T00:00:00Z")), use, code="expired"
        )
        yield Case("rollback by one", "good", self.kept(self.state(18)), use, code="rollback")
        yield Case("rollback by many", "good", self.kept(self.state(100, "1.10.0", "ten")), use, code="rollback")
        yield Case("rollback under three digits", "good", self.kept(self.state(200)), use, code="rollback")
        yield Case(
            "rollback of an expired release",
            "expired",
            self.kept(self.state(18)),
            (*use, "--accept-stale", "x"),
            code="rollback",
        )
        yield Case("a second release of one number", "good", self.kept(self.state(17)), use, code="second-release")
        for version in ("1.1.9", "0.9.0", "1.1.10", "0.10.0"):
            yield Case(
                f"from {version} without the stop", "good", self.kept(self.state(3, version)), use, code="upgrade-path"
            )
        yield Case("from 1.3.9 to 1.10.0", "ten", self.kept(self.state(16, "1.3.9")), use, code="upgrade-path")
        yield Case(
            "keys changed since", "good", self.kept(self.state(key="0" * 64)), use, code="unknown-key", key=False
        )
        for what, text in {
            "empty": "",
            "a newline": "\n",
            "no newline": good[:-1],
            "two lines": good + good,
            "CRLF": good.replace("\n", "\r\n"),
            "text before": "x " + good,
            "text after": good[:-1] + " x\n",
            "no sequence": good.replace("sequence=16 ", ""),
            "sequence 0": good.replace("=16", "=0"),
            "a negative sequence": good.replace("=16", "=-16"),
            "ten digits": good.replace("=16", "=1600000000"),
            "a letter version": good.replace("1.3.0", "1.3.x"),
            "upper case": good.replace("ispvm", "ISPVM"),
            "a short manifest": good.replace("manifest=", "manifest=0"),
            "NUL": good.replace("=16", "=16\0"),
            "another line": good + "hello\n",
            "an empty reason": good + "stale \n",
            "a cut reason": good + "stale x",
            "no time": good.replace(NOW, "now"),
            "not ASCII": good + "stale caf\u00e9\n",
        }.items():
            yield Case(f"state file: {what}", "good", self.kept(text), use, code="bad-state")

    def cases(self) -> list[Case]:
        """Every attack."""
        made = [
            *self.files(),
            *self.swaps(),
            *self.odd(),
            *self.manifests(),
            *self.comments(),
            *self.signatures(),
            *self.contents(),
            *self.attestations(),
            *self.marks(),
            *self.history(),
        ]
        assert len({case.name for case in made}) == len(made)
        return made

    # --- good ---------------------------------------------------------------------------------------------------------

    def unusable(self) -> list[Case]:
        """Command lines that ask for nothing that could be answered."""
        digits, number = "0" * 64, "--attestations"
        given: dict[str, tuple[str, ...]] = {
            "no fingerprint": (),
            "a short fingerprint": ("--fingerprint", digits[1:]),
            "a long fingerprint": ("--fingerprint", digits + "0"),
            "a fingerprint in capitals": ("--fingerprint", digits[1:] + "A"),
            "no number": (number, "x"),
            "a number below zero": (number, "-1"),
            "a number of four digits": (number, "1000"),
            "a number that begins with 0": (number, "01"),
            "stale without a reason": ("--accept-stale", " "),
            "a reason of two lines": ("--accept-stale", "a\nb"),
            "recording nowhere": ("--record",),
            "an option that is none": ("--trust-me",),
        }
        return [Case(what, "good", nothing, options, key="fingerprint" not in what) for what, options in given.items()]

    def good(self) -> list[Case]:
        """Variants that must pass, each with something of its report that shows it was looked at."""
        use, reason = ("--state", "STATE"), ("--accept-stale", "no way out of the bunker")
        made: list[Case] = []

        def add(
            name: str, base: str, change: Change = nothing, *options: str, key: bool = True, says: str = "GOOD"
        ) -> None:
            made.append(Case(name, base, change, options, None, key, (says,)))

        for base in ("good", "older", "ten", "plain"):
            add(f"{base} as it is", base)
            add(f"{base} with a new state", base, nothing, *use, says="nothing recorded before")
            add(f"{base} with a reason that is not needed", base, nothing, *reason)
            add(f"{base} with --allow-test-key", base, nothing, "--allow-test-key")
            add(f"{base} recorded", base, nothing, *use, "--record")
        for number in ("0", "1", "2"):
            add(f"{number} attestations", "good", nothing, "--attestations", number, says="bookworm trixie")
        add("the expired one, accepted", "expired", nothing, *reason, says="STALE, accepted: no way out of the bunker")
        add("the expired one, accepted and recorded", "expired", nothing, *reason, *use, "--record", says="STALE")
        signs = r"a \n reason \033[2J \\ with signs % $HOME `id`"
        add("a reason with signs", "expired", nothing, "--accept-stale", signs, *use, "--record", says=signs)
        add("test key allowed", "test", nothing, "--allow-test-key", key=False, says="proves nothing")
        add(
            "test key and its fingerprint",
            "test",
            nothing,
            "--allow-test-key",
            "--fingerprint",
            self.test.fingerprint(),
            key=False,
            says="TEST-ONLY",
        )
        add("another signer, who is trusted", "foreign", nothing, "--fingerprint", self.other.fingerprint(), key=False)
        add("the older after nothing", "older", nothing, *use)
        for sequence, version in ((16, "1.3.0"), (1, "1.2.0"), (9, "1.2.10"), (16, "1.10.0"), (2, "2.0.0")):
            add(f"after {version}", "good", self.kept(self.state(sequence, version)), *use, says=f"after {sequence}")
        add("the same again", "good", self.kept(self.state(17, "1.4.0", "good")), *use, says="sequence 17 after 17")
        add("the same again, recorded", "good", self.kept(self.state(17, "1.4.0", "good")), *use, "--record")
        add("1.10.0 after 1.9.9", "ten", self.kept(self.state(99, "1.9.9")), *use, says="sequence 100 after 99")
        add("1.10.0 after 1.4.0", "ten", self.kept(self.state(9, "1.4.0")), *use, says="sequence 100 after 9")
        add("the fingerprint of the state file", "good", self.kept(self.state()), *use, key=False, says="after 16")
        add("a key that replaced the recorded one", "good", self.kept(self.state(key="0" * 64)), *use)
        add("recorded stale before", "good", self.kept(self.state() + "stale 2026 x y\n"), *use, "--record")
        add("seen on the last day", "good", self.kept(self.state(seen=release_tree.NEVER)), *use)
        moves: dict[str, Change] = {
            "private modes": lambda p: each(p, "file", lambda f: f.chmod(0o600)),
            "open modes": lambda p: each(p, "file", lambda f: f.chmod(0o666)),
            "all executable": lambda p: each(p, "file", lambda f: f.chmod(0o777)),
            "setgid directories": lambda p: each(p, "directory", lambda f: f.chmod(0o2755)),
            "sticky directories": lambda p: each(p, "directory", lambda f: f.chmod(0o1777)),
            "old files": lambda p: each(p, "file", lambda f: os.utime(f, (0, 0))),
            "an empty directory": lambda p: (p / "empty").mkdir(),
            "an empty directory of attestations": lambda p: (p / "signatures/attestations/nobody").mkdir(),
            "hard links": lambda p: os.link(p / "install", p.parent / f"{p.name}-link"),
            "no attestations": lambda p: shutil.rmtree(p / "signatures/attestations"),
            "one attestation": lambda p: shutil.rmtree(p / "signatures/attestations/trixie"),
            "an empty file": self.relisted(lambda p: self._described(p, "docs/empty", "")),
            "a name with spaces": self.relisted(lambda p: self._described(p, "docs/a b  c", "x")),
            "a name with signs": self.relisted(lambda p: self._described(p, "docs/+%~:@=,()[]{}$#&'!;*?<>|^`", "x")),
            "a name that is nearly hidden": self.relisted(lambda p: self._described(p, "docs/..x/.y/...", "x")),
            "a name like a hash": self.relisted(lambda p: self._described(p, f"docs/{'0' * 64}", "x")),
            "numbers as names": self.relisted(
                lambda p: [self._described(p, f"docs/{n}", "x") for n in ("10", "9", "1e1")]
            ),
            "upper and lower case": self.relisted(lambda p: [self._described(p, f"docs/{n}", "x") for n in "aBAb_"]),
            "a large file": self.relisted(lambda p: self._described(p, "docs/large", "x" * 3_000_000)),
            "many files": self.relisted(lambda p: [self._described(p, f"docs/many/{n}", "x") for n in range(200)]),
            "three builders' keys": self.relisted(
                lambda p: (p / "KEYS/builders/sid.minisign.pub").write_text(self.other.minisign().public("x"))
            ),
            "a second root": self.relisted(
                lambda p: shutil.copy(p / "signatures/tuf/1.root.json", p / "signatures/tuf/2.root.json")
            ),
        }
        for name, change in moves.items():
            add(name, "good", change)
        assert len({case.name for case in made}) == len(made)
        return made

    @staticmethod
    def _described(path: Path, name: str, text: str) -> None:
        """Add a file and say so in the provenance."""
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(text)
        provenance(path, path)
