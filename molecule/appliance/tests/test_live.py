"""Six routers answer on real sockets and their values reach the pages."""

from __future__ import annotations

from pathlib import Path

import conftest
import httpx
from conftest import ROUTERS, URL, sql, wait_until
from playwright.sync_api import sync_playwright
from testinfra.host import Host

PICTURES = Path(__file__).resolve().parents[3] / ".cache" / "pictures"


def states(api: httpx.Client) -> list[str]:
    answer = api.get("/api/v1/devices")
    answer.raise_for_status()
    return [device["state"] for device in answer.json()["devices"]]


def test_every_router_is_up_with_live_values(api: httpx.Client) -> None:
    wait_until("six routers up", lambda: states(api) == ["up"] * ROUTERS)
    for device in api.get("/api/v1/devices").json()["devices"]:
        page = api.get(f"/api/v1/devices/{device['id']}").json()
        rates = [port["rx_bps"] for port in page["interfaces"] if port["oper_up"]]
        assert rates, device["name"]
        assert device["cpu_pct"] is not None
        assert device["uptime_seconds"] > 0


def test_rows_land_in_a_hypertable_through_the_pool(appliance: Host, api: httpx.Client) -> None:
    assert (
        sql(
            appliance,
            "select count(*) from timescaledb_information.hypertables where hypertable_name = 'poll_interface'",
        )
        == "1"
    )
    before = int(sql(appliance, "select count(*) from poll_interface"))
    wait_until("more rows", lambda: int(sql(appliance, "select count(*) from poll_interface")) > before)
    users = sql(
        appliance, "select distinct usename from pg_stat_activity where datname = 'ispvm' and usename = 'ispvm'"
    )
    assert users == "ispvm"
    assert api.get("/readyz").status_code == 200


def test_a_series_has_points_and_is_bounded(api: httpx.Client) -> None:
    device = api.get("/api/v1/devices").json()["devices"][0]
    port = next(p for p in api.get(f"/api/v1/devices/{device['id']}").json()["interfaces"] if p["oper_up"])
    asked = {"device": device["id"], "entity_type": "interface", "key": port["key"], "metric": "interface.rx_bps"}
    wait_until(
        "two points", lambda: sum(v is not None for v in api.get("/api/v1/series", params=asked).json()["avg"]) > 1
    )
    refused = api.get("/api/v1/series", params={**asked, "max_points": 601})
    assert refused.status_code == 422
    assert "max_points" in refused.text


def test_nobody_sees_anything_without_signing_in(appliance: Host) -> None:
    with httpx.Client(base_url=URL, verify=False) as stranger:
        assert stranger.get("/api/v1/devices").status_code == 401
        assert stranger.get("/").status_code in (302, 303)
        assert stranger.post("/ingest/v1/batch", content=b"x").status_code == 401


def test_the_pages_show_six_routers(appliance: Host, api: httpx.Client) -> None:
    wait_until("six routers up", lambda: states(api) == ["up"] * ROUTERS)
    names = [device["name"] for device in api.get("/api/v1/devices").json()["devices"]]
    PICTURES.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium",
            args=["--no-sandbox", "--disable-background-networking", "--disable-component-update", "--disable-sync",
                  "--no-first-run", "--disable-quic"],
        )  # fmt: skip
        page = browser.new_context(ignore_https_errors=True, viewport={"width": 1440, "height": 1000}).new_page()
        problems: list[str] = []
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(conftest.login_link(appliance))
        page.get_by_role("button").first.click()
        page.goto(f"{URL}/")
        for name in names:
            page.get_by_text(name).first.wait_for()
        page.locator("canvas").first.wait_for()
        page.screenshot(path=PICTURES / "noc.png", full_page=True)
        page.get_by_role("link", name=names[0]).first.click()
        page.get_by_text(names[0]).first.wait_for()
        page.screenshot(path=PICTURES / "device.png", full_page=True)
        assert problems == []
        browser.close()
