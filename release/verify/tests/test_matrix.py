"""Both verifiers over the attack matrix: everything is caught, they agree, and no good release is refused."""

from __future__ import annotations

import re
from pathlib import Path

import arithmetic
import mutate
import pytest
from attacks import Case, Lab
from verifiers import both, prepare

from release.verify import verify

pytestmark = pytest.mark.timeout(600)  # thousands of processes: a loaded machine takes its time


def test_every_attack_is_caught_by_both_for_the_same_reason(lab: Lab, home: Path) -> None:
    cases = lab.cases()
    assert len(cases) >= 200
    wrong = []
    codes = set()
    for case, python, shell in both(prepare(lab, cases, home / "attacks")):
        codes.add(python.code)
        # no file name reaches the terminal as it is
        assert not re.search(r"[^\n -~]", python.report + shell.report), case.name
        if python.exit != 1 or not python.same(shell) or (case.code and python.code != case.code):
            wrong.append(f"{case.name} ({case.code}): verify.py {python.exit} {python.report[-300:]}")
            wrong.append(f"    verify.sh {shell.exit} {shell.report[-300:]}")
    assert not wrong, "\n".join(wrong)
    # every reason to refuse was seen
    assert codes == {
        "bad-state", "odd-file", "missing-file", "unknown-key", "test-key", "bad-signature", "bad-comment", "bad-index",
        "bad-manifest", "extra-file", "changed-file", "incomplete", "bad-release", "bad-provenance", "bad-sbom",
        "bad-attestation", "few-attestations", "rollback", "second-release", "upgrade-path", "expired",
    }  # fmt: skip


def test_no_good_release_is_refused(lab: Lab, home: Path) -> None:
    cases = lab.good()
    assert len(cases) >= 50
    wrong = []
    for case, python, shell in both(prepare(lab, cases, home / "good")):
        if python.exit != 0 or not python.same(shell) or not all(line in python.report for line in case.lines):
            wrong.append(f"{case.name}: verify.py {python.exit} {python.report} {python.state}")
            wrong.append(f"    verify.sh {shell.exit} {shell.report} {shell.state}")
    assert not wrong, "\n".join(wrong)


def test_arithmetic_agrees_with_the_library() -> None:
    arithmetic.check(verify, rounds=20)


def test_a_weakened_verifier_is_noticed(home: Path) -> None:
    # all of them: make mutate
    tried, left = mutate.survivors(home / "mutants", only="python", like=r"^check_(expiry|history): .*: never$")
    assert tried >= 5
    assert left == []


def test_a_command_line_that_makes_no_sense_is_not_guessed_at(lab: Lab, home: Path) -> None:
    cases = lab.unusable()
    assert len(cases) >= 10
    answers = both(prepare(lab, cases, home / "unusable"))
    assert [(case.name, python.exit, shell.exit) for case, python, shell in answers] == [(c.name, 2, 2) for c in cases]


def test_without_a_fingerprint_nothing_is_decided(lab: Lab, home: Path) -> None:
    case = Case("no fingerprint", "good", lambda _: None, key=False)
    ((_, python, shell),) = both(prepare(lab, [case], home / "undecided"))
    assert (python.exit, shell.exit) == (2, 2)
    assert "--fingerprint is missing" in python.report
    assert "--fingerprint is missing" in shell.report


# --- the documents ----------------------------------------------------------------------------------------------------

DOCS = Path(verify.__file__).resolve().parents[2] / "docs"


def test_the_document_explains_every_code_of_the_verifiers() -> None:
    codes = set(re.findall(r'refuse\(\s*"([a-z-]+)"', Path(verify.__file__).read_text()))
    assert len(codes) > 15
    assert [code for code in sorted(codes) if f"`{code}`" not in (DOCS / "verify.md").read_text()] == []


def test_every_test_that_the_threat_model_names_exists() -> None:
    named = set(re.findall(r"`(test_[a-z_]+)`", (DOCS / "threat-model.md").read_text()))
    rooms = DOCS.parent / "release"
    there = {name for path in rooms.rglob("test_*.py") for name in re.findall(r"def (test_\w+)", path.read_text())}
    assert len(named) > 12
    assert named - there == set()
