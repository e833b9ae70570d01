"""What files would add to the inventory and change in it: rows compared with what is there. Pure, nothing is written.

An import adds and changes; it deletes nothing, and an empty cell leaves what is there. What an agent knows of a router
it polls stays the agent's (docs/decisions/0048-imports-enrich-what-agents-declare.md).
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from ispvm.inventory import sheets
from ispvm.inventory.sheets import DEVICES, INTERFACES, SHEETS, SITES, Fault, File, Row, Sheet

Key = tuple[str, ...]
Upload = tuple[str, bytes]
Action = Literal["add", "change", "same"]
# What only the agent that polls a router may say of it.
_AGENTS_OWN = ("site", "address")
_ENDS = (("device a", "interface a"), ("device b", "interface b"))


class TooMuchError(ValueError):
    """More than one import may bring; `status` is that of the answer over HTTP."""

    def __init__(self, status: int, problem: str) -> None:
        """The limit and what was sent."""
        super().__init__(f"{problem}; import it in parts")
        self.status = status


@dataclass(frozen=True, slots=True)
class Item:
    """A thing of the inventory: its row, which version of it was read, its values by column, and who polls it."""

    id: int
    version: str
    values: Mapping[str, Any]
    agent: str | None = None


@dataclass(slots=True)
class Inventory:
    """All that can be imported of a tenant as it is now; `ports` are keys of interfaces by router and present name."""

    tenant: str
    items: dict[str, dict[Key, Item]]
    ports: dict[tuple[str, str], str]


@dataclass(frozen=True, slots=True)
class Change:
    """What a row comes to: `cells` are (column, old text, new text) of all that would be different."""

    sheet: Sheet
    row: Row
    key: Key
    action: Action
    cells: list[tuple[str, str, str]]
    values: Mapping[str, Any]
    item: Item | None

    @property
    def name(self) -> str:
        """Of which thing."""
        return " ".join(self.key)


@dataclass(slots=True)
class Plan:
    """What an import would do; with faults it does nothing at all."""

    changes: list[Change] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    ignored: list[tuple[str, list[str]]] = field(default_factory=list)

    @property
    def digest(self) -> str:
        """Equal for two plans that show the same."""
        shown = [(c.sheet.name, c.key, c.action, c.cells) for c in self.changes]
        return hashlib.sha256(msgspec.json.encode(shown)).hexdigest()

    @property
    def changed(self) -> bool:
        """Whether there is anything to do."""
        return any(change.action != "same" for change in self.changes)

    def of(self, sheet: str, action: Action) -> list[Change]:
        """The rows of a sheet that would be added, changed or left alone."""
        return [c for c in self.changes if c.sheet.name == sheet and c.action == action]

    def counts(self) -> dict[str, Counter[Action]]:
        """How many rows of each sheet."""
        found: dict[str, Counter[Action]] = {name: Counter() for name in SHEETS}
        for change in self.changes:
            found[change.sheet.name][change.action] += 1
        return found


def plan(uploads: Sequence[Upload], inventory: Inventory) -> Plan:
    """What these files (name, content) come to. Raises TooMuchError beyond the limits."""
    if (size := sum(len(content) for _, content in uploads)) > sheets.MAX_BYTES:
        raise TooMuchError(413, f"the files have {size} bytes, the limit is {sheets.MAX_BYTES}")
    made = Plan()
    files = []
    for name, content in uploads:
        try:
            files.append(sheets.parse(name, content, made.faults))
        except sheets.UnreadableError as error:
            made.faults.append(error.fault)
    if (count := sum(len(file.rows) for file in files)) > sheets.MAX_ROWS:
        raise TooMuchError(422, f"the files have {count} rows, the limit is {sheets.MAX_ROWS}")
    made.ignored = [(file.name, file.ignored) for file in files if file.ignored]
    _Planner(inventory, made).plan(files)
    made.faults.sort(key=lambda fault: (fault.file, fault.line))
    return made


def _folded(key: Key) -> Key:
    return tuple(part.casefold() for part in key)


class _Planner:
    """Compares rows with the inventory, sheet after sheet: later ones may name what earlier ones bring."""

    def __init__(self, inventory: Inventory, made: Plan) -> None:
        self.inventory, self.made = inventory, made
        self.brought: dict[str, dict[Key, Row]] = {name: {} for name in SHEETS}
        # The same names whatever their case: what somebody may have meant.
        self.folded = {name: {_folded(key): key for key in items} for name, items in inventory.items.items()}

    def plan(self, files: list[File]) -> None:
        for sheet in SHEETS.values():
            rows = [(row, self._key(sheet, row)) for file in files if file.sheet is sheet for row in file.rows]
            for row, key in rows:
                if key is None:
                    continue
                if first := self.brought[sheet.name].get(key):
                    self._fault(row, sheet.key[-1], f"stands in line {first.line} of {first.file} already", "leave one")
                else:
                    self.brought[sheet.name][key] = row
                    self.folded[sheet.name].setdefault(_folded(key), key)
            for row, key in rows:
                if key is not None and self.brought[sheet.name][key] is row:
                    self._row(sheet, row, key)

    def _fault(self, row: Row, column: str, problem: str, fix: str) -> None:
        self.made.faults.append(row.fault(column, problem, fix))

    def _key(self, sheet: Sheet, row: Row) -> Key | None:
        """By what a row is found; None when a cell of it is missing."""
        if any(name not in row.values for name in sheet.key):
            return None
        if sheet is INTERFACES:
            return self._port(row.values["device"], row.values["interface"])
        return tuple(row.values[name] for name in sheet.key)

    def _port(self, device: str, name: str) -> tuple[str, str]:
        """An interface by its key, whether it was called by that or by its present name."""
        if (device, name) in self.inventory.items["interfaces"]:
            return device, name
        return device, self.inventory.ports.get((device, name), name)

    def _row(self, sheet: Sheet, row: Row, key: Key) -> None:
        before = len(self.made.faults)
        item = self.inventory.items[sheet.name].get(key)
        old = item.values if item else {}
        values = {**old, **row.values, **dict(zip(sheet.key, key, strict=True))}
        if item is None:
            self._check_new(sheet, row, key)
        if sheet is SITES:
            values = self._site(row, values)
        elif sheet is DEVICES:
            values = self._device(row, values, item)
        elif sheet is INTERFACES:
            values = self._interface(row, values, item)
        else:
            values = self._link(row, values)
        if len(self.made.faults) > before or not row.sound:
            return
        names = [name for name in sheet.header if name not in sheet.key]
        pairs = [(name, sheets.text(sheet, name, old), sheets.text(sheet, name, values)) for name in names]
        cells = [pair for pair in pairs if pair[1] != pair[2]]
        action: Action = "add" if item is None else "change" if cells else "same"
        self.made.changes.append(Change(sheet, row, key, action, cells, values, item))

    def _check_new(self, sheet: Sheet, row: Row, key: Key) -> None:
        for name in sheet.needs:
            if name not in row.texts:
                self._fault(row, name, f"is empty, and the {sheet.thing} is new", f"give {', '.join(sheet.needs)}")
        if other := self._near(sheet, key):
            self._fault(row, sheet.key[-1], f"differs from {' '.join(other)!r} in its case only", "write it like that")

    def _near(self, sheet: Sheet, key: Key) -> Key | None:
        """What was probably meant."""
        found = self.folded[sheet.name].get(_folded(key))
        return found if found != key else None

    def _known(self, sheet: Sheet, key: Key) -> bool:
        return key in self.inventory.items[sheet.name] or key in self.brought[sheet.name]

    def _check_known(self, row: Row, column: str, sheet: Sheet, key: Key) -> None:
        if self._known(sheet, key):
            return
        near = self._near(sheet, key)
        fix = f"write {near[-1]!r}" if near else f"add it to {sheet.name}.csv"
        self._fault(row, column, f"there is no {sheet.thing} {' '.join(key)!r} in the inventory or in these files", fix)

    def _site(self, row: Row, values: dict[str, Any]) -> dict[str, Any]:
        missing = [n for n in ("latitude", "longitude") if values.get(n) is None and n not in row.texts]
        if len(missing) == 1:
            self._fault(row, missing[0], "is empty while the other coordinate is given", "give both or neither")
        return {"name": values["site"], **values}

    def _device(self, row: Row, values: dict[str, Any], item: Item | None) -> dict[str, Any]:
        if "site" in row.values:
            self._check_known(row, "site", SITES, (row.values["site"],))
        for name in _AGENTS_OWN:
            if item and item.agent and values[name] != item.values[name]:
                self._fault(
                    row,
                    name,
                    f"agent {item.agent} polls this router as {item.values[name]}",
                    "change it where the agent is told its routers, or leave the cell empty",
                )
        members = values.get("depends on", ())
        for member in members:
            if member == values["device"]:
                self._fault(row, "depends on", "names the router itself", "leave it out")
            else:
                self._check_known(row, "depends on", DEVICES, (member,))
        needed = values.get("needed") or ("any" if members else None)
        if needed and not members:
            self._fault(row, "needed", "says nothing while depends on is empty", "fill depends on or leave it empty")
        elif needed and needed.isdecimal() and int(needed) > len(members):
            column = "needed" if "needed" in row.values else "depends on"
            self._fault(row, column, f"{needed} are needed of {len(members)} routers", "need fewer or name more")
        return {"tags": (), "role": None, **values, "needed": needed}

    def _interface(self, row: Row, values: dict[str, Any], item: Item | None) -> dict[str, Any]:
        device, name = values["device"], values["interface"]
        self._check_known(row, "device", DEVICES, (device,))
        router = self.inventory.items["devices"].get((device,))
        if item is None and router is not None and router.agent:
            ports = sorted(port for owner, port in self.inventory.items["interfaces"] if owner == device)
            has = ", ".join(ports[:8]) + (" …" if len(ports) > 8 else "")
            self._fault(row, "interface", f"agent {router.agent} finds no {name!r} on {device}", f"it has {has}")
        return {"capacity": None, "tags": (), **values}

    def _link(self, row: Row, values: dict[str, Any]) -> dict[str, Any]:
        values = dict(values)
        ends = []
        for device, interface in _ENDS:
            if device not in values or interface not in values:
                continue
            end = self._port(values[device], values[interface])
            values[interface] = end[1]
            if not self._known(DEVICES, end[:1]):
                self._check_known(row, device, DEVICES, end[:1])
            else:
                self._check_known(row, interface, INTERFACES, end)
            ends.append(end)
        if len(ends) == 2 and ends[0] == ends[1]:
            self._fault(row, "interface b", "is the same port as at the other end", "name two ports")
        return values
