"""The telemetry registry v1: every metric and event there is, read from `registry.toml`.

Collectors, ingest validation, database columns, chart labels and the reference page come from these entries or
are checked against them.
"""

from __future__ import annotations

import re
import tomllib
from functools import cache
from importlib.resources import files
from typing import Literal

import msgspec

MetricType = Literal["gauge", "counter", "enum", "bool"]
Frequency = Literal["fast", "medium", "slow"]
# How a metric's values are kept, as PostgreSQL calls it: counters and bytes are whole and exact, states are codes.
Kind = Literal["real", "bigint", "smallint", "boolean"]
_NAME = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*")


class Metric(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One metric.

    `unit` is in the field's notation ("bit/s", "By", "%", "s", "ms", "1" for counts and states); `values` names the
    codes of an enum, in code order; `label` is what a chart prints.
    """

    name: str
    entity_type: str
    type: MetricType
    unit: str
    description: str
    expected_frequency: Frequency
    sources: tuple[str, ...]
    label: str
    labels_allowed: tuple[str, ...] = ()
    values: tuple[str, ...] = ()
    notes: str = ""

    @property
    def column(self) -> str:
        """The database column of this metric in its entity type's landing table: the name without its entity prefix."""
        prefix = f"{self.entity_type}."
        short = self.name.removeprefix(prefix) if self.name.startswith(prefix) else self.name
        return short.replace(".", "_")

    @property
    def kind(self) -> Kind:
        """How its values are kept and, in a packed column, sent."""
        if self.type == "bool":
            return "boolean"
        if self.type == "enum":
            return "smallint"
        return "bigint" if self.type == "counter" or self.unit == "By" else "real"


class Event(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One kind of event; every instance carries old and new value, a uuid, a time, a severity and an entity."""

    name: str
    entity_type: str
    severity: str
    description: str


class Registry(msgspec.Struct, frozen=True):
    """All metrics and events by name, in the order of the file."""

    version: int
    metrics: dict[str, Metric]
    events: dict[str, Event]

    def of(self, entity_type: str) -> tuple[Metric, ...]:
        """The metrics of one entity type, in registry order."""
        return tuple(m for m in self.metrics.values() if m.entity_type == entity_type)

    @property
    def entity_types(self) -> tuple[str, ...]:
        """Every entity type that has a metric, in the order of first mention."""
        return tuple(dict.fromkeys(m.entity_type for m in self.metrics.values()))


def parse(text: str) -> Registry:
    """Read a registry; raises ValueError naming the entry and what is wrong with it."""
    raw = tomllib.loads(text)
    metrics: dict[str, Metric] = {}
    for entry in raw["metric"]:
        try:
            metric = msgspec.convert(entry, Metric)
        except msgspec.ValidationError as error:
            raise ValueError(f"metric {entry.get('name')!r}: {error}") from error
        if not _NAME.fullmatch(metric.name):
            raise ValueError(f"metric {metric.name!r}: names are lowercase words joined by dots")
        if metric.name in metrics:
            raise ValueError(f"metric {metric.name!r} stands twice")
        if (metric.type == "enum") != bool(metric.values):
            raise ValueError(f"metric {metric.name!r}: an enum lists its values, nothing else does")
        metrics[metric.name] = metric
    events = {entry["name"]: msgspec.convert(entry, Event) for entry in raw["event"]}
    return Registry(version=raw["version"], metrics=metrics, events=events)


@cache
def registry() -> Registry:
    """The registry of this release."""
    return parse(files("ispvm_contract").joinpath("registry.toml").read_text(encoding="utf-8"))
