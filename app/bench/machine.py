"""The appliance under test, seen from its own host: HTTP, the product's commands, its services, and the peer.

Runs as root on the test host with the server's own Python, so nothing crosses SSH while something is measured.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import pwd
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote, urlencode

import msgspec
import psycopg
from ispvm import settings as config
from ispvm_contract.ingest import Heartbeat

from bench.fleet import Fleet, encode

SERVER = "/opt/ispvm/current/server/bin/ispvm"
DATABASE = ("postgresql@17-ispvm", "pgbouncer", "ispvm-server")
_VM = "ispvm-bench-peer"
_VM_DATA = Path("/var/lib/ispvm-bench/peer")
_VM_PORT = 18428
HEADERS = {"Content-Type": "application/msgpack", "Content-Encoding": "zstd"}


class BenchError(RuntimeError):
    """The benchmark cannot go on; the message says why."""


def say(text: str) -> None:
    """Progress, for whoever waits."""
    print(f"{time.strftime('%H:%M:%S')}  {text}", flush=True)


def run(*argv: str, check: bool = True) -> str:
    """Run a command; what it printed."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False)  # noqa: S603  # fixed commands
    if check and done.returncode:
        raise BenchError(f"{' '.join(argv[:6])} failed ({done.returncode}): {(done.stderr or done.stdout)[-800:]}")
    return done.stdout


def wait_for(what: str, condition: Any, seconds: float = 60) -> None:
    """Poll a condition; raise BenchError with its name after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise BenchError(f"not within {seconds:.0f} s: {what}")
        time.sleep(0.05)


class UnixHTTP(http.client.HTTPConnection):
    """HTTP over the server's unix socket, kept alive."""

    def __init__(self, path: str, timeout: float = 60) -> None:
        """`path` is the socket's."""
        super().__init__("bench.test", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """Open the socket."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


@contextmanager
def as_user(name: str) -> Iterator[None]:
    """Connect as somebody else: PostgreSQL asks the kernel who is there."""
    before = os.geteuid()
    os.seteuid(pwd.getpwnam(name).pw_uid)
    try:
        yield
    finally:
        os.seteuid(before)


class Machine:
    """The appliance."""

    def __init__(self) -> None:
        """Read the server's own configuration."""
        self.settings = config.load(config.DEFAULT_PATH)
        self.tokens: dict[str, str] = {}
        self._cookies: dict[str, str] = {}

    # -- database

    def superuser(self) -> psycopg.Connection:
        """A connection that row-level security does not bind (COPY is refused to everybody else)."""
        with as_user("postgres"):
            return psycopg.connect(
                "host=/run/postgresql port=5432 dbname=ispvm user=postgres", autocommit=True, client_encoding="utf8"
            )

    def command(self, *arguments: str, user: str = "ispvm-owner") -> str:
        """One of the product's commands, as the user that the units run it as."""
        return run("runuser", "-u", user, "--", SERVER, *arguments)

    def roll_up(self, workers: int = 1) -> float:
        """Run the worker, or several at once, until nothing is due; seconds."""
        began = time.perf_counter()
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(lambda _: self.command("worker", "--once", user="ispvm-worker"), range(workers)))
        return time.perf_counter() - began

    def upkeep(self) -> float:
        """Retention and heavy maintenance now; seconds."""
        began = time.perf_counter()
        self.command("upkeep", "--now")
        return time.perf_counter() - began

    @contextmanager
    def without_worker(self) -> Iterator[None]:
        """Nothing is rolled up meanwhile."""
        run("systemctl", "stop", "ispvm-worker")
        try:
            yield
        finally:
            run("systemctl", "start", "ispvm-worker")

    @contextmanager
    def without_database(self) -> Iterator[None]:
        """The machine is the peer's alone meanwhile."""
        run("systemctl", "stop", "ispvm-worker", *reversed(DATABASE))
        try:
            yield
        finally:
            run("systemctl", "start", *DATABASE, "ispvm-worker")
            wait_for("the server is ready", self.ready)

    def cpu_ms(self) -> dict[str, float]:
        """CPU that each unit between the socket and the disk has used so far."""
        return {unit: int(run("systemctl", "show", "-p", "CPUUsageNSec", "--value", unit)) / 1e6 for unit in DATABASE}

    # -- HTTP

    def connection(self) -> UnixHTTP:
        """To the server."""
        return UnixHTTP(self.settings.socket)

    @contextmanager
    def uncached(self) -> Iterator[UnixHTTP]:
        """A connection to a second server that keeps no answer (`bench.uncached`)."""
        name, path = "ispvm-bench-uncached", "/run/ispvm-bench-uncached/server.sock"
        run("systemd-run", f"--unit={name}", "--quiet", "--uid=ispvm", f"--property=RuntimeDirectory={name}",
            f"--working-directory={Path.cwd()}", "--setenv=PYTHONDONTWRITEBYTECODE=1",
            sys.executable, "-m", "bench.uncached", path)  # fmt: skip
        try:
            wait_for("the server that keeps nothing is ready", lambda: self.ready(path))
            yield UnixHTTP(path)
        finally:
            run("systemctl", "stop", name)

    def ready(self, path: str = "") -> bool:
        """Whether server and database answer; the one on the socket `path`, or the installed one."""
        try:
            peer = UnixHTTP(path) if path else self.connection()
            peer.request("GET", "/readyz")
            return peer.getresponse().status == 200
        except OSError:
            return False

    def introduce(self, fleet: Fleet, ts: int) -> None:
        """Make tenant, routers, agent and a signed-in user; the routers introduce themselves with polls at `ts`."""
        say(f"{fleet.routers:,} routers with {fleet.interfaces} interfaces each introduce themselves")
        path = Path("/var/lib/ispvm-bench/seed.json")
        path.parent.mkdir(mode=0o755, exist_ok=True)
        path.write_bytes(msgspec.json.encode(fleet.seed()))
        self.command("seed", "apply", str(path))
        self.enroll(fleet.tenant)
        for batch in fleet.introduction(ts):
            self.send(fleet.tenant, encode(batch))

    def enroll(self, tenant: str) -> None:
        """An agent for the tenant's one site."""
        self.tokens[tenant] = token = secrets.token_urlsafe(24)
        hashed = hashlib.sha256(token.encode()).hexdigest()
        self.command(
            "agent", "enroll", "--tenant", tenant, "--name", "bench", "--site", "pop", "--token-sha256", hashed
        )

    def send(self, tenant: str, body: bytes, peer: UnixHTTP | None = None) -> dict[str, Any]:
        """One batch; raises BenchError unless all of it was stored."""
        peer = peer or self.connection()
        headers = {**HEADERS, "Authorization": f"Bearer {self.tokens[tenant]}"}
        peer.request("POST", "/ingest/v1/batch", body, headers)
        answer = peer.getresponse()
        said = answer.read()
        told = cast("dict[str, Any]", json.loads(said)) if answer.status == 200 else {}
        if answer.status != 200 or told["rejected"]:
            raise BenchError(f"a batch was refused ({answer.status}): {said[:500]!r}")
        return told

    def live(self, tenant: str, message: Heartbeat) -> None:
        """A heartbeat of the agent."""
        peer = self.connection()
        headers = {**HEADERS, "Authorization": f"Bearer {self.tokens[tenant]}"}
        peer.request("POST", "/ingest/v1/heartbeat", encode(message), headers)
        if (status := peer.getresponse().status) != 200:
            raise BenchError(f"a heartbeat was refused ({status})")
        peer.close()

    def send_all(self, tenant: str, bodies: Sequence[bytes], connections: int = 4) -> list[float]:
        """Send all over several kept-alive connections; seconds each took to its 200, in order of `bodies`."""

        def work(first: int) -> list[tuple[int, float]]:
            peer, took = self.connection(), []
            for at in range(first, len(bodies), connections):
                began = time.perf_counter()
                self.send(tenant, bodies[at], peer)
                took.append((at, time.perf_counter() - began))
            return took

        with ThreadPoolExecutor(connections) as pool:
            found = [pair for some in pool.map(work, range(connections)) for pair in some]
        return [seconds for _, seconds in sorted(found)]

    def sign_in(self, tenant: str) -> None:
        """A session for `get`."""
        link = self.command("login-link", "--user", f"bench-{tenant}", "--role", "noc", "--tenant", tenant)
        origin = self.settings.public_url
        peer = self.connection()
        peer.request("POST", link.splitlines()[-1].removeprefix(origin), headers={"Origin": origin})
        answer = peer.getresponse()
        if answer.status != 303:
            raise BenchError(f"the login link was refused ({answer.status}): {answer.read()[:300]!r}")
        self._cookies[tenant] = answer.headers["Set-Cookie"].partition(";")[0]

    def get(
        self, tenant: str, path: str, peer: UnixHTTP | None = None, parameters: Mapping[str, object] | None = None
    ) -> tuple[dict[str, Any], float]:
        """One answer of the API and the seconds from request to last byte; raises BenchError unless it is a 200."""
        peer = peer or self.connection()
        target = f"{path}?{urlencode({k: str(v) for k, v in parameters.items()})}" if parameters else path
        began = time.perf_counter()
        peer.request("GET", target, headers={"Cookie": self._cookies[tenant]})
        answer = peer.getresponse()
        body = answer.read()
        took = time.perf_counter() - began
        if answer.status != 200:
            raise BenchError(f"GET {target}: {answer.status} {body[:500]!r}")
        return cast("dict[str, Any]", json.loads(body)), took

    def floor(self, count: int, peer: UnixHTTP | None = None) -> list[float]:
        """Seconds of the cheapest answer the server has (/healthz): what HTTP and Python cost by themselves."""
        peer, took = peer or self.connection(), []
        for _ in range(count):
            began = time.perf_counter()
            peer.request("GET", "/healthz")
            peer.getresponse().read()
            took.append(time.perf_counter() - began)
        return took


class Peer:
    """VictoriaMetrics, Debian's package, with its defaults except where it keeps its data and how long."""

    def __enter__(self) -> Peer:
        """Start it with no data."""
        if not shutil.which("victoria-metrics"):
            say("installing victoria-metrics (Debian)")
            run("apt-get", "update", "-qq")
            # the package starts itself: nobody asked for that
            run("systemctl", "mask", "victoria-metrics.service")
            run("apt-get", "install", "-qq", "--yes", "--no-install-recommends", "victoria-metrics")
        self.__exit__()
        _VM_DATA.mkdir(parents=True)
        run(
            "systemd-run", f"--unit={_VM}", "--quiet", shutil.which("victoria-metrics") or "victoria-metrics",
            f"-storageDataPath={_VM_DATA}", f"-httpListenAddr=127.0.0.1:{_VM_PORT}", "-retentionPeriod=12",
            "-search.disableCache",
        )  # fmt: skip
        wait_for("the peer answers", self._answers)
        return self

    def __exit__(self, *_: object) -> None:
        """Stop it and drop its data."""
        run("systemctl", "stop", _VM, check=False)
        run("systemctl", "reset-failed", _VM, check=False)
        shutil.rmtree(_VM_DATA, ignore_errors=True)

    def connection(self) -> http.client.HTTPConnection:
        """To the peer."""
        return http.client.HTTPConnection("127.0.0.1", _VM_PORT, timeout=120)

    def _answers(self) -> bool:
        try:
            return self.get("/health", {})[1] > 0
        except OSError:
            return False

    def get(
        self, path: str, parameters: Mapping[str, str], peer: http.client.HTTPConnection | None = None
    ) -> tuple[bytes, float]:
        """One answer and its seconds."""
        peer = peer or self.connection()
        began = time.perf_counter()
        peer.request("GET", f"{path}?{urlencode(parameters, quote_via=quote)}")
        answer = peer.getresponse()
        body = answer.read()
        if answer.status not in (200, 204):
            raise BenchError(f"peer {path}: {answer.status} {body[:300]!r}")
        return body, time.perf_counter() - began

    def write_all(self, bodies: Sequence[bytes], connections: int = 4) -> float:
        """Influx lines to /write; seconds until the last is acknowledged."""

        def work(first: int) -> None:
            peer = self.connection()
            for body in bodies[first::connections]:
                peer.request("POST", "/write?precision=ms", body)
                answer = peer.getresponse()
                said = answer.read()
                if answer.status != 204:
                    raise BenchError(f"peer /write: {answer.status} {said[:300]!r}")

        began = time.perf_counter()
        with ThreadPoolExecutor(connections) as pool:
            list(pool.map(work, range(connections)))
        return time.perf_counter() - began

    def settle(self) -> None:
        """Everything on disk and merged."""
        for action in ("force_flush", "force_merge"):
            self.get(f"/internal/{action}", {})
        wait_for("the peer has merged", lambda: b"vm_active_force_merges 0" in self.get("/metrics", {})[0], 600)

    def bytes(self) -> int:
        """Data and index on disk."""
        out = run("du", "-sb", str(_VM_DATA / "data"), str(_VM_DATA / "indexdb"))
        return sum(int(line.split()[0]) for line in out.splitlines())
