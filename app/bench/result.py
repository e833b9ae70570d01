"""One measured figure beside its peer and its limit, and the table of all of them."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

NAMES = ("ingest", "bytes", "chart", "tiles", "truth", "late", "day", "kills")


class Beside(Struct):
    """What a figure is compared with: the same unit, measured in the same run."""

    name: str
    values: list[float]


class Figure(Struct, omit_defaults=True):
    """One line of the table. `values` are of one unit, at least five where a round can be repeated.

    `goal` is what issue and docs promise, in words; `remark` what must be known to read the figure fairly.
    """

    benchmark: str
    what: str
    unit: str
    values: list[float]
    goal: str = ""
    peer: Beside | None = None
    limit: Beside | None = None
    remark: str = ""


class Result(Struct):
    """What runs leave behind as JSON; `machines` says for each benchmark on what and when it was measured."""

    command: str
    machines: dict[str, dict[str, str]]
    figures: list[Figure]


def number(value: float) -> str:
    """Three significant digits, thousands apart."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def spread(values: Sequence[float]) -> str:
    """Median [min–max], or the one value."""
    if len(values) == 1:
        return number(values[0])
    return f"{number(statistics.median(values))} [{number(min(values))}–{number(max(values))}]"


def ratio(values: Sequence[float], other: Beside | None) -> str:
    """Ours over theirs, by medians."""
    if other is None or not statistics.median(other.values):
        return ""
    return f"{statistics.median(values) / statistics.median(other.values):.2f}"


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` of all do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered), max(1, -int(-share * len(ordered) // 1))) - 1]


def table(figures: Iterable[Figure]) -> str:
    """Markdown."""
    head = ("benchmark", "figure", "unit", "ours", "peer", "limit", "ours/peer", "ours/limit", "goal")
    rows = [
        (
            f.benchmark, f.what, f.unit, spread(f.values),
            f"{f.peer.name}: {spread(f.peer.values)}" if f.peer else "",
            f"{f.limit.name}: {spread(f.limit.values)}" if f.limit else "",
            ratio(f.values, f.peer), ratio(f.values, f.limit), f.goal,
        )
        for f in figures
    ]  # fmt: skip
    lines = [f"| {' | '.join(row)} |" for row in (head, ("---",) * len(head), *rows)]
    return "\n".join(lines)


def remarks(figures: Iterable[Figure]) -> str:
    """What the table has no room for, one line each, each once."""
    return "\n".join(dict.fromkeys(f"- {f.benchmark}: {f.remark}" for f in figures if f.remark))


def merged(path: Path, command: str, name: str, fresh: Sequence[Figure], about: dict[str, str]) -> Result:
    """What `path` holds with the fresh figures of one benchmark in place of its old ones, in the order of NAMES."""
    result = read(path, command)
    result.machines[name] = about
    result.figures = sorted([f for f in result.figures if f.benchmark != name] + list(fresh), key=_place)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(result)))
    return result


def _place(figure: Figure) -> int:
    return NAMES.index(figure.benchmark)


def read(path: Path, command: str) -> Result:
    """The figures of earlier runs, if there were any."""
    return msgspec.json.decode(path.read_bytes(), type=Result) if path.exists() else Result(command, {}, [])
