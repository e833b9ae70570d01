"""On the appliance's host: run one benchmark and print its figures as JSON, one a line after progress.

python -m bench NAME [--scale small|full]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator

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


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="bench")
    parser.add_argument("name", choices=BENCHMARKS)
    parser.add_argument("--scale", choices=SCALES, default="small")
    options = parser.parse_args()
    try:
        for figure in BENCHMARKS[options.name](Machine(), SCALES[options.scale]):
            print(MARK + msgspec.json.encode(figure).decode(), flush=True)
    except (BenchError, psycopg.Error, OSError) as error:
        print(f"bench {options.name}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
