"""The command, run as systemd runs it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import ssl
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import librouteros
import pytest
from ispvm_lab import control
from ispvm_lab.cli import main
from ispvm_lab.faults import KINDS
from ispvm_lab.lab import Override, router_password
from lab_clients import SEEDS, TIMEOUT, Net, free_ports, wrapped

SEED = SEEDS / "demo_small.json"


@contextlib.contextmanager
def serving(state: Path, *more: str, **environment: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A lab in a process of its own, from when it says that it is ready until it has ended cleanly."""
    base = free_ports(12)
    notified = state.parent / f"notify-{base}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(str(notified))
        notify.settimeout(10)
        command = [sys.executable, "-m", "ispvm_lab", "serve", "--seed", str(SEED), "--state", str(state)]
        process = subprocess.Popen(
            [*command, "--listen-override", f"127.0.0.1:{base}", *more],
            env={**os.environ, "PYTHONPATH": "lab:contract", "NOTIFY_SOCKET": str(notified), **environment},
            cwd=SEEDS.parent,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert notify.recv(100) == b"READY=1"
            yield process, base
        finally:
            process.send_signal(signal.SIGTERM)
            output, errors = process.communicate(timeout=10)
    assert (process.returncode, errors) == (0, "")
    assert output == "6 routers of seed demo_small are listening\n"


def identity(base: int, state: Path, password: str, secure: bool = False) -> str:
    context = ssl.create_default_context(cafile=str(state / "routers-ca.crt"))
    api = librouteros.connect(
        "127.0.0.1",
        "ispvm",
        password,
        port=base + int(secure),
        timeout=TIMEOUT,
        ssl_wrapper=(lambda sock: wrapped(context, sock)) if secure else None,
    )
    try:
        (row,) = api("/system/identity/print")
        return str(row["name"])
    finally:
        api.close()


def test_serve_keeps_secrets_and_certificates_across_restarts(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with serving(state) as (_, base):
        password = (state / "router-password").read_text()
        assert len(password) >= 32
        assert identity(base, state, password) == identity(base, state, password, secure=True) == "EDGE-NTH-1"
    authority, memory = (state / "routers-ca.crt").read_bytes(), json.loads((state / "memory.json").read_bytes())
    issued = {path: path.read_bytes() for path in (state / "certificates").glob("127.0.0.1-*.pem")}
    assert len(issued) == 6
    for secret in (state / "router-password", state / "certificates" / "ca.key", *issued):
        assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    with serving(state) as (_, base):
        assert identity(base, state, password, secure=True) == "EDGE-NTH-1"
    assert (state / "routers-ca.crt").read_bytes() == authority
    assert {path: path.read_bytes() for path in issued} == issued
    assert json.loads((state / "memory.json").read_bytes()) == memory


def test_password_from_a_systemd_credential(tmp_path: Path) -> None:
    (tmp_path / "ispvm-lab.router-password").write_text("from systemd\n")
    with serving(tmp_path / "state", CREDENTIALS_DIRECTORY=str(tmp_path)) as (_, base):
        assert identity(base, tmp_path / "state", "from systemd") == "EDGE-NTH-1"
    assert not (tmp_path / "state" / "router-password").exists()


def test_two_installs_share_no_secret(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert router_password(tmp_path / "a") == router_password(tmp_path / "a") != router_password(tmp_path / "b")


def test_faults_by_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = tmp_path / "state"

    def run(*words: str) -> str:
        status = main([*words, "--state", str(state)])
        seen = capsys.readouterr()
        assert (status, seen.err) == (0, "")
        return seen.out

    with serving(state) as (_, base):
        password = router_password(state)
        assert run("fault", "add", "trap", "EDGE-NTH-1", "menu=/system/identity", "message=busy") == (
            "f1  trap  EDGE-NTH-1  menu=/system/identity message=busy rows=0\n"
        )
        run("fault", "add", "down", "CORE-NTH-1", "mode=refuse")
        with pytest.raises(librouteros.exceptions.TrapError, match="busy"):
            identity(base, state, password)
        with pytest.raises(ConnectionRefusedError):
            identity(base + 2, state, password)
        assert run("fault", "list").count("\n") == 2
        assert "CORE-NTH-1                      off  0 connections\n" in run("status")
        assert run("fault", "clear", "f1").startswith("f1  trap")
        assert run("fault", "clear", "--all").startswith("f2  down")
        assert identity(base, state, password) == "EDGE-NTH-1"
        assert identity(base + 2, state, password) == "CORE-NTH-1"
        assert main(["fault", "add", "trap", "nobody", "--state", str(state)]) == 1
        assert "router: no 'nobody' in seed" in capsys.readouterr().err


def test_boots_are_remembered(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with serving(state):
        control.ask(state, control.Request("add", kind="down", router="CORE-NTH-1"))
        control.ask(state, control.Request("clear"))
    boots = json.loads((state / "memory.json").read_bytes())["boots"]
    assert list(boots) == ["CORE-NTH-1"]
    with serving(state):
        assert control.ask(state, control.Request("status"))["seed"] == "demo_small"
    assert json.loads((state / "memory.json").read_bytes())["boots"] == boots


NONSENSE = {
    b"{}": "Object missing required field `command`",
    b"nonsense": "JSON is malformed",
    b'{"command":"explode"}': "command: 'explode' is not one of add, clear",
    b'{"command":"add","kind":"down"}': "router: which one?",
    b'{"command":"clear","id":"f9"}': "id: no fault 'f9'",
}


async def test_control_socket_answers_nonsense_with_sense(net: Net) -> None:
    reader, writer = await asyncio.open_unix_connection(net.state / "control.sock")
    for line, complaint in NONSENSE.items():
        writer.write(line + b"\n")
        answer = json.loads(await reader.readline())
        assert answer["ok"] is False
        assert complaint in answer["error"]
    writer.close()


def test_kinds_are_explained(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fault", "kinds"]) == 0
    assert "pppoe-drop          most PPPoE sessions end at once" in capsys.readouterr().out


def test_no_lab_running(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fault", "list", "--state", str(tmp_path)]) == 1
    assert "Is `ispvm-lab serve" in capsys.readouterr().err


@pytest.mark.parametrize("name", sorted(path.name for path in SEEDS.glob("*.json")))
def test_seeds_are_sound(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-seed", str(SEEDS / name)]) == 0
    assert capsys.readouterr().out.endswith(": sound\n")


def test_unsound_seeds_are_told_by_field(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seed = json.loads(SEED.read_bytes())
    seed["links"][0]["a"]["interface"] = "sfp9"
    seed["devices"][0]["routeros"] = "latest"
    (tmp_path / "bad.json").write_text(json.dumps(seed))
    assert main(["check-seed", str(tmp_path / "bad.json")]) == 1
    assert "bad.json: links[EDGE-NTH-1--CORE-NTH-1].a: no interface 'sfp9'" in capsys.readouterr().err
    seed["links"][0]["a"]["interface"] = "sfp28-2"
    (tmp_path / "bad.json").write_text(json.dumps(seed))
    assert main(["check-seed", str(tmp_path / "bad.json")]) == 1
    assert "'latest' is no RouterOS version" in capsys.readouterr().err


def test_an_address_that_is_not_ours(tmp_path: Path) -> None:
    seed = json.loads(SEED.read_bytes())
    seed["devices"][0]["address"] = "192.0.2.1"
    (tmp_path / "elsewhere.json").write_text(json.dumps(seed))
    run = subprocess.run(
        [sys.executable, "-m", "ispvm_lab", "serve", "--seed", tmp_path / "elsewhere.json", "--state", tmp_path],
        env={**os.environ, "PYTHONPATH": "lab:contract"},
        cwd=SEEDS.parent,
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert run.returncode == 1
    assert "EDGE-NTH-1: cannot listen on 192.0.2.1 ports 8728 and 8729" in run.stderr


@pytest.mark.parametrize("text", ["18000", "host:", "host:0", ":18000", "host:70000"])
def test_bad_override(text: str) -> None:
    with pytest.raises(ValueError, match="is not HOST:BASEPORT"):
        Override.parse(text)


def test_the_readme_tells_every_fault() -> None:
    readme = (SEEDS.parent / "lab" / "README.md").read_text()
    for kind in KINDS.values():
        params = ", ".join(f"`{name}={default}`" if default else f"`{name}`" for name, default in kind.params.items())
        assert f"| `{kind.name}` | {kind.does} | {params} |" in readme


def test_a_broken_memory_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "memory.json").write_text("{")
    assert main(["serve", "--seed", str(SEED), "--state", str(tmp_path)]) == 1
    assert "memory.json" in (said := capsys.readouterr().err)
    assert "remove the file to begin anew" in said
