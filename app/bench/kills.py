"""SIGKILL of server, PgBouncer and PostgreSQL at random points of a running ingest.

The sender does as the agent's uplink does: it repeats a batch until the server's 200 and only then forgets it. Its
ledger of acknowledged polls is then compared with what is in the database.
"""

from __future__ import annotations

import http.client
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial

import psycopg

from bench import tables
from bench.fleet import Fleet, encode
from bench.machine import HEADERS, BenchError, Machine, say, wait_for
from bench.machine import run as command
from bench.result import Figure, percentile
from bench.scale import Scale

PollKey = tuple[str, datetime]  # router, moment


@dataclass(frozen=True)
class Victim:
    """A process that may die at any time, and comes back by itself (or by `kill`)."""

    name: str
    kill: Callable[[], object]


@dataclass
class Sender:
    """Sends polls of a fleet, one batch after another, each until it is acknowledged."""

    fleet: Fleet
    token: str
    connect: Callable[[], http.client.HTTPConnection]
    begin: int
    acknowledged: list[PollKey] = field(default_factory=list)
    repeats: int = 0
    duplicates: int = 0
    fault: str = ""

    def run(self, stop: threading.Event) -> None:
        """Until told to stop; the last batch is finished first."""
        with closing(self.connect()) as peer:
            self._run(peer, stop)

    def _run(self, peer: http.client.HTTPConnection, stop: threading.Event) -> None:
        at = self.begin
        while not stop.is_set() and not self.fault:
            batches = list(self.fleet.batches([at]))
            for batch in batches:
                while (status := self.attempt(peer, encode(batch))) != 200:
                    if 400 <= status < 500 and status not in (408, 429):
                        self.fault = f"a batch was refused with {status}"
                        return
                    self.repeats += 1
                    peer.close()
                    time.sleep(0.05)  # the uplink waits longer; this asks harder
                names = {r.uuid: r.name for r in self.fleet.all}
                self.acknowledged += [(names[p.device], datetime.fromtimestamp(at, UTC)) for p in batch.polls]
            at += self.fleet.interval_s

    def attempt(self, peer: http.client.HTTPConnection, body: bytes) -> int:
        """The status of one attempt, 0 when there was no answer."""
        try:
            headers = {**HEADERS, "Authorization": f"Bearer {self.token}"}
            peer.request("POST", "/ingest/v1/batch", body, headers)
            answer = peer.getresponse()
            said = answer.read()
        except (OSError, http.client.HTTPException):
            return 0
        if answer.status == 200:
            self.duplicates += b'"duplicate"' in said
            if b'"rejected":[]' not in said:
                self.fault = f"parts of a batch were rejected: {said[:300]!r}"
        return answer.status


@dataclass(frozen=True)
class Outcome:
    """What a campaign found. `lost` were acknowledged and are not there, `doubled` are there more than once."""

    kills: dict[str, int]
    acknowledged: int
    repeats: int
    duplicates: int
    lost: list[PollKey]
    doubled: list[PollKey]
    unasked: list[PollKey]
    outages: list[float]


def campaign(sender: Sender, victims: Sequence[Victim], kills: int, landed: Callable[[], Counter[PollKey]]) -> Outcome:
    """Kill `kills` times while `sender` sends; each kill waits until data flow again. Raises BenchError if they do not.

    `landed` counts what is in the database, once everything is back.
    """
    draw, stop = random.Random(), threading.Event()  # noqa: S311  # any point may be the bad one
    order = [victims[number % len(victims)] for number in range(kills)]
    draw.shuffle(order)
    thread = threading.Thread(target=sender.run, args=(stop,), daemon=True)
    thread.start()
    killed: Counter[str] = Counter()
    outages = []

    def flows_on(beyond: int) -> None:
        wait_for(f"acknowledged data ({sender.fault or 'none'})",
                 lambda: len(sender.acknowledged) > beyond or sender.fault, 90)  # fmt: skip
        if sender.fault:
            raise BenchError(sender.fault)

    try:
        flows_on(0)
        for number, victim in enumerate(order):
            time.sleep(draw.uniform(0, 0.5))  # a random point of the ingest
            victim.kill()
            killed[victim.name] += 1
            began, before = time.monotonic(), len(sender.acknowledged)
            flows_on(before + 2 * sender.fleet.routers)
            outages.append(time.monotonic() - began)
            say(f"kill {number + 1} of {kills}: {victim.name}, flows again after {outages[-1]:.1f} s")
    finally:
        stop.set()
        thread.join(90)
    if thread.is_alive():
        raise BenchError("the sender did not finish its last batch")
    since = datetime.fromtimestamp(sender.begin, UTC)
    there = Counter({poll: count for poll, count in landed().items() if poll[1] >= since})
    lost, doubled, unasked = compare(sender.acknowledged, there)
    return Outcome(
        dict(killed), len(sender.acknowledged), sender.repeats, sender.duplicates, lost, doubled, unasked, outages
    )


def compare(acknowledged: Sequence[PollKey], there: Counter[PollKey]) -> tuple[list[PollKey], ...]:
    """The sender's ledger against the database: what is lost, what is doubled, what nobody was told of."""
    sent = set(acknowledged)
    doubled = [poll for poll, count in there.items() if count > 1]
    return sorted(sent - set(there)), sorted(doubled), sorted(set(there) - sent)


def run(machine: Machine, scale: Scale) -> Iterator[Figure]:
    """On the appliance: systemd brings back what was killed."""
    fleet = Fleet("bench-kills", 20, interfaces=10, interval_s=1)
    begin = int(time.time()) - 20 * 3600  # a second of the past each: room for 72,000 batches
    database = machine.superuser()
    tables.empty(database)
    machine.introduce(fleet, begin - 3600)
    database.close()

    def victim(unit: str) -> Victim:
        return Victim(unit, partial(command, "systemctl", "kill", "--signal=KILL", "--kill-whom=main", unit))

    def landed() -> Counter[PollKey]:
        wait_for("the database is back", lambda: _answers(machine))
        return tables.landed(machine.superuser(), fleet.tenant)

    sender = Sender(fleet, machine.tokens[fleet.tenant], machine.connection, begin)
    units = ("ispvm-server", "pgbouncer", "postgresql@17-ispvm")
    found = campaign(sender, [victim(unit) for unit in units], scale.kills, landed)
    killed = ", ".join(f"{count} × {name}" for name, count in found.kills.items())
    note = (
        f"{killed}; {found.acknowledged:,} polls acknowledged, {found.repeats} tries without a 200,"
        f" {found.duplicates} batches that were stored although their answer was lost"
    )
    yield Figure("kills", "acknowledged polls lost", "", [len(found.lost)], "0", remark=note)
    yield Figure("kills", "polls stored twice", "", [len(found.doubled)], "0")
    yield Figure("kills", "polls stored that nobody was told of", "", [len(found.unasked)], "0")
    yield Figure("kills", "until data flow again, p50", "s", [percentile(found.outages, 0.5)])


def _answers(machine: Machine) -> bool:
    try:
        machine.superuser().close()
    except psycopg.OperationalError:
        return False
    return True
