"""The compatibility page is what a run gives, and a version nobody has seen costs single collectors, and says so."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "ci"))
import compat
from ispvm_agent import collectors, config, reports
from ispvm_lab.lab import USER, Lab, Override, router_password


def test_the_page_is_what_a_run_gives() -> None:
    data = asyncio.run(compat.matrix())
    assert json.loads(compat.DATA.read_text(encoding="utf-8")) == data, "run `make compat`"
    assert compat.page(data) == compat.PAGE.read_text(encoding="utf-8"), "run `make compat`"


def test_the_matrix_can_tell_that_something_does_not_work() -> None:
    """A collector that fails, one without a menu and one that finds less are three different cells."""
    collector = next(one for one in collectors.catalogue() if one.name == "ntp")
    found = ["device.ntp.synced", "device.ntp.offset_ms"]
    assert compat.verdict(collector, {"ok": True, "found": found}) == {
        "state": compat.WORKS, "without": ["device.ntp.stratum"],
    }  # fmt: skip
    assert compat.verdict(collector, {"ok": True, "found": []}) == {"state": compat.NOTHING}
    assert compat.verdict(collector, {"ok": True, "absent": "no menu"}) == {"state": compat.ABSENT}
    assert compat.verdict(collector, {"ok": False, "problem": "/x: no such command"})["reason"] == "/x: no such command"


async def test_a_version_never_seen_degrades_per_collector_and_says_so(tmp_path: Path) -> None:
    """RouterOS 9.1 as it might be: a menu is gone, another has lost fields, a third answers what nobody expects."""
    lab = Lab(compat.bundle(["9.1"]), tmp_path)
    base = compat.free_ports(2 * len(lab.stations))
    name = "board-9.1"
    async with lab.running(Override("127.0.0.1", base)):
        for kind, params in (
            ("trap", {"menu": "/routing/bgp/session", "message": "no such command prefix"}),
            ("trap", {"menu": "/queue/simple", "message": "unknown parameter"}),
            ("missing-fields", {"menu": "/system/health", "fields": "value"}),
            ("missing-fields", {"menu": "/interface", "fields": "rx-byte,running,default-name"}),
        ):
            await lab.faults.add(kind, name, params)
        router = config.Router(
            name=name, site="here", address="127.0.0.1", port=base, user=USER, tls="off", credential="lab"
        )
        report: dict[str, Any] = await reports.examine(router, router_password(tmp_path))
    assert report["state"] == "ok"
    assert report["version"].startswith("9.1")
    assert "no field data for this version, only for 6.49 to 7.24" in report["unseen"]
    left_out = {key: told["problem"] for key, told in report["collectors"].items() if not told["ok"]}
    assert left_out == {
        "bgp": "/routing/bgp/session: no such command prefix",
        "queues": "/queue/simple: unknown parameter",
    }
    assert report["collectors"]["health"]["found"] == []
    assert "interface.tx_bytes_total" in report["collectors"]["interfaces"]["found"]
    assert "interface.rx_bytes_total" not in report["collectors"]["interfaces"]["found"]
