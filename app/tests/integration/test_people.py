from __future__ import annotations

import re
from datetime import timedelta

import httpx
import psycopg
import pytest
from ispvm.inventory.people import login_link
from ispvm.web.auth import COOKIE
from server_world import ORIGIN, World

PASSWORD = "correct horse battery"


@pytest.fixture
def visitor(world: World) -> httpx.AsyncClient:
    """Somebody not signed in, on the same server."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(world.app), base_url=ORIGIN, headers={"Origin": ORIGIN})


def link(world: World, user: str = "") -> str:
    return login_link(world.settings, user or f"op-{world.tenant}", None, 10).removeprefix(ORIGIN)


async def test_a_link_signs_in_once_and_looking_does_not_use_it_up(world: World, visitor: httpx.AsyncClient) -> None:
    path = link(world)
    for _ in range(3):
        page = await visitor.get(path)
        assert (page.status_code, COOKIE in visitor.cookies) == (200, False)
        assert f"Sign in as op-{world.tenant}" in page.text
    answer = await visitor.post(path)
    assert (answer.status_code, answer.headers["location"]) == (303, "/account")
    cookie = answer.headers["set-cookie"].lower()
    assert all(word in cookie for word in ("secure", "httponly", "samesite=strict", "path=/"))
    assert (await visitor.get("/account")).status_code == 200
    other = httpx.AsyncClient(transport=httpx.ASGITransport(world.app), base_url=ORIGIN, headers={"Origin": ORIGIN})
    assert (await other.post(path)).status_code == 410
    assert (await other.get(path)).status_code == 410
    assert COOKIE not in other.cookies


async def test_a_link_expires_and_a_newer_one_replaces_it(
    world: World, visitor: httpx.AsyncClient, owner: psycopg.Connection
) -> None:
    older, newer = link(world), link(world)
    assert (await visitor.post(older)).status_code == 410
    owner.execute(
        "update login_link set expires_at = now() - %s"
        " where used_at is null and user_id = (select id from app_user where name = %s)",
        [timedelta(seconds=1), f"op-{world.tenant}"],
    )
    assert (await visitor.post(newer)).status_code == 410
    assert (await visitor.post("/login/one-time/guess")).status_code == 410


async def test_a_password_is_set_used_changed_and_ends_other_sessions(world: World, visitor: httpx.AsyncClient) -> None:
    name = f"op-{world.tenant}"
    for new, again, words in (("short", "short", "at least 12"), (PASSWORD, PASSWORD + "x", "differ")):
        answer = await world.client.post("/account/password", data={"new": new, "again": again})
        assert answer.status_code == 422
        assert words in answer.text
    assert (await visitor.post("/login", data={"name": name, "password": PASSWORD})).status_code == 403
    assert (await world.client.post("/account/password", data={"new": PASSWORD, "again": PASSWORD})).status_code == 200
    assert (await visitor.post("/login", data={"name": name, "password": PASSWORD})).status_code == 303
    assert (await visitor.get("/")).status_code == 200
    newer = PASSWORD + " staple"
    wrong = await visitor.post("/account/password", data={"new": newer, "again": newer, "current": "wrong"})
    assert (wrong.status_code, "current password is wrong" in wrong.text) == (422, True)
    assert (
        await visitor.post("/account/password", data={"new": newer, "again": newer, "current": PASSWORD})
    ).status_code == 200
    assert (await world.client.get("/")).status_code == 303
    assert (await visitor.post("/logout")).status_code == 303
    assert (await visitor.get("/")).headers["location"] == "/login"


async def test_the_password_is_argon2id_and_tokens_are_hashes(world: World, owner: psycopg.Connection) -> None:
    await world.client.post("/account/password", data={"new": PASSWORD, "again": PASSWORD})
    row = owner.execute("select password_hash from app_user where name = %s", [f"op-{world.tenant}"]).fetchone()
    assert row is not None
    assert row[0].startswith("$argon2id$")
    token = world.client.cookies[COOKIE]
    dump = str(owner.execute("select * from login_session").fetchall()) + str(
        owner.execute("select * from agent").fetchall()
    )
    assert token not in dump
    assert world.token not in dump


async def test_guessing_is_slowed_down(world: World, visitor: httpx.AsyncClient) -> None:
    answers = [await visitor.post("/login", data={"name": "nobody", "password": "x"}) for _ in range(7)]
    assert [a.status_code for a in answers] == [403] * 5 + [429] * 2
    assert int(answers[-1].headers["Retry-After"]) >= 1


async def test_nothing_is_shown_to_strangers(world: World, visitor: httpx.AsyncClient) -> None:
    device = world.feeder.id("EDGE-NTH-1")
    for path in ("/", "/account", f"/devices/{device}"):
        answer = await visitor.get(path)
        assert (answer.status_code, answer.headers["location"]) == (303, "/login")
    partial = await visitor.get("/partials/home", headers={"HX-Request": "true"})
    assert (partial.status_code, partial.headers["HX-Redirect"]) == (401, "/login")
    for path in ("/api/v1/summary", "/api/v1/sites", "/api/v1/devices", f"/api/v1/devices/{device}"):
        answer = await visitor.get(path)
        assert (answer.status_code, answer.json()["fix"]) == (401, "sign in at /login")


async def test_requests_from_other_sites_are_refused(world: World) -> None:
    client = httpx.AsyncClient(transport=httpx.ASGITransport(world.app), base_url=ORIGIN, cookies=world.client.cookies)
    form = {"new": PASSWORD, "again": PASSWORD}
    evil = ("null", "https://evil.example", "https://monitor.test.evil.example", "http://monitor.test")
    for headers in ({}, *({"Origin": origin} for origin in evil)):
        answer = await client.post("/account/password", data=form, headers=headers)
        assert (answer.status_code, answer.json()["field"]) == (403, "Origin"), headers
    tunnel = {"Origin": "https://localhost:8443", "Host": "localhost:8443"}
    assert (await client.post("/account/password", data=form, headers=tunnel)).status_code == 200
    form["current"] = PASSWORD
    assert (await client.post("/account/password", data=form, headers={"Origin": ORIGIN})).status_code == 200


async def test_pages_have_a_strict_policy_and_keep_to_it(world: World, visitor: httpx.AsyncClient) -> None:
    await world.sent(world.feeder.batch([world.now()]))
    await world.sent(world.feeder.heartbeat(world.now()), "heartbeat")
    pages = [
        await world.get(path)
        for path in (
            "/",
            f"/devices/{world.feeder.id('EDGE-NTH-1')}",
            "/account",
            "/devices/" + "0" * 8 + "-0000-0000-0000-" + "0" * 12,
        )
    ]
    pages += [await visitor.get(path) for path in ("/login", link(world))]
    assert [page.status_code for page in pages] == [200, 200, 200, 404, 200, 200]
    for page in pages:
        policy = page.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert page.headers["cache-control"] == "no-store"
        assert not re.search(r"\sstyle=|<style|\son\w+=|<script>|javascript:", page.text)
        for target in re.findall(r'(?:src|href)="([^"]+)"', page.text):
            assert target.startswith(("/", "?")), target
    for asset in sorted({t.split("#")[0] for page in pages for t in re.findall(r'"(/static/[^"]+)"', page.text)}):
        assert (await visitor.get(asset)).status_code == 200, asset


async def test_values_from_routers_are_escaped(world: World) -> None:
    batch = world.feeder.batch([world.now()])
    batch.inventory_patch.entities[0].attributes["comment"] = "<script>alert(1)</script>"
    batch.inventory_patch.entities[0].name = "<b>port</b>"
    await world.sent(batch)
    page = (await world.get(f"/devices/{world.feeder.id('EDGE-NTH-1')}")).text
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


async def test_a_wrong_address_shows_a_page_to_people_and_a_refusal_to_programs(world: World) -> None:
    for path in ("/nowhere", "/devices/nonsense", "/devices/00000000-0000-0000-0000-000000000000"):
        answer = await world.client.get(path, headers={"Accept": "text/html,*/*"})
        assert (answer.status_code, "Not found" in answer.text) == (404, True), path
    for path, status in (("/nowhere", 404), ("/api/v1/devices/nonsense", 422)):
        answer = await world.client.get(path, headers={"Accept": "application/json"})
        assert (answer.status_code, set(answer.json())) == (status, {"field", "problem", "fix"})
