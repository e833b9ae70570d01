"""Filters of the preflight playbook: which variable names exist, and what was probably meant."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml


def argument_names(root: str) -> list[str]:
    """Every variable that the roles below `root` take, by their argument specifications."""
    names: set[str] = set()
    for file in Path(root).glob("roles/*/meta/argument_specs.yml"):
        spec = yaml.safe_load(file.read_text(encoding="utf-8"))
        for entry_point in spec["argument_specs"].values():
            names.update(entry_point.get("options", {}))
    return sorted(names)


def role_names(root: str) -> list[str]:
    """The roles below `root`."""
    return sorted(path.name for path in Path(root, "roles").iterdir() if path.is_dir())


def name_advice(unknown: Iterable[str], known: Iterable[str], renamed: dict[str, str]) -> list[str]:
    """One sentence for each unknown name: what it is called now, or which known name is closest."""
    known = list(known)
    advice = []
    for name in unknown:
        if name in renamed:
            advice.append(f"{name} is now called {renamed[name]}.")
            continue
        close = difflib.get_close_matches(name, known, n=1)
        advice.append(f"Nothing reads {name}: " + (f"did you mean {close[0]}?" if close else "remove it."))
    return advice


def _minor(version: str) -> tuple[int, int] | None:
    match = re.match(r"(\d+)\.(\d+)(?:[.+-]|$)", version)
    return (int(match[1]), int(match[2])) if match else None


def _patch(version: str) -> int:
    match = re.match(r"\d+\.\d+\.(\d+)", version)
    return int(match[1]) if match else 0


def upgrade_fault(installed: str, wanted: str, upgrade_from: Iterable[str]) -> str:
    """Why a host cannot go from one version to another, as one sentence; empty when it can.

    `upgrade_from` are the minor releases that lead to `wanted` in one step (SBOM/compatibility.yml).
    """
    old, new = _minor(installed), _minor(wanted)
    if old is None or new is None:
        return f"{installed if old is None else wanted} is no version such as 1.2.3."
    if (old, _patch(installed)) > (new, _patch(wanted)):
        return (
            f"{installed} is installed and {wanted} is older: use the bundle of {installed} or a newer one; "
            "going back is done with the rollback of the release, not by installing the old one over it."
        )
    sources = [minor for minor in map(_minor, upgrade_from) if minor is not None]
    if old not in sources and old != new:
        stop = min((minor for minor in sources if old < minor < new), default=None)
        way = f"upgrade to {stop[0]}.{stop[1]} first" if stop else "there is no way in one step"
        return f"{installed} is installed and cannot become {wanted} in one step: {way}."
    return ""


def router_faults(routers: Any) -> list[str]:
    """What is wrong with a list of routers, one sentence each, naming the field and the fix."""
    if not isinstance(routers, list):
        return ["ispvm_routers must be a list of {name, site, address, …}."]
    faults: list[str] = []
    seen: set[str] = set()
    for place, router in enumerate(routers):
        where = f"ispvm_routers[{place}]"
        if not isinstance(router, dict):
            faults.append(f"{where} must be a mapping with name, site and address.")
            continue
        faults += [f"{where}.{field} is missing." for field in ("name", "site", "address") if not router.get(field)]
        if (name := router.get("name")) in seen:
            faults.append(f"{where}.name: {name} stands twice; names are unique in a tenant.")
        seen.add(str(name))
        tls = router.get("tls", "ca")
        pin = str(router.get("fingerprint_sha256", "")).replace(":", "").lower()
        if tls not in ("ca", "pin", "anonymous", "off"):
            faults.append(f"{where}.tls: {tls} is not one of ca, pin, anonymous, off.")
        if tls == "pin" and (len(pin) != 64 or set(pin) - set("0123456789abcdef")):
            faults.append(
                f"{where}.fingerprint_sha256: tls: pin needs the 64 hex digits of the router's certificate "
                f"(on the router: /certificate print detail, field fingerprint)."
            )
        faults += [
            f"{where}.{field}: passwords do not belong in an inventory; use `ispvm-agent credential set NAME` on the "
            f"agent's host and name it in `credential`."
            for field in router
            if "password" in str(field) or "secret" in str(field)
        ]
    return faults


class FilterModule:
    """Ansible looks here."""

    def filters(self) -> dict[str, Any]:
        """Filter names."""
        return {
            "argument_names": argument_names,
            "role_names": role_names,
            "name_advice": name_advice,
            "router_faults": router_faults,
            "upgrade_fault": upgrade_fault,
        }
