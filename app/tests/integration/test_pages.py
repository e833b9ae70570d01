from __future__ import annotations

from datetime import timedelta

import httpx
from feeder import Feeder
from ispvm.inventory.people import login_link
from ispvm.inventory.tenants import set_operator
from ispvm.reports.billing import packed_until
from ispvm.series.cache import Cache
from server_world import ORIGIN, World

ROUTER, PORT = "EDGE-NTH-1", "sfp28-1"


async def page(world: World, path: str, client: httpx.AsyncClient | None = None) -> httpx.Response:
    return await (client or world.client).get(path, headers={"Accept": "text/html"})


async def test_the_first_page_shows_links_errors_and_incidents(world: World) -> None:
    now = world.now()
    batch = world.feeder.batch([now - timedelta(minutes=5), now])
    for at, poll in enumerate([p for p in batch.polls if p.entity_type == "interface" and p.ts == batch.polls[-1].ts]):
        poll.columns["interface.rx_errors_total"] = [300 + at, *[0] * (len(batch.sets[str(poll.set)]) - 1)]
    await world.sent(batch)
    for path in ("/", "/partials/home"):
        text = (await page(world, path)).text
        assert all(link.name in text for link in world.seed.links)
        assert "1.0/s" in text
        assert "0 in 30 days" in text.replace("\u202f", "")


async def test_only_the_operators_administrators_see_the_machine_room(world: World) -> None:
    world.app.state.sessions = Cache(seconds=0)
    set_operator(world.settings, world.tenant, False)
    refused = await page(world, "/upkeep")
    assert refused.status_code == 404
    assert "administrators of the operator" in refused.text
    home = (await page(world, "/")).text
    assert 'href="/upkeep"' not in home
    assert 'href="/inventory"' in home
    assert set_operator(world.settings, world.tenant, True) is True
    assert set_operator(world.settings, world.tenant, True) is False
    text = (await page(world, "/upkeep")).text
    assert 'href="/upkeep"' in text
    assert "poll_interface" in text
    assert "What to do" in text
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(world.app), base_url=ORIGIN, headers={"Origin": ORIGIN}
    ) as reader:
        link = login_link(world.settings, f"reader-{world.tenant}", world.tenant, 5, "readonly")
        assert (await reader.post(link.removeprefix(ORIGIN))).status_code == 303
        refused = await page(world, "/upkeep", reader)
        assert refused.status_code == 404
        assert "administrators of the operator" in refused.text
        home = (await page(world, "/", reader)).text
        assert 'href="/upkeep"' not in home
        assert 'href="/reports/p95"' in home


async def test_the_billing_page_says_what_is_missing_and_what_is_wrong(world: World) -> None:
    seen = packed_until(world.now()) - timedelta(hours=1)
    feeder = Feeder(world.seed, 60, [ROUTER])
    await world.sent(feeder.batch([seen + timedelta(minutes=m) for m in range(30)], sent_at=world.now()))
    await world.rolled_up()
    device, month = world.feeder.id(ROUTER), seen.strftime("%Y-%m")
    text = (await page(world, f"/reports/p95?month={month}")).text
    assert f'href="/reports/p95?month={month}&amp;zone=UTC&amp;device={device}&amp;key={PORT}"' in text
    assert "Gbit/s</strong>" in text
    assert "chip bad" in text  # nearly all of the month is missing
    one = (await page(world, f"/reports/p95?month={month}&device={device}&key={PORT}")).text
    assert f'class="month chart" data-device="{device}" data-key="{PORT}"' in one
    wrong = await page(world, "/reports/p95?zone=Mars/Olympus")
    assert (wrong.status_code, "there is no time zone" in wrong.text) == (422, True)
    assert (await page(world, f"/reports/p95?device={device}&key=nope")).status_code == 404
    assert "No interface has the tag nothing:here" in (await page(world, "/reports/p95?tag=nothing:here")).text
