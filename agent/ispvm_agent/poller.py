"""One router: when to ask, what to do with answers, how to behave without. Routers do not wait for each other."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

from ispvm_contract import ingest

from ispvm_agent import collectors, config
from ispvm_agent.collectors.base import Collector, Findings, Happening, Moment, Tier, Version
from ispvm_agent.outbox import Outbox
from ispvm_agent.pace import Cost, Pace
from ispvm_agent.probes import Prober
from ispvm_agent.routeros import values
from ispvm_agent.routeros.commands import Command, Question
from ispvm_agent.routeros.session import Reply, RouterError, Session, Target, connect
from ispvm_agent.targets import Watched

_SLOWER: tuple[Tier, ...] = ("medium", "slow")
_JITTER = 0.05  # of the fast interval
_RETRY_DISABLED = 3600.0
_RETRY_PERMISSION = 300.0
_STRIKES = 2  # unanswered commands until a collector is left out
_log = logging.getLogger("poller")


def backoff(state: str, failures: int, fast_seconds: float) -> float:
    """Seconds without a try after so many failures in a row. A wrong password waits from the first one on."""
    if state == "auth":
        return min(900.0, 60.0 * float(2 ** min(failures - 1, 10)))
    return 0.0 if failures < 3 else min(300.0, fast_seconds * float(2 ** min(failures - 2, 10)))


def target_of(router: config.Router) -> Target:
    """The network side of a router's configuration."""
    pin = router.fingerprint_sha256
    return Target(
        address=router.address,
        port=router.port,
        tls=router.tls,
        ca_file=router.ca_file,
        fingerprint=pin.replace(":", "").lower() if pin else None,
        server_name=router.tls_server_name,
    )


def _cpu(resource: Reply) -> int | None:
    """The router's CPU load in percent."""
    return values.integer(resource.rows[0], "cpu-load") if resource.rows else None


class Poller:
    """Polls one router for ever, over one connection that is kept."""

    jobs_running = 0
    errors_total = 0

    def __init__(
        self,
        router: config.Router,
        device: UUID,
        password: str,
        polling: config.Polling,
        outbox: Outbox,
        prober: Prober,
        remember: Callable[[str, dict[str, Any]], None],
    ) -> None:
        """`remember(name, learned)` keeps what collectors have learned across restarts."""
        self.router = router
        self.summary = ingest.RouterSummary(device=device, name=router.name, state="waiting")
        self.collectors: list[Collector] = collectors.catalogue()
        self.password = password
        self.watched: list[Watched] = []  # probes that are shown with this router
        self.periods = {
            "fast": polling.fast_seconds,
            "medium": polling.medium_seconds,
            "slow": polling.slow_seconds,
        }
        self.pace = Pace(polling)
        self._device = device
        self._outbox = outbox
        self._prober = prober
        self._remember = remember
        self._due: dict[Tier, float] = dict.fromkeys(_SLOWER, 0.0)
        self._session: Session | None = None
        self._tagged = True
        self._version: Version | None = None
        self._uptime: float | None = None
        self._api_up: bool | None = None
        self._reachable: bool | None = None
        self._failures = 0
        self._next_try = 0.0
        self._about: dict[str, str] = {}
        self._strikes: dict[str, int] = {}
        self._disabled: dict[str, tuple[str, float]] = {}  # collector -> reason, when to try again
        self._learned: dict[str, Any] = {}

    # when

    async def run(self) -> None:
        """Poll at a steady rhythm with a random phase; a tick that was missed is not made up for."""
        loop = asyncio.get_running_loop()
        fast = self.periods["fast"]
        start, tick = loop.time() + random.uniform(0, fast), 0  # noqa: S311 - spread, not secrecy
        try:
            while True:
                jitter = random.uniform(0, _JITTER * fast)  # noqa: S311
                await asyncio.sleep(start + tick * fast + jitter - loop.time())
                Poller.jobs_running += 1
                try:
                    await self.poll()
                except Exception as error:
                    _log.exception("%s: the poll ended in an error of the agent", self.router.name)
                    self._failed(RouterError("protocol", f"error in the agent: {error!r}"))
                finally:
                    Poller.jobs_running -= 1
                tick = max(tick + 1, int((loop.time() - start) / fast) + 1)
        finally:
            self.close()

    def close(self) -> None:
        """Hang up."""
        if self._session is not None:
            self._session.close()
            self._session = None

    def _due_tiers(self, now: float) -> list[Tier]:
        margin = self.periods["fast"] / 2
        due: list[Tier] = ["fast"]
        due += [tier for tier, at in self._due.items() if at <= now + margin and self.pace.allows(tier)]
        for tier in due[1:]:
            # After the first time, the slower tiers of routers started together drift apart.
            spread = 1.0 if self._due[tier] else random.uniform(0.5, 1)  # noqa: S311
            self._due[tier] = now + self.periods[tier] * spread
        return due

    # one poll

    async def poll(self) -> None:
        """Ask what is due and hand on what came back; a router that fails is reported as failing, never silently."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        reachable = self._prober.up(self.router.address)
        if reachable and self._reachable is False and self.summary.state != "auth":
            self._next_try = 0.0  # it has just come back: do not sit out the back-off
        self._reachable = reachable
        if now >= self._next_try:
            if self.pace.sits_out():
                return
            try:
                await self._ask(now)
            except RouterError as error:
                self._failed(error)
        else:
            self._publish_down(now)

    async def _connected(self) -> Session:
        if self._session is not None and self._session.failure is None:
            return self._session
        self._session = await connect(target_of(self.router), self.router.user, self.password, self._tagged)
        self._tagged = self._session.tagged
        self._due = dict.fromkeys(_SLOWER, 0.0)  # it may have been rebooted or upgraded: ask for everything
        return self._session

    async def _ask(self, now: float) -> None:
        session = await self._connected()
        received = session.received_bytes
        if self._version is None:
            (reply,) = await session.run([Command.RESOURCE])
            self._version = self._version_in(reply, session)
            if unseen := collectors.unseen(self._version):
                _log.warning("%s: RouterOS %d.%d: %s", self.router.name, *self._version, unseen)
        due = self._due_tiers(now)
        asked = {
            collector.name: (collector, questions)
            for collector in self.collectors
            if (collector.tier in due or (collector.hurry and self.pace.allows(collector.tier)))
            and self._enabled(collector.name, now)
            if (questions := collector.ask(self._version))
        }
        commands = list(dict.fromkeys(command for _, needed in asked.values() for command in needed))
        replies = dict(zip(commands, await session.run(commands), strict=True))
        resource = replies[Command.RESOURCE]
        version = self._version_in(resource, session)
        moment = self._moment(resource)
        findings = self._collect(asked, replies, moment, session)
        done = [reply.done for reply in replies.values() if reply.done is not None]
        findings.device["device.poll.duration_ms"] = round((max(done) - resource.sent) * 1000, 1)
        findings.device["device.poll.bytes"] = session.received_bytes - received
        self._account(findings, asked, replies, now)
        self._publish(findings, moment.epoch_ms(resource.midpoint))
        if version != self._version:  # upgraded: other menus may exist now
            self._version = version
            self._disabled.clear()
        if len(due) > 1 and session.failure is None:
            (after,) = await session.run([Command.RESOURCE])
            self.summary.cpu_after = _cpu(after)
        if session.failure is not None:
            _log.warning("%s: connection closed: %s", self.router.name, session.failure.detail)

    def _account(
        self,
        findings: Findings,
        asked: dict[str, tuple[Collector, tuple[Question, ...]]],
        replies: dict[Question, Reply],
        now: float,
    ) -> None:
        """What this poll has cost the router, by collector: commands are worked on one after the other.

        What several collectors read is paid by the first.
        """
        took, before = dict.fromkeys(replies, 0.0), replies[Command.RESOURCE].sent
        answered = [(reply.done, command) for command, reply in replies.items() if reply.done is not None]
        for done, command in sorted(answered, key=lambda one: one[0]):
            took[command], before = (done - before) * 1000, done
        costs: dict[str, Cost] = {}
        for name, (_, needed) in asked.items():  # what several share counts for the first of them
            mine = [command for command in needed if command in took]
            costs[name] = Cost(
                rows=sum(replies[command].count for command in mine),
                bytes=sum(replies[command].octets for command in mine),
                ms=round(sum(took.pop(command) for command in mine), 1),
            )
        ms = float(findings.device["device.poll.duration_ms"] or 0)
        size = int(findings.device["device.poll.bytes"] or 0)
        summary = self.summary
        summary.cpu_before = _cpu(replies[Command.RESOURCE])
        if self.pace.note(now, ms, size, summary.cpu_before, costs):
            _log.warning("%s: %s", self.router.name, self.pace.reason or "asked at the full rhythm again")
        summary.poll_ms, summary.bytes_per_poll = ms, size
        per_minute = self.pace.per_minute(now)
        summary.ms_per_minute, summary.bytes_per_minute = round(per_minute[0], 1), per_minute[1]
        summary.slowed = self.pace.reason

    def _version_in(self, reply: Reply, session: Session) -> Version:
        """The version in a resource reply; raises RouterError when there is none: then nothing is right here."""
        if reply.done is None:
            raise session.failure or RouterError("timeout", "no answer")
        if reply.trap is not None:
            raise RouterError("trap", f"/system/resource cannot be read: {reply.trap}")
        version = values.version(reply.rows[0].get("version")) if reply.rows else None
        if version is None:
            raise RouterError("protocol", "the router does not tell its version")
        return version

    def _moment(self, resource: Reply) -> Moment:
        uptime = values.duration(resource.rows[0].get("uptime"))
        rebooted = uptime is not None and self._uptime is not None and uptime < self._uptime
        if rebooted:
            _log.warning("%s has rebooted", self.router.name)
        moment = Moment(time.time() - asyncio.get_running_loop().time(), uptime, rebooted)
        if rebooted:
            event = Happening("device.rebooted", "device", "warning", None, f"{self._uptime:.0f}", f"{uptime:.0f}")
            self._emit(event, moment.epoch_ms(resource.midpoint))
        self._uptime = uptime if uptime is not None else self._uptime
        return moment

    def _collect(
        self,
        asked: dict[str, tuple[Collector, tuple[Question, ...]]],
        replies: dict[Question, Reply],
        moment: Moment,
        session: Session,
    ) -> Findings:
        findings = Findings()
        blamed = False
        for name, (collector, needed) in asked.items():
            mine = {command: replies[command] for command in needed}
            # An item that has gone since it was listed is no fault of the menu: the collector lists anew.
            trapped = next((c for c in needed if mine[c].trap is not None and mine[c].trap != "no such item"), None)
            if any(reply.done is None for reply in mine.values()):
                if not blamed and session.failure is not None:  # those behind it only waited for their turn
                    blamed = True
                    self._strike(name, session.failure.detail)
            elif trapped is not None:
                self._trapped(name, trapped, mine[trapped].trap or "")
            else:
                try:
                    findings.merge(collector.publish(mine, moment))
                    gone = next((c for c in needed if mine[c].trap is not None), None)
                    if gone is None:
                        self._strikes.pop(name, None)
                    elif not collector.hurry:  # listed anew, it is still there, and still refused
                        self._strike(name, f"{gone.menu}: {mine[gone].trap}")
                except Exception as error:
                    _log.exception("%s: collector %s failed", self.router.name, name)
                    self._strike(name, f"error in the agent: {error!r}")
        return findings

    # collectors that do not work here

    def _enabled(self, name: str, now: float) -> bool:
        reason_until = self._disabled.get(name)
        if reason_until is not None and now >= reason_until[1]:
            del self._disabled[name]
            return True
        return reason_until is None

    def _disable(self, name: str, reason: str, seconds: float) -> None:
        if name == "resource":  # without it there is no poll; its failure is the router's
            return
        _log.warning("%s: collector %s is left out: %s", self.router.name, name, reason)
        self._disabled[name] = (reason, asyncio.get_running_loop().time() + seconds)
        self._strikes.pop(name, None)

    def _strike(self, name: str, reason: str) -> None:
        self._strikes[name] = self._strikes.get(name, 0) + 1
        if self._strikes[name] >= _STRIKES:
            self._disable(name, reason, _RETRY_DISABLED)

    def _trapped(self, name: str, command: Question, trap: str) -> None:
        if "permission" in trap:
            fix = f"user {self.router.user!r} needs the policies {command.policies} for {command.menu}"
            self._disable(name, f"{trap}: {fix}", _RETRY_PERMISSION)
        elif "no such" in trap or "unknown" in trap:
            self._disable(name, f"{command.menu} does not exist on this router ({trap})", _RETRY_DISABLED)
        else:
            self._strike(name, f"{command.menu}: {trap}")

    # publishing

    def _emit(self, event: Happening, ts: int) -> None:
        self._outbox.add_event(
            ingest.Event(uuid4(), ts, event.name, self._device, event.severity, event.entity_type, event.key,
                         event.old, event.new)
        )  # fmt: skip

    def _publish(self, findings: Findings, ts: int) -> None:
        self._describe(findings)
        for table in findings.tables:
            poll = ingest.Poll(self._device, ts, table.entity_type, {**table.columns}, None, None, table.quality)
            poll.interval_s = None if table.interval_s is None else round(table.interval_s, 3)
            poll.reset = table.reset
            self._outbox.add(poll, table.keys)
        for event in findings.events:
            self._emit(event, ts)
        self._publish_device(findings.device, ts, api_up=True)
        self._failures = 0
        summary = self.summary
        summary.state, summary.detail, summary.last_good = "ok", summary.slowed, ts
        summary.disabled_collectors = {name: reason for name, (reason, _) in self._disabled.items()}
        learned = {collector.name: what for collector in self.collectors if (what := collector.learned())}
        if str(learned) != str(self._learned):
            self._learned = learned
            self._remember(self.router.name, learned)

    def _publish_device(self, columns: dict[str, ingest.Value], ts: int, *, api_up: bool) -> None:
        columns = {"device.api.up": api_up, **columns}
        if self._reachable is not None:
            columns["device.up"] = self._reachable
        self._outbox.add(ingest.Poll(self._device, ts, "device", {name: [value] for name, value in columns.items()}))
        seen = [probe.read() for probe in self.watched]
        if metrics := dict.fromkeys(metric for one in seen for metric in one):
            told: dict[str, ingest.Column] = {metric: [one.get(metric) for one in seen] for metric in metrics}
            probes = ingest.Poll(self._device, ts, "probe_target", told, source="probe")
            self._outbox.add(probes, [probe.key for probe in self.watched])
        if self._api_up is not None and self._api_up != api_up:
            old, new = ("up", "down") if self._api_up else ("down", "up")
            self._emit(Happening("device.api.changed", "device", "warning", None, old, new), ts)
        self._api_up = api_up

    def _describe(self, findings: Findings) -> None:
        # The slow tier knows the model better than the fast one: what is known stays.
        model = findings.about.pop("model", None)
        if model is not None and ("serial" in findings.about or "model" not in self._about):
            self._about["model"] = model
        self._about.update(findings.about)
        router = self.router
        device = ingest.DevicePatch(self._device, router.name, router.site, router.address, **self._about)
        entities = [
            ingest.EntityPatch(self._device, entity.entity_type, entity.key, entity.name, entity.attributes)
            for entity in findings.entities
        ]
        entities += [
            ingest.EntityPatch(self._device, "probe_target", probe.key, probe.key, probe.attributes)
            for probe in self.watched
        ]
        self._outbox.describe(device, entities)

    def _publish_down(self, now: float) -> None:
        ts = int((time.time() - asyncio.get_running_loop().time() + now) * 1000)
        if not self._about:  # never seen yet, but configured: the server learns of it all the same
            self._describe(Findings())
        self._publish_device({}, ts, api_up=False)

    def _failed(self, error: RouterError) -> None:
        loop = asyncio.get_running_loop()
        Poller.errors_total += 1
        self.close()
        self._failures += 1
        wait = backoff(error.state, self._failures, self.periods["fast"])
        self._next_try = loop.time() + wait * random.uniform(0.9, 1.1)  # noqa: S311
        waiting = f"; next try in {wait:.0f} s" if wait else ""
        if self.summary.state != error.state or self.summary.detail.partition(";")[0] != error.detail:
            _log.warning("%s: %s: %s%s", self.router.name, error.state, error.detail, waiting)
        self.summary.state, self.summary.detail = error.state, f"{error.detail}{waiting}"
        self._publish_down(loop.time())

    def restore(self, learned: dict[str, Any]) -> None:
        """Give collectors back what they had learned before a restart."""
        for collector in self.collectors:
            if collector.name in learned:
                collector.restore(learned[collector.name])

    def reachability_changed(self, old: bool | None, new: bool) -> None:
        """The prober has news of this router."""
        if old is not None:
            words = {True: "up", False: "down"}
            event = Happening("device.reachable.changed", "device", "critical", None, words[old], words[new])
            self._emit(event, int(time.time() * 1000))
