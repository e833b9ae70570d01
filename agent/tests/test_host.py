"""The agent and its host: credentials, commands, journal, notify, metrics, status."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import logging
import re
import socket
import stat
from pathlib import Path

import pytest
from agent_fakes import PASSWORD, FakeRouter, FakeServer, on_disk, trap
from ispvm_agent import cli, config, credentials, daemon, outbox, reports, service
from ispvm_agent.routeros.commands import Command
from ispvm_contract.registry import registry
from test_config import MINIMAL

SYSTEMD_CREDS = """#!/bin/sh
# systemd-creds as far as the agent uses it: --name= binds the secret to its name; secrets only on stdin and stdout.
verb=$1 name=${2#--name=} from=$3 to=$4
echo "$@" >> "$LOG"
case $verb in
encrypt) { printf '%s:' "$name"; rev; } > "$to" ;;
decrypt) grep -q "^$name:" "$from" || { echo "wrong name" >&2; exit 1; }; sed "s/^$name://" "$from" | rev ;;
esac
"""


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    tool = tmp_path / "bin" / "systemd-creds"
    tool.parent.mkdir()
    tool.write_text(SYSTEMD_CREDS)
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:/usr/bin:/bin")
    monkeypatch.setenv("LOG", str(tmp_path / "log"))
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    monkeypatch.setattr(credentials, "STORE", tmp_path / "credstore.encrypted")
    return tmp_path / "credstore.encrypted"


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = cli.main(list(arguments))
    out, err = capsys.readouterr()
    return code, out, err


# credentials


def test_credential_set(store: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for said in ("changed", "unchanged"):
        monkeypatch.setattr("sys.stdin", io.StringIO("hunter2 ü\n"))
        assert run(capsys, "credential", "set", "routers") == (0, f"{said}\n", "")
    path = store / "ispvm-agent.router.routers"
    assert stat.S_IMODE(path.stat().st_mode) == 0o400
    assert credentials.read("ispvm-agent.router.routers") == "hunter2 ü"
    assert "hunter2" not in (store.parent / "log").read_text()  # no secret in any argument
    assert sorted(p.name for p in store.iterdir()) == [path.name]


@pytest.mark.parametrize("secret", ["", "\n", "two\nlines", "nul\0"])
def test_unusable_secrets_are_refused(
    store: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, secret: str
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(secret))
    code, _, err = run(capsys, "credential", "set", "routers")
    assert code == 1
    assert "empty or has control characters" in err
    assert not store.exists()


def test_credential_names_cannot_leave_the_store(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "credential", "set", "../../etc/shadow")
    assert (code, "letters, digits" in err) == (1, True)


def test_token_ensure_makes_it_once(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, first, _ = run(capsys, "token", "ensure")
    token = credentials.read(credentials.SERVER_TOKEN)
    assert code == 0
    assert len(token) >= 43
    assert first == f"{hashlib.sha256(token.encode()).hexdigest()}\nchanged\n"
    assert run(capsys, "token", "ensure")[1] == first.replace("changed", "unchanged")
    assert token not in (store.parent / "log").read_text()


def test_missing_credential_says_what_to_do(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(credentials.CredentialError, match="ispvm-agent credential set routers"):
        credentials.read("ispvm-agent.router.routers")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    with pytest.raises(credentials.CredentialError, match="ispvm-agent token ensure"):
        credentials.read(credentials.SERVER_TOKEN)


def test_credential_of_another_name_is_not_accepted(store: Path) -> None:
    credentials.store("ispvm-agent.router.a", "secret")
    (store / "ispvm-agent.router.a").rename(store / "ispvm-agent.router.b")
    with pytest.raises(credentials.CredentialError, match="wrong name"):
        credentials.read("ispvm-agent.router.b")


# commands


def test_check_config(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = tmp_path / "good.toml", tmp_path / "bad.toml"
    good.write_text(MINIMAL)
    bad.write_text(MINIMAL.replace("https", "ftp") + 'password = "x"\n')
    assert run(capsys, "check-config", str(good)) == (0, "", "")
    code, out, err = run(capsys, "check-config", str(bad))
    assert (code, out) == (1, "")
    assert [line.partition(":")[0] for line in err.splitlines()] == ["server.url", "router[CORE-NTH-1].password"]


def test_transparency_lists_every_command_and_metric(capsys: pytest.CaptureFixture[str]) -> None:
    facts = json.loads(run(capsys, "transparency", "--json")[1])
    shown = {tuple(entry["words"]) for entry in facts["to_routers"]}
    assert {command.words for command in Command} <= shown
    assert len(shown) == len(Command) + 2  # the login and ping
    aimed = {entry["words"][0] for entry in facts["to_routers"] if "aimed_at" in entry}
    assert "/interface/ethernet/monitor" in aimed
    assert set(facts["to_server"]["metrics"]) <= set(registry().metrics)
    text = run(capsys, "transparency")[1]
    assert all(" ".join(command.words) in text for command in Command)
    assert "Stays:" in text


def settings_for(router: FakeRouter, directory: Path) -> config.Config:
    text = MINIMAL.replace("10.89.77.101", "127.0.0.1").replace('user = "ispvm"', f'user = "u"\nport = {router.port}')
    return config.parse(
        text + f'tls = "off"\n[polling]\nfast_seconds = 1\nmedium_seconds = 1\nslow_seconds = 1\n'
        f'[spool]\ndirectory = "{directory}"\n'
    )


async def test_check_says_what_is_missing(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    credentials.store("ispvm-agent.router.routers", PASSWORD)
    router = FakeRouter()
    router.menus["/routing/bgp/session"] = trap("not enough permissions (9)")
    async with router.serving():
        settings = settings_for(router, tmp_path)
        assert await reports.check(settings, "CORE-NTH-1", as_json=True) == 0
        report = json.loads(capsys.readouterr().out)
        assert await reports.check(settings, "CORE-NTH-1", as_json=False) == 0
        text = capsys.readouterr().out
        assert await reports.check(settings, "NOBODY", as_json=False) == 2
        router.password = "changed"
        assert await reports.check(settings, "CORE-NTH-1", as_json=False) == 1
    failed = capsys.readouterr().out
    assert report["version"] == "7.22.2 (stable)"
    assert report["collectors"]["resource"]["ok"]
    assert report["collectors"]["bgp"] == {
        "ok": False,
        "commands": ["/routing/bgp/connection/print", "/routing/bgp/session/print"],
        "problem": "/routing/bgp/session: not enough permissions (9)",
        "fix": "the user's group needs the policies read and api",
    }
    assert "password travels in clear" in text
    assert "auth: the router refused user 'u'" in failed
    assert "ispvm-agent credential set routers" in failed
    assert PASSWORD not in text + failed


# service


def test_journal_prefixes_every_line() -> None:
    record = logging.LogRecord("poller", logging.WARNING, "", 0, "two\nlines", None, None)
    assert service.JournalFormatter("%(message)s").format(record) == "<4>poller: two\n<4>lines"


def test_notify(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        service.notify("READY=1")
        assert listener.recv(100) == b"READY=1"
    service.notify("READY=1")  # nobody there any more: no matter


def test_watchdog_is_half_of_what_the_unit_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    assert service.watchdog_seconds() is None
    monkeypatch.setenv("WATCHDOG_USEC", "30000000")
    assert service.watchdog_seconds() == 15


def test_clock_state_is_known_or_unknown() -> None:
    assert service.clock_synchronised() in {True, False, None}


async def get(port: int, request: str) -> tuple[str, str]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request.encode())
    answer = (await reader.read()).decode()
    writer.close()
    head, _, body = answer.partition("\r\n\r\n")
    return head.splitlines()[0] if head else "", body


async def test_running_agent_tells_its_status_and_metrics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(outbox, "GATHER_SECONDS", 0.05)
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    router, server = FakeRouter(), FakeServer()
    async with router.serving():
        agent = daemon.Daemon(settings_for(router, tmp_path), server.client(), {"routers": PASSWORD})
        running = asyncio.create_task(agent.run(metrics_port=0))
        async with asyncio.timeout(10):
            await server.arrived.wait()
        status, body = await get(agent.metrics_port, "GET /metrics HTTP/1.1\r\n\r\n")
        assert status == "HTTP/1.1 200 OK"
        assert 'agent_router_ok{router="CORE-NTH-1"} 1.0' in body
        assert "# TYPE agent_poll_errors_total counter" in body
        names = re.findall(r"^# TYPE (\S+)", body, re.MULTILINE)
        assert {m.name for m in registry().of("agent")} <= set(names)
        assert (await get(agent.metrics_port, "GET /other HTTP/1.1\r\n\r\n"))[0] == "HTTP/1.1 404 Not Found"
        assert (await get(agent.metrics_port, "POST /status HTTP/1.1\r\n\r\n"))[0] == "HTTP/1.1 404 Not Found"
        assert (await get(agent.metrics_port, "x" * 20_000))[0] == ""
        code = await asyncio.to_thread(reports.status, False, agent.metrics_port)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    text = capsys.readouterr().out
    assert code == 0
    assert "CORE-NTH-1: ok" in text
    assert reports.status(as_json=False, port=agent.metrics_port) == 1
    assert "systemctl status ispvm-agent" in capsys.readouterr().err


async def test_secrets_are_nowhere_they_do_not_belong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Not in the log, the status, the metrics or the spool; with a router that refuses the password, too."""
    monkeypatch.setattr(outbox, "GATHER_SECONDS", 0.05)
    caplog.set_level(logging.DEBUG)
    router, server = FakeRouter(), FakeServer()
    router.password = "another"
    secret, token = "S3cretOfTheRouter", "T0kenOfTheServer"
    async with router.serving():
        agent = daemon.Daemon(settings_for(router, tmp_path), server.client(token), {"routers": secret})
        running = asyncio.create_task(agent.run(metrics_port=0))
        async with asyncio.timeout(10):
            await server.arrived.wait()
        told = agent.status_text() + agent.metrics_text()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    assert router.logins == 1
    assert server.authorizations == {f"Bearer {token}"}
    for hidden in (secret, token):
        assert hidden not in caplog.text
        assert hidden not in told
        assert hidden.encode() not in on_disk(tmp_path)
    assert "auth: the router refused user" in caplog.text


def test_the_security_page_names_every_menu_and_no_other() -> None:
    page = (Path(__file__).parents[2] / "docs" / "agent-security.md").read_text()
    table = page[page.index("| menu |") : page.index("Fast, medium and slow")]
    assert set(re.findall(r"`(/[a-z0-9/-]+)`", table)) == {command.menu for command in Command}
