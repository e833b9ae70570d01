"""One router in good and bad times: what is published, what is left out, how often it is tried."""

from __future__ import annotations

import asyncio
import contextlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast
from uuid import uuid4

import pytest
from agent_fakes import PASSWORD, FakeRouter, rows, taken, trap
from ispvm_agent import config, poller
from ispvm_agent.collectors.base import Attributes
from ispvm_agent.outbox import Outbox
from ispvm_agent.poller import Poller, backoff
from ispvm_agent.probes import Prober
from ispvm_agent.routeros import session
from ispvm_agent.spool import Spool
from ispvm_contract import ingest

DEVICE = uuid4()
POLLING = config.Polling(fast_seconds=1, medium_seconds=1, slow_seconds=1)


class Rig:
    """A poller without disk and rhythm: each `poll` is called by hand."""

    def __init__(self, router: FakeRouter, password: str = PASSWORD) -> None:
        settings = config.Router(
            name="R", site="s", address="127.0.0.1", port=router.port, user="u", tls="off", credential="c"
        )
        self.outbox = Outbox(ingest.Agent("a", "0"), cast("Spool", None), cast("ThreadPoolExecutor", None))
        self.prober = Prober(["127.0.0.1"], 1, lambda address, old, new: None)
        self.learned: dict[str, Any] = {}
        self.poller = Poller(settings, DEVICE, password, POLLING, self.outbox, self.prober, self._remember)

    def _remember(self, name: str, learned: dict[str, Any]) -> None:
        self.learned = learned

    async def poll(self) -> dict[str, ingest.Poll]:
        """Poll once with all tiers due; the polls by entity type."""
        self.poller._due = dict.fromkeys(self.poller._due, 0.0)
        self.poller._next_try = 0.0
        await self.poller.poll()
        self.batches = taken(self.outbox)
        return {poll.entity_type: poll for batch in self.batches for poll in batch.polls}

    @property
    def events(self) -> list[tuple[str, str | None, str | None]]:
        return [(event.name, event.old, event.new) for batch in self.batches for event in batch.events]

    def value(self, polls: dict[str, ingest.Poll], name: str) -> ingest.Value:
        return polls["device"].columns[name][0]


async def test_a_good_poll() -> None:
    async with FakeRouter().serving() as router:
        rig = Rig(router)
        polls = await rig.poll()
        (patch,) = rig.batches[0].inventory_patch.devices
    assert {"device", "interface", "bgp_peer", "ospf_neighbor"} <= set(polls)
    assert len({poll.ts for poll in polls.values()}) == 1
    assert rig.value(polls, "device.api.up") is True
    assert "device.up" not in polls["device"].columns  # nobody has probed: unknown, not down
    assert rig.value(polls, "pppoe.sessions.active") == 812
    assert isinstance(rig.value(polls, "device.poll.bytes"), int)
    assert (patch.model, patch.serial, patch.identity, patch.routeros) == (
        "CCR2004-1G-12S+2XS", "HE1", "123", "7.22.2 (stable)",
    )  # fmt: skip
    assert rig.poller.summary.state == "ok"
    assert "10.255.0.2@ether1" in rig.learned["ospf"]["expected"]


async def test_one_login_and_one_write_for_many_polls() -> None:
    async with FakeRouter().serving() as router:
        rig = Rig(router)
        for _ in range(4):
            await rig.poll()
    assert router.logins == router.connections == 1
    assert router.reads[0] == 1  # login
    assert router.reads[1] == 1  # the version, once
    first, *others = router.reads[2::2]
    assert router.reads[3::2] == [1] * 4  # after more than the fast tier, the CPU load once more
    assert len(others) == 3  # the second asks about ports and pools that the first has listed
    assert others == [first + 3] * 3


async def test_what_it_costs_is_told_by_collector() -> None:
    router = FakeRouter()
    async with router.serving():
        rig = Rig(router)
        await rig.poll()
    costs, summary = rig.poller.pace.costs, rig.poller.summary
    assert costs["interfaces"].rows == 2
    assert costs["interfaces"].bytes > costs["identity"].bytes > 0
    assert sum(cost.bytes for cost in costs.values()) <= (summary.bytes_per_poll or 0)
    assert 0 < (summary.bytes_per_minute or 0) < (summary.bytes_per_poll or 0)
    assert (summary.cpu_before, summary.cpu_after, summary.slowed) == (7, 7, "")


async def test_a_busy_router_is_asked_less_and_the_reason_is_told() -> None:
    router = FakeRouter()
    router.menus["/system/resource"] = rows({"uptime": "1h", "version": "7.22.2 (stable)", "cpu-load": 97})
    async with router.serving():
        rig = Rig(router)
        for _ in range(3):
            await rig.poll()
        before = len(router.commands)
        polls = await rig.poll()
        asked = {words[0] for words in router.commands[before:]}
    assert "/system/health/print" in asked  # medium goes on
    assert not asked & {"/system/identity/print", "/system/history/print"}  # slow waits
    assert rig.value(polls, "device.cpu_pct") == 97
    assert "CPU was at 85 % or more" in rig.poller.summary.slowed
    assert rig.poller.summary.detail == rig.poller.summary.slowed  # what the server shows


async def test_a_missing_menu_disables_one_collector_with_a_reason() -> None:
    router = FakeRouter()
    router.menus["/system/routerboard"] = trap("no such command prefix")
    router.menus["/routing/bgp/session"] = trap("not enough permissions (9)")
    async with router.serving():
        rig = Rig(router)
        polls = await rig.poll()
        disabled = dict(rig.poller.summary.disabled_collectors)
        before = len(router.commands)
        again = await rig.poll()
        asked = {words[0] for words in router.commands[before:]}
    assert {"device", "interface", "ospf_neighbor", "netwatch"} <= set(polls)
    assert "bgp_peer" not in polls
    assert "does not exist" in disabled["routerboard"]
    assert "needs the policies read and api" in disabled["bgp"]
    assert set(disabled) == {"routerboard", "bgp"}
    assert rig.poller.summary.state == "ok"
    assert "interface" in again
    assert not asked & {"/system/routerboard/print", "/routing/bgp/session/print", "/routing/bgp/connection/print"}


async def test_a_disabled_collector_is_tried_again_later_and_after_an_upgrade() -> None:
    router = FakeRouter()
    router.menus["/system/health"] = trap("no such command prefix")
    async with router.serving():
        rig = Rig(router)
        await rig.poll()
        reason, _ = rig.poller._disabled["health"]
        rig.poller._disabled["health"] = (reason, 0.0)
        router.menus["/system/health"] = rows({"name": "temperature", "value": "40", "type": "C"})
        assert rig.value(await rig.poll(), "device.temp_c") == 40
        rig.poller._disabled["ntp"] = ("x", float("inf"))
        router.menus["/system/resource"] = rows({"uptime": "1s", "version": "7.24 (stable)"})
        await rig.poll()
        assert rig.value(await rig.poll(), "device.ntp.synced") is True


async def test_an_item_that_has_gone_is_listed_anew_and_one_that_is_refused_is_said() -> None:
    router = FakeRouter()
    monitor = router.menus["/interface/ethernet/monitor"]
    async with router.serving():
        rig = Rig(router)
        await rig.poll()
        router.menus["/interface/ethernet/monitor"] = trap("no such item")
        router.menus["/interface/ethernet"] = rows({".id": "*9", "name": "no"})
        await rig.poll()
        assert rig.poller.summary.disabled_collectors == {}
        router.menus["/interface/ethernet/monitor"] = monitor
        polls = await rig.poll()
        assert any(words[0] == "/interface/ethernet/monitor" and "=numbers=*9" in words for words in router.commands)
        router.menus["/interface/ethernet/monitor"] = trap("no such item")
        for _ in range(2):
            polls = await rig.poll()
    assert rig.poller.summary.disabled_collectors == {"ethernet": "/interface/ethernet/monitor: no such item"}
    assert "sensor" in polls


async def test_other_traps_have_two_chances() -> None:
    router = FakeRouter()
    router.menus["/system/clock"] = trap("internal error")
    async with router.serving():
        rig = Rig(router)
        await rig.poll()
        assert rig.poller.summary.disabled_collectors == {}
        await rig.poll()
        await rig.poll()
    assert rig.poller.summary.disabled_collectors == {"clock": "/system/clock: internal error"}


async def test_a_menu_that_never_answers_is_left_out_and_the_rest_is_published(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session.Session.run, "__defaults__", (0.15,))
    router = FakeRouter()
    router.silent_menus.add("/routing/ospf/neighbor")
    async with router.serving():
        rig = Rig(router)
        first = await rig.poll()
        second = await rig.poll()
        third = await rig.poll()
    assert "interface" in first
    assert "bgp_peer" in second
    assert rig.value(third, "device.api.up") is True
    assert list(rig.poller.summary.disabled_collectors) == ["ospf"]
    assert "unanswered after" in rig.poller.summary.disabled_collectors["ospf"]
    assert router.connections == 3  # after a timeout the connection is not used again


async def test_an_error_of_a_collector_stays_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    async with FakeRouter().serving() as router:
        rig = Rig(router)
        bgp = next(collector for collector in rig.poller.collectors if collector.name == "bgp")
        monkeypatch.setattr(bgp, "publish", lambda replies, moment: 1 / 0)
        await rig.poll()
        polls = await rig.poll()
        await rig.poll()
    assert {"device", "interface", "ospf_neighbor", "netwatch"} <= set(polls)
    assert "bgp_peer" not in polls
    assert "ZeroDivisionError" in rig.poller.summary.disabled_collectors["bgp"]


async def test_wrong_password_is_not_tried_in_a_loop() -> None:
    async with FakeRouter().serving() as router:
        rig = Rig(router, password="wrong")
        down = await rig.poll()
        for _ in range(5):
            await rig.poller.poll()
    assert router.logins == 1
    assert rig.value(down, "device.api.up") is False
    assert rig.poller.summary.state == "auth"
    assert "next try in 60 s" in rig.poller.summary.detail
    assert "wrong" not in rig.poller.summary.detail


async def test_a_router_that_is_gone_and_returns() -> None:
    router = FakeRouter()
    async with router.serving():
        rig = Rig(router)
        await rig.poll()
        port = router.port
    gone = await rig.poll()
    assert rig.poller.summary.state == "refused"
    assert rig.value(gone, "device.api.up") is False
    assert set(gone) == {"device"}
    assert rig.events == [("device.api.changed", "up", "down")]
    rig.poller.router = config.Router(
        name="R", site="s", address="127.0.0.1", port=port, user="u", tls="off", credential="c"
    )
    server = await asyncio.start_server(router._serve, "127.0.0.1", port)
    async with server:
        back = await rig.poll()
        assert rig.value(back, "device.api.up") is True
        assert ("device.api.changed", "down", "up") in rig.events
        router.drop_all()


async def test_backoff_is_cut_short_when_ping_returns() -> None:
    router = FakeRouter()
    async with router.serving():
        rig = Rig(router)
        rig.prober.targets["127.0.0.1"].up = False
        rig.poller._next_try = float("inf")
        await rig.poller.poll()
        assert router.connections == 0
        rig.prober.targets["127.0.0.1"].up = True
        await rig.poller.poll()
        rig.batches = taken(rig.outbox)
    assert router.connections == 1
    columns = [poll.columns for batch in rig.batches for poll in batch.polls if poll.entity_type == "device"]
    assert [(c["device.up"], c["device.api.up"]) for c in columns] == [([False], [False]), ([True], [True])]


async def test_reboot_is_one_event_and_no_spike() -> None:
    router = FakeRouter()
    async with router.serving():
        rig = Rig(router)
        await rig.poll()
        router.menus["/system/resource"] = rows({"uptime": "30s", "version": "7.22.2 (stable)"})
        router.menus["/interface"] = rows({"name": "ether1", "default-name": "ether1", "type": "ether", "rx-byte": 1})
        polls = await rig.poll()
    assert [name for name, _, _ in rig.events] == ["device.rebooted"]
    assert polls["interface"].reset == [0]
    assert "interface.rx_bps" not in polls["interface"].columns


async def test_router_without_tags_keeps_working() -> None:
    router = FakeRouter()
    router.echo_tags = False
    async with router.serving():
        rig = Rig(router)
        assert "interface" in await rig.poll()
        assert "interface" in await rig.poll()
    assert max(router.reads) == 1


async def test_learned_neighbours_return_after_a_restart() -> None:
    router = FakeRouter()
    async with router.serving():
        before = Rig(router)
        await before.poll()
        router.menus["/routing/ospf/neighbor"] = rows()
        after = Rig(router)
        after.poller.restore(before.learned)
        polls = await after.poll()
    assert polls["ospf_neighbor"].columns["ospf.neighbor.up"] == [False]


async def test_the_slow_router_does_not_delay_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session.Session.run, "__defaults__", (5.0,))
    slow, good = FakeRouter(), FakeRouter()
    slow.silent_menus.add("/system/resource")
    async with slow.serving(), good.serving():
        stuck, fine = Rig(slow), Rig(good)
        waiting = asyncio.create_task(stuck.poll())
        async with asyncio.timeout(2):
            assert "interface" in await fine.poll()
        assert not waiting.done()
        waiting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await waiting


async def test_rhythm_survives_a_poll_that_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(poller, "_JITTER", 0.0)
    async with FakeRouter().serving() as router:
        rig = Rig(router)
        rig.poller.periods = {"fast": 0.02, "medium": 0.02, "slow": 0.02}
        polled, seen = asyncio.Event(), 0

        async def broken() -> None:
            nonlocal seen
            seen += 1
            if seen == 3:
                polled.set()
            raise RuntimeError("boom")

        monkeypatch.setattr(rig.poller, "poll", broken)
        running = asyncio.create_task(rig.poller.run())
        async with asyncio.timeout(2):
            await polled.wait()
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
    assert seen >= 3
    assert rig.poller.summary.state == "protocol"
    assert "boom" in rig.poller.summary.detail


async def test_a_router_that_may_not_be_read_says_so() -> None:
    router = FakeRouter()
    router.menus["/system/resource"] = trap("not enough permissions (9)")
    async with router.serving():
        rig = Rig(router)
        down = await rig.poll()
    assert rig.value(down, "device.api.up") is False
    assert (rig.poller.summary.state, "not enough permissions" in rig.poller.summary.detail) == ("trap", True)


def test_tiers_keep_their_periods() -> None:
    rig = Rig(FakeRouter())
    rig.poller.periods = {"fast": 30.0, "medium": 60.0, "slow": 300.0}
    asked: dict[str, list[float]] = {"fast": [], "medium": [], "slow": []}
    for tick in range(100):
        for tier in rig.poller._due_tiers(1000.0 + tick * 30):
            asked[tier].append(tick * 30)
    assert len(asked["fast"]) == 100
    assert len(asked["medium"]) in {50, 51}
    assert 10 <= len(asked["slow"]) <= 12
    assert asked["slow"][0] == asked["medium"][0] == 0


@pytest.mark.parametrize(
    ("state", "waits"),
    [("timeout", [0, 0, 60, 120, 240, 300, 300]), ("auth", [60, 120, 240, 480, 900, 900, 900])],
)
def test_backoff(state: str, waits: list[float]) -> None:
    assert [backoff(state, failures, 30) for failures in range(1, 8)] == waits


async def test_probes_go_along_with_the_router_they_are_shown_with_also_while_it_is_down() -> None:
    class Seen:
        key = "web"

        def __init__(self) -> None:
            self.attributes: Attributes = {"kind": "http", "target": "https://x/"}
            self.told: list[dict[str, ingest.Value]] = [
                {"probe.http.up": True, "probe.http.status": 200}, {"probe.http.up": False}, {},
            ]  # fmt: skip

        def read(self) -> dict[str, ingest.Value]:
            return self.told.pop(0)

    router = FakeRouter()
    async with router.serving():
        rig = Rig(router)
        rig.poller.watched = [Seen()]
        probed = (await rig.poll())["probe_target"]
        assert (probed.source, probed.columns) == ("probe", {"probe.http.up": [True], "probe.http.status": [200]})
        described = {entity.key for entity in rig.batches[0].inventory_patch.entities if entity.attributes.get("kind")}
        assert described == {"web"}
    router.drop_all()
    down = await rig.poll()
    assert down["device"].columns["device.api.up"] == [False]
    assert down["probe_target"].columns == {"probe.http.up": [False]}
    assert "probe_target" not in await rig.poll()  # nothing new was seen
