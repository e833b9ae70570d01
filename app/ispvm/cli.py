"""The command `ispvm`. Exit codes: 0 done, 1 failed, 2 wrong use or configuration, 3 refused on purpose."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import psycopg

from ispvm import __version__
from ispvm.settings import DEFAULT_PATH, Settings, SettingsError, load

# What `ispvm tenant set` sets: options and their types by column of `tenant_setting`.
TENANT_SETTINGS: dict[str, tuple[type, str]] = {
    "time_zone": (str, "in which days and months are counted, such as Europe/Berlin"),
    "max_range_days": (int, "longest range of a query"),
    "max_points": (int, "most points of a series, at most 600"),
    "max_entities": (int, "most interfaces of one report"),
    "max_concurrent": (int, "queries that run at the same time"),
    "statement_timeout_ms": (int, "longest a query may take"),
}


class CommandRefusedError(Exception):
    """The command understood and will not do it; the message is one clear sentence."""


def _changed(changed: bool) -> int:
    print("changed" if changed else "unchanged")
    return 0


def _migrate(settings: Settings, _: argparse.Namespace) -> int:
    from ispvm.store.migrate import MigrationError, migrate

    try:
        return _changed(migrate(settings))
    except MigrationError as error:
        raise CommandRefusedError(str(error)) from error


def _serve(settings: Settings, _: argparse.Namespace) -> int:
    from ispvm.serve import serve

    return serve(settings)


def _worker(settings: Settings, arguments: argparse.Namespace) -> int:
    from ispvm.store.worker import run

    return run(settings, once=arguments.once)


def _upkeep(settings: Settings, arguments: argparse.Namespace) -> int:
    from ispvm.store.upkeep import upkeep

    return _changed(upkeep(settings, now=arguments.now))


def _agent_enroll(settings: Settings, arguments: argparse.Namespace) -> int:
    from ispvm.inventory.agents import enroll

    return _changed(enroll(settings, arguments.tenant, arguments.name, arguments.site, arguments.token_sha256))


def _agent_revoke(settings: Settings, arguments: argparse.Namespace) -> int:
    from ispvm.inventory.agents import revoke

    return _changed(revoke(settings, arguments.tenant, arguments.name))


def _agent_list(settings: Settings, _: argparse.Namespace) -> int:
    from ispvm.inventory.agents import listing

    print(listing(settings))
    return 0


def _seed_apply(settings: Settings, arguments: argparse.Namespace) -> int:
    from ispvm.inventory.seeds import SeedRefusedError, apply

    try:
        return _changed(apply(settings, arguments.file, arguments.history))
    except SeedRefusedError as error:
        raise CommandRefusedError(str(error)) from error


def _inventory_import(settings: Settings, arguments: argparse.Namespace) -> int:
    from ispvm.inventory.imports import import_files
    from ispvm.inventory.sheets import MAX_FAULTS

    plan = import_files(settings, arguments.tenant, arguments.files, dry_run=arguments.dry_run)
    if plan.faults:
        more = len(plan.faults) - MAX_FAULTS
        lines = [*map(str, plan.faults[:MAX_FAULTS]), *([f"and {more} more"] if more > 0 else [])]
        raise ValueError("\n".join([*lines, f"nothing was imported: {len(plan.faults)} errors"]))
    for file, columns in plan.ignored:
        print(f"{file}: no place for {', '.join(columns)}; left out")
    for change in plan.changes:
        if change.action != "same":
            cells = ", ".join(
                f"{name}: {new}" if not old else f"{name}: {old} -> {new}" for name, old, new in change.cells
            )
            print(f"{change.row.file}:{change.row.line}: {change.action} {change.sheet.thing} {change.name} ({cells})")
    for name, counts in plan.counts().items():
        if counts:
            print(f"{name}: {counts['add']} added, {counts['change']} changed, {counts['same']} left alone")
    return _changed(plan.changed)


def _inventory_export(settings: Settings, arguments: argparse.Namespace) -> int:
    from ispvm.inventory.imports import export_files

    return _changed(export_files(settings, arguments.tenant, arguments.directory))


def _login_link(settings: Settings, arguments: argparse.Namespace) -> int:
    from ispvm.inventory.people import login_link

    print(login_link(settings, arguments.user, arguments.tenant, arguments.valid_minutes, arguments.role))
    return 0


def _tenant_show(settings: Settings, arguments: argparse.Namespace) -> int:
    from ispvm.inventory.tenants import show

    print(show(settings, arguments.tenant))
    return 0


def _tenant_set(settings: Settings, arguments: argparse.Namespace) -> int:
    from ispvm.inventory.tenants import change, set_operator

    values = {name: value for name in TENANT_SETTINGS if (value := getattr(arguments, name)) is not None}
    if not values and arguments.operator is None:
        options = ", ".join("--" + name.replace("_", "-") for name in [*TENANT_SETTINGS, "operator"])
        raise ValueError(f"say what to set: {options}")
    changed = bool(values) and change(settings, arguments.tenant, values)
    if arguments.operator is not None:
        changed |= set_operator(settings, arguments.tenant, arguments.operator == "yes")
    return _changed(changed)


def _check_config(path: Path) -> int:
    try:
        load(path)
    except SettingsError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _days(text: str) -> int:
    """30d, or 30."""
    number = text.removesuffix("d")
    if not number.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of days, such as 30d")
    return int(number)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ispvm", description="ISPVisualMonitor server")
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument("--config", type=Path, default=DEFAULT_PATH, metavar="FILE", help=f"default: {DEFAULT_PATH}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[Settings, argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(run=run)
        return sub

    command("migrate", _migrate, "bring the schema to the newest revision")
    command("serve", _serve, "the HTTP server")
    worker = command("worker", _worker, "keep the rollups up to date")
    worker.add_argument("--once", action="store_true", help="recompute what is due, then end")
    upkeep = command("upkeep", _upkeep, "retention and heavy maintenance, inside the maintenance window")
    upkeep.add_argument("--now", action="store_true", help="do it now, whatever the window says")

    agents = commands.add_parser("agent", help="who may send data").add_subparsers(dest="verb", required=True)
    enroll = agents.add_parser("enroll", help="bind an agent to a tenant and its sites")
    enroll.add_argument("--tenant", required=True)
    enroll.add_argument("--name", required=True)
    enroll.add_argument("--site", required=True, action="extend", nargs="+", metavar="SITE")
    enroll.add_argument("--token-sha256", required=True, metavar="HEX", help="SHA-256 of the token, 64 hex digits")
    enroll.set_defaults(run=_agent_enroll)
    revoke = agents.add_parser("revoke", help="refuse an agent's token from now on")
    revoke.add_argument("--tenant", required=True)
    revoke.add_argument("--name", required=True)
    revoke.set_defaults(run=_agent_revoke)
    agents.add_parser("list", help="all agents and when they last reported").set_defaults(run=_agent_list)

    tenants = commands.add_parser("tenant", help="what a tenant may ask at most and see").add_subparsers(
        dest="verb", required=True
    )
    shown = tenants.add_parser("show", help="the limits of a tenant")
    shown.add_argument("--tenant", required=True)
    shown.set_defaults(run=_tenant_show)
    limits = tenants.add_parser("set", help="change limits of a tenant; followed within ten seconds")
    limits.add_argument("--tenant", required=True)
    for name, (kind, text) in TENANT_SETTINGS.items():
        limits.add_argument(f"--{name.replace('_', '-')}", type=kind, help=text)
    limits.add_argument(
        "--operator", choices=("yes", "no"), help="whether its administrators see how the whole appliance does"
    )
    limits.set_defaults(run=_tenant_set)

    seeds = commands.add_parser("seed", help="demo and lab data").add_subparsers(dest="verb", required=True)
    apply = seeds.add_parser("apply", help="load a seed bundle into its own tenant (never in production)")
    apply.add_argument("file", type=Path)
    apply.add_argument(
        "--history",
        type=_days,
        default=0,
        metavar="DAYS",
        help="generate history before what was measured, such as 30d",
    )
    apply.set_defaults(run=_seed_apply)

    inventory = commands.add_parser("inventory", help="sites, routers, ports and links as CSV files")
    verbs = inventory.add_subparsers(dest="verb", required=True)
    imported = verbs.add_parser("import", help="add and change what the files say; delete nothing")
    imported.add_argument("--tenant", required=True)
    imported.add_argument("--dry-run", action="store_true", help="only say what would be done")
    imported.add_argument("files", type=Path, nargs="+", metavar="FILE")
    imported.set_defaults(run=_inventory_import)
    exported = verbs.add_parser("export", help="write the inventory as files that import as unchanged")
    exported.add_argument("--tenant", required=True)
    exported.add_argument("directory", type=Path, metavar="DIRECTORY")
    exported.set_defaults(run=_inventory_export)

    link = command("login-link", _login_link, "print an address that signs in once")
    link.add_argument("--user", default="admin", help="made if there is none of that name; default: admin")
    link.add_argument(
        "--role", choices=["admin", "noc", "readonly"], default="admin", help="of a new user; default: admin"
    )
    link.add_argument("--tenant", help="needed for a new user when there are several tenants")
    link.add_argument("--valid-minutes", type=int, default=60, metavar="N")

    check = commands.add_parser("check-config", help="say what is wrong with a configuration file")
    check.add_argument("file", type=Path)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run one command; the return value is the exit code."""
    arguments = _parser().parse_args(argv)
    if arguments.command == "check-config":
        return _check_config(arguments.file)
    try:
        settings = load(arguments.config)
        result: int = arguments.run(settings, arguments)
    except SettingsError as error:
        print(error, file=sys.stderr)
        return 2
    except CommandRefusedError as error:
        print(f"refused: {error}", file=sys.stderr)
        return 3
    except (ValueError, LookupError) as error:
        print(error.args[0] if error.args else error, file=sys.stderr)
        return 2
    except psycopg.OperationalError as error:
        print(f"database: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(error, file=sys.stderr)
        return 1
    return result


if __name__ == "__main__":
    sys.exit(main())
