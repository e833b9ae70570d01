"""On the appliance's host: run one benchmark and print its figures as JSON, one a line after progress.

python -m bench NAME [--scale small|full]
"""

from __future__ import annotations

import argparse
import fcntl
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import psycopg

from bench import chart, day, ingest, kills, late, storage, tiles, truth
from bench.machine import BenchError, Machine
from bench.result import Figure
from bench.scale import SCALES, Scale

BENCHMARKS: dict[str, Callable[[Machine, Scale], Iterator[Figure]]] = {
    "ingest": ingest.run,
    "bytes": storage.run,
    "chart": chart.run,
    "tiles": tiles.run,
    "truth": truth.run,
    "late": late.run,
    "day": day.run,
    "kills": kills.run,
}
MARK = "FIGURE "


_lock: list[int] = []  # held until the process ends


def _alone() -> None:
    """Refuse to run beside another benchmark, which would empty the tables of this one."""
    path = Path("/var/lib/ispvm-bench/lock")
    path.parent.mkdir(exist_ok=True)
    _lock.append(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    try:
        fcntl.flock(_lock[0], fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise BenchError("another benchmark runs on this host; wait for it, or take the host down") from error


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="bench")
    parser.add_argument("name", choices=BENCHMARKS)
    parser.add_argument("--scale", choices=SCALES, default="small")
    options = parser.parse_args()
    try:
        _alone()
        for figure in BENCHMARKS[options.name](Machine(), SCALES[options.scale]):
            print(MARK + msgspec.json.encode(figure).decode(), flush=True)
    except (BenchError, psycopg.Error, OSError) as error:
        print(f"bench {options.name}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
