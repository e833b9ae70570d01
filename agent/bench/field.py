"""What outage.py and soak.py share: a fleet of routers on loopback, a receiver, and a real agent, each a process.

The receiver can be an appliance on a test host instead: appliance.py.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import socket
import sqlite3
import subprocess
import sys
from collections import defaultdict
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import trustme
from ispvm_agent import credentials

_AGENT = """
import asyncio, sys
from pathlib import Path
from ispvm_agent import config, daemon, service
service.log_to_journal()
asyncio.run(daemon.run(config.load(Path(sys.argv[1])), metrics_port=int(sys.argv[2])))
"""
_ROUTERS = """
import asyncio, sys
from fleet import FakeRouter
async def work():
    FakeRouter.interfaces = int(sys.argv[2])
    server = await asyncio.get_running_loop().create_server(FakeRouter, "0.0.0.0", int(sys.argv[1]), backlog=4096)
    print("ready", flush=True)
    await server.serve_forever()
asyncio.run(work())
"""


def free_port() -> int:
    """A port nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@dataclass(frozen=True)
class Delivered:
    """What a receiver has: ids of batches, polls of before the drain; of live ones routers, moments, sorted delays."""

    batches: set[bytes]
    polls: int
    doubled: int
    delays: list[float]
    live: list[tuple[bytes, float]]


class Field:
    """The processes around one directory. Everything started is stopped by `close`."""

    def __init__(self, directory: Path, routers: int, interfaces: int, fast_seconds: float) -> None:
        """Write certificates, credentials and the agent's configuration; start nothing."""
        self.directory, self.routers, self.interfaces = directory, routers, interfaces
        self.receiver_port, self.router_port, self.metrics_port = free_port(), free_port(), free_port()
        self.started: list[subprocess.Popen[bytes]] = []
        self._kinds: dict[int, str] = {}
        self.used: defaultdict[str, float] = defaultdict(
            float
        )  # CPU seconds by kind of process, of those that were stopped
        credential = directory / "credentials"
        credential.mkdir()
        token = secrets.token_urlsafe(24)
        (credential / credentials.SERVER_TOKEN).write_text(token)
        url = self.prepare_receiver(token)
        tiers = (
            f"fast_seconds = {fast_seconds}\nmedium_seconds = {2 * fast_seconds}\nslow_seconds = {10 * fast_seconds}\n"
        )
        text = (
            f'schema_version = 1\n[agent]\nname = "bench"\ntenant = "bench"\n'
            f'[server]\nurl = "{url}"\nca_file = "{directory}/ca.crt"\n'
            f'[polling]\n{tiers}[spool]\ndirectory = "{directory}/state"\n'
        )
        text += self.prepare_routers(credential / credentials.router_credential("routers"))
        (directory / "agent.toml").write_text(text)

    def prepare_routers(self, password: Path) -> str:
        """Their part of the configuration. They take any password."""
        password.write_text("p")
        return "".join(
            f'[[router]]\nname = "R{number}"\nsite = "s"\naddress = "127.1.{number // 250}.{number % 250 + 1}"\n'
            f'port = {self.router_port}\nuser = "u"\ntls = "off"\ncredential = "routers"\n'
            for number in range(self.routers)
        )

    def prepare_receiver(self, token: str) -> str:
        """Write the certificate of its authority to `ca.crt`; returns its URL. It takes any token."""
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(self.directory / "ca.crt"))
        leaf = authority.issue_cert("127.0.0.1")
        leaf.private_key_pem.write_to_path(str(self.directory / "key.pem"))
        leaf.cert_chain_pems[0].write_to_path(str(self.directory / "cert.pem"))
        return f"https://127.0.0.1:{self.receiver_port}"

    def _start(self, kind: str, *arguments: str, ready: bool = True) -> subprocess.Popen[bytes]:
        here = Path(__file__).parent
        path = [str(here), *sys.path]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path),
                       "CREDENTIALS_DIRECTORY": str(self.directory / "credentials")}  # fmt: skip
        with (self.directory / f"{kind}.log").open("ab") as errors:
            process = subprocess.Popen(  # noqa: S603
                [sys.executable, *arguments], env=environment, stdout=subprocess.PIPE, stderr=errors
            )
        self.started.append(process)
        self._kinds[process.pid] = kind
        if ready and process.stdout is not None and not re.search(rb"ready|listening", process.stdout.readline()):
            raise RuntimeError(f"the {kind} did not start; see {self.directory}")
        return process

    def start_routers(self) -> subprocess.Popen[bytes]:
        """All routers, on one port of many loopback addresses."""
        return self._start("routers", "-c", _ROUTERS, str(self.router_port), str(self.interfaces))

    def start_receiver(self) -> None:
        """The receiver, with the ledger it had before."""
        at = str(self.directory)
        self.receiver = self._start("receiver", str(Path(__file__).parent / "receiver.py"), str(self.receiver_port),
                                    f"{at}/cert.pem", f"{at}/key.pem", f"{at}/ledger.sqlite3")  # fmt: skip

    def kill_receiver(self) -> None:
        """SIGKILL at whatever it does; then it comes back."""
        self.stop(self.receiver)
        self.start_receiver()

    def look(self) -> None:
        """Called now and then while the backlog is delivered."""

    def delivered(self, since: float) -> Delivered:
        """What has arrived, and how the polls since a moment (epoch seconds) came in."""
        since_ms = int(since * 1000)
        with closing(sqlite3.connect(self.directory / "ledger.sqlite3")) as ledger:
            return Delivered(
                batches={row[0] for row in ledger.execute("select id from batch")},
                polls=ledger.execute("select count(*) from moment where ts <= ?", (since_ms,)).fetchone()[0],
                doubled=ledger.execute("select count(*) from doubled").fetchone()[0],
                delays=[
                    row[0] / 1000
                    for row in ledger.execute(
                        "select b.at_ms - m.ts from moment m join batch b on b.id = m.batch"
                        " where m.entity_type = 'device' and m.ts > ? order by 1",
                        (since_ms,),
                    )
                ],
                live=ledger.execute(
                    "select device, ts / 1000.0 from moment where entity_type = 'device' and ts > ? order by 1, 2",
                    (since_ms,),
                ).fetchall(),
            )

    def start_agent(self) -> subprocess.Popen[bytes]:
        """The real daemon; does not wait for it."""
        return self._start(
            "agent", "-c", _AGENT, str(self.directory / "agent.toml"), str(self.metrics_port), ready=False
        )

    def stop(self, process: subprocess.Popen[bytes], number: signal.Signals = signal.SIGKILL) -> None:
        """End one, and remember what it has used."""
        if process.poll() is None:
            used = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
            self.used[self._kinds[process.pid]] += (int(used[11]) + int(used[12])) / os.sysconf("SC_CLK_TCK")
            process.send_signal(number)
        process.wait()

    def close(self) -> None:
        """Stop all that still runs."""
        for process in self.started:
            self.stop(process)
            if process.stdout is not None:
                process.stdout.close()


class Emulated(Field):
    """The routers are those of `ispvm-lab`, with TLS, all menus, and each an address of its own."""

    def prepare_routers(self, password: Path) -> str:
        """From a synthetic seed; what the lab will make at its start is made now."""
        (self.directory / "lab").mkdir()
        seed = str(self.directory / "seed.json")
        size = ("--routers", str(self.routers), "--interfaces", str(self.interfaces), "--network", "127.1.0.0/16")
        subprocess.run([sys.executable, "-m", "ispvm_lab", "synthetic-seed", seed, *size], check=True)  # noqa: S603
        secret = secrets.token_urlsafe(24)
        password.write_text(secret)
        (self.directory / "lab" / "router-password").write_text(secret)
        return "".join(
            f'[[router]]\nname = "{device["name"]}"\nsite = "s"\naddress = "{device["address"]}"\nport = 8729\n'
            f'user = "ispvm"\ntls = "ca"\nca_file = "{self.directory}/lab/routers-ca.crt"\ncredential = "routers"\n'
            for device in json.loads(Path(seed).read_text())["devices"]
        )

    def start_routers(self) -> subprocess.Popen[bytes]:
        """All in one process."""
        state, seed = str(self.directory / "lab"), str(self.directory / "seed.json")
        return self._start("routers", "-m", "ispvm_lab", "serve", "--seed", seed, "--state", state)
