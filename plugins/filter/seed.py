"""Filters over a seed bundle."""

from __future__ import annotations

from typing import Any


def seed_routers(seed: dict[str, Any], address: str = "address", tls: str = "ca") -> list[dict[str, Any]]:
    """The bundle's devices as `ispvm_routers`, at their management `address` (the emulator's) or their `loopback`."""
    return [{"name": d["name"], "site": d["site"], "address": d[address], "tls": tls} for d in seed["devices"]]


class FilterModule:
    """Ansible looks here."""

    def filters(self) -> dict[str, Any]:
        """Filter names."""
        return {"seed_routers": seed_routers}
