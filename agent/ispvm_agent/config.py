"""agent.toml as typed values. Every fault is reported, one line each, naming the field and the fix."""

from __future__ import annotations

import ipaddress
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import urlsplit
from uuid import UUID

import msgspec
from ispvm_contract.identity import device_id
from msgspec import Meta, Struct

DEFAULT_PATH = Path("/etc/ispvm-agent/agent.toml")
Name = Annotated[str, Meta(min_length=1, max_length=255)]
Port = Annotated[int, Meta(ge=1, le=65535)]
CREDENTIAL_NAME = re.compile(r"[A-Za-z0-9_-]{1,100}")
_TARGETS = {
    "icmp": "192.0.2.1",
    "tcp": "192.0.2.1:443",
    "http": "https://www.example.net/",
    "dns": "www.example.net@192.0.2.53",
}
_SECRET_WORDS = ("password", "passwd", "secret", "token")
_Section = TypeVar("_Section", bound=Struct)


class ConfigError(ValueError):
    """All faults of a file, one a line."""

    def __init__(self, faults: list[str]) -> None:
        """One fault a line."""
        super().__init__("\n".join(faults))
        self.faults = faults


class Agent(Struct, frozen=True, kw_only=True):
    """Who this agent is, and optionally which list of commands the site has approved (`ispvm-agent transparency`)."""

    name: Name
    tenant: Name
    commands_sha256: Annotated[str, Meta(pattern="^[0-9a-fA-F]{64}$")] | None = None


class Server(Struct, frozen=True, kw_only=True):
    """Where it reports."""

    url: Name
    ca_file: str | None = None


class Polling(Struct, frozen=True, kw_only=True):
    """How often the tiers run, in seconds, and what a router may be burdened with before slower tiers are left out."""

    fast_seconds: Annotated[float, Meta(ge=1, le=3600)] = 30
    medium_seconds: Annotated[float, Meta(ge=1, le=3600)] = 60
    slow_seconds: Annotated[float, Meta(ge=1, le=86400)] = 300
    probe_seconds: Annotated[float, Meta(ge=1, le=3600)] = 10
    budget_ms_per_minute: Annotated[int, Meta(ge=1, le=60_000)] = 15_000
    budget_kilobytes_per_minute: Annotated[int, Meta(ge=1, le=1_000_000)] = 4_000
    cpu_percent: Annotated[int, Meta(ge=30, le=100)] = 85


class Spool(Struct, frozen=True, kw_only=True):
    """How much is kept on disk while the server cannot be reached."""

    max_megabytes: Annotated[int, Meta(ge=1, le=1_000_000)] = 2048
    max_age_hours: Annotated[int, Meta(ge=1, le=8760)] = 168
    directory: str = "/var/lib/ispvm-agent"


class Router(Struct, frozen=True, kw_only=True):
    """One router. `tls_server_name` is the name in its certificate when that is not the address."""

    name: Name
    site: Name
    address: Name
    port: Port = 8729
    user: Name
    tls: Literal["ca", "pin", "anonymous", "off"] = "ca"
    ca_file: str | None = None
    fingerprint_sha256: str | None = None
    tls_server_name: str | None = None
    credential: Name
    id: UUID | None = None


class Probe(Struct, frozen=True, kw_only=True):
    """Something else that the agent measures; shown with `router`. `target` is what `kind` says:

    icmp "192.0.2.1", tcp "192.0.2.1:443", http "https://www.example.net/", dns "www.example.net@192.0.2.53".
    """

    name: Name
    kind: Literal["icmp", "tcp", "http", "dns"]
    target: Name
    router: Name
    seconds: Annotated[float, Meta(ge=1, le=3600)] | None = None  # 30 when not given; ping has polling.probe_seconds


class Config(Struct, frozen=True, kw_only=True):
    """The whole file."""

    agent: Agent
    server: Server
    polling: Polling
    spool: Spool
    routers: tuple[Router, ...]
    probes: tuple[Probe, ...] = ()

    def device_id(self, router: Router) -> UUID:
        """The router's identity: as configured, else derived from tenant and name."""
        return router.id or device_id(self.agent.tenant, router.name)


def _section(raw: Any, kind: type[_Section], at: str, faults: list[str]) -> _Section | None:
    """One table of the file, each field judged on its own, so that all faults are found at once."""
    if not isinstance(raw, dict):
        faults.append(f"{at}: must be a table; write [{at}]")
        return None
    before = len(faults)
    fields = {field.name: field for field in msgspec.structs.fields(kind)}
    values: dict[str, Any] = {}
    for key, value in raw.items():
        if any(word in key.lower() for word in _SECRET_WORDS):
            fix = "remove it and store the secret with `ispvm-agent credential set NAME` or `ispvm-agent token ensure`"
            faults.append(f"{at}.{key}: secrets do not belong into this file; {fix}")
        elif key not in fields:
            faults.append(f"{at}.{key}: unknown; use one of {', '.join(fields)}")
        else:
            try:
                values[key] = msgspec.convert(value, fields[key].type)
            except msgspec.ValidationError as error:
                faults.append(f"{at}.{key}: {error}; got {value!r}")
    for name, field in fields.items():
        if field.required and name not in raw:
            faults.append(f"{at}.{name}: missing; add it")
    return kind(**values) if len(faults) == before else None


def _router_faults(router: Router, at: str) -> list[str]:
    faults = []
    try:
        ipaddress.ip_address(router.address)
    except ValueError:
        faults.append(f"{at}.address: {router.address!r} is not an IP address; write one, names are not looked up")
    if not CREDENTIAL_NAME.fullmatch(router.credential):
        faults.append(f"{at}.credential: {router.credential!r}; use only letters, digits, - and _")
    if router.tls == "pin":
        pin = (router.fingerprint_sha256 or "").replace(":", "").lower()
        if not re.fullmatch(r"[0-9a-f]{64}", pin):
            faults.append(f'{at}.fingerprint_sha256: tls = "pin" needs the 64 hex digits of the certificate\'s SHA-256')
    elif router.fingerprint_sha256 is not None:
        faults.append(f'{at}.fingerprint_sha256: only used with tls = "pin"; set that or remove it')
    if router.ca_file is not None and router.tls != "ca":
        faults.append(f'{at}.ca_file: only used with tls = "ca"; set that or remove it')
    return faults


def endpoint(text: str, default: int | None = None) -> tuple[str, int]:
    """Host and port of "192.0.2.1:443" or "[2001:db8::1]:443"; raises ValueError saying what is wrong."""
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port or default
    except ValueError as error:
        raise ValueError(f"{text!r}: {error}") from None
    if not host or port is None or parts.netloc != text or parts.username is not None:
        raise ValueError(f"{text!r} is not HOST:PORT")
    return host, port


def _probe_faults(probe: Probe, at: str, routers: list[Router]) -> list[str]:
    faults = []
    if probe.router not in {router.name for router in routers}:
        faults.append(f"{at}.router: {probe.router!r} is not one of the routers; name the one whose page shows it")
    if probe.name == "management address":
        faults.append(f"{at}.name: {probe.name!r} is what each router's own ping is called; choose another")
    if probe.kind == "icmp" and probe.seconds is not None:
        faults.append(f"{at}.seconds: ping keeps to polling.probe_seconds; remove it")
    url = urlsplit(probe.target) if probe.kind == "http" else None
    try:
        if probe.kind == "icmp":
            ipaddress.ip_address(probe.target)
        elif probe.kind == "tcp":
            endpoint(probe.target)
        elif url is not None and (url.scheme not in ("http", "https") or not url.hostname or url.username):
            raise ValueError(f"{probe.target!r} is no http or https address without a user name")
        elif probe.kind == "dns":
            name, _, server = probe.target.rpartition("@")
            ipaddress.ip_address(endpoint(server, 53)[0])
            if not name or not all(0 < len(label) < 64 for label in name.rstrip(".").split(".")):
                raise ValueError(f"{name!r} is no name to ask for")
    except ValueError as error:
        faults.append(f"{at}.target: {error}; write it like {_TARGETS[probe.kind]}")
    return faults


def _repeated(values: list[str]) -> list[str]:
    return sorted({value for value in values if values.count(value) > 1})


def parse(text: str) -> Config:
    """Read a configuration; raises ConfigError with every fault."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([f"file: not TOML: {error}; quote texts and close brackets"]) from None
    faults: list[str] = []
    if raw.get("schema_version") != 1:
        faults.append(f"schema_version: must be 1, is {raw.get('schema_version')!r}; write schema_version = 1")
    known = ("schema_version", "agent", "server", "polling", "spool", "router", "probe")
    faults += [f"{key}: unknown; use one of {', '.join(known)}" for key in raw if key not in known]
    agent = _section(raw.get("agent", {}), Agent, "agent", faults)
    server = _section(raw.get("server", {}), Server, "server", faults)
    polling = _section(raw.get("polling", {}), Polling, "polling", faults)
    spool = _section(raw.get("spool", {}), Spool, "spool", faults)
    if server is not None and (urlsplit(server.url).scheme != "https" or not urlsplit(server.url).hostname):
        faults.append(f"server.url: {server.url!r} must begin with https:// and name a host")
    if polling is not None and not polling.fast_seconds <= polling.medium_seconds <= polling.slow_seconds:
        faults.append("polling.medium_seconds: must lie between fast_seconds and slow_seconds; reorder the three")
    tables = raw.get("router", [])
    if not isinstance(tables, list) or not tables:
        faults.append("router: none given; add a [[router]] table for each router")
        tables = []
    routers: list[Router] = []
    for index, table in enumerate(tables):
        named = table.get("name") if isinstance(table, dict) else None
        at = f"router[{named or index}]"
        router = _section(table, Router, at, faults)
        if router is not None:
            faults += _router_faults(router, at)
            routers.append(router)
    probes: list[Probe] = []
    if not isinstance(raw.get("probe", []), list):
        faults.append("probe: must be tables; write [[probe]]")
    else:
        for index, table in enumerate(raw.get("probe", [])):
            named = table.get("name") if isinstance(table, dict) else None
            probe = _section(table, Probe, f"probe[{named or index}]", faults)
            if probe is not None:
                faults += _probe_faults(probe, f"probe[{probe.name}]", routers)
                probes.append(probe)
    faults += [f"probe[{name}].name: used twice; names are unique" for name in _repeated([p.name for p in probes])]
    faults += [f"router[{name}].name: used twice; names are unique" for name in _repeated([r.name for r in routers])]
    ends = [f"{r.address} port {r.port}" for r in routers]
    faults += [f"router: {end} is configured twice; remove one" for end in _repeated(ends)]
    ids = [str(r.id) for r in routers if r.id]
    faults += [f"router: id {known_id} is used twice; ids are unique" for known_id in _repeated(ids)]
    if faults or agent is None or server is None or polling is None or spool is None:
        raise ConfigError(faults)
    return Config(
        agent=agent, server=server, polling=polling, spool=spool, routers=tuple(routers), probes=tuple(probes)
    )


def load(path: Path) -> Config:
    """Read a file; raises ConfigError."""
    try:
        return parse(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError([f"{path}: {error.strerror}; check the path and who may read it"]) from None
    except UnicodeDecodeError:
        raise ConfigError([f"{path}: not UTF-8; save it as UTF-8"]) from None
