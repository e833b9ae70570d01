"""The command `ispvm-agent`."""

from __future__ import annotations

import argparse
import asyncio
import getpass
import sys
from pathlib import Path

from ispvm_agent import __version__, config, credentials, daemon, replay, reports, service
from ispvm_agent.routeros import allowlist


def _say_error(text: str) -> int:
    print(text, file=sys.stderr)
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ispvm-agent", description="Polls MikroTik routers and reports to the server."
    )
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument("--config", type=Path, default=config.DEFAULT_PATH, metavar="FILE", help="default: %(default)s")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("run", help="the daemon")
    check = commands.add_parser("check", help="connect to a router, try every collector, say what is missing")
    check.add_argument("router")
    check.add_argument("--json", action="store_true")
    check_config = commands.add_parser("check-config", help="judge a configuration file")
    check_config.add_argument("file", type=Path)
    credential = commands.add_parser("credential", help="store a router password, encrypted to this machine")
    credential.add_argument("action", choices=["set"])
    credential.add_argument("name")
    token = commands.add_parser("token", help="make the server token if there is none; prints its SHA-256")
    token.add_argument("action", choices=["ensure"])
    again = commands.add_parser("replay", help="what waits to be delivered, what was lost; --send tries now")
    again.add_argument("--since", metavar="TIME", help="only batches stored since, such as 2026-11-22T14:00 (UTC)")
    again.add_argument("--until", metavar="TIME", help="only batches stored until")
    again.add_argument("--send", action="store_true", help="do not wait for the next try of a failed delivery")
    again.add_argument("--json", action="store_true")
    for name, text in (
        ("status", "how the running agent is doing"),
        ("transparency", "everything that is sent to routers and everything that leaves the site"),
    ):
        commands.add_parser(name, help=text).add_argument("--json", action="store_true")
    return parser


def _set_credential(name: str) -> int:
    if sys.stdin.isatty():
        secret = getpass.getpass(f"Password for credential {name}: ")
    else:
        secret = sys.stdin.read().rstrip("\r\n")
    print("changed" if credentials.store(credentials.router_credential(name), secret) else "unchanged")
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        match options.command:
            case "check-config":
                allowlist.verify(config.load(options.file).agent.commands_sha256)
            case "credential":
                if not config.CREDENTIAL_NAME.fullmatch(options.name):
                    return _say_error(f"{options.name!r}: use only letters, digits, - and _")
                return _set_credential(options.name)
            case "token":
                digest, made = credentials.ensure_token()
                print(digest)
                print("changed" if made else "unchanged")
            case "transparency":
                print(reports.transparency(options.json))
            case "status":
                return reports.status(options.json)
            case "replay":
                if options.send:
                    return replay.send_now()
                directory = Path(config.load(options.config).spool.directory)
                return replay.show(directory, options.since, options.until, options.json)
            case "check":
                settings = config.load(options.config)
                allowlist.verify(settings.agent.commands_sha256)
                return asyncio.run(reports.check(settings, options.router, options.json))
            case "run":
                service.log_to_journal()
                settings = config.load(options.config)
                allowlist.verify(settings.agent.commands_sha256)
                asyncio.run(daemon.run(settings))
    except config.ConfigError as error:
        return _say_error(str(error))
    except (credentials.CredentialError, allowlist.AllowListError) as error:
        return _say_error(str(error))
    return 0
