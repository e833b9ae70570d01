"""The benchmarks that judge can fail, and the outage at a small scale, with kills, loses and doubles nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[1] / "bench"
sys.path.insert(0, str(BENCH))

import soak  # noqa: E402 - the directory of the benchmarks is no package


def test_an_outage_is_replayed_with_kills_of_both_sides() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(BENCH), str(BENCH.parents[1] / "ci"), *sys.path])}
    small = ["--hours", "0.05", "--routers", "20", "--interfaces", "5", "--kills", "1", "--fast-seconds", "2"]
    done = subprocess.run([sys.executable, str(BENCH / "outage.py"), *small, "--live-seconds", "3"],
                          env=environment, capture_output=True, text=True, timeout=100)  # fmt: skip
    facts = done.stdout + done.stderr
    # Whether live polls are on time is for the benchmark: this machine may be busy.
    assert "lost 0, doubled 0, dropped 0" in facts, facts
    assert "agent started 2 times" in facts, facts
    assert "batches were lost" not in facts


@pytest.mark.parametrize(("growth", "grown"), [(0.0, 0), (1.0, 2)])
def test_the_soak_sees_growth(growth: float, grown: int) -> None:
    """A megabyte and a file a minute, hidden in noise."""
    samples = [(30.0 * n, 90 + growth * n / 2 + (n % 3) * 0.2) for n in range(40)]
    assert len(soak.judge(samples, samples)) == grown
