"""OSPF neighbours. A lost neighbour simply disappears from the router's list, so those seen before are expected."""

from __future__ import annotations

import time
from typing import Any

from ispvm_contract.ingest import Value
from ispvm_contract.registry import registry

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
    since,
    unique,
)
from ispvm_agent.routeros import values
from ispvm_agent.routeros.commands import Command

STATES = registry().metrics["ospf.neighbor.state"].values
FORGET_SECONDS = 7 * 86400.0


def neighbor_state(row: values.Row) -> str | None:
    """The state in the registry's words; v7 writes "TwoWay" for "2-Way"."""
    state = row.get("state", "").lower().replace("twoway", "2-way")
    return state if state in STATES else None


def is_up(row: values.Row, state: str | None) -> bool | None:
    """Full; or 2-Way, which is where two routers stay that are neither DR nor BDR (v7 does not tell who is)."""
    if state == "2-way":
        return row.get("address") not in (row.get("dr-address", ""), row.get("backup-dr-address", ""))
    return None if state is None else state == "full"


class Ospf(Stateless):
    """State of each neighbour; one that vanished is down until it returns or is forgotten after a week."""

    name = "ospf"
    tier: Tier = "medium"
    publishes: tuple[str, ...] = (
        "ospf.neighbor.up", "ospf.neighbor.state", "ospf.neighbor.uptime_seconds", "ospf.neighbor.state.changed",
    )  # fmt: skip

    def __init__(self) -> None:
        """Nobody is expected yet."""
        self._expected: dict[str, dict[str, Any]] = {}  # key -> attributes, and "seen": epoch seconds
        self._changes = Changes("ospf.neighbor.state.changed", "ospf_neighbor", "critical")

    def ask(self, version: Version) -> tuple[Command, ...]:
        """One menu; v6 also tells who is the designated router."""
        return since(version, {(6, 0): Command.OSPF_V6, (7, 0): Command.OSPF_V7})

    def publish(self, replies: Replies, moment: Moment) -> Findings:
        """A table of all expected neighbours, keyed by router id and the interface they are seen on."""
        ((_, reply),) = replies.items()
        now = reply.midpoint + moment.wall_offset
        rows: dict[str, values.Row] = {}
        for row in reply.rows:
            router_id, address = values.text(row, "router-id")[:120] or "?", values.text(row, "address")
            interface = values.text(row, "interface")
            key = unique(f"{router_id}@{(interface or address)[:120]}", address, rows)
            rows[key] = row
            self._expected[key] = {"router_id": router_id, "address": address, "interface": interface, "seen": now}
        self._expected = {k: v for k, v in self._expected.items() if now - v["seen"] < FORGET_SECONDS}
        found = Findings()
        if not self._expected:
            return found
        keys = list(self._expected)
        states = {key: neighbor_state(rows[key]) if key in rows else "down" for key in keys}
        columns: dict[str, list[Value]] = {
            "ospf.neighbor.up": [is_up(rows.get(key, {}), states[key]) for key in keys],
            "ospf.neighbor.state": [None if (s := states[key]) is None else STATES.index(s) for key in keys],
            "ospf.neighbor.uptime_seconds": [
                values.duration(rows[key].get("adjacency")) if states[key] == "full" else None for key in keys
            ],
        }
        found.tables.append(Table("ospf_neighbor", keys, columns))
        for key in keys:
            about = {name: value for name, value in self._expected[key].items() if name != "seen"}
            found.entities.append(Entity("ospf_neighbor", key, str(about["router_id"]), about))
        found.events = self._changes.note(states)
        return found

    def learned(self) -> dict[str, Any]:
        """The expected neighbours; times to the hour, so that it seldom differs from what was kept before."""
        return {"expected": {k: {**v, "seen": v["seen"] // 3600 * 3600} for k, v in self._expected.items()}}

    def restore(self, learned: dict[str, Any]) -> None:
        """Expect those known before the restart, unless that is too long ago."""
        oldest = time.time() - FORGET_SECONDS
        self._expected = {k: v for k, v in learned.get("expected", {}).items() if v["seen"] > oldest}
