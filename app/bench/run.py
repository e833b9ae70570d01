"""`make bench`: the appliance on a test host, as the roles install it, then one benchmark after another.

    python -m bench.run [--scale small|full] [--only NAME[,NAME…]] [--keep]

Each benchmark's figures are written to the result file as soon as they are there: one that fails or is interrupted
loses nothing of the others, and `--only` measures it again into the same file.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import testhost

from bench.result import NAMES, Figure, merged, read, remarks, table

ROOT = Path(__file__).resolve().parents[2]
CODE = "/var/lib/ispvm-bench/code"
PYTHON = "/opt/ispvm/current/server/bin/python"
MARK = "FIGURE "


def on_host(address: str, command: str) -> list[str]:
    """argv of a command on the test host."""
    return [*testhost.ssh_command(address), command]


def install(name: str, address: str, log: Path) -> None:
    """The test host with the whole appliance."""
    testhost.up(name, address)
    subprocess.run([sys.executable, ROOT / "ci" / "build.py"], check=True)
    print(f"bench: installing the appliance on {name} (about a minute; {log.relative_to(ROOT)})", flush=True)
    playbook = ["ansible-playbook", "-i", "app/bench/hosts.yml", "-e", f"ansible_host={address}", "site.yml"]
    with log.open("w") as out:
        done = subprocess.run(playbook, cwd=ROOT, stdout=out, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        raise testhost.TesthostError(f"the playbook failed, see {log}: {log.read_text()[-800:]}")
    upload(address)


def upload(address: str) -> None:
    """The benchmarks themselves."""
    with subprocess.Popen(
        ["tar", "c", "-C", ROOT / "app", "--exclude=__pycache__", "bench"], stdout=subprocess.PIPE
    ) as tar:
        unpack = f"rm -rf {CODE} && install -d {CODE} && tar x -C {CODE}"
        subprocess.run(on_host(address, unpack), stdin=tar.stdout, check=True)


def measure(address: str, name: str, scale: str) -> list[Figure]:
    """Run one benchmark, showing its progress; raises TesthostError when it ends with an error."""
    command = f"cd {CODE} && PYTHONDONTWRITEBYTECODE=1 exec {PYTHON} -u -m bench {name} --scale {scale}"
    figures: list[Figure] = []
    with subprocess.Popen(on_host(address, command), stdout=subprocess.PIPE, text=True) as running:
        for line in running.stdout or ():
            if line.startswith(MARK):
                figures.append(msgspec.json.decode(line.removeprefix(MARK), type=Figure))
            else:
                print(f"  {line}", end="", flush=True)
    if running.returncode:
        raise testhost.TesthostError(f"benchmark {name} ended with {running.returncode}; what it said is above")
    return figures


def cold_memory_ns() -> float:
    """What it takes to look at an object that nobody looked at for a second: how much other machines on the same
    processor push ours out of its caches. 60 to 100 is the memory itself, 5 to 20 a cache.
    """
    objects = [float(number) for number in range(200_000)]
    random.Random(1).shuffle(objects)  # noqa: S311  # nothing secret
    time.sleep(1)
    began = time.perf_counter()
    sum(objects)
    return (time.perf_counter() - began) * 1e9 / len(objects)


def machine() -> dict[str, str]:
    """What the figures are measured on, and whether anybody else is on it."""
    cpu = next((line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                if line.startswith("model name")), "unknown")  # fmt: skip
    cores, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    return {
        "at": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()), "cpu": cpu, "cores": str(cores),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') >> 30} GiB",
        "cold memory": f"{cold_memory_ns():.0f} ns an object",
        "load before": f"{load:.1f}" + (" (not quiet: these figures are no measurement)" if load > 0.5 * cores else ""),
    }  # fmt: skip


def versions(address: str) -> dict[str, str]:
    """Of what is measured and of the peer."""
    asked = "postgresql-17 postgresql-17-timescaledb pgbouncer victoria-metrics"
    listed = testhost.run(
        on_host(address, f"dpkg-query -W -f '${{Package}} ${{Version}}\\n' {asked} 2>/dev/null || true")
    )
    return dict(line.split() for line in listed.splitlines() if len(line.split()) == 2)


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="bench", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--scale", choices=("small", "full"), default="small")
    parser.add_argument("--only", default="", help=f"some of {', '.join(NAMES)}, with commas; default: all")
    parser.add_argument("--keep", action="store_true", help="use the host that is there, and leave it")
    parser.add_argument("--host", default="ispvm-bench")
    parser.add_argument("--address", default="10.89.77.66")
    options = parser.parse_args()
    chosen = [name for name in options.only.split(",") if name] or list(NAMES)
    if unknown := sorted(set(chosen) - set(NAMES)):
        parser.error(f"--only: {', '.join(unknown)}: not one of {', '.join(NAMES)}")
    results = ROOT / ".cache" / "bench-results"
    results.mkdir(parents=True, exist_ok=True)
    path = results / f"{options.scale}.json"
    command = f"make bench SCALE={options.scale}"
    failed: list[str] = []
    result = read(path, command)
    try:
        install(options.host, options.address, results / "install.log")
        for name in chosen:
            print(f"\n==> {name} ({options.scale})", flush=True)
            about = machine()
            began = time.monotonic()
            try:
                figures = measure(options.address, name, options.scale)
            except testhost.TesthostError as error:
                failed.append(name)
                print(f"bench: {error}", file=sys.stderr, flush=True)
                continue
            print(f"  took {time.monotonic() - began:.0f} s", flush=True)
            result = merged(path, command, name, figures, {**about, **versions(options.address)})
    finally:
        if not options.keep:
            testhost.down(options.host)
    print(f"\n{table(result.figures)}\n\n{remarks(result.figures)}\n")
    for name, about in sorted(result.machines.items(), key=lambda item: NAMES.index(item[0])):
        print(f"{name}: {', '.join(f'{key} {value}' for key, value in about.items())}")
    print(f"\nwritten to {path.relative_to(ROOT)}")
    if failed:
        print(f"bench: failed: {', '.join(failed)}; `make bench ONLY={','.join(failed)}` tries again", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (testhost.TesthostError, subprocess.CalledProcessError) as error:
        sys.exit(f"bench: {error}")
