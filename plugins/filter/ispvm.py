"""Filters that roles and inventories share: how the database is sized for a host and its load; networks."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Any

# Chunks begin and end on whole hours that divide a day. Landing rows live for two days and go once a day, with their
# chunk: a chunk of several days would keep them for as much longer.
CHUNK_HOURS = (1, 2, 3, 4, 6, 8, 12, 24)
# One row per device and poll, one index entry (device, ts) per row: 1 byte per interface sample at 50 interfaces.
INDEX_BYTES_PER_ROW = 50
# Interfaces at the fast tier; device, routing peers and probes together come to at most two rows more.
ROWS_PER_POLL = 3
# The chunk that live polls go to, and the one that an agent fills up again after an outage.
ACTIVE_CHUNKS = 2
INDEX_SHARE_OF_MEMORY = 0.25
# Dropping whole chunks may keep data this much longer than asked.
OVERLAP_SHARE_OF_RETENTION = 0.1


class FilterError(ValueError):
    """An argument that no host or network has; says which and what it may be."""


def positive(name: str, value: Any) -> float:
    """`value` as a number above zero."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = 0
    if number <= 0:
        raise FilterError(f"{name} is {value!r}: give a number above 0")
    return number


def clamp(value: float, low: float, high: float) -> int:
    """`value` as a whole number within both bounds."""
    return int(min(max(value, low), high))


def chunk_hours(memory_mb: Any, routers: Any, interfaces: Any, poll_seconds: Any, retention_days: Any = 30) -> int:
    """Chunk interval of the landing hypertables in hours, by the 25 % rule.

    The indexes of all chunks being written must fit into a quarter of the memory, or every insert reads from disk.
    `interfaces` is the mean per router: above 50 an index entry's share of its row's arrays grows with it, because
    long arrays are stored outside the row under an index of their own.
    """
    rows_per_hour = positive("routers", routers) * 3600 / positive("poll_seconds", poll_seconds) * ROWS_PER_POLL
    bytes_per_row = max(INDEX_BYTES_PER_ROW, positive("interfaces", interfaces))
    budget = positive("memory_mb", memory_mb) * 1024 * 1024 * INDEX_SHARE_OF_MEMORY
    fits = budget / (rows_per_hour * bytes_per_row * ACTIVE_CHUNKS)
    fine = positive("retention_days", retention_days) * 24 * OVERLAP_SHARE_OF_RETENTION
    return max((hours for hours in CHUNK_HOURS if hours <= min(fits, fine)), default=CHUNK_HOURS[0])


def server_connections(cores: Any) -> int:
    """Database connections of the server's pool: more than a few per core only queue inside the database."""
    return clamp(positive("cores", cores) * 4, 16, 64)


def worker_connections(cores: Any) -> int:
    """Database connections of the rollup worker's pool."""
    return clamp(positive("cores", cores), 4, 16)


def within(address: str, networks: Iterable[str]) -> bool:
    """Whether an address is in one of the networks, IPv4 or IPv6; a network written wrongly is an error naming it."""
    known = []
    for network in networks:
        try:
            known.append(ipaddress.ip_network(network))
        except ValueError as error:
            raise FilterError(f"{network!r} is no network: {error}") from error
    return any(ipaddress.ip_address(address) in network for network in known)


class FilterModule:
    """Ansible looks here."""

    def filters(self) -> dict[str, Any]:
        """Filter names."""
        return {
            "chunk_hours": chunk_hours,
            "server_connections": server_connections,
            "worker_connections": worker_connections,
            "within": within,
        }
