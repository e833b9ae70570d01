"""A lab of the small demo seed in the test's own event loop."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from ispvm_contract import seed as seeds
from ispvm_lab.lab import Lab, Override
from lab_clients import SEEDS, Net, free_ports

Change = Callable[[seeds.Seed], None]


@pytest.fixture
def change_seed() -> Change:
    """What to change in the seed before the lab starts; a test that wants something else overrides it by parameter."""
    return lambda seed: None


@pytest.fixture
async def net(tmp_path: Path, change_seed: Change) -> AsyncIterator[Net]:
    seed = seeds.load(SEEDS / "demo_small.json")
    change_seed(seed)
    base = free_ports(2 * len(seed.devices))
    async with Lab(seed, tmp_path).running(Override("127.0.0.1", base)) as lab:
        yield Net(lab, base, tmp_path)
