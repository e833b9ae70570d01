"""The command `ispvm-lab`."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from ispvm_contract import seed as seeds

from .lab import Lab, Override, notify_ready


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand; the exit status is 0, or 1 with one line per fault on stderr."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except (ValueError, OSError) as error:
        print(f"ispvm-lab: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ispvm-lab", description="RouterOS emulator of ISPVisualMonitor")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    serve = commands.add_parser("serve", help="all routers of a seed on their own addresses")
    serve.add_argument("--seed", type=Path, required=True, metavar="FILE")
    serve.add_argument("--state", type=Path, required=True, metavar="DIR")
    serve.add_argument("--listen-override", metavar="HOST:BASEPORT", help="all routers on one host, two ports each")
    serve.add_argument("--speed", type=float, default=1.0, help="how fast the day passes (traffic curve only)")
    serve.set_defaults(run=_serve)

    check = commands.add_parser("check-seed", help="say what is wrong with a seed")
    check.add_argument("seed", type=Path, metavar="FILE")
    check.set_defaults(run=_check_seed)
    return parser


def _serve(options: argparse.Namespace) -> int:
    override = Override.parse(options.listen_override) if options.listen_override else None
    if not 0 < options.speed <= 86400:
        raise ValueError(f"--speed: {options.speed:g} is not between 0 and 86400")
    lab = Lab(seeds.load(options.seed), options.state, options.speed)
    asyncio.run(_run(lab, override))
    return 0


async def _run(lab: Lab, override: Override | None) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with lab.running(override):
        notify_ready()
        print(f"{len(lab.stations)} routers of seed {lab.world.seed.name} are listening", flush=True)
        await stop.wait()


def _check_seed(options: argparse.Namespace) -> int:
    seed = seeds.load(options.seed)
    print(f"{options.seed.name}: {len(seed.sites)} sites, {len(seed.devices)} routers, {len(seed.links)} links: sound")
    return 0
