"""The installed appliance of a test host in place of the receiver: nginx, server, PgBouncer, PostgreSQL."""

from __future__ import annotations

import hashlib
import random
import subprocess
import time
from pathlib import Path

import msgspec
import testhost
from field import Delivered, Field
from ispvm_contract.seed import Seed, Site, Tenant

UNITS = ("ispvm-server", "pgbouncer", "postgresql@17-ispvm")
_OWNER = "runuser -u ispvm-owner -- /opt/ispvm/current/server/bin/ispvm"
_LOOK_SECONDS = 3.0
_DEVICES = "device d join tenant t on t.id = d.tenant_id and t.key = 'bench'"


class Appliance(Field):
    """Its units are killed in turn and brought back by systemd. What it has stored is read from the database."""

    def __init__(self, address: str, directory: Path, routers: int, interfaces: int, fast_seconds: float) -> None:
        """`address` is that of the test host, which site.yml has installed."""
        self.address = address
        self._looked = 0.0
        self._ages: list[float] = []
        super().__init__(directory, routers, interfaces, fast_seconds)

    def _ssh(self, command: str, given: bytes = b"") -> str:
        done = subprocess.run(  # noqa: S603
            [*testhost.ssh_command(self.address), command], input=given, check=True, stdout=subprocess.PIPE
        )
        return done.stdout.decode()

    def _ask(self, sql: str) -> list[list[str]]:
        """Rows of a query; the database may just be coming back from a kill."""
        deadline = time.monotonic() + 60
        while True:
            try:
                said = self._ssh("runuser -u postgres -- psql -XAtqd ispvm -F ' '", sql.encode())
                return [line.split(" ") for line in said.splitlines()]
            except subprocess.CalledProcessError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.5)

    def prepare_receiver(self, token: str) -> str:
        """Forget what an earlier run has sent, and enroll the agent."""
        seed = Seed(1, "bench", Tenant("bench", "bench"), [Site("s", "PoP", 48.2, 16.4)], [], [], [])
        self._ssh("install -d -m 755 /var/lib/ispvm-bench; cat > /var/lib/ispvm-bench/outage.json",
                  msgspec.json.encode(seed))  # fmt: skip
        self._ssh(f"{_OWNER} seed apply /var/lib/ispvm-bench/outage.json")
        digest = hashlib.sha256(token.encode()).hexdigest()
        self._ssh(f"{_OWNER} agent enroll --tenant bench --name bench --site s --token-sha256 {digest}")
        self._ask("truncate poll_device, poll_interface, latest_poll, ingest_batch, rollup_dirty")
        (self.directory / "ca.crt").write_text(self._ssh("cat /etc/ispvm/tls/ca.crt"))
        return f"https://{self.address}"

    def start_receiver(self) -> None:
        """It runs already."""

    def kill_receiver(self) -> None:
        """SIGKILL of the main process of one of its units."""
        self._ssh(f"systemctl kill --signal=KILL --kill-whom=main {random.choice(UNITS)}")  # noqa: S311

    def look(self) -> None:
        """Every few seconds: how old is the newest poll of any router?"""
        if time.monotonic() - self._looked < _LOOK_SECONDS:
            return
        ((age,),) = self._ask(
            f"select extract(epoch from now() - max(l.ts)) from latest_poll l join {_DEVICES} on d.id = l.device_id"  # noqa: S608
        )
        self._ages.append(float(age or "inf"))
        self._looked = time.monotonic()

    def delivered(self, since: float) -> Delivered:
        """From the database; delays are the ages that `look` has seen once live data had come."""
        ((polls, doubled),) = self._ask(
            "select count(*), count(*) - count(distinct (p.device_id, p.ts, p.kind)) from ("  # noqa: S608
            "select device_id, ts, 'device' as kind from poll_device union all"
            " select device_id, ts, 'interface' from poll_interface) p"
            f" join {_DEVICES} on d.id = p.device_id where p.ts <= to_timestamp({since})"
        )
        ids = self._ask("select b.id from ingest_batch b join agent a on a.id = b.agent_id and a.name = 'bench'")
        live = self._ask(
            "select p.device_id, extract(epoch from p.ts) from poll_device p"  # noqa: S608
            f" join {_DEVICES} on d.id = p.device_id where p.ts > to_timestamp({since}) order by 1, 2"
        )
        return Delivered(
            batches={bytes.fromhex(row[0].replace("-", "")) for row in ids},
            polls=int(polls),
            doubled=int(doubled),
            delays=sorted(age for age in self._ages if age < 3600),
            live=[(row[0].encode(), float(row[1])) for row in live],
        )
