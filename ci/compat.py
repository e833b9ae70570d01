#!/usr/bin/env python3
"""Run the real agent against the emulator in every RouterOS version there is data for; write what each collector gets.

The emulator answers with recorded and documented field sets (`lab/README.md` says which is which). No real router takes
part, so the page says what the agent expects of a version, and that it copes; not what MikroTik ships.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
for part in ("contract", "agent", "lab"):
    sys.path.insert(0, str(ROOT / part))

from ispvm_agent import collectors, config, reports  # noqa: E402 - a checkout is not an installation
from ispvm_agent.collectors.base import Collector  # noqa: E402
from ispvm_contract import seed as seeds  # noqa: E402
from ispvm_contract.registry import registry  # noqa: E402
from ispvm_lab.lab import USER, Lab, Override, router_password  # noqa: E402

PAGE = ROOT / "docs" / "reference" / "compatibility-routeros.md"
DATA = PAGE.with_suffix(".json")
# Fields recorded on virtual routers that others published; the rest is from documentation.
RECORDED = ("6.49.10", "7.22.2", "7.24.2")
# Where menus or formats change, and what stands between; the last has never been seen by anybody.
VERSIONS = (
    "6.49.10", "6.49.17", "7.1.5", "7.4.1", "7.5", "7.9.2", "7.10.2", "7.11.2", "7.12.1", "7.13.5", "7.14.3", "7.16.2",
    "7.18.2", "7.20.1", "7.22.2", "7.24.2", "8.0",
)  # fmt: skip
BOARDS = {"board": "CCR2004-1G-12S+2XS", "virtual": "CHR"}
# Told from the second poll on, of which a run makes one.
SECOND_POLL = frozenset({"interface.rx_bps", "interface.tx_bps", "pppoe.sessions.churn_per_min"})
NO_METRICS = frozenset({"history"})  # tells events only, and none at the first look
WORKS, NOTHING, ABSENT, LEFT_OUT = "works", "nothing to tell", "not in this version", "left out"


def _device(kind: str, version: str, number: int) -> seeds.Device:
    radios = [seeds.Interface(f"{radio}1", 300_000_000, type=radio) for radio in ("wlan", "wifi", "cap", "lte")]
    ports = [seeds.Interface("sfp1", 10_000_000_000, tags=["uplink:true"]), seeds.Interface("ether2", 10**9)]
    return seeds.Device(
        name=f"{kind}-{version}",
        role="edge",
        site="here",
        model=BOARDS[kind],
        routeros=version,
        address=f"127.0.0.{number + 2}",
        loopback=f"10.255.0.{number + 2}",
        interfaces=[*ports, *(radios if kind == "board" else [])],
        bgp_peers=[seeds.BgpPeer("hub", "10.255.0.1", 64512)],
        ospf_neighbors=[seeds.OspfNeighbor("10.255.0.1", f"10.0.{number}.1", "ether2")],
        pppoe_sessions=20,
        dhcp_leases=10,
    )


def bundle(versions: Iterable[str]) -> seeds.Seed:
    """A router of each kind and version, all on a hub, so that each has a neighbour, a peer and some subscribers."""
    made = [
        _device(kind, version, number)
        for number, (kind, version) in enumerate((kind, version) for kind in BOARDS for version in versions)
    ]
    ports = [seeds.Interface(f"sfp{number}", 10**9) for number in range(len(made))]
    hub = seeds.Device("HUB", "core", "here", "CCR2216-1G-12XS-2XQ", "7.18.2", "127.0.0.1", "10.255.0.1", ports)
    links = [
        seeds.Link(device.name, seeds.End("HUB", port.key), seeds.End(device.name, "ether2"), 10**9, "fiber")
        for port, device in zip(ports, made, strict=True)
    ]
    site = seeds.Site("here", "Nowhere", 0.0, 0.0)
    return seeds.Seed(1, "compat", seeds.Tenant("compat", "Compatibility"), [site], [*made, hub], links, [])


def free_ports(count: int) -> int:
    """The first of `count` ports of this machine in a row that nobody listens on; raises OSError."""
    for base in range(21000, 60000, count):
        held: list[socket.socket] = []
        try:
            held += [socket.create_server(("127.0.0.1", port)) for port in range(base, base + count)]
        except OSError:
            continue
        finally:
            for sock in held:
                sock.close()
        return base
    raise OSError(f"no {count} free ports in a row")


def verdict(collector: Collector, told: dict[str, Any]) -> dict[str, Any]:
    """What the matrix says of one collector of one router: a state, and what is missing or why."""
    if not told["ok"]:
        return {"state": LEFT_OUT, "reason": told["problem"]}
    if "absent" in told:
        return {"state": ABSENT}
    metrics = [name for name in collector.publishes if name not in SECOND_POLL and name not in registry().events]
    missing = [name for name in metrics if name not in told["found"]]
    if len(missing) == len(metrics) and collector.name not in NO_METRICS:
        return {"state": NOTHING}
    return {"state": WORKS, "without": missing} if missing else {"state": WORKS}


async def matrix(versions: Iterable[str] = VERSIONS) -> dict[str, Any]:
    """kind → collector → version → verdict; raises RuntimeError when a router cannot be examined at all."""
    versions = tuple(versions)
    found: dict[str, Any] = {kind: {collector.name: {} for collector in collectors.catalogue()} for kind in BOARDS}
    with tempfile.TemporaryDirectory() as state:
        lab = Lab(bundle(versions), Path(state))
        base = free_ports(2 * len(lab.stations))
        async with lab.running(Override("127.0.0.1", base)):
            for number, (name, station) in enumerate(lab.stations.items()):
                if name == "HUB":
                    continue
                router = config.Router(
                    name=name, site="here", address="127.0.0.1", port=base + 2 * number, user=USER, tls="off",
                    credential="lab",
                )  # fmt: skip
                report = await reports.examine(router, router_password(Path(state)))
                if report["state"] != "ok":
                    raise RuntimeError(f"{name}: {report['state']}: {report['detail']}")
                kind, version = name.split("-", 1)
                for collector in collectors.catalogue():
                    told = report["collectors"][collector.name]
                    found[kind][collector.name][version] = verdict(collector, told)
                assert station.router.spec.routeros == version  # noqa: S101
    return {"run_against": "emulator", "recorded": list(RECORDED), "versions": list(versions), "kinds": found}


_SIGN = {WORKS: "✓", NOTHING: "○", ABSENT: "–", LEFT_OUT: "✗"}


def _spans(versions: list[str], where: list[str]) -> str:
    """ "6.49.10, 7.1.5 to 7.9.2" for the versions in `where`."""
    spans: list[list[str]] = []
    for version in versions:
        if version not in where:
            spans.append([])
        elif spans and spans[-1]:
            spans[-1].append(version)
        else:
            spans.append([version])
    return ", ".join(span[0] if len(span) == 1 else f"{span[0]} to {span[-1]}" for span in spans if span)


def page(data: dict[str, Any]) -> str:
    """The matrix as Markdown."""
    versions: list[str] = data["versions"]
    lines = [
        "# RouterOS versions",
        "",
        "Written by `make compat`: the real agent, every collector, against the emulator of `lab/` in each version.",
        "**No real router took part.** The emulator answers with fields that others recorded on virtual routers of",
        f"{', '.join(data['recorded'])}, or that documentation tells; `lab/README.md` says for each behaviour which,",
        "and what is assumed.",
        "",
        "✓ works · ○ asked, and there is nothing to tell on this machine · – this version has no such menu",
        "· ✗ left out, with the reason below.",
        f"{versions[-1]} does not exist: it stands for a version nobody has seen, answered with the newest fields.",
    ]
    for kind, board in BOARDS.items():
        rows: dict[str, dict[str, dict[str, Any]]] = data["kinds"][kind]
        lines += ["", f"## {'A board' if kind == 'board' else 'A virtual router'} ({board})", ""]
        if kind == "board":
            lines += [
                "With an optical uplink, a radio of each driver (old ones need the package `wireless` from 7.13 on),",
                "an LTE modem, subscribers, a BGP peer and an OSPF neighbour.",
                "",
            ]
        lines += [f"| collector | {' | '.join(versions)} |", f"|---|{'---|' * len(versions)}"]
        for name, cells in rows.items():
            lines.append(f"| {name} | {' | '.join(_SIGN[cells[version]['state']] for version in versions)} |")
        notes: dict[str, list[str]] = {}
        for name, cells in rows.items():
            for version in versions:
                cell = cells[version]
                notes_of = [f"`{name}` works without `{metric}`" for metric in cell.get("without", ())]
                if "reason" in cell:
                    notes_of.append(f"`{name}` is left out: {cell['reason']}")
                for note in notes_of:
                    notes.setdefault(note, []).append(version)
        lines += ["", *(f"- {note}: {_spans(versions, where)}" for note, where in notes.items())]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write, or check."""
    parser = argparse.ArgumentParser(prog="compat.py", description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="change nothing; fail when the page is not what a run gives"
    )
    check: bool = parser.parse_args().check
    data = asyncio.run(matrix())
    stale = []
    for path, text in ((PAGE, page(data)), (DATA, json.dumps(data, indent=1, ensure_ascii=False) + "\n")):
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale.append(str(path.relative_to(ROOT)))
        if not check:
            path.write_text(text, encoding="utf-8")
    if check and stale:
        sys.exit(f"out of date, run `make compat`: {', '.join(stale)}")


if __name__ == "__main__":
    main()
