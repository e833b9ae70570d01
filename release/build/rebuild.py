"""Build our own artefacts from a bundle alone and compare. Run by `rebuild` in the bundle."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from release.build import firstparty, source, wheelhouse
from release.build.source import BuildError

ROOT = Path(__file__).resolve().parents[2]


def agent_wheels(bundle: Path, into: Path) -> list[Path]:
    """The agent's third-party wheels for both processors, by the hashes of the lock in the source."""
    for architecture in wheelhouse.ARCHITECTURES:
        wheelhouse.collect(ROOT / "requirements/agent.txt", bundle / "wheelhouse" / architecture, architecture, into)
    return sorted(into.iterdir())


def main() -> None:
    """Rebuild, compare, and print one line per artefact; exit 1 when one differs."""
    parser = argparse.ArgumentParser(prog="rebuild", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    os.umask(0o022)
    release = source.describe(ROOT, "")
    with tempfile.TemporaryDirectory() as wheels:
        firstparty.build(Path(sys.executable), ROOT, release, agent_wheels(args.bundle, Path(wheels)), args.out)
    source.pack(ROOT, source.listed(ROOT), release, args.out / "source")
    differing = 0
    for made in sorted(path for path in args.out.rglob("*") if path.is_file()):
        name = made.relative_to(args.out)
        shipped = args.bundle / name
        same = shipped.is_file() and wheelhouse.sha256(shipped) == wheelhouse.sha256(made)
        differing += not same
        print(f"{'same     ' if same else 'DIFFERENT'}  {wheelhouse.sha256(made)}  {name}")
    if differing:
        raise BuildError(f"{differing} artefacts are not what this source gives")


if __name__ == "__main__":
    try:
        main()
    except BuildError as error:
        sys.exit(f"rebuild: {error}")
