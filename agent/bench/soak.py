"""A thousand routers for an hour: memory and file descriptors must not grow.

The real agent polls emulated routers and delivers to a receiver, each a process. Its resident memory and its open
files are sampled; after the first quarter (connections, caches) the slope of each, by least squares, must be flat.
Exit code 1 if not. With --emulator the routers are those of ispvm-lab, with TLS and all menus, in one process; without
they answer what the fast tier asks.

    python agent/bench/soak.py [--routers 1000] [--interfaces 50] [--minutes 60] [--fast-seconds 10] [--emulator]
"""

from __future__ import annotations

import argparse
import sqlite3
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from field import Emulated, Field

MAX_MEGABYTES_AN_HOUR = 6.0
MAX_FILES_AN_HOUR = 5.0


def slope(samples: Sequence[tuple[float, float]]) -> float:
    """Growth a hour of (seconds, value), by least squares."""
    n = len(samples)
    mean_x, mean_y = sum(x for x, _ in samples) / n, sum(y for _, y in samples) / n
    spread = sum((x - mean_x) ** 2 for x, _ in samples)
    return 3600 * sum((x - mean_x) * (y - mean_y) for x, y in samples) / spread if spread else 0.0


def judge(memory: Sequence[tuple[float, float]], files: Sequence[tuple[float, float]]) -> list[str]:
    """What grew, one line each; empty when all is flat. Memory in MB, samples of the settled part."""
    grown = []
    for name, samples, limit in (
        ("memory, MB", memory, MAX_MEGABYTES_AN_HOUR),
        ("open files", files, MAX_FILES_AN_HOUR),
    ):
        rate = slope(samples)
        print(f"{name}: {samples[0][1]:.1f} to {samples[-1][1]:.1f}, slope {rate:+.2f} an hour, at most {limit:g}")
        if rate > limit:
            grown.append(f"{name} grow by {rate:.1f} an hour")
    return grown


def resident(pid: int) -> float:
    """Resident memory in MB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def main() -> int:
    """Run, sample, judge."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--routers", type=int, default=1000)
    parser.add_argument("--interfaces", type=int, default=50)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--fast-seconds", type=float, default=10)
    parser.add_argument("--emulator", action="store_true", help="ask the routers of ispvm-lab")
    options = parser.parse_args()
    kind = Emulated if options.emulator else Field
    memory: list[tuple[float, float]] = []
    files: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory() as directory:
        field = kind(Path(directory), options.routers, options.interfaces, options.fast_seconds)
        try:
            routers = field.start_routers()
            field.start_receiver()
            agent = field.start_agent()
            began, ends = time.monotonic(), time.monotonic() + options.minutes * 60
            while time.monotonic() < ends and agent.poll() is None:
                time.sleep(max(0.5, options.minutes / 10))
                memory.append((time.monotonic() - began, resident(agent.pid)))
                files.append((time.monotonic() - began, len(list(Path(f"/proc/{agent.pid}/fd").iterdir()))))
            if agent.poll() is not None:
                print((Path(directory) / "agent.log").read_text()[-2000:], file=sys.stderr)
                return 1
            emulator = resident(routers.pid)
        finally:
            field.close()
        with sqlite3.connect(Path(directory) / "ledger.sqlite3") as ledger:
            polls = ledger.execute("select count(*) from moment where entity_type = 'interface'").fetchone()
            rows = ledger.execute("select sum(rows) from batch").fetchone()
    print(
        f"{options.routers} routers, {options.minutes:g} minutes: {polls[0]} interface polls, {rows[0]} rows delivered"
    )
    used = ", ".join(f"{kind} {seconds:.0f}" for kind, seconds in field.used.items())
    print(f"CPU seconds: {used}; memory of the routers' process at the end: {emulator:.0f} MB")
    settled = len(memory) // 4
    grown = judge(memory[settled:], files[settled:])
    for line in grown:
        print(line, file=sys.stderr)
    return int(bool(grown) or not rows[0])


if __name__ == "__main__":
    sys.exit(main())
