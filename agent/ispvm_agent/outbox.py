"""From what collectors found to batches on disk: gather for a moment, encode once, append to the spool."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from uuid import UUID, uuid4

import msgspec
import zstandard
from ispvm_contract import ingest
from ispvm_contract.identity import set_id
from ispvm_contract.packed import packed

from ispvm_agent.spool import Encoded, Spool

GATHER_SECONDS = 2.0
MAX_WAITING = 500  # encoded batches, some 20 MB, while the disk does not take them; then the oldest are lost
_REMEMBERED = 100  # batches whose confirmation confirms the inventory in them
# The same keys come with every poll.
_set_id = lru_cache(maxsize=8192)(set_id)
_log = logging.getLogger("outbox")
_encoder = msgspec.msgpack.Encoder()


def _split(poll: ingest.Poll, keys: int) -> list[ingest.Poll]:
    """A poll too large for one batch becomes several of the same moment with fewer columns each."""
    fit = max(1, ingest.MAX_METRICS // keys)
    names = list(poll.columns)
    if len(names) <= fit:
        return [poll]
    parts = [names[start : start + fit] for start in range(0, len(names), fit)]
    return [msgspec.structs.replace(poll, columns={name: poll.columns[name] for name in part}) for part in parts]


class Outbox:
    """Collects polls, events and inventory; every batch it makes can be understood on its own.

    A router's inventory goes along with its data until the server has confirmed a batch with it, and again when the
    server says that it does not know something.
    """

    def __init__(self, agent: ingest.Agent, spool: Spool, disk: ThreadPoolExecutor) -> None:
        """`disk` is the one thread on which the spool is used."""
        self.appended = asyncio.Event()  # set when there is something new to send
        self.unwritten = 0  # batches lost because the disk did not take them
        self._agent = agent
        self._spool = spool
        self._disk = disk
        self._compressor = zstandard.ZstdCompressor(level=3)
        self._sealed: list[Encoded] = []
        self._clear()
        self._devices: dict[UUID, ingest.DevicePatch] = {}
        self._entities: dict[UUID, dict[tuple[str, str], ingest.EntityPatch]] = {}
        self._version: dict[UUID, int] = {}
        self._confirmed: dict[UUID, int] = {}
        self._carried: dict[UUID, dict[UUID, int]] = {}  # batch id -> device -> inventory version in it

    def _clear(self) -> None:
        self._sets: dict[str, list[str]] = {}
        self._polls: list[ingest.Poll] = []
        self._events: list[ingest.Event] = []
        self._values = 0

    def describe(self, device: ingest.DevicePatch, entities: list[ingest.EntityPatch]) -> None:
        """What a router says of itself; only a change makes it travel again."""
        known = self._entities.setdefault(device.id, {})
        changed = [entity for entity in entities if known.get((entity.entity_type, entity.key)) != entity]
        if changed or self._devices.get(device.id) != device:
            self._devices[device.id] = device
            known.update({(entity.entity_type, entity.key): entity for entity in changed})
            self._version[device.id] = self._version.get(device.id, 0) + 1

    def add(self, poll: ingest.Poll, keys: list[str] | None = None) -> None:
        """One poll; `keys` is its key set, absent for the device itself."""
        if keys is not None:
            poll.set = _set_id(tuple(keys))
        for part in _split(poll, len(keys or ()) or 1):
            values = sum(map(len, part.columns.values()))
            if self._values + values > ingest.MAX_METRICS:
                self._seal()
            if part.set is not None and keys is not None:
                self._sets[part.set] = keys
            self._polls.append(part)
            self._values += values

    def add_event(self, event: ingest.Event) -> None:
        """One event."""
        if len(self._events) >= ingest.MAX_EVENTS:
            self._seal()
        self._events.append(event)

    def _seal(self) -> None:
        """Make a batch of everything gathered so far; its inventory is that of this moment.

        It is encoded at once: that makes it fifty times smaller, and on a busy machine many may wait for the disk.
        """
        if not self._polls and not self._events:
            return
        batch = ingest.Batch(
            schema_version=1,
            id=uuid4(),
            sent_at=int(time.time() * 1000),
            agent=self._agent,
            sets=self._sets,
            polls=self._polls,
            events=self._events,
        )
        carried: dict[UUID, int] = {}
        for device in dict.fromkeys([poll.device for poll in self._polls] + [event.device for event in self._events]):
            version = self._version.get(device, 0)
            if self._confirmed.get(device, 0) < version:
                batch.inventory_patch.devices.append(self._devices[device])
                batch.inventory_patch.entities.extend(self._entities[device].values())
                carried[device] = version
        if carried:
            self._carried[batch.id] = carried
            if len(self._carried) > _REMEMBERED:  # a long outage; one of the newest will do
                del self._carried[next(iter(self._carried))]
        self._clear()
        if len(self._sealed) >= MAX_WAITING:
            del self._sealed[0]
            self.unwritten += 1
        self._sealed.append((batch.id, self.encode(batch)))

    def take(self) -> list[Encoded]:
        """Everything gathered, in batches within the contract's limits, as they are stored and sent."""
        self._seal()
        sealed, self._sealed = self._sealed, []
        return sealed

    def confirm(self, batch_id: UUID) -> None:
        """The server has stored this batch, so it knows the inventory in it."""
        for device, version in self._carried.pop(batch_id, {}).items():
            self._confirmed[device] = max(version, self._confirmed.get(device, 0))

    def tell_again(self) -> None:
        """The server does not know something: send all inventory once more."""
        self._confirmed.clear()
        self._carried.clear()

    def encode(self, batch: ingest.Batch) -> bytes:
        """The batch as it is stored and sent."""
        return self._compressor.compress(_encoder.encode(packed(batch)))

    async def flush(self) -> None:
        """Append what was gathered; on disk when this returns, or counted as unwritten."""
        if not (batches := self.take()):
            return
        try:
            await asyncio.get_running_loop().run_in_executor(self._disk, self._spool.append, batches)
        except sqlite3.Error as error:  # the disk is full or broken; the next batch may fare better
            _log.error("%d batches are lost, the spool cannot be written: %s", len(batches), error)
            self.unwritten += len(batches)
        else:
            self.appended.set()

    async def run(self) -> None:
        """Flush every two seconds, and once more when cancelled."""
        try:
            while True:
                await asyncio.sleep(GATHER_SECONDS)
                await self.flush()
        finally:
            await self.flush()
