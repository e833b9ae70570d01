from __future__ import annotations

import re
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
import zstandard
from bench.fleet import METRICS, Fleet, encode, values_of
from bench.kills import compare
from bench.result import Beside, Figure, merged, percentile, read, spread, table
from ispvm_contract import seed as seeds
from ispvm_contract.ingest import MAX_METRICS, Batch
from ispvm_contract.packed import packed
from ispvm_contract.registry import registry

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
DAY = 86_400


def test_a_fleet_is_what_the_contract_takes() -> None:
    fleet = Fleet("t", 90)
    assert seeds.check(fleet.seed()) == []
    batches = list(fleet.batches([DAY, DAY + 60]))
    assert [len(batch.polls) for batch in batches] == [89, 1, 89, 1]
    assert max(values_of(batch) for batch in batches) <= MAX_METRICS
    assert {name for batch in batches for poll in batch.polls for name in poll.columns} == set(METRICS)
    assert set(METRICS) <= set(registry().metrics)
    plain = zstandard.decompress(encode(batches[0]))
    assert msgspec.msgpack.decode(plain, type=Batch) == packed(batches[0])


def test_counters_agree_with_rates_and_a_fleet_repeats_itself() -> None:
    one, other = Fleet("t", 1), Fleet("t", 1)
    before, after = (one.columns(one.all[0], ts) for ts in (DAY, DAY + 60))
    rates = [
        (int(new or 0) - int(old or 0)) * 8 / 60
        for old, new in zip(before["interface.rx_bytes_total"], after["interface.rx_bytes_total"], strict=True)
    ]
    assert rates == [pytest.approx(rate, abs=1) for rate in after["interface.rx_bps"]]
    assert [other.columns(other.all[0], ts) for ts in (DAY, DAY + 60)] == [before, after]


def test_the_peer_gets_the_same_values() -> None:
    fleet = Fleet("t", 2, interfaces=3)
    (batch,) = fleet.batches([DAY])
    lines = fleet.influx(batch).decode().splitlines()
    assert len(lines) == 2 * 3
    numbers = Counter(int(number) for line in lines for number in re.findall(r"=(\d+)(?=[, ])", line.split(" ", 1)[1]))
    sent = Counter(int(v or 0) for poll in batch.polls for column in poll.columns.values() for v in column)
    assert numbers == sent
    assert all(line.endswith(f" {DAY * 1000}") for line in lines)


def test_the_ledger_finds_what_is_lost_doubled_and_unasked() -> None:
    a, b, c = (("r1", NOON + timedelta(minutes=n)) for n in range(3))
    assert compare([a, b], Counter({a: 1, b: 1})) == ([], [], [])
    assert compare([a, b], Counter({b: 2, c: 1})) == ([a], [b], [c])


def test_percentile_is_the_nearest_rank() -> None:
    values = [float(n) for n in range(1, 101)]
    assert [percentile(values, share) for share in (0, 0.5, 0.95, 0.951, 1)] == [1, 50, 95, 96, 100]
    assert percentile([7.0], 0.95) == 7


def test_the_table_says_median_range_and_both_ratios() -> None:
    figure = Figure("x", "y", "values/s", [3e6, 1e6, 2e6], "≥ 2×", Beside("peer", [1e6]), Beside("limit", [4e6]))
    assert spread(figure.values) == "2,000,000 [1,000,000–3,000,000]"
    *_, line = table([figure]).splitlines()
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[3:] == [
        "2,000,000 [1,000,000–3,000,000]", "peer: 1,000,000", "limit: 4,000,000", "2.00", "0.50", "≥ 2×",
    ]  # fmt: skip


def test_a_benchmark_repeated_replaces_its_own_figures_only(tmp_path: Path) -> None:
    path = tmp_path / "small.json"

    def figure(name: str, value: float) -> Figure:
        return Figure(name, "what", "ms", [value])

    merged(path, "make bench", "late", [figure("late", 1)], {"cores": "2"})
    merged(path, "make bench", "ingest", [figure("ingest", 2), figure("ingest", 3)], {"cores": "2"})
    merged(path, "make bench", "late", [figure("late", 4)], {"cores": "4"})

    found = read(path, "make bench")
    assert [(f.benchmark, f.values) for f in found.figures] == [("ingest", [2]), ("ingest", [3]), ("late", [4])]
    assert found.machines == {"ingest": {"cores": "2"}, "late": {"cores": "4"}}
