"""The command `ispvm-lab`."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import msgspec
from ispvm_contract import seed as seeds

from . import eve, eve_export
from .control import Request, ask
from .faults import KINDS
from .lab import Lab, Override, notify_ready
from .synthetic import synthetic
from .traffic import Clock
from .world import World

DEFAULT_STATE = Path("/var/lib/ispvm-lab")


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

    fault = commands.add_parser("fault", help="make things go wrong in a running lab, and right again")
    verbs = fault.add_subparsers(required=True, metavar="VERB")
    add = verbs.add_parser("add", help="add a fault; `ispvm-lab fault kinds` lists what there is")
    add.add_argument("kind")
    add.add_argument("router", help="its name, or * for all")
    add.add_argument("params", nargs="*", metavar="NAME=VALUE")
    add.add_argument("--for", dest="seconds", type=float, metavar="SECONDS", help="clear it after that time")
    add.set_defaults(run=_fault_add)
    clear = verbs.add_parser("clear", help="clear one fault, those of one router, or all")
    which = clear.add_mutually_exclusive_group(required=True)
    which.add_argument("id", nargs="?")
    which.add_argument("--router")
    which.add_argument("--all", action="store_true")
    clear.set_defaults(run=_fault_clear)
    listing = verbs.add_parser("list", help="the faults there are now")
    listing.set_defaults(run=_fault_list)
    kinds = verbs.add_parser("kinds", help="every kind of fault, what it does, its parameters")
    kinds.set_defaults(run=_fault_kinds)
    status = commands.add_parser("status", help="the routers of a running lab")
    status.set_defaults(run=_status)
    for verb in (add, clear, listing, status):
        verb.add_argument("--state", type=Path, default=DEFAULT_STATE, metavar="DIR", help=f"default: {DEFAULT_STATE}")

    importer = commands.add_parser("import-eve", help="make a seed of an EVE-NG lab file")
    importer.add_argument("lab", type=Path, metavar="FILE.unl")
    importer.add_argument("--output", type=Path, metavar="FILE.json", help="default: the lab's name with .json")
    importer.add_argument("--tenant", default="lab:EVE-NG lab", metavar="KEY:NAME")
    importer.add_argument("--site", default="lab:EVE-NG lab:0:0", metavar="KEY:NAME:LATITUDE:LONGITUDE")
    for what in ("address", "loopback"):
        importer.add_argument(
            f"--{what}", action="append", default=[], metavar="NODE=ADDRESS", help="goes before the file's"
        )
    importer.set_defaults(run=_import_eve)

    exporter = commands.add_parser("export-eve", help="make an EVE-NG lab file of a seed")
    exporter.add_argument("seed", type=Path, metavar="FILE.json")
    exporter.add_argument("--output", type=Path, metavar="FILE.unl", help="default: the seed's name with .unl")
    exporter.set_defaults(run=_export_eve)

    big = commands.add_parser("synthetic-seed", help="make a seed of any size, for measuring")
    big.add_argument("output", type=Path, metavar="FILE.json")
    big.add_argument("--routers", type=int, default=1000)
    big.add_argument("--interfaces", type=int, default=50, help="of each router")
    big.add_argument("--pppoe-sessions", type=int, default=0, help="of each leaf of the tree")
    big.add_argument("--network", type=IPv4Network, default=IPv4Network("127.1.0.0/16"), help="default: %(default)s")
    big.set_defaults(run=_synthetic_seed)

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


def _import_eve(options: argparse.Namespace) -> int:
    made = eve.imported(eve.read(options.lab), _choices(options))
    for warning in made.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    return _written(options.output or options.lab.with_suffix(".json"), _json(made.seed))


def _export_eve(options: argparse.Namespace) -> int:
    text = eve_export.exported(seeds.load(options.seed))
    return _written(options.output or options.seed.with_suffix(".unl"), text)


def _synthetic_seed(options: argparse.Namespace) -> int:
    made = synthetic(options.routers, options.interfaces, options.network, options.pppoe_sessions)
    return _written(options.output, _json(made))


def _json(seed: seeds.Seed) -> str:
    return json.dumps(msgspec.to_builtins(seed), indent=2, ensure_ascii=False) + "\n"


def _written(path: Path, text: str) -> int:
    same = path.exists() and path.read_text(encoding="utf-8") == text
    if not same:
        path.write_text(text, encoding="utf-8")
    print("unchanged" if same else "changed")
    return 0


def _choices(options: argparse.Namespace) -> eve.Choices:
    tenant, site = options.tenant.split(":"), options.site.split(":")
    if len(tenant) != 2:
        raise ValueError(f"--tenant: {options.tenant!r} is not KEY:NAME")
    try:
        key, name, latitude, longitude = site[0], site[1], float(site[2]), float(site[3])
    except (ValueError, IndexError):
        raise ValueError(f"--site: {options.site!r} is not KEY:NAME:LATITUDE:LONGITUDE") from None
    return eve.Choices(
        tenant=seeds.Tenant(*tenant),
        site=seeds.Site(key, name, latitude, longitude),
        addresses=_addresses("--address", options.address),
        loopbacks=_addresses("--loopback", options.loopback),
    )


def _addresses(option: str, words: Sequence[str]) -> dict[str, str]:
    given = {}
    for word in words:
        node, _, address = word.partition("=")
        try:
            given[node.replace("_", "-")] = str(IPv4Address(address))
        except ValueError:
            raise ValueError(f"{option}: {word!r} is not NODE=ADDRESS with an IPv4 address") from None
    return given


def _check_seed(options: argparse.Namespace) -> int:
    seed = seeds.load(options.seed)
    World(seed, Clock(0.0))  # what only the emulator wants of a seed, such as versions it can tell apart
    print(f"{options.seed.name}: {len(seed.sites)} sites, {len(seed.devices)} routers, {len(seed.links)} links: sound")
    return 0


def _print_fault(fault: Mapping[str, Any]) -> None:
    params = " ".join(f"{name}={value}" for name, value in fault["params"].items() if value)
    print(f"{fault['id']}  {fault['kind']}  {fault['router']}  {params}".rstrip())


def _fault_add(options: argparse.Namespace) -> int:
    params = {}
    for word in options.params:
        name, given, value = word.partition("=")
        if not given:
            raise ValueError(f"{word}: write parameters as NAME=VALUE")
        params[name] = value
    request = Request("add", kind=options.kind, router=options.router, params=params, seconds=options.seconds)
    _print_fault(ask(options.state, request)["fault"])
    return 0


def _fault_clear(options: argparse.Namespace) -> int:
    for fault in ask(options.state, Request("clear", id=options.id, router=options.router))["cleared"]:
        _print_fault(fault)
    return 0


def _fault_list(options: argparse.Namespace) -> int:
    for fault in ask(options.state, Request("list"))["faults"]:
        _print_fault(fault)
    return 0


def _fault_kinds(_: argparse.Namespace) -> int:
    for kind in KINDS.values():
        print(f"{kind.name:20}{kind.does}")
        for name, default in kind.params.items():
            print(f"{'':22}{name}={default}")
    return 0


def _status(options: argparse.Namespace) -> int:
    for router in ask(options.state, Request("status"))["routers"]:
        power = "on" if router["powered"] else "off"
        print(f"{router['router']:32}{power:5}{router['connections']} connections")
    return 0
