"""The inventory as CSV files: which columns there are, and how a cell is read and written.

What is exported is read back as the same values, so an export that nobody edited imports as unchanged.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from ipaddress import ip_address
from typing import Any, get_args

from ispvm_contract.seed import Medium, Role

MAX_BYTES = 4 * 1024 * 1024
MAX_ROWS = 60_000
MAX_FAULTS = 1000
_SIZES = {"k": 3, "m": 6, "g": 9, "t": 12}
_CAPACITY = re.compile(r"(\d+(?:[.,]\d+)?)\s*([kmgt]?)(bit/s|bits/s|bps|b/s|bit|b)?", re.IGNORECASE)
# Thousands, or a fraction of three digits: nobody can tell.
_UNCLEAR = re.compile(r"\d{1,3}[.,]\d{3}")
_DEGREES = re.compile(r"-?\d+(?:[.,]\d+)?")
_HOST = re.compile(r"(?=.{1,253}$)[A-Za-z0-9]([A-Za-z0-9-]{0,62})(\.[A-Za-z0-9]([A-Za-z0-9-]{0,62}))*")
# A spreadsheet takes a cell that begins so for a formula; numbers are harmless.
_RISKY = ("=", "+", "-", "@", "\t", "\r", "'")


class CellError(ValueError):
    """What is wrong with a cell, and what to write instead."""

    def __init__(self, problem: str, fix: str) -> None:
        """Two clauses without a full stop."""
        super().__init__(problem)
        self.problem, self.fix = problem, fix


@dataclass(frozen=True, slots=True)
class Fault:
    """One error of an import: where, what was there, what to do."""

    file: str
    line: int
    column: str
    value: str
    problem: str
    fix: str

    def __str__(self) -> str:
        """For a terminal."""
        where = f"{self.file}:{self.line}" if self.line else self.file
        cell = f" {self.column} {self.value!r}:" if self.column else ""
        return f"{where}:{cell} {self.problem}; {self.fix}"


def _name(cell: str) -> str:
    if len(cell) > 255:
        raise CellError(f"is {len(cell)} characters long", "use at most 255")
    return cell


def _degrees(limit: int) -> Callable[[str], float]:
    def read(cell: str) -> float:
        if not _DEGREES.fullmatch(cell) or abs(value := float(cell.replace(",", "."))) > limit:
            raise CellError(
                f"is not a number from -{limit} to {limit}", "write degrees such as 52.52; south and west are negative"
            )
        return value

    return read


def _degrees_text(value: float) -> str:
    return f"{Decimal(repr(value)):f}"


def _address(cell: str) -> str:
    try:
        return str(ip_address(cell))
    except ValueError:
        # Of digits and dots only, it is an address with a slip, not a name.
        if _HOST.fullmatch(cell) and not re.fullmatch(r"[\d.]+", cell):
            return cell
    raise CellError("is neither an IP address nor a host name", "write it such as 192.0.2.1, without /24 or a port")


def _one_of(words: Iterable[str]) -> Callable[[str], str]:
    known = tuple(words)

    def read(cell: str) -> str:
        if (word := cell.lower()) not in known:
            raise CellError("is not known here", f"write one of {', '.join(known)}")
        return word

    return read


def _capacity(cell: str) -> int:
    found = _CAPACITY.fullmatch(cell)
    if not found:
        raise CellError("is not a rate", "write it such as 10G, 2.5G or 200M (bit/s)")
    number, unit = found[1], found[2].lower()
    if _UNCLEAR.fullmatch(number):
        raise CellError("could mean thousands or a fraction", "write it without a separator, such as 1000M or 1G")
    value = Decimal(number.replace(",", ".")).scaleb(_SIZES.get(unit, 0))
    if not unit and not found[3] and value < 1_000_000:
        raise CellError("has no unit", f"write {number}M if it is Mbit/s")
    if value != int(value) or not 0 < value <= 10**15:
        raise CellError("is not a whole number of bit/s up to 1000T", "write it such as 10G, 2.5G or 200M")
    return int(value)


def _capacity_text(value: int) -> str:
    for unit in reversed(_SIZES):
        number = f"{Decimal(value).scaleb(-_SIZES[unit]).normalize():f}"
        if value >= 10 ** _SIZES[unit] and not _UNCLEAR.fullmatch(number):
            return f"{number}{unit.upper() if unit != 'k' else unit}"
    return f"{value} bit/s"


def _tags(cell: str) -> tuple[str, ...]:
    tags = tuple(sorted({tag for tag in re.split(r"[\s,;]+", cell) if tag}))
    if any(len(tag) > 100 for tag in tags):
        raise CellError("has a tag of more than 100 characters", "separate tags with blanks")
    return tags


def _names(cell: str) -> tuple[str, ...]:
    return tuple(sorted({name for part in re.split(r"[,;\n]", cell) if (name := part.strip())}))


def _needed(cell: str) -> str:
    word = cell.lower()
    if word not in ("any", "all") and not (word.isdecimal() and 0 < int(word) <= 1000):
        raise CellError("is not known here", "write any, all, or how many of them must be up, such as 2")
    return word if word in ("any", "all") else str(int(word))


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its name, what it means, an example, how a cell becomes a value and how it is written."""

    name: str
    meaning: str
    example: str
    read: Callable[[str], Any] = _name
    write: Callable[[Any], str] = str
    also: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Sheet:
    """One kind of file, known by some columns of its header. Rows are found by `key`; new ones also need `needs`."""

    name: str
    thing: str
    known_by: tuple[str, ...]
    key: tuple[str, ...]
    needs: tuple[str, ...]
    columns: tuple[Column, ...]

    def column(self, name: str) -> Column:
        """The column of that name."""
        return next(column for column in self.columns if column.name == name)

    @property
    def header(self) -> list[str]:
        """The first row of a file."""
        return [column.name for column in self.columns]


_SITE = Column("site", "short name of the PoP, as agents use it", "north", also=("site key", "pop"))
_DEVICE = Column("device", "the router's name, as agents use it", "CORE-NTH-1", also=("router", "device name"))
_INTERFACE = Column("interface", "the port's default name, or its present one", "sfp28-1")
_TAGS = Column(
    "tags", "all of its tags, with blanks between them", "uplink:true provider:meridian", _tags, " ".join, ("tag",)
)
_RATE = Column("capacity", "in bit/s, with its unit", "10G", _capacity, _capacity_text, ("bandwidth", "speed"))

SITES = Sheet(
    "sites",
    "site",
    ("site",),
    ("site",),
    (),
    (
        _SITE,
        Column("name", "what people call it", "Northgate", also=("site name",)),
        Column("latitude", "degrees, north is positive", "54.597", _degrees(90), _degrees_text, ("lat",)),
        Column("longitude", "degrees, east is positive", "-5.93", _degrees(180), _degrees_text, ("lon", "lng", "long")),
    ),
)
DEVICES = Sheet(
    "devices",
    "router",
    ("device",),
    ("device",),
    ("site", "address"),
    (
        _DEVICE,
        _SITE,
        Column("role", ", ".join(get_args(Role)), "core", _one_of(get_args(Role))),
        Column("address", "management address", "192.0.2.21", _address, also=("ip", "ip address")),
        _TAGS,
        Column("depends on", "routers it is reached through, with commas between them", "CORE-NTH-1, CORE-HBR-1",
               _names, ", ".join),
        Column("needed", "how many of them must be up: any, all, or a number", "any", _needed),
    ),
)  # fmt: skip
INTERFACES = Sheet(
    "interfaces",
    "interface",
    ("device", "interface"),
    ("device", "interface"),
    (),
    (_DEVICE, _INTERFACE, _RATE, _TAGS),
)

LINKS = Sheet(
    "links",
    "link",
    ("link", "device a", "device b"),
    ("link",),
    ("device a", "interface a", "device b", "interface b", "capacity", "medium"),
    (
        Column("link", "name of the link", "NTH-HBR", also=("link name", "circuit")),
        Column("device a", "router at one end", "CORE-NTH-1", also=("router a", "a device")),
        Column("interface a", "its port", "sfp28-2", also=("port a", "a interface")),
        Column("device b", "router at the other end", "CORE-HBR-1", also=("router b", "b device")),
        Column("interface b", "its port", "sfp28-1", also=("port b", "b interface")),
        _RATE,
        Column("medium", ", ".join(get_args(Medium)), "fiber", _one_of(get_args(Medium))),
    ),
)
# In the order in which they build on each other.
SHEETS = {sheet.name: sheet for sheet in (SITES, DEVICES, INTERFACES, LINKS)}


@dataclass(frozen=True, slots=True)
class Row:
    """A line of a file: its cells that are not empty, by column, and their values; not `sound` when one is wrong."""

    file: str
    line: int
    texts: Mapping[str, str]
    values: Mapping[str, Any]
    sound: bool

    def fault(self, column: str, problem: str, fix: str) -> Fault:
        """An error in one of its cells."""
        return Fault(self.file, self.line, column, self.texts.get(column, ""), problem, fix)


@dataclass(frozen=True, slots=True)
class File:
    """A file that was read: which sheet it is, its rows, and the columns that have no place in the inventory."""

    name: str
    sheet: Sheet
    rows: list[Row]
    ignored: list[str]


class UnreadableError(ValueError):
    """Nothing of a file could be used; the fault says why."""

    def __init__(self, file: str, line: int, problem: str, fix: str) -> None:
        """Of the whole file, or of a line of it."""
        self.fault = Fault(file, line, "", "", problem, fix)
        super().__init__(str(self.fault))


def _plain(header: str) -> str:
    return re.sub(r"[^a-z]", "", header.lower())


def decoded(name: str, content: bytes) -> str:
    """The text of a file; raises UnreadableError when it is none."""
    if content.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):
        raise UnreadableError(name, 0, "is a workbook, not a CSV file", "save the sheet as CSV and send that")
    if b"\0" in content:
        raise UnreadableError(name, 0, "holds NUL characters", "save it as CSV UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        pass
    try:
        return content.decode("cp1252")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UnreadableError(
            name, line, f"byte {content[error.start]:#04x} is neither UTF-8 nor Windows-1252", "save it as CSV UTF-8"
        ) from error


def _lines(name: str, text: str) -> list[tuple[int, list[str]]]:
    """The rows that are not empty, each with the number of its first line."""
    skipped = 0
    if told := re.match(r"sep=(.)\r?\n", text):  # what Excel writes to tell itself
        text, skipped = text[told.end() :], 1
        delimiter = told[1]
    else:
        first = text.lstrip().partition("\n")[0]
        delimiter = max(",;\t", key=lambda one: len(next(csv.reader([first], delimiter=one), [])))
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows, at = [], 1
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                rows.append((at + skipped, [_unescaped(cell.strip()) for cell in cells]))
            at = reader.line_num + 1
    except csv.Error as error:
        raise UnreadableError(
            name, at + skipped, f"cannot be taken apart: {error}", 'write a quote inside a quoted cell twice ("")'
        ) from error
    return rows


def parse(name: str, content: bytes, faults: list[Fault]) -> File:
    """Read a file. Errors of its cells go to `faults`; raises UnreadableError when nothing of it can be used."""
    lines = _lines(name, decoded(name, content))
    if not lines:
        raise UnreadableError(name, 0, "is empty", f"begin with a header such as {', '.join(SITES.header)}")
    (at, header), *rows = lines
    sheet, places = _sheet(name, at, header)
    ignored = [cell for place, cell in enumerate(header) if cell and place not in places]
    found = []
    for line, cells in rows:
        if any(cells[len(header) :]):
            raise UnreadableError(
                name, line, f"has {len(cells)} cells, the header {len(header)}", "put cells that hold it in quotes"
            )
        texts = {column.name: cells[place] for place, column in places.items() if place < len(cells) and cells[place]}
        found.append(_row(name, line, texts, sheet, faults))
    return File(name, sheet, found, ignored)


def _sheet(name: str, line: int, header: list[str]) -> tuple[Sheet, dict[int, Column]]:
    """Which sheet a header is of, and which column stands at which place."""
    cells = [_plain(cell) for cell in header]
    for sheet in reversed(SHEETS.values()):  # a file of links has devices too, and so on
        known = {_plain(word): column for column in sheet.columns for word in (column.name, *column.also)}
        places = {place: known[cell] for place, cell in enumerate(cells) if cell in known}
        names = [column.name for column in places.values()]
        if not set(sheet.known_by) <= set(names):
            continue
        if twice := next((column for column in names if names.count(column) > 1), None):
            raise UnreadableError(name, line, f"has the column {twice!r} twice", "leave one of them out")
        return sheet, places
    keys = "; ".join(f"{sheet.name}: {', '.join(sheet.known_by)}" for sheet in SHEETS.values())
    raise UnreadableError(name, line, "is not a header that is known", f"name at least these columns ({keys})")


def _row(file: str, line: int, texts: Mapping[str, str], sheet: Sheet, faults: list[Fault]) -> Row:
    before = len(faults)
    values = {}
    for name, cell in texts.items():
        try:
            values[name] = sheet.column(name).read(cell)
        except CellError as error:
            faults.append(Fault(file, line, name, cell, error.problem, error.fix))
    faults += [
        Fault(file, line, name, "", "is empty", f"every line names its {name}")
        for name in sheet.key
        if name not in texts
    ]
    return Row(file, line, texts, values, len(faults) == before)


def _unescaped(cell: str) -> str:
    return cell[1:] if cell.startswith("'") and cell[1:].startswith(_RISKY) else cell


def _escaped(cell: str) -> str:
    """A cell that no spreadsheet takes for a formula."""
    return f"'{cell}" if cell.startswith(_RISKY) and not _DEGREES.fullmatch(cell) else cell


def written(sheet: Sheet, items: Iterable[Mapping[str, Any]]) -> str:
    """A file with these rows: RFC 4180, empty where there is no value."""
    out = io.StringIO(newline="")
    table = csv.writer(out)
    table.writerow(sheet.header)
    for item in items:
        table.writerow([_escaped(text(sheet, column.name, item)) for column in sheet.columns])
    return out.getvalue()


def text(sheet: Sheet, name: str, values: Mapping[str, Any]) -> str:
    """One value as a cell; empty where there is none."""
    value = values.get(name)
    return "" if value is None or value == () else sheet.column(name).write(value)
