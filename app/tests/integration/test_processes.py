from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from ispvm.settings import Settings

pytestmark = pytest.mark.host
ROOMS = Path(__file__).parents[3]


@pytest.fixture
def config_file(settings: Settings, tmp_path: Path) -> Path:
    path = tmp_path / "server.toml"
    path.write_text(
        f'schema_version = 1\nenvironment = "demo"\npublic_url = "{settings.public_url}"\n'
        f'socket = "{tmp_path}/server.sock"\n[database]\n'
        + "".join(f'{n} = "{getattr(settings.database, n)}"\n' for n in ("dsn", "worker_dsn", "owner_dsn"))
    )
    return path


@contextmanager
def started(config_file: Path, command: str) -> Iterator[tuple[subprocess.Popen[bytes], socket.socket]]:
    """The command as systemd starts it: with a notification socket and a watchdog."""
    path = config_file.with_name("notify")
    environment = {
        **os.environ,
        "PYTHONPATH": f"{ROOMS / 'app'}:{ROOMS / 'contract'}",
        "NOTIFY_SOCKET": str(path),
        "WATCHDOG_USEC": "400000",
    }
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(path))
        systemd.settimeout(20)
        arguments = [sys.executable, "-m", "ispvm.cli", "--config", str(config_file), command]
        with subprocess.Popen(arguments, env=environment, stderr=subprocess.PIPE) as process:
            try:
                yield process, systemd
            finally:
                process.kill()


def told(systemd: socket.socket, wanted: bytes) -> None:
    """Wait for a notification."""
    while not systemd.recv(4096).startswith(wanted):
        pass


def test_the_server_is_ready_lives_and_stops_when_told(config_file: Path) -> None:
    with started(config_file, "serve") as (process, systemd):
        told(systemd, b"READY=1")
        transport = httpx.HTTPTransport(uds=str(config_file.with_name("server.sock")))
        with httpx.Client(transport=transport, base_url="http://server") as client:
            assert [client.get(path).text for path in ("/healthz", "/readyz")] == ["ok\n", "ok\n"]
        told(systemd, b"WATCHDOG=1")
        told(systemd, b"WATCHDOG=1")
        process.send_signal(signal.SIGTERM)
        told(systemd, b"STOPPING=1")
        _, log = process.communicate(timeout=20)
        assert process.returncode == 0, log
        assert not config_file.with_name("server.sock").exists()
        assert all(line.startswith(b"{") for line in log.splitlines()), log


def test_the_worker_is_ready_lives_and_stops_when_told(config_file: Path) -> None:
    with started(config_file, "worker") as (process, systemd):
        told(systemd, b"WATCHDOG=1")
        told(systemd, b"READY=1")
        process.send_signal(signal.SIGTERM)
        told(systemd, b"STOPPING=1")
        _, log = process.communicate(timeout=20)
        assert process.returncode == 0, log
