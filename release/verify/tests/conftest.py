"""Fixtures of the verifiers' tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from attacks import Lab
from verifiers import scratch


@pytest.fixture(scope="session")
def home() -> Iterator[Path]:
    with scratch() as path:
        yield Path(path)


@pytest.fixture(scope="session")
def lab(home: Path) -> Lab:
    return Lab(home / "lab")
