"""Importing an inventory, from the page and from the command line, against what agents and seeds have made."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import psycopg
import pytest
from ispvm import cli
from ispvm.inventory.people import login_link
from ispvm.inventory.sheets import MAX_BYTES, SHEETS
from server_world import ORIGIN, World

NEW = {
    "sites.csv": "Site;Name;Latitude;Longitude\nwest;Westport;54,5;-6,4\nnorth;Northgate Street;;\n",
    "devices.csv": "device,site,role,address,tags,depends on,needed\n"
    "ACCESS-WST-1,west,access,192.0.2.77,role:access,\"AGG-HIL-1, AGG-HBR-1\",any\nCORE-NTH-1,,rr,,,,\n",
    "interfaces.csv": "device\tinterface\tcapacity\ttags\nACCESS-WST-1\tether1\t1G\tuplink:true\n"
    "EDGE-NTH-1\tsfp28-1\t20G\t\n",
    "links.csv": "link,device a,interface a,device b,interface b,capacity,medium\n"
    "HIL-WST,AGG-HIL-1,{port},ACCESS-WST-1,ether1,1G,wireless\n",
}  # fmt: skip


def files(world: World) -> dict[str, str]:
    """The files above, with a port that the seed's router has."""
    router = next(d for d in world.seed.devices if d.name == "AGG-HIL-1")
    return {name: text.replace("{port}", router.interfaces[-1].key) for name, text in NEW.items()}


async def checked(world: World, texts: dict[str, str], client: httpx.AsyncClient | None = None) -> httpx.Response:
    parts = [("files", (name, text.encode(), "text/csv")) for name, text in texts.items()]
    return await (client or world.client).post("/inventory/check", files=parts)


def form(page: httpx.Response) -> dict[str, tuple[None, str]]:
    """The form that applies what the page shows, as a browser sends it."""
    return {name: (None, value) for name, value in re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', page.text)}


async def applied(world: World, page: httpx.Response) -> httpx.Response:
    return await world.client.post("/inventory/apply", files=form(page))


async def exported(world: World) -> dict[str, str]:
    return {f"{name}.csv": (await world.get(f"/inventory/{name}.csv")).content.decode("utf-8-sig") for name in SHEETS}


async def test_what_was_shown_is_imported_at_once_and_only_then(world: World) -> None:
    before = await exported(world)
    page = await checked(world, files(world))
    assert page.status_code == 200, page.text
    for words in (
        "devices.csv:2",
        "<del>10G</del> → <ins>20G</ins>",
        f"<del>{world.seed.sites[0].name}</del>",
        "Import exactly this",
    ):
        assert words in page.text, words
    assert await exported(world) == before
    assert world.count("audit_log") == 0

    done = await applied(world, page)

    assert done.status_code == 200
    assert "the inventory says now what the files say" in done.text
    after = await exported(world)
    assert "west,Westport,54.5,-6.4\r\n" in after["sites.csv"]
    assert 'ACCESS-WST-1,west,access,192.0.2.77,role:access,"AGG-HBR-1, AGG-HIL-1",any\r\n' in after["devices.csv"]
    assert (
        "EDGE-NTH-1,sfp28-1,20G,critical:true medium:fiber provider:meridian uplink:true\r\n" in after["interfaces.csv"]
    )
    assert "ACCESS-WST-1,ether1,1G,uplink:true\r\n" in after["interfaces.csv"]
    assert "HIL-WST" in after["links.csv"]
    for name, text in before.items():  # nothing is gone
        lost = set(text.splitlines()) - set(after[name].splitlines())
        assert all(line.startswith(("north,", "CORE-NTH-1,", "EDGE-NTH-1,sfp28-1")) for line in lost), lost
    assert (await world.devices())["ACCESS-WST-1"]["state"] == "never-seen"
    assert f">op-{world.tenant}<" in done.text.replace("<td>", ">").replace("</td>", "<")
    again = await checked(world, files(world))
    assert "The inventory says already what the files say." in again.text
    assert "Import exactly this" not in again.text


async def test_an_export_imports_as_unchanged(world: World, tmp_path: Path, config_file: Path) -> None:
    await world.sent(world.feeder.batch([world.now()]))
    page = await checked(world, await exported(world))
    assert "The inventory says already what the files say." in page.text
    folder = tmp_path / "out"
    assert await run(config_file, "export", "--tenant", world.tenant, str(folder)) == 0
    assert {path.name for path in folder.iterdir()} == {f"{name}.csv" for name in SHEETS}


async def test_an_error_anywhere_imports_nothing_and_every_error_is_named(world: World) -> None:
    texts = files(world)
    texts["sites.csv"] += "bad;;999;0\n"
    texts["interfaces.csv"] += "ACCESS-WST-1\tether2\tquick\t\n"
    page = await checked(world, texts)
    assert page.status_code == 422
    for words in ("sites.csv:4", "<code>999</code>", "interfaces.csv:4", "<code>quick</code>", "2 errors"):
        assert words in page.text, words
    assert "Import exactly this" not in page.text
    # Sent to the place that applies anyway, it still changes nothing.
    good = form(await checked(world, files(world)))
    refused = await world.client.post("/inventory/apply", files={**form_of(texts), "digest": good["digest"]})
    assert (refused.status_code, "Nothing can be imported yet" in refused.text) == (422, True)
    assert world.count("audit_log") == 0
    assert "west" not in (await exported(world))["sites.csv"]


def form_of(texts: dict[str, str]) -> dict[str, tuple[None, str]]:
    from ispvm.web.inventory import _packed

    return {"packed": (None, _packed([(name, text.encode()) for name, text in texts.items()]))}


async def test_a_change_in_between_is_refused(world: World, owner: psycopg.Connection) -> None:
    page = await checked(world, files(world))
    owner.execute(
        "update site set name = 'Elsewhere' where key = 'north' and tenant_id = (select id from tenant where key = %s)",
        [world.tenant],
    )
    refused = await applied(world, page)
    assert refused.status_code == 409
    assert "The inventory changed since this was checked. Nothing was imported" in refused.text
    assert (world.count("audit_log"), "west" in (await exported(world))["sites.csv"]) == (0, False)


async def test_an_agent_takes_over_what_was_expected_and_keeps_what_is_its_own(world: World) -> None:
    await applied(world, await checked(world, files(world)))
    batch = world.feeder.batch([world.now()])
    await world.sent(batch)
    # The router is polled now: its address is the agent's, its role is the operator's.
    page = await checked(world, {"d.csv": "device,address,role\nCORE-NTH-1,192.0.2.200,core\n"})
    assert page.status_code == 422
    assert "agent pop polls this router as" in page.text
    assert (await checked(world, {"d.csv": "device,role\nCORE-NTH-1,core\n"})).status_code == 200
    assert (await world.devices())["CORE-NTH-1"]["role"] == "rr"


async def test_an_expected_router_becomes_the_one_that_an_agent_declares(
    world: World, owner: psycopg.Connection
) -> None:
    name = "CORE-NTH-1"
    feeder = world.feeder
    owner.execute("delete from device where uuid = %s", [feeder.id(name)])
    await applied(world, await checked(world, {"d.csv": f"device,site,address,role\n{name},north,192.0.2.9,core\n"}))
    assert (await world.devices())[name]["state"] == "never-seen"
    await world.sent(feeder.batch([world.now()]))
    await world.sent(feeder.heartbeat(world.now()), "heartbeat")
    device = (await world.devices())[name]
    assert (device["state"], device["role"], device["id"]) == ("up", "core", str(feeder.id(name)))


async def test_only_administrators_may(world: World) -> None:
    page = await checked(world, files(world))
    for role in ("noc", "readonly"):
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(world.app), base_url=ORIGIN, headers={"Origin": ORIGIN}
        ) as other:
            link = login_link(world.settings, f"{role}-{world.tenant}", world.tenant, 5, role)
            assert (await other.post(link.removeprefix(ORIGIN))).status_code == 303
            assert 'href="/inventory"' not in (await other.get("/")).text
            for answer in (
                await other.get("/inventory"),
                await other.get("/inventory/sites.csv"),
                await other.get("/inventory/template/sites.csv"),
                await checked(world, files(world), other),
                await other.post("/inventory/apply", files=form(page)),
            ):
                assert (answer.status_code, "administrators" in answer.text) == (404, True)
    assert world.count("audit_log") == 0
    stranger = httpx.AsyncClient(transport=httpx.ASGITransport(world.app), base_url=ORIGIN, headers={"Origin": ORIGIN})
    assert (await checked(world, files(world), stranger)).headers["location"] == "/login"
    foreign = {"Origin": "https://evil.example"}
    assert (await world.client.post("/inventory/apply", files=form(page), headers=foreign)).status_code == 403


async def test_an_import_stays_in_its_tenant(make_world: Callable[[], Awaitable[World]]) -> None:
    mine, theirs = await make_world(), await make_world()
    before = await exported(theirs)
    page = await checked(mine, files(mine))
    assert (await applied(theirs, page)).status_code == 200  # their own administrator, their own inventory
    assert "west" not in (await exported(mine))["sites.csv"]
    assert (await exported(theirs))["sites.csv"] != before["sites.csv"]
    assert (mine.count("audit_log"), theirs.count("audit_log")) == (0, 1)


async def test_limits_and_nonsense_are_refused_with_words(world: World) -> None:
    for texts, status, words in (
        ({"s.csv": "site\n" + "a" * MAX_BYTES}, 413, f"the limit is {MAX_BYTES}"),
        ({"s.csv": "site\n" + "a\n" * 60_001}, 422, "the limit is 60000"),
        ({}, 422, "Choose at least one file"),
        ({"s.xlsx": "PK\x03\x04"}, 422, "save the sheet as CSV"),
        ({"s.csv": "<script>,b\n1,2"}, 422, "is not a header that is known"),
    ):
        answer = await checked(world, texts) if texts else await world.client.post("/inventory/check", data={"x": "y"})
        assert (answer.status_code, words.lower() in answer.text.lower()) == (status, True), words
    for packed in ("", "!", "AAAA", "eJwDAAAAAAE="):
        parts = {"packed": (None, packed), "digest": (None, "x")}
        answer = await world.client.post("/inventory/apply", files=parts)
        assert (answer.status_code, "did not arrive whole" in answer.text) == (422, True), packed


async def test_cells_are_escaped_on_the_page(world: World) -> None:
    page = await checked(world, {"<b>.csv": "site,name\nx,<script>alert(1)</script>\n"})
    assert "<script>alert" not in page.text
    assert "<b>.csv" not in page.text
    assert "&lt;script&gt;alert(1)" in page.text
    assert not re.search(r"\sstyle=|<style|\son\w+=|<script>|javascript:", page.text)


def test_the_server_cannot_delete_what_is_in_the_inventory_nor_rewrite_the_audit(owner: psycopg.Connection) -> None:
    for table in ("site", "device", "entity", "link", "dependency", "audit_log"):
        assert owner.execute("select has_table_privilege('ispvm', %s, 'delete')", [table]).fetchone() == (False,)
    assert owner.execute("select has_table_privilege('ispvm', 'audit_log', 'update')").fetchone() == (False,)


async def run(config_file: Path, *arguments: str) -> int:
    return await asyncio.to_thread(cli.main, ["--config", str(config_file), "inventory", *arguments])


async def test_the_command_line_does_the_same(
    world: World, config_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = []
    for name, text in files(world).items():
        (path := tmp_path / name).write_text(text)
        paths.append(str(path))
    command = ("import", "--tenant", world.tenant)
    assert await run(config_file, *command, "--dry-run", *paths) == 0
    said = capsys.readouterr().out
    assert "interfaces.csv:3: change interface EDGE-NTH-1 sfp28-1 (capacity: 10G -> 20G)" in said
    assert said.splitlines()[-1] == "changed"
    assert world.count("audit_log") == 0
    for last in ("changed", "unchanged"):
        assert await run(config_file, *command, *paths) == 0
        assert capsys.readouterr().out.splitlines()[-1] == last
    assert world.count("audit_log") == 1


async def test_the_command_line_names_every_error(
    world: World, config_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (bad := tmp_path / "sites.csv").write_text("site,lat,lon\na,x,1\nb,1,y\n")
    assert await run(config_file, "import", "--tenant", world.tenant, str(bad)) == 2
    said = capsys.readouterr().err
    assert "sites.csv:2: latitude 'x': is not a number from -90 to 90; write degrees" in said
    assert "sites.csv:3: longitude 'y'" in said
    assert "nothing was imported: 2 errors" in said
    assert await run(config_file, "import", "--tenant", "nobody", str(bad)) == 2
    assert "there is no tenant 'nobody'" in capsys.readouterr().err
    assert await run(config_file, "import", "--tenant", world.tenant, str(tmp_path / "absent.csv")) == 1
    assert "absent.csv" in capsys.readouterr().err
