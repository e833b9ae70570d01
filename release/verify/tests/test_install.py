"""The installer of a bundle: what it remembers, and what it refuses before it touches anything."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import release_tree
from attacks import Lab

from release.sign import stage

INSTALL = release_tree.ROOM.parent / "build" / "install"


@pytest.fixture(scope="module")
def bundles(lab: Lab, home: Path) -> dict[str, Path]:
    """Two signed releases with the real installer, which finds no Ansible in them."""
    made = {}
    for version, sequence in (("1.3.0", 16), ("1.4.0", 17)):
        tree = release_tree.unsigned(home / "bundles" / version)
        shutil.copy(INSTALL, tree / "install")
        release_tree.describe(tree, version=version, sequence=sequence)
        stage.sign(tree, lab.keys)
        made[version] = tree
    return made


def install(tree: Path, home: Path, *options: str) -> str:
    """Run a bundle's installer, which does not come to its end here; what it said."""
    command = [str(tree / "install"), *options, "-i", "inventory.yml"]
    done = subprocess.run(command, env={**os.environ, "HOME": str(home)}, capture_output=True, text=True)
    assert done.returncode != 0
    return done.stdout + done.stderr


def remember(tree: Path, home: Path, fingerprint: str) -> str:
    """What a successful installation of `tree` leaves behind."""
    state = home / ".ispvm-release"
    options = ["--fingerprint", fingerprint, "--state", str(state), "--record"]
    subprocess.run([str(tree / "verify.sh"), *options], check=True, capture_output=True)
    return state.read_text()


def test_an_installation_that_failed_is_not_remembered(lab: Lab, bundles: dict[str, Path], tmp_path: Path) -> None:
    said = install(bundles["1.4.0"], tmp_path, "--fingerprint", lab.fingerprint)
    assert "GOOD  ispvm 1.4.0" in said
    assert not (tmp_path / ".ispvm-release").exists()


def test_an_older_release_is_refused(lab: Lab, bundles: dict[str, Path], tmp_path: Path) -> None:
    remembered = remember(bundles["1.4.0"], tmp_path, lab.fingerprint)
    said = install(bundles["1.3.0"], tmp_path)
    assert "REFUSED  rollback: sequence 16 is older than 17, which was recorded here" in said
    assert f"nothing was changed; what was installed last stands in {tmp_path}/.ispvm-release" in said
    assert (tmp_path / ".ispvm-release").read_text() == remembered


def test_a_newer_release_of_the_same_keys_needs_no_fingerprint(
    lab: Lab, bundles: dict[str, Path], tmp_path: Path
) -> None:
    remember(bundles["1.3.0"], tmp_path, lab.fingerprint)
    said = install(bundles["1.4.0"], tmp_path)
    assert "sequence 17 after 16" in said
    assert "GOOD  ispvm 1.4.0" in said


def test_a_stale_release_needs_a_reason(lab: Lab, bundles: dict[str, Path], tmp_path: Path) -> None:
    stale = tmp_path / "stale"
    shutil.copytree(bundles["1.4.0"], stale)
    release_tree.describe(stale, not_after=release_tree.PAST)
    stage.sign(stale, lab.keys)
    assert "REFUSED  expired" in install(stale, tmp_path, "--fingerprint", lab.fingerprint)
    said = install(stale, tmp_path, "--fingerprint", lab.fingerprint, "--accept-stale", "no other is to be had")
    assert "STALE, accepted: no other is to be had" in said
