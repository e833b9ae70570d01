"""On a bare Debian 13 host: the walk-through of docs/verify.md, and the tools of others (needs ci/testhost.py)."""

from __future__ import annotations

import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import release_tree

from release.sign import stage
from release.sign.__main__ import make_keys
from release.sign.keys import Keys

ROOT = release_tree.ROOM.parents[1]
DOCUMENT = ROOT / "docs" / "verify.md"
HOST, ADDRESS = "verify-host", "10.89.77.86"
TOOLS = "minisign cosign gpgv"
MACHINE_SECONDS = 60  # of the five minutes; the rest is for reading. Of the processor: others may be using it, too

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]


def machine(*arguments: str, stdin: Path | None = None) -> str:
    """Run ci/testhost.py; what it printed. Raises with its output when it fails."""
    with (stdin or Path("/dev/null")).open("rb") as given:
        done = subprocess.run(
            [sys.executable, ROOT / "ci/testhost.py", *arguments], stdin=given, capture_output=True, text=True, cwd=ROOT
        )
    assert done.returncode == 0, f"{done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout


def realistic(tree: Path) -> None:
    """Make a release of the size of a real one: hundreds of packages, half a gigabyte, names as Debian has them."""
    chance = random.Random(1)
    release_tree.unsigned(tree)
    for number in range(560):
        name = ("apt/pool/lib{}_1%3a2.{}-1+deb13u1_amd64.deb", "wheelhouse/amd64/p{}-1.{}-py3-none-any.whl",
                "ansible/roles/r{}/tasks/{}.yml")[number % 3].format(number, number)  # fmt: skip
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(chance.randbytes(1_400_000 if number % 3 < 2 else 2_000))
    release_tree.describe(tree)


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Keys]]:
    """A release signed with keys that do not say TEST-ONLY, so that the document's own commands apply."""
    home = tmp_path_factory.mktemp("signed")
    keys = make_keys(home / "keys", test=False, builders=("bookworm", "trixie"))
    tree = home / "ispvm-1.4.0"
    realistic(tree)
    for builder in ("bookworm", "trixie"):
        stage.attest(tree, keys, builder, b"{}\n")
    stage.sign(tree, keys)
    yield tree, keys
    shutil.rmtree(home)


@pytest.fixture(scope="module")
def host(signed: tuple[Path, Keys]) -> Iterator[str]:
    """A fresh host that has the release in /root, and nothing else."""
    tree, _ = signed
    machine("down", HOST)
    machine("up", HOST, ADDRESS)
    packed = tree.with_suffix(".tar")
    subprocess.run(["tar", "-C", tree.parent, "-cf", packed, tree.name], check=True)
    machine("ssh", HOST, "--", "tar -C /root -xf -", stdin=packed)
    packed.unlink()
    yield HOST
    machine("down", HOST)


def commands() -> list[str]:
    """Every command of the document, in its order."""
    found = re.findall(r"^```sh\n(.*?)^```$", DOCUMENT.read_text(), re.DOTALL | re.MULTILINE)
    return [line for block in found for line in block.splitlines()]


def seconds(said: str) -> float:
    """What the shell's `times`, its last word, adds up to."""
    spent = re.findall(r"(\d+)m([\d.]+)s", "".join(said.splitlines()[-2:]))
    assert len(spent) == 4, said[-400:]
    return sum(60 * int(minutes) + float(rest) for minutes, rest in spent)


def test_the_time_of_all_processes_is_counted() -> None:
    assert seconds("GOOD\n+ times\n0m0.25s 0m0.50s\n1m2.00s 0m3.25s\n") == 66
    with pytest.raises(AssertionError):
        seconds("GOOD\n")


def test_the_walk_through_of_the_document(host: str, signed: tuple[Path, Keys]) -> None:
    _, keys = signed
    assert len(commands()) >= 12
    script = ["set -eux", "cd /root/ispvm-1.4.0", f"FINGERPRINT={keys.fingerprint()}", "ip route", *commands()]
    script.append('test "$(cat KEYS/*.asc KEYS/*.pub | sha256sum | cut -c 1-64)" = "$FINGERPRINT"')
    script.append("times")  # of the shell, then of all that it ran: user and system
    before = machine("ssh", host, "--", "dpkg-query -W | sha256sum")
    started = time.monotonic()
    said = machine("ssh", host, "--", "unshare -n sh -c '" + "\n".join(script).replace("'", "'\\''") + "' 2>&1")
    wall, used = time.monotonic() - started, seconds(said)
    print(f"walk-through: {used:.1f} s of the processor, {wall:.1f} s by the clock")
    assert 0 < used <= MACHINE_SECONDS
    assert machine("ssh", host, "--", "dpkg-query -W | sha256sum") == before
    for text in (
        "Verified OK", 'Good "ispvm-release" signature', "by openssl", "by verify.py",
        "2 (2 asked for) bookworm trixie",
        "nothing recorded before", "sequence 17 after 17", "12 of 12 attacks caught", "gitCommit",
    ):  # fmt: skip
        assert text in said, said[-4000:]
    assert said.count("\nGOOD  ispvm 1.4.0, sequence 17\n") == 5


def test_the_walk_through_fails_when_the_release_is_not_ours(host: str) -> None:
    script = ["set -eu", "cd /root/ispvm-1.4.0", "FINGERPRINT=" + "0" * 64, *commands()]
    text = "\n".join(script).replace("'", "'\\''")
    said = machine("ssh", host, "--", f"unshare -n sh -c '{text}' 2>&1 || echo it failed")
    assert "REFUSED  unknown-key" in said
    assert "it failed" in said


@pytest.mark.parametrize("tool", ["openssl", "ssh-keygen", "sqv"])
def test_each_tool_alone_refuses_a_changed_manifest_and_a_changed_file(
    host: str, signed: tuple[Path, Keys], tool: str
) -> None:
    _, keys = signed
    check = f"./verify.sh --fingerprint {keys.fingerprint()} --with {tool} || echo it failed"
    for change, code in (("sed -i 1s/./x/ SHA256SUMS", "bad-signature"), ("sed -i 1s/./X/ install", "changed-file"),
                         ("echo > extra", "extra-file"), ("rm docs/install.md", "missing-file")):  # fmt: skip
        said = machine(
            "ssh", host, "--",
            f"rm -rf /root/c && cp -al /root/ispvm-1.4.0 /root/c && cd /root/c && {change} && {check}; rm -rf /root/c",
        )  # fmt: skip
        assert f"REFUSED  {code}" in said, said
        assert "it failed" in said


def test_the_tools_of_others_read_our_signatures(host: str) -> None:
    machine("ssh", host, "--", f"apt-get -qq update && apt-get -qq install -y {TOOLS} >/dev/null 2>&1")
    script = release_tree.ROOM / "interop.sh"
    said = machine("ssh", host, "--", "cat > /root/interop.sh && sh /root/interop.sh /root/ispvm-1.4.0", stdin=script)
    table = re.findall(r"^\| .* \|$", said, re.MULTILINE)
    assert len(table) == 12
    documented = DOCUMENT.read_text()
    for row in table:
        tool, command, _ = re.fullmatch(r"\| (.*) \| `(.*)` \| (.*) \|", row).groups()  # type: ignore[union-attr]
        assert f"| {tool} | `{command}` |" in documented, f"docs/verify.md lacks this row:\n{row}"


def test_the_tools_of_others_refuse_what_was_changed(host: str, signed: tuple[Path, Keys]) -> None:
    tree, _ = signed
    assert (tree / "SHA256SUMS").exists()
    said = machine(
        "ssh", host, "--",
        "cp -a /root/ispvm-1.4.0 /root/c && cd /root/c && sed -i 1s/./x/ SHA256SUMS && "
        "echo x >> apt/dists/trixie/Release && sed -i 's/Suite/suite/' apt/dists/trixie/InRelease && "
        "echo x >> install && "
        "{ sh /root/interop.sh /root/c && echo all passed; rm -rf /root/c; }",
    )  # fmt: skip
    assert "all passed" not in said
    rows = re.findall(r"^\| (.*?) \| `.*` \| (.*) \|$", said, re.MULTILINE)
    assert len(rows) == 12
    assert [tool for tool, answer in rows if answer != "REFUSED"] == []
