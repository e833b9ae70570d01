"""Menus that list things which are up or down: netwatch, BFD. Each is a line of a table, not a class."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ispvm_contract.ingest import Severity, Value

from ispvm_agent.collectors.base import (
    Changes,
    Entity,
    Findings,
    Moment,
    Replies,
    Stateless,
    Table,
    Tier,
    Version,
    filled,
    since,
    unique,
)
from ispvm_agent.routeros import values
from ispvm_agent.routeros.commands import Command
from ispvm_agent.routeros.values import Row


@dataclass(frozen=True, slots=True)
class Listing:
    """A menu: its command by version, what a row is called, what it tells, and the event of a change."""

    name: str
    tier: Tier
    entity_type: str
    menus: Mapping[Version, Command | None]  # by the version from which on they exist
    key: Callable[[Row], str]  # "" leaves the row out
    told: Callable[[Row], str | None]  # the word of its state; None is unknown
    metrics: Mapping[str, Callable[[Row], Value]]
    attributes: Mapping[str, str]  # ours -> the router's field
    event: str
    severity: Severity


class Listed(Stateless):
    """The collector of one listing."""

    def __init__(self, listing: Listing) -> None:
        """No states to compare with yet."""
        self.listing = listing
        self.name = listing.name
        self.tier: Tier = listing.tier
        self.publishes: tuple[str, ...] = (*listing.metrics, listing.event)
        self._changes = Changes(listing.event, listing.entity_type, listing.severity)

    def ask(self, version: Version) -> tuple[Command, ...]:
        """The menu of this version."""
        return since(version, self.listing.menus)

    def publish(self, replies: Replies, moment: Moment) -> Findings:
        """A table of the rows that have a name."""
        ((_, reply),) = replies.items()
        listing, found = self.listing, Findings()
        rows: dict[str, Row] = {}
        for row in reply.rows:
            if name := listing.key(row)[:200]:
                rows[unique(name, "again", rows)] = row
        columns = filled({metric: [tell(row) for row in rows.values()] for metric, tell in listing.metrics.items()})
        if columns:
            found.tables.append(Table(listing.entity_type, list(rows), columns))
            found.entities = [
                Entity(
                    listing.entity_type,
                    key,
                    key,
                    {ours: values.text(row, theirs) or None for ours, theirs in listing.attributes.items()},
                )
                for key, row in rows.items()
            ]
        found.events = self._changes.note({key: listing.told(row) for key, row in rows.items()})
        return found


def _up(row: Row) -> bool | None:
    """Whether `status` or `state` says up; unknown, init and disabled things are neither up nor down."""
    if values.boolean(row, "disabled"):
        return None
    return {"up": True, "down": False, "admin-down": None}.get((row.get("status") or row.get("state", "")).lower())


def _word(row: Row) -> str | None:
    return {True: "up", False: "down", None: None}[_up(row)]


def _netwatch_key(row: Row) -> str:
    host, kind, port = (values.text(row, name) for name in ("host", "type", "port"))
    plain = host if kind in ("", "simple") else f"{host} {kind}{f':{port}' if port else ''}"
    return values.text(row, "name") or plain


def _milliseconds(field: str) -> Callable[[Row], Value]:
    def tell(row: Row) -> Value:
        seconds = values.duration(row.get(field))
        return None if seconds is None else round(seconds * 1000, 3)

    return tell


NETWATCH = Listing(
    name="netwatch",
    tier="medium",
    entity_type="netwatch",
    menus={(6, 0): Command.NETWATCH_V6, (7, 0): Command.NETWATCH_V7},
    key=_netwatch_key,
    told=_word,
    metrics={
        "netwatch.up": _up,
        "netwatch.rtt_ms": _milliseconds("rtt-avg"),
        "netwatch.jitter_ms": _milliseconds("rtt-jitter"),
        "netwatch.loss_pct": lambda row: values.number(row, "loss-percent"),
    },
    attributes={"host": "host", "type": "type"},
    event="netwatch.changed",
    severity="warning",
)
BFD = Listing(
    name="bfd",
    tier="medium",
    entity_type="bfd_session",
    menus={(6, 0): Command.BFD_V6, (7, 0): None, (7, 11): Command.BFD_V7},
    key=lambda row: values.text(row, "remote-address") or values.text(row, "address"),
    told=_word,
    metrics={"bfd.session.up": _up, "bfd.session.uptime_seconds": lambda row: values.duration(row.get("uptime"))},
    attributes={"interface": "interface"},
    event="bfd.session.changed",
    severity="critical",
)
