"""The gates can fail: every rule on a planted example, every ecosystem on a canary, and on themselves."""

from __future__ import annotations

import datetime
import io
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from release.gates import GateError, __main__, keys, misconfiguration, secrets, versions, vulnerabilities
from release.sbom import vex

ROOT = Path(__file__).resolve().parents[3]
SNAPSHOT = ROOT / "SBOM" / "advisories"
TODAY = vulnerabilities.load(SNAPSHOT)[1]


def bom(*purls: str) -> dict[str, Any]:
    return {"components": [{"purl": purl} for purl in purls]}


def statement(**changes: Any) -> vex.Statement:
    known = {
        "id": "CVE-2024-21489",
        "package": "pkg:npm/uplot",
        "state": "not_affected",
        "justification": "code_not_reachable",
        "detail": "x",
        "evidence": ("x",),
        "author": "x",
        "date": TODAY,
        "expires": TODAY + datetime.timedelta(days=1),
    }
    return vex.Statement(**{**known, **changes})


# ---- versions ----


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ("1.0", "1.0.1"), ("1.0~rc1", "1.0"), ("1.0~~", "1.0~"), ("1.9", "1.10"), ("9", "1:0"), ("1.0-1", "1.0-1+b1"),
        ("1.0-1", "1.0-1+deb13u1"), ("1.0+dfsg-1", "1.0+dfsg-2"), ("2.0a", "2.0+"), ("3.0.11-1~deb12u1", "3.0.11-1"),
    ],
)  # fmt: skip
def test_debian_order(older: str, newer: str) -> None:
    assert versions.compare_debian(older, newer) < 0 < versions.compare_debian(newer, older)
    assert versions.compare_debian(older, older) == 0
    assert subprocess.run(["dpkg", "--compare-versions", older, "lt", newer]).returncode == 0


@pytest.mark.parametrize(
    ("older", "newer"), [("1.0rc1", "1.0"), ("1.9", "1.10"), ("1.0.dev1", "1.0a1"), ("1.0", "1.0.post1")]
)
def test_python_order(older: str, newer: str) -> None:
    assert versions.compare_pypi(older, newer) < 0 < versions.compare_pypi(newer, older)


@pytest.mark.parametrize(
    ("older", "newer"), [("1.0.0-rc.1", "1.0.0"), ("1.0.0-rc.2", "1.0.0-rc.10"), ("1.9.0", "1.10.0")]
)
def test_semantic_order(older: str, newer: str) -> None:
    assert versions.compare_semver(older, newer) < 0 < versions.compare_semver(newer, older)
    assert versions.compare_semver("1.0.0+a", "1.0.0+b") == 0


@pytest.mark.parametrize(
    ("version", "hit"), [("0.9", False), ("1.0", True), ("1.4", True), ("1.5", False), ("2.0", True), ("2.1", False)]
)
def test_ranges(version: str, hit: bool) -> None:
    events = [{"introduced": "1.0"}, {"fixed": "1.5"}, {"introduced": "2.0"}, {"last_affected": "2.0"}]
    assert versions.affected("PyPI", version, {"ranges": [{"type": "ECOSYSTEM", "events": events}]}) is hit


def test_ranges_that_cannot_be_read_are_no_pass() -> None:
    with pytest.raises(GateError):
        versions.affected("Homebrew", "1", {"versions": ["1"]})
    with pytest.raises(GateError):
        versions.affected("PyPI", "1", {})
    with pytest.raises(GateError):
        versions.affected("PyPI", "no version", {"ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "1"}]}]})


# ---- vulnerabilities ----


def test_finding_without_statement_fails_and_with_one_passes() -> None:
    vulnerable = bom("pkg:npm/uplot@1.6.30", "pkg:npm/htmx.org@2.0.7")
    assert vulnerabilities.check(vulnerable, SNAPSHOT, [], TODAY).errors
    report = vulnerabilities.check(vulnerable, SNAPSHOT, [statement()], TODAY)
    assert report.errors == []
    assert [one.id for one in report.explained] == ["CVE-2024-21489"]


def test_package_older_than_the_security_suite_is_found() -> None:
    purl = "pkg:deb/debian/openssl@3.5.0-1?arch=amd64&distro=debian-13"
    (error,) = vulnerabilities.check(bom(purl), SNAPSHOT, [], TODAY).errors
    assert "DEBIAN-13-SECURITY" in error


@pytest.mark.parametrize(
    "changes",
    [
        {"expires": TODAY - datetime.timedelta(days=1)},
        {"state": "exploitable", "justification": ""},
        {"state": "in_triage", "justification": ""},
        {"package": "pkg:npm/other"},
        {"id": "CVE-2000-0001"},
    ],
)
def test_statement_that_does_not_hold_fails(changes: dict[str, Any]) -> None:
    assert vulnerabilities.check(bom("pkg:npm/uplot@1.6.30"), SNAPSHOT, [statement(**changes)], TODAY).errors


@pytest.mark.parametrize("days", [vulnerabilities.STALE_DAYS + 1, -1])
def test_stale_snapshot_fails(days: int) -> None:
    (error,) = vulnerabilities.check(bom("pkg:npm/htmx.org@2"), SNAPSHOT, [], TODAY + datetime.timedelta(days)).errors
    assert "stale" in error


@pytest.mark.parametrize("number", range(len(vulnerabilities.CANARIES)))
def test_snapshot_that_lost_a_canary_is_blind(tmp_path: Path, number: int) -> None:
    lost = vulnerabilities.CANARIES[number][1]
    advisories = [one for one in vulnerabilities.load(SNAPSHOT)[0] if one["id"] != lost]
    (tmp_path / "x.json").write_text(json.dumps({"taken": TODAY.isoformat(), "advisories": advisories}))
    with pytest.raises(GateError, match="canary"):
        vulnerabilities.check(bom("pkg:npm/htmx.org@2"), tmp_path, [], TODAY)


@pytest.mark.parametrize(
    "text", ["", "{}", '{"taken": "2026-11-22", "advisories": []}', '{"taken": "no", "advisories": []}']
)
def test_no_snapshot_is_no_pass(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(GateError):
        vulnerabilities.load(tmp_path)


def test_sbom_without_components_is_no_pass() -> None:
    with pytest.raises(GateError, match="nothing was checked"):
        vulnerabilities.check(bom(), SNAPSHOT, [], TODAY)


def test_security_suite_becomes_a_snapshot() -> None:
    suite = "\n\n".join(f"Package: x\nVersion: {version}" for version in ("1.0", "1.10", "1.9"))
    suite += "\n\nPackage: k\nSource: linux\nVersion: 1\n"
    made = vulnerabilities.debian_snapshot(suite, TODAY)
    (entry,) = made["advisories"][0]["affected"]
    assert entry["package"]["name"] == "x"
    assert entry["ranges"][0]["events"][-1] == {"fixed": "1.10"}


# ---- secrets ----


@pytest.mark.parametrize("rule", secrets.RULES)
def test_each_planted_secret_is_found_in_the_open_and_in_archives(rule: str) -> None:
    content = b"some text\n" + secrets.PLANTED[rule] + b"\n"
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("inside.txt", content)
    outer = io.BytesIO()
    with tarfile.open(fileobj=outer, mode="w:gz") as tar:
        one = tarfile.TarInfo("x.whl")
        one.size = len(inner.getvalue())
        tar.addfile(one, io.BytesIO(inner.getvalue()))
    for name, body in (("a", content), ("a.whl", inner.getvalue()), ("a.tar.gz", outer.getvalue())):
        _, hits = secrets.scan([(name, lambda body=body: body)], {})  # type: ignore[misc]
        assert {hit.rule for hit in hits} >= {rule}, name
        assert all(secrets.PLANTED[rule].decode() not in hit.text() for hit in hits)


def test_exception_is_by_content_and_needs_a_reason(tmp_path: Path) -> None:
    content = secrets.PLANTED["forge token"]
    (hit,) = secrets.look("x", content)
    assert secrets.scan([("x", lambda: content)], {hit.digest: "reason"})[1] == []
    (tmp_path / "allowed").write_text(f"{hit.digest}\n")
    with pytest.raises(GateError, match="reason"):
        secrets.allowed(tmp_path / "allowed")


def test_what_cannot_be_opened_or_is_nothing_is_no_pass() -> None:
    with pytest.raises(GateError):
        secrets.scan([("x.zip", lambda: b"PK\x03\x04broken")], {})
    with pytest.raises(GateError):
        secrets.scan([], {})


def test_blind_rule_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(secrets.PLANTED, "forge token", b"nothing")
    with pytest.raises(GateError, match="planted forge token"):
        secrets.scan([("x", lambda: b"")], {})


# ---- misconfiguration ----


@pytest.mark.parametrize("rule", misconfiguration.PLANTED)
def test_each_planted_misconfiguration_is_found(rule: str) -> None:
    entry = misconfiguration.Entry("x.yml", 0o644, f"first\n{misconfiguration.PLANTED[rule]}\n".encode())
    _, faults, _ = misconfiguration.scan([entry], {})
    assert any(rule in one and "x.yml:2" in one for one in faults)


@pytest.mark.parametrize(
    ("place", "mode", "content", "complaint"),
    [
        ("a.service", 0o644, b"[Service]\nNoNewPrivileges=yes\n", "without ProtectSystem"),
        ("a", 0o666, b"", "everybody may write"),
        ("a", 0o4755, b"", "setuid"),
    ],
)
def test_units_and_modes(place: str, mode: int, content: bytes, complaint: str) -> None:
    _, faults, _ = misconfiguration.scan([misconfiguration.Entry(place, mode, content)], {})
    assert any(complaint in one for one in faults)
    assert misconfiguration.scan([misconfiguration.Entry(place, mode, content)], {place: "reason"})[1] == []


def test_nothing_scanned_is_no_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(GateError):
        misconfiguration.scan([], {})
    monkeypatch.setitem(misconfiguration.PLANTED, "setuid or setgid mode", "nothing")
    with pytest.raises(GateError, match="setuid"):
        misconfiguration.scan([misconfiguration.Entry("a", 0o644, b"")], {})


# ---- no scanner where a key is ----


@pytest.mark.parametrize("name", ["COSIGN_PASSWORD", "RELEASE_SIGNING_KEY", "MINISIGN_KEY", "SSH_AUTH_SOCK"])
def test_key_in_the_environment_stops_every_gate(name: str) -> None:
    with pytest.raises(GateError, match=name):
        keys.refuse_with_key({name: "x"}, [])
    environment = {**os.environ, name: "x"}
    for gate in ("secrets", "misconfiguration", "vulnerabilities"):
        command = [sys.executable, "-m", "release.gates", gate, *(["/dev/null"] if gate == "vulnerabilities" else [])]
        done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (2, "")
        assert name in done.stderr


def test_key_in_a_file_or_a_value_stops_the_gates(tmp_path: Path) -> None:
    key = secrets.PLANTED["private key"]
    (tmp_path / "release.key").write_bytes(key)
    with pytest.raises(GateError, match=r"release\.key"):
        keys.refuse_with_key({}, [tmp_path])
    with pytest.raises(GateError, match="HARMLESS"):
        keys.refuse_with_key({"HARMLESS": key.decode()}, [])
    (tmp_path / "release.key").write_text("no key")
    keys.refuse_with_key({"PATH": "/bin"}, [tmp_path])


# ---- this repository ----


@pytest.mark.parametrize("gate", ["secrets", "misconfiguration"])
def test_this_repository_passes(gate: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    monkeypatch.setattr(sys, "argv", ["gates", gate, str(ROOT)])
    assert __main__.main() == 0, capsys.readouterr().out
    assert "0 hits" in (said := capsys.readouterr().out) or "0 faults" in said


def test_snapshot_and_statements_of_this_repository_can_be_read() -> None:
    advisories, _ = vulnerabilities.load(SNAPSHOT)
    assert sum(len(one["affected"]) for one in advisories) > 1000
    assert vex.read(ROOT / "SBOM" / "vex.toml", ROOT)
