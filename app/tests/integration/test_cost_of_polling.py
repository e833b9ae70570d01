"""What polling costs a router, and what cannot be collected from it, reaches the person who looks at that router."""

from __future__ import annotations

from ispvm_contract.ingest import RouterSummary
from server_world import World

ROUTER = "EDGE-NTH-1"


async def test_the_agent_s_own_account_is_shown(world: World) -> None:
    await world.sent(world.feeder.batch([world.now()]))
    beat = world.feeder.heartbeat(world.now())
    beat.refused_batches = 3
    beat.routers = [
        RouterSummary(
            world.feeder.id(ROUTER), ROUTER, "ok", ms_per_minute=412.0, bytes_per_minute=21_504, slowed="CPU at 91 %",
            disabled_collectors={"lte": "/interface/lte does not exist on this router"},
        )
    ]  # fmt: skip
    await world.sent(beat, "heartbeat")
    page = (await world.client.get(f"/devices/{world.feeder.id(ROUTER)}")).text
    assert "412 ms" in page
    assert "slowed: CPU at 91 %" in page
    assert "/interface/lte does not exist on this router" in page
    summary = (await world.client.get("/api/v1/summary")).json()
    assert [agent["refused_batches"] for agent in summary["agents"]] == [3]
    other = (await world.client.get(f"/devices/{world.feeder.id('CORE-NTH-1')}")).text
    assert "Polling costs" not in other
