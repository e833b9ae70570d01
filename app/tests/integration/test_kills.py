"""SIGKILL of server, PgBouncer and PostgreSQL at random points of a running ingest: nothing acknowledged is lost,
nothing is there twice. `ISPVM_TEST_KILLS` says how often; `make bench ONLY=kills SCALE=full` does it 50 times on a
whole appliance.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import psycopg
import pytest
from bench import tables
from bench.fleet import Fleet, encode
from bench.kills import PollKey, Sender, Victim, campaign
from bench.machine import UnixHTTP, wait_for
from host_shell import on_host
from ispvm.inventory.agents import enroll
from ispvm.inventory.seeds import apply
from ispvm.settings import Settings

pytestmark = pytest.mark.host
ROOT = Path(__file__).parents[3]


class Server:
    """`ispvm serve` on a socket of its own; killed, it is started again as systemd would."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.socket, self.config, self.log = folder / "server.sock", folder / "server.toml", folder / "server.log"
        database = "".join(f'{n} = "{getattr(settings.database, n)}"\n' for n in ("dsn", "worker_dsn", "owner_dsn"))
        self.config.write_text(
            f'schema_version = 1\nenvironment = "demo"\npublic_url = "{settings.public_url}"\n'
            f'socket = "{self.socket}"\n[database]\n{database}pool_size = 4\n'
        )
        self.start()

    def start(self) -> None:
        path = os.pathsep.join(str(ROOT / room) for room in ("contract", "app"))
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "ispvm.cli", "--config", self.config, "serve"],
                env={**os.environ, "PYTHONPATH": path}, stdout=log, stderr=log,
            )  # fmt: skip

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self.start()

    def connection(self) -> UnixHTTP:
        return UnixHTTP(str(self.socket), timeout=20)


@pytest.fixture
def server(settings: Settings, tmp_path: Path) -> Iterator[Server]:
    made = Server(settings, tmp_path)
    try:
        wait_for("the server's socket", made.socket.exists, 20)
        yield made
    finally:
        made.process.kill()
        made.process.wait()


@pytest.mark.timeout(300)
def test_killed_at_random_points_nothing_is_lost_or_doubled(settings: Settings, server: Server, tmp_path: Path) -> None:
    fleet, token = Fleet(f"k{secrets.token_hex(5)}", 10, 5, interval_s=1), secrets.token_urlsafe(24)
    seed = tmp_path / "seed.json"
    seed.write_bytes(msgspec.json.encode(fleet.seed()))
    apply(settings, seed)
    enroll(settings, fleet.tenant, "bench", ["pop"], hashlib.sha256(token.encode()).hexdigest())
    begin = int(time.time()) - 20 * 3600  # each batch a second of the past
    sender = Sender(fleet, token, server.connection, begin)
    for batch in fleet.introduction(begin - 3600):
        with closing(server.connection()) as peer:
            assert sender.attempt(peer, encode(batch)) == 200

    def landed() -> Counter[PollKey]:
        with psycopg.connect(settings.database.owner_dsn) as connection:
            return tables.landed(connection, fleet.tenant)

    def unit(name: str) -> Victim:
        return Victim(name, lambda: on_host("systemctl", "kill", "--signal=KILL", "--kill-whom=main", name))

    victims = [Victim("server", server.kill), unit("pgbouncer"), unit("postgresql@17-ispvm")]
    kills = int(os.environ.get("ISPVM_TEST_KILLS", "12"))

    found = campaign(sender, victims, kills, landed)

    assert sum(found.kills.values()) == kills
    assert set(found.kills) == {victim.name for victim in victims}
    assert found.acknowledged >= kills * fleet.routers
    assert found.repeats > 0, "no kill met a running batch"
    assert (found.lost, found.doubled, found.unasked) == ([], [], [])
