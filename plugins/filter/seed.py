"""Filters over a seed bundle."""

from __future__ import annotations

from typing import Any


def seed_routers(seed: dict[str, Any]) -> list[dict[str, Any]]:
    """The bundle's devices as `ispvm_routers`: where the emulator answers, by certificates of the lab's own CA."""
    return [{"name": d["name"], "site": d["site"], "address": d["address"], "tls": "ca"} for d in seed["devices"]]


class FilterModule:
    """Ansible looks here."""

    def filters(self) -> dict[str, Any]:
        """Filter names."""
        return {"seed_routers": seed_routers}
