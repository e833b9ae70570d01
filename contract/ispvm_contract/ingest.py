"""Ingest v1: what an agent sends. The JSON Schemas in `contract/schemas/` are generated from these types.

A batch is columnar: a *poll* is everything one router answered about one entity type at one moment; its columns are
arrays in the order of a named key set. Absent is `None`, never 0; in a packed column it is the value that its kind
keeps for that. Changes within v1 are additive only.
"""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID

import msgspec
from msgspec import Meta, Struct

SCHEMA_VERSION = 1
MAX_METRICS = 50_000
MAX_EVENTS = 10_000
MAX_BODY_BYTES = 8 * 1024 * 1024
MAX_DECOMPRESSED_BYTES = 64 * 1024 * 1024
MAX_FUTURE_SECONDS = 300
# An agent that misses three heartbeats is offline.
HEARTBEAT_SECONDS = 15

Key = Annotated[str, Meta(min_length=1, max_length=255)]
SetId = Annotated[str, Meta(pattern="^[0-9a-f]{16}$")]
EpochMs = Annotated[int, Meta(ge=0, description="UTC, milliseconds since 1970")]
Quality = Literal["good", "estimated", "stale"]
Severity = Literal["info", "warning", "critical"]
Value = float | int | bool | None
Packed = Annotated[bytes, Meta(description="values of the metric's kind one after another, little-endian")]
Column = list[Value] | Packed


class Agent(Struct, forbid_unknown_fields=False):
    """Who sends. The token binds the sender to a tenant and sites; this names it for people."""

    name: Key
    version: Key
    capabilities: list[str] = []


class Poll(Struct, omit_defaults=True):
    """One router's answer about one entity type at one moment.

    `set` names an entry of `Batch.sets` and is absent exactly when `entity_type` is "device" (then every column has one
    value). `columns` maps registry metric names to columns as long as the key set: lists, or packed (`packed.py`).
    `interval_s` is the time since the previous good poll, over which rates were computed.
    `reset` marks the keys (by position) whose counters went backwards: their rates are None.
    """

    device: UUID
    ts: EpochMs
    entity_type: Key
    columns: dict[str, Column]
    set: SetId | None = None
    interval_s: float | None = None
    quality: Quality = "good"
    source: str = "routeros_api"
    reset: list[int] = []


class Event(Struct, omit_defaults=True):
    """Something that happened: a registry event with its old and new value."""

    id: UUID
    ts: EpochMs
    name: Key
    device: UUID
    severity: Severity
    entity_type: Key = "device"
    key: str | None = None
    old: str | None = None
    new: str | None = None
    payload: dict[str, str | float | int | bool | None] = {}


class DevicePatch(Struct, omit_defaults=True):
    """A router the agent polls, and what it says of itself."""

    id: UUID
    name: Key
    site: Key
    address: str
    vendor: str = "MikroTik"
    model: str | None = None
    routeros: str | None = None
    serial: str | None = None
    identity: str | None = None
    architecture: str | None = None


class EntityPatch(Struct, omit_defaults=True):
    """An entity inside a router: an interface, a BGP peer, an OSPF neighbour. `key` is stable, `name` is for people."""

    device: UUID
    entity_type: Key
    key: Key
    name: str
    attributes: dict[str, str | float | int | bool | None] = {}


class InventoryPatch(Struct, omit_defaults=True):
    """What is new or changed since the last batch; repeating it changes nothing."""

    devices: list[DevicePatch] = []
    entities: list[EntityPatch] = []


class Batch(Struct, omit_defaults=True):
    """POST /ingest/v1/batch. `id` makes a repeated batch harmless."""

    schema_version: Literal[1]
    id: UUID
    sent_at: EpochMs
    agent: Agent
    sets: dict[SetId, list[Key]] = {}
    polls: list[Poll] = []
    events: list[Event] = []
    inventory_patch: InventoryPatch = msgspec.field(default_factory=InventoryPatch)


class RouterSummary(Struct, omit_defaults=True):
    """How the agent gets on with one router, and what that costs the router.

    `ms_per_minute` and `bytes_per_minute` are of about the last five minutes; `slowed` is why slower tiers wait.
    """

    device: UUID
    name: Key
    state: Literal["ok", "auth", "refused", "timeout", "unreachable", "trap", "protocol", "waiting"]
    detail: str = ""
    last_good: EpochMs | None = None
    poll_ms: float | None = None
    bytes_per_poll: int | None = None
    disabled_collectors: dict[str, str] = {}
    ms_per_minute: float | None = None
    bytes_per_minute: int | None = None
    cpu_before: int | None = None
    cpu_after: int | None = None
    slowed: str = ""


class Heartbeat(Struct, omit_defaults=True):
    """POST /ingest/v1/heartbeat. `clock_synchronised` is what the host's NTP client says; None is unknown.

    `dropped_batches` were lost by the agent; `refused_batches` were set aside because the server will never take them.
    """

    schema_version: Literal[1]
    sent_at: EpochMs
    agent: Agent
    started_at: EpochMs
    buffer_depth: int = 0
    buffer_bytes: int = 0
    oldest_buffered: EpochMs | None = None
    dropped_batches: int = 0
    refused_batches: int = 0
    clock_synchronised: bool | None = None
    routers: list[RouterSummary] = []


class Rejection(Struct):
    """One part of a batch that was not stored, by its place ("polls[3]"), and why. The rest was stored."""

    at: str
    reason: str


class BatchAnswer(Struct):
    """200: the batch is durable. `duplicate` means it already was."""

    id: UUID
    status: Literal["stored", "duplicate"]
    rejected: list[Rejection] = []


class HeartbeatAnswer(Struct):
    """200. `server_time` lets the agent know its own clock error."""

    server_time: EpochMs


class Refusal(Struct):
    """Any 4xx or 5xx: the field at fault, what is wrong, what to do."""

    field: str
    problem: str
    fix: str
