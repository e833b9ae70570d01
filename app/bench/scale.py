"""How large each benchmark is: `small` for a quarter of an hour on two quiet cores, `full` for what the goals name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Name = Literal["small", "full"]


@dataclass(frozen=True)
class Scale:
    """Sizes of one run."""

    name: Name
    rounds: int = 5
    ingest_moments: int = 40  # of 80 routers × 50 interfaces
    storage_routers: int = 5
    chart_routers: int = 20  # × 50 interfaces
    chart_requests: int = 200
    chart_peer_interfaces: int = 100  # at 5 minutes for 90 days
    tiles_routers: int = 200
    tiles_often: int = 200
    tiles_seldom: int = 8
    truth_days: int = 31
    late_rounds: int = 5
    day_routers: int = 20
    kills: int = 50


SCALES: dict[Name, Scale] = {
    "small": Scale("small"),
    "full": Scale(
        "full",
        ingest_moments=200,
        storage_routers=40,
        chart_routers=200,
        chart_requests=500,
        chart_peer_interfaces=500,
        tiles_routers=1000,
        tiles_seldom=24,
        truth_days=92,
        late_rounds=10,
        day_routers=1000,
    ),
}
