"""Agents that the matrix does not promise are told so with 426, and people see why."""

from __future__ import annotations

import msgspec
from ispvm_contract.compatibility import compatibility
from ispvm_contract.ingest import Agent, Refusal
from server_world import World


async def test_an_agent_outside_the_matrix_is_refused_and_nothing_is_stored(world: World) -> None:
    batch = world.feeder.batch([world.now()])
    batch.agent = Agent("pop", "99.0.0")
    refused = await world.send(batch)
    assert refused.status_code == 426
    assert refused.headers["Upgrade"] == f"ispvm-agent/{compatibility().oldest_agent}-{compatibility().server}"
    said = msgspec.json.decode(refused.content, type=Refusal)
    assert (said.field, "upgrade the server first" in said.problem) == ("agent.version", True)
    assert world.count("poll_device") == 0
    # The agent keeps the batch: after an upgrade the very same one is taken.
    batch.agent = Agent("pop", f"{compatibility().server}.0")
    assert (await world.send(batch)).status_code == 200


async def test_a_refused_agent_is_shown_with_the_reason(world: World) -> None:
    beat = world.feeder.heartbeat(world.now())
    beat.agent = Agent("pop", "0.0.1")
    assert (await world.send(beat, "heartbeat")).status_code == 426
    told = (await world.client.get("/api/v1/compatibility")).json()
    assert [(agent["version"], "too old" in agent["problem"]) for agent in told["agents"]] == [("0.0.1", True)]
    page = (await world.client.get("/compatibility")).text
    assert "Refused: agent 0.0.1 is too old" in page
    overview = (await world.client.get("/api/v1/summary")).json()
    assert [agent["online"] for agent in overview["agents"]] == [False]
