"""`server.toml`: what it may say, and clear sentences about what is wrong with it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta, Struct

DEFAULT_PATH = Path("/etc/ispvm/server.toml")
_WINDOW = re.compile(r"([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d")
Days = Annotated[int, Meta(ge=1, le=36500)]


class SettingsError(ValueError):
    """Everything wrong with a configuration file, one sentence a line."""


class Database(Struct, frozen=True, forbid_unknown_fields=True):
    """How to reach PostgreSQL: libpq strings without a password (peer on the unix socket)."""

    dsn: str
    worker_dsn: str
    owner_dsn: str
    pool_size: Annotated[int, Meta(ge=1, le=500)] = 10


class Storage(Struct, frozen=True, forbid_unknown_fields=True):
    """Edition and chunk interval; both are computed by the installation."""

    timescaledb_edition: Literal["apache", "community"] = "apache"
    chunk_hours: Annotated[int, Meta(ge=1, le=24 * 30)] = 24


class Retention(Struct, frozen=True, forbid_unknown_fields=True):
    """How long each resolution is kept, and when heavy upkeep may run (local time of the host)."""

    raw_days: Days = 30
    rollup_1m_days: Days = 365
    rollup_1h_days: Days = 1825
    events_days: Days = 180
    maintenance_window: str = "02:00-05:00"


class Cache(Struct, frozen=True, forbid_unknown_fields=True):
    """Where answers are kept that several servers share; empty: in the memory of this one."""

    valkey: str = ""


class Settings(Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file."""

    schema_version: Literal[1]
    environment: Literal["production", "lab", "demo"]
    public_url: str
    database: Database
    socket: str = "/run/ispvm/server.sock"
    metrics_token_sha256: str = ""
    storage: Storage = Storage()
    retention: Retention = Retention()
    cache: Cache = Cache()

    @property
    def origin(self) -> str:
        """Scheme, host and port of `public_url`, as a browser writes them in the Origin header."""
        url = urlsplit(self.public_url)
        return f"{url.scheme}://{url.netloc}"


_SECTIONS: dict[str, type[Struct]] = {"database": Database, "storage": Storage, "retention": Retention, "cache": Cache}


def _faults(raw: dict[str, Any], kind: type[Struct], prefix: str = "") -> list[str]:
    """One sentence per wrong, unknown or missing field, in the order of the file."""
    fields = {field.name: field for field in msgspec.structs.fields(kind)}
    faults: list[str] = []
    for name, value in raw.items():
        path = f"{prefix}{name}"
        if name not in fields:
            faults.append(f"{path}: unknown field; known here: {', '.join(fields)}")
        elif name in _SECTIONS and not prefix:
            if isinstance(value, dict):
                faults += _faults(value, _SECTIONS[name], f"{name}.")
            else:
                faults.append(f"{path}: write it as a section, [{name}]")
        else:
            try:
                msgspec.convert(value, fields[name].type)
            except msgspec.ValidationError as error:
                faults.append(f"{path}: {str(error)[:1].lower()}{str(error)[1:]}")
    faults += [f"{prefix}{f.name}: missing; add it" for f in fields.values() if f.required and f.name not in raw]
    return faults


def parse(text: str) -> Settings:
    """Read a configuration; raises SettingsError with every fault, one a line."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"not TOML: {error}") from error
    faults = _faults(raw, Settings)
    url = urlsplit(str(raw.get("public_url", "https://x")))
    if url.scheme not in ("https", "http") or not url.netloc or url.path not in ("", "/"):
        faults.append("public_url: write it as https://name, without a path")
    window = raw.get("retention", {}).get("maintenance_window", "02:00-05:00") if not faults else "02:00-05:00"
    if not _WINDOW.fullmatch(window):
        faults.append("retention.maintenance_window: write it as HH:MM-HH:MM, such as 02:00-05:00")
    if (token := raw.get("metrics_token_sha256")) and not re.fullmatch("[0-9a-f]{64}", str(token)):
        faults.append("metrics_token_sha256: write the SHA-256 of the token, 64 hexadecimal digits, never the token")
    cache = raw.get("cache")
    if isinstance(cache, dict) and (valkey := cache.get("valkey")) and not re.fullmatch("unix:///[^?#]+", str(valkey)):
        # Answers hold what tenants may see: they do not cross a network, and a socket has an owner.
        faults.append("cache.valkey: write it as unix:///run/valkey/valkey.sock, the path of its socket")
    for name in ("dsn", "worker_dsn", "owner_dsn"):
        database = raw.get("database")
        if isinstance(database, dict) and re.search(r"\bpassword\s*=|://[^/@]*:[^/@]*@", str(database.get(name, ""))):
            faults.append(f"database.{name}: holds a password; use peer authentication on the unix socket instead")
    if faults:
        raise SettingsError("\n".join(faults))
    return msgspec.convert(raw, Settings)


def load(path: Path = DEFAULT_PATH) -> Settings:
    """Read the file at `path`; raises SettingsError, also when it cannot be read."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: cannot be read: {error}") from error
    return parse(text)
