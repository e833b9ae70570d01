"""CSV files as ISPs have them, and what a wrong one is told."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ispvm.inventory import sheets
from ispvm.inventory.planning import Inventory, Item, Plan, TooMuchError, plan
from ispvm.inventory.sheets import DEVICES, INTERFACES, LINKS, SHEETS, SITES, Fault, File, UnreadableError

EMPTY = Inventory("t", {name: {} for name in SHEETS}, {})


def read(text: str | bytes, name: str = "some.csv") -> File:
    faults: list[Fault] = []
    file = sheets.parse(name, text.encode() if isinstance(text, str) else text, faults)
    assert not faults, faults
    return file


def values(text: str | bytes) -> list[dict[str, Any]]:
    return [dict(row.values) for row in read(text).rows]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252"])
def test_a_spreadsheet_is_read_as_it_was_saved(delimiter: str, encoding: str) -> None:
    lines = [["Site", " NAME ", "Lat", "Long"], ["süd", "Südbahnhof – Halle", "48.19", "16.37"]]
    text = "\r\n".join(delimiter.join(line) for line in lines)
    expected = {"site": "süd", "name": "Südbahnhof – Halle", "latitude": 48.19, "longitude": 16.37}
    assert values(text.encode(encoding)) == [expected]


def test_a_decimal_comma_blank_lines_and_excels_own_first_line_are_understood() -> None:
    assert values("sep=;\r\nsite;lat;lon\r\n;;\r\nnorth;54,6;-5,9\r\n") == [
        {"site": "north", "latitude": 54.6, "longitude": -5.9}
    ]
    assert [row.line for row in read("sep=;\nsite;lat\n\nnorth;1").rows] == [4]


@pytest.mark.parametrize(
    ("header", "sheet"),
    [
        ("Site,Name", SITES),
        ("Router,Site,IP Address", DEVICES),
        ("device;Interface;Bandwidth", INTERFACES),
        ("LINK,Device_A,Interface A,device-b,interface b,capacity,medium", LINKS),
    ],
)
def test_the_header_says_what_a_file_is(header: str, sheet: sheets.Sheet) -> None:
    assert read(header).sheet is sheet


@pytest.mark.parametrize(
    ("cell", "bps"),
    [
        ("10G", 10**10), ("2.5 Gbit/s", 2_500_000_000), ("2,5g", 2_500_000_000), ("200M", 2 * 10**8), ("512k", 512_000),
        ("1000000000", 10**9), ("100 Mbps", 10**8), ("0.4T", 4 * 10**11),
    ],
)  # fmt: skip
def test_capacities(cell: str, bps: int) -> None:
    assert values(f"device;interface;capacity\nR;p;{cell}")[0]["capacity"] == bps


@pytest.mark.parametrize(
    ("text", "column", "value", "words"),
    [
        ("site;lat\nnorth;91", "latitude", "91", "-90 to 90"),
        ("site;lon\nnorth;5°W", "longitude", "5°W", "south and west are negative"),
        ("site,name\n,Northgate", "site", "", "every line names its site"),
        (f"site,name\nnorth,{'x' * 256}", "name", "x" * 256, "at most 255"),
        ("device,site,address\nR,n,192.0.2.1/24", "address", "192.0.2.1/24", "without /24"),
        ("device,site,address\nR,n,192.0.2.300", "address", "192.0.2.300", "neither an IP address"),
        ("device,role\nR,router", "role", "router", "core, rr, edge"),
        ("device,needed\nR,most", "needed", "most", "any, all, or how many"),
        (f"device,tags\nR,{'x' * 101}", "tags", "x" * 101, "separate tags"),
        ("device,interface,capacity\nR,p,fast", "capacity", "fast", "10G"),
        ("device,interface,capacity\nR,p,1000", "capacity", "1000", "write 1000M if it is Mbit/s"),
        ('device,interface,capacity\nR,p,"1,000M"', "capacity", "1,000M", "thousands or a fraction"),
        ("device,interface,capacity\nR,p,0.0001k", "capacity", "0.0001k", "whole number"),
        ("link,device a,device b,medium\nL,a,b,copper", "medium", "copper", "fiber, wireless, leased"),
    ],
)
def test_a_wrong_cell_is_named_with_line_column_value_and_fix(text: str, column: str, value: str, words: str) -> None:
    faults: list[Fault] = []
    sheets.parse("f.csv", text.encode(), faults)
    (fault,) = faults
    assert (fault.file, fault.line, fault.column, fault.value) == ("f.csv", 2, column, value)
    assert words in f"{fault.problem}; {fault.fix}"


@pytest.mark.parametrize(
    ("content", "line", "words"),
    [
        (b"", 0, "is empty"),
        (b"a,b\n1,2", 1, "sites: site; devices: device"),
        (b"site,Site\n1,2", 1, "has the column 'site' twice"),
        (b"site,name\nn,North,gate", 2, "has 3 cells, the header 2"),
        (b'site,name\nn,"North', 2, "cannot be taken apart"),
        (b"PK\x03\x04rest", 0, "save the sheet as CSV"),
        ("site\nnorth".encode("utf-16"), 0, "NUL"),
        (b"site,name\nn,\x81\xff", 2, "neither UTF-8 nor Windows-1252"),
        (b"site,name\nn," + b"x" * 200_000, 2, "cannot be taken apart"),
    ],
)
def test_a_file_that_cannot_be_used_says_why(content: bytes, line: int, words: str) -> None:
    with pytest.raises(UnreadableError) as caught:
        sheets.parse("f.csv", content, [])
    assert caught.value.fault.line == line
    assert words in str(caught.value)


def test_columns_without_a_place_are_named() -> None:
    assert read("site,name,rack,Landlord\nn,North,1,Ann").ignored == ["rack", "Landlord"]


def test_the_handbook_has_every_column() -> None:
    handbook = (Path(__file__).parents[2] / "docs" / "handbook" / "import-an-inventory.md").read_text()
    for sheet in SHEETS.values():
        for column in sheet.columns:
            needed = " (new)" if column.name in sheet.needs else " (key)" if column.name in sheet.key else ""
            assert f"| `{column.name}`{needed} | {column.meaning} | `{column.example}` |" in handbook, column.name


NAMES = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=20).filter(
    lambda name: name == name.strip() and bool(name)
)


@given(NAMES, NAMES, st.integers(1, 10**15), st.floats(-90, 90), st.floats(-180, 180))
def test_what_is_written_is_read_back(one: str, other: str, bps: int, latitude: float, longitude: float) -> None:
    site = {"site": one, "name": other, "latitude": latitude, "longitude": longitude}
    port = {"device": one, "interface": other, "capacity": bps, "tags": ("a", "b:c")}
    for sheet, item in ((SITES, site), (INTERFACES, port)):
        assert values(sheets.written(sheet, [item])) == [item]


@pytest.mark.parametrize("name", ["=1+1", "+1", "-x", "@SUM(A1)", "'=x", "'", "-1;2"])
def test_no_cell_is_taken_for_a_formula(name: str) -> None:
    text = sheets.written(SITES, [{"site": name, "longitude": -5.93}])
    (cells,) = list(csv.reader(io.StringIO(text)))[1:]
    assert not cells[0].startswith(("=", "+", "-", "@"))
    assert cells[3] == "-5.93"
    assert values(text)[0]["site"] == name


def inventory() -> Inventory:
    """One site, a router that an agent polls with one port, and one that nobody polls yet."""
    found = Inventory("t", {name: {} for name in SHEETS}, {("CORE-1", "uplink"): "sfp1"})
    site = {"site": "north", "name": "North", "latitude": None, "longitude": None}
    found.items["sites"][("north",)] = Item(1, "1", site)
    for name, agent in (("CORE-1", "pop"), ("EDGE-1", None)):
        router = {"device": name, "site": "north", "role": None, "address": "192.0.2.1", "tags": (), "depends on": (),
                  "needed": None}  # fmt: skip
        found.items["devices"][(name,)] = Item(2, "1", router, agent)
    port = {"device": "CORE-1", "interface": "sfp1", "capacity": None, "tags": ()}
    found.items["interfaces"]["CORE-1", "sfp1"] = Item(3, "1", port)
    return found


def planned(*texts: str) -> Plan:
    return plan([(f"{at}.csv", text.encode()) for at, text in enumerate(texts)], inventory())


def test_a_plan_says_what_is_added_changed_and_left_alone() -> None:
    made = planned(
        "site,name,lat,lon\nnorth,North,,\nsouth,,1,2",
        'device,site,address,role,depends on\nCORE-1,,,core,\nAGG-1,south,192.0.2.9,,"CORE-1, EDGE-1"',
        "device,interface,capacity\nCORE-1,uplink,10G\nAGG-1,sfp9,1G",
        "link,device a,interface a,device b,interface b,capacity,medium\nL,CORE-1,uplink,AGG-1,sfp9,1G,fiber",
    )
    assert made.faults == []
    assert [(c.name, c.action, c.cells) for c in made.changes] == [
        ("north", "same", []),
        ("south", "add", [("name", "", "south"), ("latitude", "", "1.0"), ("longitude", "", "2.0")]),
        ("CORE-1", "change", [("role", "", "core")]),
        (
            "AGG-1",
            "add",
            [("site", "", "south"), ("address", "", "192.0.2.9"), ("depends on", "", "CORE-1, EDGE-1"),
             ("needed", "", "any")],
        ),
        ("CORE-1 sfp1", "change", [("capacity", "", "10G")]),
        ("AGG-1 sfp9", "add", [("capacity", "", "1G")]),
        (
            "L",
            "add",
            [("device a", "", "CORE-1"), ("interface a", "", "sfp1"), ("device b", "", "AGG-1"),
             ("interface b", "", "sfp9"), ("capacity", "", "1G"), ("medium", "", "fiber")],
        ),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("texts", "column", "words"),
    [
        (["site\nsouth\nsouth"], "site", "stands in line 2 of 0.csv already"),
        (["site\nNorth"], "site", "differs from 'north' in its case only"),
        (["site,lat\nnorth,5"], "longitude", "give both or neither"),
        (["device,site,address\nNEW,north,"], "address", "is empty, and the router is new; give site, address"),
        (["device,site,address\nNEW,soth,192.0.2.7"], "site", "there is no site 'soth'"),
        (["device,site\nEDGE-1,NORTH"], "site", "write 'north'"),
        (["device,address\nCORE-1,192.0.2.99"], "address", "agent pop polls this router as 192.0.2.1"),
        (["site\nsouth", "device,site\nCORE-1,south"], "site", "leave the cell empty"),
        (["device,depends on\nEDGE-1,EDGE-1"], "depends on", "names the router itself"),
        (["device,depends on\nEDGE-1,CORE-9"], "depends on", "there is no router 'CORE-9'"),
        (["device,needed\nEDGE-1,all"], "needed", "while depends on is empty"),
        (["device,depends on,needed\nEDGE-1,CORE-1,2"], "needed", "2 are needed of 1 routers"),
        (["device,interface\nCORE-1,sfp2"], "interface", "agent pop finds no 'sfp2' on CORE-1; it has sfp1"),
        (["device,interface\nCORE-9,sfp1"], "device", "there is no router 'CORE-9'"),
        (
            ["link,device a,interface a,device b,interface b,capacity,medium\nL,CORE-1,sfp1,EDGE-1,p9,1G,fiber"],
            "interface b",
            "there is no interface 'EDGE-1 p9'",
        ),
        (
            ["link,device a,interface a,device b,interface b,capacity,medium\nL,CORE-1,sfp1,CORE-1,uplink,1G,fiber"],
            "interface b",
            "same port",
        ),
        (
            ["link,device a,interface a,device b,interface b\nL,CORE-1,sfp1,EDGE-9,p9"],
            "device b",
            "there is no router 'EDGE-9'",
        ),
    ],
)
def test_a_row_that_does_not_fit_the_inventory_is_an_error(texts: list[str], column: str, words: str) -> None:
    made = planned(*texts)
    assert [(f.column, words in f"{f.problem}; {f.fix}") for f in made.faults if f.column == column] == [(column, True)]


def test_an_error_in_a_row_does_not_follow_it_into_others() -> None:
    made = planned("site,lat,lon\nsouth,999,1", "device,site,address\nNEW,south,192.0.2.7")
    assert [fault.column for fault in made.faults] == ["latitude"]


def test_all_that_is_wrong_with_a_row_is_said_at_once() -> None:
    made = planned("device,interface,capacity\nCORE-9,sfp1,quick", "site,lat,lon\nNORTH,999,1")
    assert [fault.column for fault in made.faults] == ["capacity", "device", "latitude", "site"]


def test_the_digest_tells_plans_apart_by_what_they_show() -> None:
    text = "device,role\nCORE-1,core"
    later = inventory()
    later.items["devices"][("CORE-1",)] = Item(2, "1", {**later.items["devices"][("CORE-1",)].values, "role": "edge"})
    assert planned(text).digest == planned(text).digest
    assert planned(text).digest != plan([("0.csv", text.encode())], later).digest


def test_as_many_rows_as_are_allowed_are_planned_in_one_pass() -> None:
    """Comparing each new row with all others would take this test an hour."""
    ports = "".join(f"EDGE-1,p{n}\n" for n in range(sheets.MAX_ROWS))
    made = planned(f"device,interface\n{ports}")
    assert (len(made.of("interfaces", "add")), made.faults) == (sheets.MAX_ROWS, [])


def test_more_than_the_limits_is_refused_with_the_limit() -> None:
    with pytest.raises(TooMuchError, match=f"the limit is {sheets.MAX_BYTES}") as caught:
        plan([("a.csv", b"x" * (sheets.MAX_BYTES + 1))], EMPTY)
    assert caught.value.status == 413
    with pytest.raises(TooMuchError, match=f"the limit is {sheets.MAX_ROWS}") as caught:
        plan([("a.csv", b"site\n" + b"a\n" * (sheets.MAX_ROWS + 1))], EMPTY)
    assert caught.value.status == 422
