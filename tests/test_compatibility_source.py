"""SBOM/compatibility.yml: a promise without evidence is refused, and each generated form says all of it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from ispvm_contract.compatibility import Cell, Compatibility, Deprecation
from msgspec import structs

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "ci"))

import compatibility  # noqa: E402 - ci/ is no package

VERSION = (ROOT / "VERSION").read_text().strip()


def with_cell(**fields: object) -> Compatibility:
    cell = Cell(**{"part": "X", "version": "1", "state": "tested", **fields})  # type: ignore[arg-type]
    return structs.replace(compatibility.matrix(), cells=(cell,))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "evidence: nothing is not in the repository"),
        ({"evidence": "molecule/gone"}, "evidence: molecule/gone is not in the repository"),
        ({"evidence": "molecule/appliance"}, "say which version the test must meet"),
        ({"state": "untested"}, "an untested cell has a note and no evidence"),
        ({"state": "untested", "note": "no", "evidence": "README.md"}, "an untested cell has a note and no evidence"),
        ({"state": "emulated"}, "evidence"),
    ],
)
def test_a_promise_that_nothing_shows_is_refused(fields: dict[str, object], said: str) -> None:
    assert any(said in fault for fault in compatibility.problems(with_cell(**fields), VERSION))


def test_the_matrix_belongs_to_the_version_and_notice_is_given() -> None:
    known = compatibility.matrix()
    assert compatibility.problems(known, VERSION) == []
    assert "the file VERSION says 9.9.9" in compatibility.problems(known, "9.9.9")[0]
    hasty = structs.replace(known, deprecations=(Deprecation("x", "2026-01-01", "2026-03-01", "y"),))
    assert "59 days' notice, 180 are promised" in compatibility.problems(hasty, VERSION)[0]


def test_every_form_shows_every_cell() -> None:
    known = compatibility.matrix()
    for form in (compatibility.as_markdown(known), compatibility.as_html(known), compatibility.as_json(known)):
        assert all(cell.version in form and cell.state in form for cell in known.cells)
