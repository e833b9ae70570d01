"""The parts of the build that need no network: what they refuse, and that the same input gives the same bytes."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
import time
from pathlib import Path

import pytest
import yaml

from release.build import debian, firstparty, oci, pack, reproduce, source, wheelhouse
from release.build.source import BuildError, Release

ROOT = Path(__file__).resolve().parents[3]
RELEASE = Release("0.1.0", "0" * 40, 1_700_000_000, 7)


def test_a_version_that_the_source_does_not_have_is_refused() -> None:
    with pytest.raises(BuildError, match="VERSION says"):
        source.describe(ROOT, "9.9.9")


def test_a_dirty_checkout_is_named(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    assert source.dirt(tmp_path) == []
    (tmp_path / "stray").touch()
    assert source.dirt(tmp_path) == ["?? stray"]


def test_a_source_archive_comes_back_as_it_was_and_without_a_trace(tmp_path: Path) -> None:
    origin = tmp_path / "origin"
    (origin / "deep").mkdir(parents=True)
    (origin / "deep/run").write_text("#!/bin/sh\n")
    (origin / "deep/run").chmod(0o775)
    (origin / "link").symlink_to("deep")
    first = source.pack(origin, ["deep/run", "link"], RELEASE, tmp_path / "a").read_bytes()
    os.utime(origin / "deep/run", (0, 0))
    assert source.pack(origin, ["deep/run", "link"], RELEASE, tmp_path / "b").read_bytes() == first
    root = source.unpack(tmp_path / "a/ispvm-0.1.0.tar.gz", tmp_path / "unpacked")
    assert (root / "link/run").read_text() == "#!/bin/sh\n"
    assert source.describe(root, "") == RELEASE
    assert source.listed(root) == [".release.json", "deep/run", "link"]


@pytest.mark.parametrize("name", ["../out", "top/../../out"])
def test_a_source_archive_that_points_outside_is_refused(tmp_path: Path, name: str) -> None:
    with tarfile.open(tmp_path / "bad.tar.gz", "w:gz") as archive:
        source.add(archive, name, b"", 0o644, 0)
    (tmp_path / "into").mkdir()
    with pytest.raises(BuildError, match="below"):
        source.unpack(tmp_path / "bad.tar.gz", tmp_path / "into")
    assert not (tmp_path / "out").exists()


def test_a_lock_is_read_for_the_target_and_not_for_this_machine(tmp_path: Path) -> None:
    lock = tmp_path / "x.txt"
    lock.write_text(
        'old==1 ; python_full_version < "3.12" \\\n    --hash=sha256:aa\n'
        'here==2 ; platform_machine == "aarch64" \\\n    --hash=sha256:bb \\\n    --hash=sha256:cc\n'
    )
    assert wheelhouse.locked(lock, "arm64") == [("here==2", {"bb", "cc"})]
    assert wheelhouse.locked(lock, "amd64") == []


def test_a_wheel_that_the_lock_names_must_be_there(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("some==1 \\\n    --hash=sha256:aa\n")
    with pytest.raises(BuildError, match="no wheel for some==1 on amd64"):
        wheelhouse.collect(tmp_path / "x.txt", tmp_path, "amd64", tmp_path / "into")


def test_every_package_of_the_roles_is_in_the_lock() -> None:
    packages = debian.read_lock(ROOT)
    assert {package.index for package in packages} == {"amd64", "arm64"}
    assert not {"dpkg", "tar"} & {package.name for package in packages if "image" in package.uses}


def test_a_role_with_a_package_that_is_not_locked_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debian, "INSTALLER", ("no-such-package",))
    with pytest.raises(BuildError, match="no no-such-package for amd64; resolve it anew: make lock"):
        debian.read_lock(ROOT)


def agent_deb(tmp_path: Path) -> Path:
    (tmp_path / "agent.pex").write_bytes(b"pex")
    firstparty.deb(ROOT, RELEASE, tmp_path / "agent.pex", tmp_path / "agent.deb")
    return tmp_path / "agent.deb"


def test_dpkg_reads_the_agents_package(tmp_path: Path) -> None:
    deb = agent_deb(tmp_path)
    fields = subprocess.run(["dpkg-deb", "--field", deb], capture_output=True, text=True, check=True).stdout
    assert "Package: ispvm-agent\nVersion: 0.1.0\nArchitecture: all\n" in fields
    listed = subprocess.run(["dpkg-deb", "--contents", deb], capture_output=True, text=True, check=True).stdout
    assert "-rwxr-xr-x 0/0               3" in listed
    assert "./usr/lib/systemd/system/ispvm-agent.service" in listed
    assert debian.control(debian.parts(deb)).startswith("Package: ispvm-agent\n")


def test_the_packaged_unit_has_nothing_left_of_a_template() -> None:
    unit = firstparty.unit(ROOT)
    assert "ExecStart=/usr/bin/ispvm-agent run\n" in unit
    assert "{" not in unit


def test_the_repository_is_one_that_its_own_index_describes(tmp_path: Path) -> None:
    deb = agent_deb(tmp_path)
    digest = wheelhouse.sha256(deb)
    package = debian.Package("ispvm-agent", "all", "0.1.0", deb.stat().st_size, digest, "host", "pool/a.deb", "amd64")
    debian.repository([package], {digest: deb}, RELEASE, tmp_path / "apt")
    index = tmp_path / "apt/dists/trixie/main/binary-amd64/Packages"
    assert f"\nFilename: pool/a.deb\nSize: {package.size}\nSHA256: {digest}\n" in index.read_text()
    described = (tmp_path / "apt/dists/trixie/Release").read_text()
    assert f" {wheelhouse.sha256(index)} " in described
    assert "Date: Tue, 14 Nov 2023 22:13:20 UTC\n" in described


def test_an_image_says_what_it_is_and_runs_as_nobody(tmp_path: Path) -> None:
    layer = oci.Layer(RELEASE.source_date_epoch)
    layer.put("usr/bin/tool", b"x", mode=0o755)
    for out in ("a.tar", "b.tar"):
        oci.image("agent", "arm64", [layer.bytes()], RELEASE, tmp_path / out)
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    with tarfile.open(tmp_path / "a.tar") as archive:

        def read(name: str) -> dict[str, object]:
            file = archive.extractfile(name)
            assert file is not None
            content: dict[str, object] = json.load(file)
            return content

        entry = read("index.json")["manifests"][0]  # type: ignore[index]
        manifest = read(f"blobs/sha256/{entry['digest'][7:]}")
        config = read(f"blobs/sha256/{manifest['config']['digest'][7:]}")  # type: ignore[index]
    assert entry["platform"] == {"architecture": "arm64", "os": "linux"}
    assert config["config"]["User"] == "65532:65532"  # type: ignore[index]
    labels = config["config"]["Labels"]  # type: ignore[index]
    assert labels["org.opencontainers.image.revision"] == RELEASE.commit
    assert labels["org.opencontainers.image.created"] == "2023-11-14T22:13:20Z"


def test_an_image_takes_no_set_user_id_bit_and_no_manual(tmp_path: Path) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        source.add(archive, "./usr/bin/su", b"x", 0o4755, 0)
        source.add(archive, "./usr/share/man/su.1", b"x", 0o644, 0)
    packed.seek(0)
    layer = oci.Layer(0)
    with tarfile.open(fileobj=packed) as archive:
        layer.take(archive)
    assert {name: oct(member.mode) for name, (member, _) in layer.members.items()} == {"usr/bin/su": "0o755"}


def test_the_signed_limit_of_upgrades_is_that_of_the_compatibility_matrix() -> None:
    oldest = yaml.safe_load((ROOT / "SBOM/compatibility.yml").read_text())["upgrade"]["from"][0]
    assert f"{oldest}.0" == pack.MIN_UPGRADE_FROM


def small_tree(base: Path, *, leak: bool) -> Path:
    """A release of one package, as a build makes it; with `leak` the time of the build is in it."""
    tree = base / "ispvm-0.1.0"
    (tree / "agent").mkdir(parents=True)
    (tree / "agent/ispvm-agent_0.1.0_all.deb").write_bytes(agent_deb(base).read_bytes())
    if leak:
        (tree / "agent/built").write_text(f"{time.time_ns()}")
    pack.describe(tree, RELEASE)
    pack.manifest(tree)
    return tree


def test_the_manifest_is_what_sha256sum_checks_and_names_every_file(tmp_path: Path) -> None:
    tree = small_tree(tmp_path, leak=False)
    (tree / "signatures").mkdir()
    (tree / "signatures/one").touch()
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=tree, check=True)
    names = [line[66:] for line in (tree / "SHA256SUMS").read_text().splitlines()]
    assert names == ["SHA512SUMS", "agent/ispvm-agent_0.1.0_all.deb", "release.json"]


def test_two_builds_compare_equal_and_a_planted_leak_does_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = small_tree(tmp_path / "a", leak=False), small_tree(tmp_path / "b", leak=False)
    assert pack.archive(first)[1] == pack.archive(second)[1]
    assert reproduce.compare(first, second, "clock") == []
    first, second = small_tree(tmp_path / "c", leak=True), small_tree(tmp_path / "d", leak=True)
    assert pack.archive(first)[1] != pack.archive(second)[1]
    unlike = reproduce.compare(first, second, "clock")
    assert unlike == ["../ispvm-0.1.0.tar.zst", "SHA256SUMS", "SHA512SUMS", "agent/built", "release.json"]
    assert "clock: agent/built: byte" in capsys.readouterr().out
    assert reproduce.table(["other", "manifest"], {"clock": unlike}).splitlines()[1].split() == ["other", "1"]


def test_a_difference_inside_an_archive_names_its_member(tmp_path: Path) -> None:
    for name, time_of in (("a", 1), ("b", 2)):
        with tarfile.open(tmp_path / name, "w") as archive:
            source.add(archive, "same", b"x", 0o644, 0)
            source.add(archive, "other", b"x", 0o644, time_of)
    assert reproduce.explain(tmp_path / "a", tmp_path / "b").startswith("member other: ")


def test_all_factors_together_change_everything_that_one_alone_changes() -> None:
    every = reproduce.together(list(reproduce.FACTORS))
    for name, alone in reproduce.FACTORS.items():
        for field, value in vars(alone).items():
            if value != getattr(reproduce.FIRST, field):
                assert getattr(every, field) == value or value.items() <= every.environment.items(), name
