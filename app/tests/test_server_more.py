"""How values of the generic tables are written and coloured."""

from __future__ import annotations

import pytest
from ispvm.store.columns import landing_types
from ispvm.web.more import TITLES, cell
from ispvm_contract.registry import registry


@pytest.mark.parametrize(
    ("metric", "value", "text", "state"),
    [
        ("optics.rx_power_dbm", -21.5, "-21.5 dBm", ""),
        ("optics.rx_power_dbm", 0.0, "0 dBm", ""),
        ("optics.rx_power_dbm", None, "–", ""),
        ("optics.rx_loss", True, "yes", "bad"),
        ("optics.rx_loss", False, "no", ""),
        ("sensor.ok", False, "no", "bad"),
        ("sensor.ok", True, "yes", "ok"),
        ("sensor.fan_rpm", 12345.0, "12 345 /min", ""),
        ("interface.link_bps", 2_500_000_000, "2.5 Gbit/s", ""),
        ("device.flagged", True, "yes", "bad"),
        ("device.firmware.upgrade_pending", True, "yes", ""),
        ("queue.simple.queued_bytes", 2048, "2.0 KiB", ""),
        ("bfd.session.uptime_seconds", 3700, "1 h 1 min", ""),
        ("pool.used_pct", 98.456, "98.46 %", ""),
    ],
)
def test_a_value_as_people_read_it(metric: str, value: object, text: str, state: str) -> None:
    shown = cell(registry().metrics[metric], value)
    assert (shown.text.replace("\xa0", " "), shown.state) == (text, state)


def test_every_kind_of_thing_has_its_place_on_the_page() -> None:
    assert set(landing_types()) - set(TITLES) == {"device", "interface", "bgp_peer", "ospf_neighbor"}
