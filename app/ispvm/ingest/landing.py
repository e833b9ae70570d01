"""Polls of a batch as landing rows: a statement an entity type, a parameter a column.

Values stay packed from the agent to PostgreSQL. They are checked a column of the whole batch at a time; only when one
is wrong are polls looked at one by one, to name it and to reject its poll alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import accumulate
from math import nan

import numpy as np
from ispvm_contract.identity import set_id
from ispvm_contract.ingest import Batch, Poll, Rejection
from ispvm_contract.packed import FORMATS, unpack

from ispvm.ingest.known import NUL, Known, Taken, unknown_device
from ispvm.ingest.senders import Sender
from ispvm.store.columns import (
    LATE,
    Numbers,
    PackedArray,
    array_columns,
    array_parameter,
    arrays_parameter,
    columns,
    integers_parameter,
    landing_types,
    table,
    texts_parameter,
    times_parameter,
)
from ispvm.store.pool import Connection

QUALITY = {"good": 0, "estimated": 1, "stale": 2}
# An hour is packed when it is over and its last polls are here, not all routers at once; until then whoever reads takes
# its samples from the landing rows. What comes later than that is packed at once.
HOUR_MS = 3_600_000
CLOSING_SECONDS = 120
SPREAD_SECONDS = 1200
# A poll that takes longer to arrive than this was kept back by an outage.
LATE_AFTER_MS = 600_000


@dataclass(frozen=True, slots=True)
class Row:
    """A poll that fits its key set; its values are packed, and not checked yet unless they came as a list."""

    at: int  # place in the batch
    device: int
    ts: int
    set: int  # 0 for the device itself
    length: int
    quality: int
    poll: Poll
    columns: dict[str, bytes]  # by metric
    names: tuple[str, ...]  # of its columns in the table, sorted


@dataclass(frozen=True, slots=True)
class Landing:
    """What one statement stores: rows of one entity type in the order of their key, no two of the same moment, and by
    metric the values of all that have it.
    """

    kind: str
    rows: list[Row]
    values: dict[str, Numbers]


def landings(batch: Batch, known: Known, taken: Taken, rejected: list[Rejection]) -> list[Landing]:
    """What can be stored of a batch's polls."""
    fitting: dict[str, list[Row]] = defaultdict(list)
    for at, poll in enumerate(batch.polls):
        try:
            row = _row(at, poll, batch, known, taken)
        except ValueError as error:
            rejected.append(Rejection(f"polls[{at}]", str(error)))
            continue
        fitting[poll.entity_type].append(row)
        rejected += [
            Rejection(
                f"polls[{at}]",
                f"columns.{name}: not a metric of {poll.entity_type!r}; the other columns were stored",
            )
            for name in poll.columns.keys() - row.columns.keys()
        ]
    found = []
    for kind, rows in fitting.items():
        # The same order everywhere, so that two batches with the same polls cannot wait for each other.
        rows.sort(key=lambda row: (row.device, row.ts, row.set))
        values = _gathered(kind, rows)
        if faults := _faults(kind, rows, values):
            rejected += [Rejection(f"polls[{at}]", reason) for at, reason in sorted(faults.items())]
            rows = [row for row in rows if row.at not in faults]
            values = _gathered(kind, rows)
        waves = _waves(rows)
        if len(waves) == 1:
            found.append(Landing(kind, rows, values))
        else:
            found += [Landing(kind, wave, _gathered(kind, wave)) for wave in waves]
    return found


def _row(at: int, poll: Poll, batch: Batch, known: Known, taken: Taken) -> Row:
    """The landing row of one poll; raises ValueError when it cannot be stored."""
    if (device := known.devices.get(poll.device)) is None:
        raise ValueError(unknown_device(poll.device))
    if poll.entity_type not in landing_types():
        raise ValueError(f"entity_type {poll.entity_type!r} is not in the registry")
    taken.check(poll.ts)
    if "\0" in poll.source:
        raise ValueError(f"source: {NUL}")
    if poll.interval_s is not None and not 0 <= poll.interval_s < 1e9:
        raise ValueError(f"interval_s: {poll.interval_s} is not a time in seconds")
    number, length = 0, 1
    if array_columns(poll.entity_type):
        number, length = _set_of(poll, batch, known, device)
    elif poll.set is not None:
        raise ValueError("set: a poll of the device itself has none")
    if any(not 0 <= position < length for position in poll.reset):
        raise ValueError(f"reset: positions are from 0 to {length - 1}")
    names = _stored(poll.entity_type, tuple(poll.columns))
    if not names:
        raise ValueError("columns: none that is in the registry")
    quality = QUALITY[poll.quality] + (LATE if taken.now - poll.ts > LATE_AFTER_MS else 0)
    return Row(at, device, poll.ts, number, length, quality, poll, _packed(poll, length), names)


@lru_cache(maxsize=1024)
def _stored(entity_type: str, metrics: tuple[str, ...]) -> tuple[str, ...]:
    """The table's columns for some metrics, sorted."""
    there = columns(entity_type)
    return tuple(sorted(there[metric].name for metric in metrics if metric in there))


def _set_of(poll: Poll, batch: Batch, known: Known, device: int) -> tuple[int, int]:
    if poll.set is None:
        raise ValueError(f"set: missing; a poll of {poll.entity_type!r} names its key set")
    if (found := known.sets.get((device, poll.entity_type, poll.set))) is not None:
        return found
    if poll.set not in batch.sets:
        raise ValueError(f"set: {poll.set!r} is not in sets")
    if set_id(batch.sets[poll.set]) != poll.set:
        raise ValueError(f"set: {poll.set!r} is not the id of its keys, which is {set_id(batch.sets[poll.set])!r}")
    raise ValueError(
        f"set: some of its keys are not known {poll.entity_type!r} entities; send them in inventory_patch.entities"
    )


def _packed(poll: Poll, length: int) -> dict[str, bytes]:
    """The columns that have a place in the table, in packed form, each as long as its key set."""
    there, packed = columns(poll.entity_type), {}
    for name, values in poll.columns.items():
        if (column := there.get(name)) is None:
            continue
        count = len(values)
        if isinstance(values, bytes):
            if count != length * column.width:
                if count % column.width:
                    raise ValueError(f"columns.{name}: {count} bytes, not a whole number of {column.width}-byte values")
                raise ValueError(f"columns.{name}: {count // column.width} values for {length} keys")
            packed[name] = values
        elif count != length:
            raise ValueError(f"columns.{name}: {count} values for {length} keys")
        else:
            try:
                packed[name] = column.pack(values)
            except ValueError as error:
                raise ValueError(f"columns.{name}: {error}") from error
    return packed


def _gathered(kind: str, rows: Sequence[Row]) -> dict[str, Numbers]:
    """By metric, in the registry's order, the values of all rows that have it."""
    present = set().union(*{row.names for row in rows})
    return {
        name: column.numbers(b"".join([row.columns[name] for row in rows if name in row.columns]))
        for name, column in columns(kind).items()
        if column.name in present
    }


def _faults(kind: str, rows: Sequence[Row], values: dict[str, Numbers]) -> dict[int, str]:
    """Why polls cannot be stored, by their place in the batch."""
    faults: dict[int, str] = {}
    for name, numbers in values.items():
        column = columns(kind)[name]
        wrong = column.wrong(numbers)
        if not wrong.any():
            continue
        ends = list(accumulate(row.length if name in row.columns else 0 for row in rows))
        for place in np.unique(np.searchsorted(ends, np.flatnonzero(wrong), "right")):
            row = rows[int(place)]
            try:
                column.check(unpack(column.kind, row.columns[name]))
            except ValueError as error:
                faults.setdefault(row.at, f"columns.{name}: {error}")
    return faults


def _waves(rows: Iterable[Row]) -> list[list[Row]]:
    """The rows such that no two of a wave are the same moment: one statement cannot touch a row twice."""
    waves: list[list[Row]] = []
    before, number = None, 0
    for row in rows:
        key = (row.device, row.ts, row.set)
        number = number + 1 if key == before else 0
        before = key
        if number == len(waves):
            waves.append([])
        waves[number].append(row)
    return waves


@cache
def _insert(kind: str) -> bytes:
    """The statement for an entity type. A moment that is there already keeps its values and gains missing columns."""
    of_sets = array_columns(kind)
    key = ("device_id", "ts", "set_id") if of_sets else ("device_id", "ts")
    there = columns(kind).values()
    names = [column.name for column in there]
    casts = [
        *("integer", "timestamptz", "integer")[: len(key)],
        *("real", "smallint", "text", "packed_smallint"),
        *(f"packed_{column.kind}" if of_sets else column.kind for column in there),
    ]
    gains = ", ".join(f"{n} = coalesce(p.{n}, excluded.{n})" for n in (*names, "reset"))
    new = " or ".join(f"(p.{n} is null and excluded.{n} is not null)" for n in names)
    return (
        f"insert into {table(kind)} as p"  # noqa: S608  # names of the registry
        f" (tenant_id, {', '.join(key)}, interval_s, quality, source, reset, {', '.join(names)})"
        f" select %s::smallint, new.* from unnest({', '.join(f'%s::{cast}[]' for cast in casts)}) as new"
        f" on conflict ({', '.join(key)}) do update set {gains} where {new}"
    ).encode()


def _parameters(landing: Landing) -> list[PackedArray | None]:
    rows, of_sets = landing.rows, array_columns(landing.kind)
    resets = [len(row.poll.reset) or None for row in rows]
    found: list[PackedArray | None] = [
        integers_parameter([row.device for row in rows]),
        times_parameter([row.ts for row in rows]),
        *([integers_parameter([row.set for row in rows])] if of_sets else []),
        _intervals(rows),
        array_parameter("smallint", np.array([row.quality for row in rows], np.int16)),
        texts_parameter([row.poll.source for row in rows]),
        arrays_parameter("smallint", np.array([p for row in rows for p in row.poll.reset], np.int16), resets),
    ]
    for name, column in columns(landing.kind).items():
        if (numbers := landing.values.get(name)) is None:
            found.append(None)
        elif of_sets:
            lengths = [row.length if name in row.columns else None for row in rows]
            found.append(arrays_parameter(column.kind, numbers, lengths))
        else:
            full = np.full(len(rows), FORMATS[column.kind][2], numbers.dtype)
            full[[name in row.columns for row in rows]] = numbers
            found.append(array_parameter(column.kind, full))
    return found


def _intervals(rows: Iterable[Row]) -> PackedArray:
    seconds = [nan if row.poll.interval_s is None else row.poll.interval_s for row in rows]
    return array_parameter("real", np.array(seconds, np.float32))


async def store_polls(connection: Connection, sender: Sender, found: Sequence[Landing], now: int) -> None:
    """Send the statements that store these rows; they are waited for when the pipeline of `connection` is."""
    if not found:
        return
    for landing in found:
        await connection.execute(_insert(landing.kind), [sender.tenant, *_parameters(landing)], prepare=True)
    # Last, since two batches of the same routers wait for each other from here on until they are committed.
    await connection.execute(_POINT, _pointers(sender, found), prepare=True)
    await connection.execute(_MARK, _marks(sender, found, now), prepare=True)


# How often a kind of poll really comes is the time between its two newest. After an outage that would be the outage: it
# counts as twice what was known at most, and a rhythm that did become slower is known after a few polls.
_POINT = b"""
insert into latest_poll as l (tenant_id, device_id, type, set_id, columns, ts, interval_s, period_s)
select %s::smallint, new.device, new.type, new.set, new.columns::text[], new.ts, new.interval, new.period
from unnest(%s::integer[], %s::text[], %s::integer[], %s::text[], %s::timestamptz[], %s::real[], %s::real[])
     as new(device, type, set, columns, ts, interval, period)
on conflict (device_id, type, set_id, columns) do update
set ts = excluded.ts, interval_s = excluded.interval_s,
    period_s = least(coalesce(excluded.period_s, extract(epoch from excluded.ts - l.ts)), 2 * l.period_s)
where l.ts < excluded.ts
"""


def _pointers(sender: Sender, found: Iterable[Landing]) -> list[object]:
    """The newest poll of each kind, and the time between the two newest of this batch."""
    newest: dict[tuple[int, str, int, tuple[str, ...]], list[Row]] = defaultdict(list)
    for landing in found:
        for row in landing.rows:
            newest[row.device, landing.kind, row.set, row.names].append(row)
    keys = sorted(newest)
    times = [sorted(row.ts for row in newest[key]) for key in keys]
    last = [max(newest[key], key=lambda row: row.ts) for key in keys]
    periods = [(ts[-1] - ts[-2]) / 1000 or nan if len(ts) > 1 else nan for ts in times]
    return [
        sender.tenant,
        integers_parameter([device for device, _, _, _ in keys]),
        texts_parameter([kind for _, kind, _, _ in keys]),
        integers_parameter([number for _, _, number, _ in keys]),
        texts_parameter([f"{{{','.join(names)}}}" for _, _, _, names in keys]),
        times_parameter([row.ts for row in last]),
        _intervals(last),
        array_parameter("real", np.array(periods, np.float32)),
    ]


# DO UPDATE, not DO NOTHING: it locks the mark even where nothing is to be changed, so the worker cannot take it before
# this data is visible to it.
_MARK = b"""
insert into rollup_dirty as d (tenant_id, device_id, type, hour, due)
select %s::smallint, new.* from unnest(%s::integer[], %s::text[], %s::timestamptz[], %s::timestamptz[]) as new
on conflict (device_id, type, hour) do update set due = excluded.due where excluded.due < d.due
"""


def due(device: int, hour: int, now: int) -> int:
    """When an hour of a device is to be packed, in milliseconds since 1970."""
    return max(now, hour + HOUR_MS + (CLOSING_SECONDS + device * 7919 % SPREAD_SECONDS) * 1000)


def _marks(sender: Sender, found: Iterable[Landing], now: int) -> list[object]:
    """The hours that these rows belong to."""
    marks = sorted({(row.device, part.kind, row.ts // HOUR_MS * HOUR_MS) for part in found for row in part.rows})
    return [
        sender.tenant,
        integers_parameter([device for device, _, _ in marks]),
        texts_parameter([kind for _, kind, _ in marks]),
        times_parameter([hour for _, _, hour in marks]),
        times_parameter([due(device, hour, now) for device, _, hour in marks]),
    ]
