"""Answers for people: does this router work, how is the agent doing, what does it send and where."""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request
from typing import Any

from ispvm_contract import ingest
from ispvm_contract.registry import registry

from ispvm_agent import collectors, credentials, service
from ispvm_agent.collectors.base import Collector, Moment, Version
from ispvm_agent.config import Config, Router
from ispvm_agent.poller import target_of
from ispvm_agent.routeros import allowlist, values
from ispvm_agent.routeros.commands import AIMS, SUBSCRIBER_TYPES, Command
from ispvm_agent.routeros.session import RouterError, Session, connect

_VERSIONS = ((6, 49), (7, 5), (7, 22))  # between them every command is asked
_WITHHELD = (
    "passwords, keys and other secrets: no command asks for a field that holds one",
    "configuration: no command exports it, no comment is read; of a change only who, when and what kind",
    "subscribers: PPP sessions, DHCP leases, connections and pool addresses are counted by the router, never listed; "
    "of radios' clients only the signal is asked for, of queues only the drops; "
    f"interfaces of the types {', '.join(SUBSCRIBER_TYPES)} are not asked for",
    "neighbours: only where an interface has exactly one, a link; their MAC and IP addresses are not asked for",
    "routes, ARP, logs, names of users who are logged in, MAC addresses, SIM and modem numbers: never asked for",
)
_AIMED = "<what the router listed just before>"
_PROBES = (
    "probe.ping.loss_pct", "probe.ping.rtt_ms", "probe.ping.jitter_ms", "probe.tcp.up", "probe.tcp.connect_ms",
    "probe.http.up", "probe.http.status", "probe.http.latency_ms", "probe.dns.up", "probe.dns.latency_ms",
)  # fmt: skip
_ALSO = ("device.up", "device.api.up", "device.poll.duration_ms", "device.poll.bytes")
_COMPLETE = frozenset({"resource", "interfaces", "clock"})  # every router can tell all that these ask for
_ROUNDS = 4  # of questions to one collector
_ALSO_EVENTS = ("device.reachable.changed", "device.api.changed", "device.rebooted")


# transparency


def commands_of(collector: Collector) -> list[Command]:
    """What a collector may send, over all versions."""
    first = [question for version in _VERSIONS for question in collector.ask(version)]
    return list(dict.fromkeys([*(q for q in first if isinstance(q, Command)), *collector.later]))


def disclosure() -> dict[str, Any]:
    """Everything sent to routers and everything that leaves the site, from the code that does it."""
    known = registry()
    catalogue = collectors.catalogue()
    published = (*_ALSO, *_PROBES, *_ALSO_EVENTS, *(name for collector in catalogue for name in collector.publishes))
    asked: dict[Command, Collector] = {}
    for collector in catalogue:
        for command in commands_of(collector):
            asked.setdefault(command, collector)  # what several read is sent once
    return {
        "commands_sha256": allowlist.digest(),
        "to_routers": [
            {"words": ["/login", "=name=<user>", "=password=<credential>"], "collector": "login", "tier": "once"},
            *(
                {"words": list(command.words), "collector": collector.name, "tier": collector.tier}
                | ({"aimed_at": AIMS[command] + _AIMED} if command in AIMS else {})
                for command, collector in asked.items()
            ),
            {"words": ["ICMP echo request"], "collector": "ping", "tier": "every probe_seconds"},
        ],
        "to_server": {
            "metrics": {name: known.metrics[name].description for name in published if name in known.metrics},
            "events": {name: known.events[name].description for name in published if name in known.events},
            "device": list(ingest.DevicePatch.__struct_fields__),
            "entities": {
                "interface": ["name", "type"],
                "bgp_peer": ["name", "remote_address", "remote_as"],
                "ospf_neighbor": ["router_id", "address", "interface"],
                "bfd_session": ["address", "interface"],
                "netwatch": ["name", "host", "type"],
                "neighbor": ["identity", "platform", "board", "version", "interface", "remote_interface"],
                "sensor": ["name"],
                "radio": ["name"],
                "lte": ["name", "operator", "technology"],
                "pool": ["name"],
                "probe_target": ["name", "kind", "target"],
            },
            "heartbeat": list(ingest.Heartbeat.__struct_fields__),
            "heartbeat.routers": list(ingest.RouterSummary.__struct_fields__),
        },
        "withheld": list(_WITHHELD),
    }


def transparency(as_json: bool) -> str:
    """`disclosure` as text or JSON."""
    facts = disclosure()
    if as_json:
        return json.dumps(facts, indent=2)
    lines = [f"Commands for routers, SHA-256 of the list: {facts['commands_sha256']}", ""]
    lines += ["Sent to routers (nothing else can be):"]
    lines += [
        f"  {entry['tier']:<8} {entry['collector']:<12} {' '.join(entry['words'])} {entry.get('aimed_at', '')}".rstrip()
        for entry in facts["to_routers"]
    ]
    leaving = facts["to_server"]
    for title in ("metrics", "events"):
        lines += ["", f"Leaves the site, {title}:"]
        lines += [f"  {name:<34} {text}" for name, text in leaving[title].items()]
    lines += ["", "Leaves the site, about each router: " + ", ".join(leaving["device"])]
    lines += [f"Leaves the site, about each {kind}: {', '.join(names)}" for kind, names in leaving["entities"].items()]
    lines += ["Leaves the site, every 15 s: " + ", ".join(leaving["heartbeat"])]
    lines += ["  and of each router: " + ", ".join(leaving["heartbeat.routers"])]
    lines += ["", "Stays:", *(f"  {text}" for text in facts["withheld"])]
    return "\n".join(lines)


# status


def status(as_json: bool, port: int = service.METRICS_PORT) -> int:
    """Ask the running agent on loopback; prints, and returns 1 when it does not answer."""
    try:
        with urllib.request.urlopen(f"http://{service.METRICS_HOST}:{port}/status", timeout=5) as answer:
            facts: dict[str, Any] = json.load(answer)
    except (urllib.error.URLError, OSError, ValueError) as error:
        print(
            f"the agent does not answer on port {port}: {error}; look at `systemctl status ispvm-agent`",
            file=sys.stderr,
        )
        return 1
    if as_json:
        print(json.dumps(facts, indent=2))
        return 0
    server, spool = facts["server"], facts["spool"]
    print(f"agent {facts['agent']} {facts['version']}, ping {facts['probes']}")
    print(f"server: {server['batches_sent']} batches delivered, {server['last_error'] or 'no error'}")
    print(f"spool: {spool['batches']} batches, {spool['bytes']} bytes; {spool['dropped_batches']} dropped, "
          f"{spool['set_aside']} refused by the server and set aside")  # fmt: skip
    for router in facts["routers"]:
        ping = {True: "answers ping", False: "does not answer ping", None: "ping unknown"}[router["reachable"]]
        print(f"{router['name']}: {router['state']}, {ping} {router.get('detail', '')}".rstrip())
        if "bytes_per_minute" in router:
            costs = sorted(router["costs"].items(), key=lambda cost: -cost[1]["ms"])
            dearest = ", ".join(f"{name} {c['ms']:g} ms {c['rows']} rows {c['bytes']} bytes" for name, c in costs[:3])
            cpu = "/".join(str(router.get(key, "?")) for key in ("cpu_before", "cpu_after"))
            print(f"  costs it {router['ms_per_minute']:g} ms and {router['bytes_per_minute']} bytes a minute; "
                  f"CPU before/after {cpu} %; most: {dearest}")  # fmt: skip
        for name, reason in router.get("disabled_collectors", {}).items():
            print(f"  without {name}: {reason}")
    return 0


# check

_FIXES = {
    "auth": "set the password again with `ispvm-agent credential set {r.credential}` and on the router with "
    "`/user set [find name={r.user}] password=...`",
    "refused": "on the router: `/ip service print` must show {service} on port {r.port}, enabled, with this host in "
    "`address`",
    "unreachable": "check the address {r.address}, the route to it and firewalls for TCP port {r.port}",
    "timeout": "the router is overloaded or the path loses packets: look at `/system resource print` there",
    "trap": "on the router: the group of user {r.user} needs the policies read and api",
    "protocol": 'check port {r.port} and tls = "{r.tls}": api-ssl needs a certificate on the router that fits '
    "ca_file or fingerprint_sha256",
}


def explain(router: Router, state: str) -> str:
    """What to do about a state."""
    return _FIXES[state].format(r=router, service="api" if router.tls == "off" else "api-ssl")


async def examine(router: Router, password: str) -> dict[str, Any]:
    """Connect, log in, try every collector; says what works and what is missing."""
    report: dict[str, Any] = {"router": router.name, "address": router.address, "warnings": [], "collectors": {}}
    if router.tls == "off":
        report["warnings"].append('tls = "off": the password travels in clear; enable api-ssl and use "ca" or "pin"')
    if router.tls == "anonymous":
        report["warnings"].append('tls = "anonymous": nobody proves to be the router; issue a certificate, use "ca"')
    try:
        session = await connect(target_of(router), router.user, password)
        try:
            report |= await _examine_collectors(session, report["collectors"])
        finally:
            session.close()
    except RouterError as error:
        report |= {"state": error.state, "detail": error.detail, "fix": explain(router, error.state)}
    return report


async def _examine_collectors(session: Session, verdicts: dict[str, Any]) -> dict[str, Any]:
    """Fill `verdicts` by collector; returns state, version and bytes. Raises RouterError when the session breaks."""
    (resource,) = await session.run([Command.RESOURCE])
    version = values.version(resource.rows[0].get("version")) if resource.rows else None
    if version is None:
        raise session.failure or RouterError(
            "trap", f"/system/resource tells no version: {resource.trap or 'no answer'}"
        )
    uptime = values.duration(resource.rows[0].get("uptime"))
    for collector in collectors.catalogue():
        verdicts[collector.name] = await _examine_collector(session, collector, version, uptime)
    state = {"state": "ok", "version": resource.rows[0]["version"], "bytes": session.received_bytes}
    if unseen := collectors.unseen(version):
        state["unseen"] = unseen
    return state | ({} if session.tagged else {"untagged": True})


async def _examine_collector(
    session: Session, collector: Collector, version: Version, uptime: float | None
) -> dict[str, Any]:
    """Ask, and ask on while the answers lead to more; what was found, or the problem and its fix."""
    verdict: dict[str, Any] = {"ok": True, "commands": []}
    found: set[str] = set()
    for _ in range(_ROUNDS):
        commands = collector.ask(version)
        if not commands:
            return verdict | {"absent": "this version of RouterOS has no such menu"}
        replies = dict(zip(commands, await session.run(commands), strict=True))
        if session.failure is not None:
            raise RouterError(session.failure.state, f"collector {collector.name}: {session.failure.detail}")
        verdict["commands"] = [command.words[0] for command in commands]
        for command, reply in replies.items():
            seen = {key for row in reply.rows for key in row}
            if reply.trap is not None:
                fix = _menu_fix(reply.trap, command.policies)
                return verdict | {"ok": False, "problem": f"{command.menu}: {reply.trap}", "fix": fix}
            if collector.name in _COMPLETE and (missing := [name for name in command.fields if name not in seen]):
                verdict.setdefault("not_told", []).extend(f"{command.menu} {name}" for name in missing)
        findings = collector.publish(replies, Moment(0.0, uptime))
        found |= set(findings.device) | set(findings.about)
        found |= {metric for table in findings.tables for metric in table.columns}
        if not collector.hurry:
            break
    return verdict | {"found": sorted(found)}


def _menu_fix(trap: str, policies: str) -> str:
    if "permission" in trap:
        return f"the user's group needs the policies {policies}"
    return "nothing to do when this router does not use it; its collector is left out"


async def check(settings: Config, name: str, as_json: bool) -> int:
    """Examine one router and print the report; 0 when the router answers."""
    router = next((router for router in settings.routers if router.name == name), None)
    if router is None:
        names = ", ".join(router.name for router in settings.routers)
        print(f"router {name!r} is not in the configuration; it has {names}", file=sys.stderr)
        return 2
    password = credentials.read(credentials.router_credential(router.credential))
    report = await examine(router, password)
    if as_json:
        print(json.dumps(report, indent=2))
        return int(report["state"] != "ok")
    told = f"RouterOS {report['version']}" if report["state"] == "ok" else f"{report['state']}: {report['detail']}"
    print(f"{name} ({router.address} port {router.port}): {told}")
    for warning in [*report["warnings"], *([report["unseen"]] if "unseen" in report else [])]:
        print(f"  warning: {warning}")
    if "fix" in report:
        print(f"  fix: {report['fix']}")
    for collector, verdict in report["collectors"].items():
        print(f"  {collector:<12} {verdict.get('absent', 'ok') if verdict['ok'] else verdict['problem']}")
        if not verdict["ok"]:
            print(f"               {verdict['fix']}")
        if "not_told" in verdict:
            print(f"               the router does not tell: {', '.join(verdict['not_told'])}")
    return int(report["state"] != "ok")
