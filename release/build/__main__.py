"""Build a release: `python -m release.build --version V [--commit C] [--out DIR] [--dev]`.

Writes `DIR/ispvm-V/`, the unsigned tree, and `DIR/ispvm-V.tar.zst`. Signing: `python -m release.sign`.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from release.build import debian, firstparty, oci, pack, source, wheelhouse
from release.build.source import BuildError, Release

ROOT = Path(__file__).resolve().parents[2]
# directory of the release ← what it holds of the source
COPIED = {
    "ansible": ("site.yml", "ansible.cfg", "playbooks", "roles", "plugins", "group_vars", "inventories"),
    "seeds": ("seeds",),
    "docs": ("docs",),
    "licences": ("LICENSES",),
    "compat": ("docs/reference/compatibility.html", "docs/reference/compatibility.md",
               "contract/ispvm_contract/compatibility.json", "SBOM/compatibility.yml"),
    ".": ("VERSION", "release/build/install", "release/build/rebuild", "release/verify/verify.sh",
          "release/verify/verify.py", "release/verify/VERIFY.md"),
}  # fmt: skip
# the bundle's own settings of the roles: it brings wheels and Debian packages itself
BUNDLE_SETTINGS = """# Written by the build: where the roles find what this bundle brings.
ispvm_root: "{{ (playbook_dir | basename == 'playbooks') | ternary(playbook_dir | dirname, playbook_dir) | dirname }}"
ispvm_apt_pool: "{{ ispvm_root }}/apt"
ispvm_apt_key: "{{ ispvm_root }}/KEYS/apt.asc"
release_wheelhouse: >-
  {{ ispvm_root }}/wheelhouse/{{ {'x86_64': 'amd64', 'aarch64': 'arm64'}[ansible_facts['architecture']] }}
"""


def say(text: str) -> None:
    """One line of progress."""
    print(f"release: {text}", flush=True)


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Print how long a stage took."""
    started = time.monotonic()
    yield
    say(f"{name:<28} {time.monotonic() - started:6.1f} s")


def copy(tree: Path, origin: Path, names: tuple[str, ...], into: str) -> None:
    """Copy files and directories of the source, modes reduced to 0644 and 0755."""
    for name in names:
        path = origin / name
        if not path.exists():
            say(f"absent in this source: {name}")
            continue
        # a directory named like its target (docs, seeds) becomes it; others go below it
        base = path if path.is_dir() and name in ("docs", "seeds", "LICENSES") else path.parent
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file():
                target = tree / into / file.relative_to(base)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, target)
                target.chmod(0o755 if file.stat().st_mode & 0o100 else 0o644)


def optional(module: str, function: str, tree: Path, *arguments: object) -> None:
    """Call a stage that lives in a package of its own; say so when this source does not have it."""
    try:
        found = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        found = None
    if found is None:
        say(f"absent in this source: {module}.{function}; the release has nothing of it")
        return
    with stage(f"{module}.{function}"):
        getattr(importlib.import_module(module), function)(tree, *arguments)


def build(
    root: Path, release: Release, out: Path, *, pool: Path | None = None, name: str = "", own_only: bool = False
) -> Path:
    """Make the tree below `out` and return it.

    `name`: what hosts call the release; empty for a development build. `own_only`: stop after our own artefacts.
    """
    tree = out / f"ispvm-{release.version}"
    shutil.rmtree(tree, ignore_errors=True)
    tree.mkdir(parents=True)
    cache, debs = root / ".cache" / "wheels", root / ".cache" / "debs"
    with tempfile.TemporaryDirectory() as scratch:
        with stage("source"):
            origin = source.unpack(
                source.pack(root, source.listed(root), release, tree / "source"), Path(scratch) / "source"
            )
        with stage("wheels of the locks"):
            locks = origin / "requirements"
            for architecture in wheelhouse.ARCHITECTURES:
                for lock in ("agent",) if own_only else (*wheelhouse.COMPONENTS, "installer"):
                    wheelhouse.download(locks / f"{lock}.txt", cache, architecture)
            wheelhouse.download(locks / "build.txt", cache, "amd64")
        with stage("own wheels, sdists, PEX, deb"):
            agent = Path(scratch) / "agent-wheels"
            for architecture in wheelhouse.ARCHITECTURES:
                wheelhouse.collect(locks / "agent.txt", cache, architecture, agent)
            lines = wheelhouse.collect(locks / "build.txt", cache, "amd64", tree / "wheelhouse/build")
            (tree / "wheelhouse/build/build.txt").write_text("".join(f"{line}\n" for line in lines))
            python = firstparty.tools(tree / "wheelhouse/build", release, Path(scratch) / "tools")
            own = firstparty.build(python, origin, release, sorted(agent.iterdir()), tree)
        if own_only:
            pack.describe(tree, release)
            pack.manifest(tree)
            return tree
        with stage("Debian packages of the lock"):
            packages = debian.read_lock(origin)
            files = debian.fetch(packages, debs, pool)
        with stage("wheelhouses"):
            houses = tree / "wheelhouse"
            for architecture in wheelhouse.ARCHITECTURES:
                wheelhouse.assemble(origin, cache, architecture, own, houses / architecture, name)
                tools = houses / "installer" / architecture
                lines = wheelhouse.collect(locks / "installer.txt", cache, architecture, tools)
                (tools / "installer.txt").write_text("".join(f"{line}\n" for line in lines))
        with stage("apt repository"):
            debian.repository(packages, files, release, tree / "apt")
            shutil.copyfile(origin / debian.LOCK, tree / "apt" / "apt.lock")
        with stage("OCI images"):
            oci.build(packages, files, houses, release, tree)
        with stage("playbooks, documents, seeds"):
            for into, names in COPIED.items():
                copy(tree, origin, names, into)
            (tree / "ansible/group_vars/all/bundle.yml").write_text(BUNDLE_SETTINGS)
            # the checkout has a link here; a bundle has no links, so that nothing points out of it
            copy(tree, tree / "ansible", ("group_vars",), "ansible/playbooks")
        pack.describe(tree, release)
        optional("release.sbom", "generate", tree, root)
        optional("release.sign", "provenance", tree, root)
    for path in tree.rglob("*"):
        path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
    with stage("manifest"):
        pack.manifest(tree)
    return tree


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="release.build", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--version", required=True, help="what is released; must be what the file VERSION says")
    parser.add_argument("--commit", help="refuse unless the checkout is at this commit")
    parser.add_argument("--out", type=Path, default=ROOT / "dist" / "release", help="where the tree goes")
    parser.add_argument("--pool", type=Path, help="apt/ of an earlier bundle: packages that the mirror no longer has")
    parser.add_argument("--dev", action="store_true", help="build a dirty checkout all the same; never for a release")
    parser.add_argument("--own", action="store_true", help="only our own artefacts: wheels, sdists, PEX, deb, source")
    return parser.parse_args()


def main() -> None:
    """Build, and say what came of it."""
    args = arguments()
    started = time.monotonic()
    os.umask(0o022)
    dirty = source.dirt(ROOT)
    if dirty and not args.dev:
        shown = "\n".join(dirty[:20])
        raise BuildError(
            f"the checkout is not clean, so no commit says what is in it:\n{shown}\ncommit or remove these"
        )
    release = source.describe(ROOT, args.version)
    if args.commit and args.commit != release.commit:
        raise BuildError(f"--commit {args.commit}: the checkout is at {release.commit}; check that commit out first")
    with stage("browser libraries"):
        subprocess.run([ROOT / "ci" / "assets"], check=True)
    name = "" if dirty else release.version
    tree = build(ROOT, release, args.out.resolve(), pool=args.pool, name=name, own_only=args.own)
    names = pack.files(tree)
    say(f"{tree}  {len(names)} files, {sum((tree / name).stat().st_size for name in names) / 1e6:.0f} MB")
    if not args.own:
        with stage("pack"):
            packed, digest = pack.archive(tree)
        say(f"{packed}  {packed.stat().st_size / 1e6:.0f} MB")
        say(f"sha256 of the tree's tar: {digest}")
    say(f"sha256 of SHA256SUMS: {wheelhouse.sha256(tree / pack.MANIFEST)}")
    say(f"{'in all':<28} {time.monotonic() - started:6.1f} s")


if __name__ == "__main__":
    try:
        main()
    except BuildError as error:
        sys.exit(f"release: {error}")
