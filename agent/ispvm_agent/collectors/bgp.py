"""BGP peers: v6 lists configured peers with their state; v7 lists live sessions, joined here with the configured."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ispvm_contract.ingest import Value
from ispvm_contract.registry import registry

from ispvm_agent.collectors.base import (
    Attributes,
    Changes,
    Entity,
    Findings,
    Moment,
    Replies,
    Stateless,
    Table,
    Tier,
    Version,
    unique,
)
from ispvm_agent.routeros import values
from ispvm_agent.routeros.commands import Command

STATES = registry().metrics["bgp.peer.state"].values


@dataclass(frozen=True, slots=True)
class Peer:
    """A peer as far as it is known; a disabled one has no state, since nobody expects it to be up."""

    name: str
    remote: str
    remote_as: int | None
    state: str | None
    uptime: float | None = None
    prefixes_in: int | None = None


def peers_v6(rows: list[values.Row]) -> list[Peer]:
    """From /routing/bgp/peer."""
    peers = []
    for row in rows:
        state = row.get("state", "").lower() or "idle"  # a peer that was never tried has no state yet
        if values.boolean(row, "disabled"):
            state = ""
        up = state == "established"
        peers.append(
            Peer(
                name=values.text(row, "name") or values.text(row, "remote-address") or "?",
                remote=values.text(row, "remote-address"),
                remote_as=values.integer(row, "remote-as"),
                state=state if state in STATES else None,
                uptime=values.duration(row.get("uptime")) if up else None,
                prefixes_in=values.integer(row, "prefix-count") if up else None,
            )
        )
    return peers


def _address(row: values.Row) -> str:
    """The one remote address of a connection or session; "" for a range, which accepts anybody in it."""
    address, _, length = values.text(row, "remote.address").partition("/")
    return address if length in ("", "128" if ":" in address else "32") else ""


def _take_session(name: str, remote: str, sessions: list[values.Row]) -> values.Row | None:
    """Remove and return the session of a connection: to the same address, by preference called "name-1", then live."""
    candidates = [session for session in sessions if _address(session) == remote]
    if not candidates:
        return None
    best = max(
        candidates,
        key=lambda session: (
            re.sub(r"-\d+$", "", values.text(session, "name")) == name,
            values.boolean(session, "established") is True,
        ),
    )
    del sessions[next(place for place, session in enumerate(sessions) if session is best)]
    return best


def peers_v7(connections: list[values.Row], sessions: list[values.Row]) -> list[Peer]:
    """Configured connections with their session, then sessions of connections that accept anybody in a range.

    The router keeps ended sessions for some time, so only `established` counts; a connection without session is down.
    """
    unmatched = list(sessions)
    peers = []
    for connection in connections:
        name, remote = values.text(connection, "name") or "?", _address(connection)
        session = _take_session(name, remote, unmatched) if remote else None
        if values.boolean(connection, "disabled"):
            peers.append(Peer(name, remote, values.integer(connection, "remote.as"), None))
        elif remote:
            peers.append(_peer(name, remote, values.integer(connection, "remote.as"), session))
    for session in unmatched:
        remote = _address(session)
        name = values.text(session, "name") or remote or "?"
        peers.append(_peer(name, remote, values.integer(session, "remote.as"), session))
    return peers


def _peer(name: str, remote: str, remote_as: int | None, session: values.Row | None) -> Peer:
    if session is None or not values.boolean(session, "established"):
        return Peer(name, remote, remote_as, "idle")
    return Peer(
        name,
        remote,
        remote_as or values.integer(session, "remote.as"),
        "established",
        values.duration(session.get("uptime")),
        values.integer(session, "prefix-count"),
    )


class Bgp(Stateless):
    """State, uptime and accepted prefixes of each peer."""

    name = "bgp"
    tier: Tier = "medium"
    publishes: tuple[str, ...] = (
        "bgp.peer.up", "bgp.peer.state", "bgp.peer.uptime_seconds", "bgp.peer.prefixes_in", "bgp.peer.state.changed",
    )  # fmt: skip

    def __init__(self) -> None:
        """No state to compare with yet."""
        self._changes = Changes("bgp.peer.state.changed", "bgp_peer", "critical")

    def ask(self, version: Version) -> tuple[Command, ...]:
        """One menu on v6, two on v7."""
        if version >= (7, 0):
            return (Command.BGP_CONNECTIONS_V7, Command.BGP_SESSIONS_V7)
        return (Command.BGP_PEERS_V6,)

    def publish(self, replies: Replies, moment: Moment) -> Findings:
        """A table of peers by name."""
        if Command.BGP_PEERS_V6 in replies:
            peers = peers_v6(replies[Command.BGP_PEERS_V6].rows)
        else:
            peers = peers_v7(replies[Command.BGP_CONNECTIONS_V7].rows, replies[Command.BGP_SESSIONS_V7].rows)
        by_key: dict[str, Peer] = {}
        for peer in peers:
            by_key[unique(peer.name, peer.remote, by_key)] = peer
        found = Findings(events=self._changes.note({key: peer.state for key, peer in by_key.items()}))
        if not by_key:
            return found
        columns: dict[str, list[Value]] = {
            "bgp.peer.up": [None if p.state is None else p.state == "established" for p in by_key.values()],
            "bgp.peer.state": [None if p.state is None else STATES.index(p.state) for p in by_key.values()],
            "bgp.peer.uptime_seconds": [p.uptime for p in by_key.values()],
            "bgp.peer.prefixes_in": [p.prefixes_in for p in by_key.values()],
        }
        found.tables.append(Table("bgp_peer", list(by_key), columns))
        for key, peer in by_key.items():
            attributes: Attributes = {"remote_address": peer.remote, "remote_as": peer.remote_as}
            found.entities.append(Entity("bgp_peer", key, peer.name, attributes))
        return found
