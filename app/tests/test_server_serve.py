from __future__ import annotations

import socket
from pathlib import Path

import pytest
from ispvm.serve import bind, notify, watchdog_seconds


def test_the_socket_is_for_owner_and_group_and_replaces_a_stale_one(tmp_path: Path) -> None:
    path = tmp_path / "server.sock"
    path.write_text("stale")
    with bind(path) as listener:
        assert path.is_socket()
        assert path.stat().st_mode & 0o777 == 0o660
        assert listener.family == socket.AF_UNIX


def test_systemd_is_told_when_it_listens_and_nothing_happens_when_it_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify("READY=1")
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(path))
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))
        notify("READY=1")
        assert systemd.recv(100) == b"READY=1"


@pytest.mark.parametrize(("value", "seconds"), [("30000000", 15.0), ("0", None), ("", None), ("x", None)])
def test_signs_of_life_come_twice_as_often_as_asked(
    monkeypatch: pytest.MonkeyPatch, value: str, seconds: float | None
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", value)
    assert watchdog_seconds() == seconds
