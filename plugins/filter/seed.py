"""Filters over a seed bundle."""

from __future__ import annotations

from typing import Any


def seed_routers(seed: dict[str, Any], address: str = "address", tls: str = "ca") -> list[dict[str, Any]]:
    """The bundle's devices as `ispvm_routers`, at their management `address` (the emulator's) or their `loopback`."""
    return [{"name": d["name"], "site": d["site"], "address": d[address], "tls": tls} for d in seed["devices"]]


def seed_probes(seed: dict[str, Any]) -> list[dict[str, Any]]:
    """The bundle's probe targets as `ispvm_probes`: each shown with the edge router of its site, or the first."""
    found = []
    for target in seed.get("probe_targets", []):
        there = [device for device in seed["devices"] if device["site"] == target["site"]]
        shown = next((device for device in there if device["role"] == "edge"), there[0] if there else None)
        if shown is not None:
            probe = {"name": target["name"], "kind": target["kind"], "target": target["address"]}
            found.append({**probe, "router": shown["name"]})
    return found


class FilterModule:
    """Ansible looks here."""

    def filters(self) -> dict[str, Any]:
        """Filter names."""
        return {"seed_routers": seed_routers, "seed_probes": seed_probes}
