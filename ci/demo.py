#!/usr/bin/env python3
"""`make demo`: install the appliance with the playbook an ISP uses, on test hosts, and wait for live data.

Run again it converges and keeps the data. Ends with the URL, a one-time login link and how long each stage took.
"""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import testhost

ROOT = Path(__file__).resolve().parent.parent
APPLIANCE = ("ispvm-demo", "10.89.77.10")
LAB = ("ispvm-demo-lab", "10.89.77.20")
URL = f"https://{APPLIANCE[1]}"
SECONDS_UNTIL_LIVE = 120

_stages: list[tuple[str, float]] = []


@contextmanager
def stage(title: str) -> Iterator[None]:
    """Announce a stage and remember how long it took."""
    print(f"\n==> {title}", flush=True)
    started = time.monotonic()
    yield
    _stages.append((title, time.monotonic() - started))


def on_appliance(*command: str) -> str:
    """Run a command on the appliance and return what it printed."""
    return testhost.run([*testhost.ssh_command(APPLIANCE[1]), *command])


def login_link() -> str:
    """A fresh one-time link; only its hash is kept on the appliance."""
    command = ("runuser", "-u", "ispvm-owner", "--", "/opt/ispvm/current/server/bin/ispvm", "login-link")
    return on_appliance(*command).splitlines()[-1]


def wait_for_routers() -> list[str]:
    """Sign in with a one-time link of its own and wait until every router of the seed is up with data."""
    seed = json.loads((ROOT / "seeds" / "demo_small.json").read_text())
    expected = {device["name"] for device in seed["devices"]}
    trust = ssl.create_default_context(cadata=on_appliance("cat", "/etc/ispvm/tls/ca.crt"))
    with httpx.Client(base_url=URL, verify=trust, headers={"Origin": URL}, timeout=10) as browser:
        if (signed_in := browser.post(login_link())).status_code != 303:
            raise testhost.TesthostError(f"the one-time link was refused ({signed_in.status_code}): {signed_in.text}")
        seen: set[str] = set()
        deadline = time.monotonic() + SECONDS_UNTIL_LIVE
        while seen != expected:
            if time.monotonic() > deadline:
                raise testhost.TesthostError(f"no live data from {', '.join(sorted(expected - seen))}")
            answer = browser.get("/api/v1/devices")
            answer.raise_for_status()
            up = {device["name"] for device in answer.json()["devices"] if device["state"] == "up"}
            for name in sorted(up & expected - seen):
                print(f"    {name} is up", flush=True)
            seen |= up & expected
            time.sleep(0.5)
    return sorted(seen)


def main() -> None:
    """All stages."""
    os.environ["PATH"] = f"{ROOT / '.venv/bin'}:{os.environ['PATH']}"
    with stage("Test hosts: two bare Debian 13 machines"):
        for name, address in (APPLIANCE, LAB):
            testhost.up(name, address)
            print(f"    {name} on {address}")
    with stage("Wheelhouse: the product and what it needs"):
        subprocess.run([sys.executable, ROOT / "ci" / "build.py"], check=True)
    with stage("ansible-playbook -i inventories/demo site.yml"):
        playbook = subprocess.run(["ansible-playbook", "-i", "inventories/demo", "site.yml"], cwd=ROOT, check=False)
        if playbook.returncode != 0:
            raise testhost.TesthostError("the playbook failed, its last task says why; `make demo` goes on from there")
    with stage("Live data from every router"):
        routers = wait_for_routers()
    print("\nTook:")
    for title, seconds in _stages:
        print(f"  {seconds:6.1f} s  {title}")
    print(f"""
{len(routers)} routers are live.

  Dashboard       {URL}
  One-time login  {login_link()}

The certificate is from the demo's own CA (on the appliance: /etc/ispvm/tls/ca.crt). From another machine:
  ssh -L 8443:{APPLIANCE[1]}:443 root@this-machine     then https://localhost:8443
A new link: `make demo` again, or on the appliance `runuser -u ispvm-owner -- ispvm login-link`.
`make demo-stop` removes every trace.
""")


if __name__ == "__main__":
    try:
        main()
    except (testhost.TesthostError, httpx.HTTPError) as error:
        sys.exit(f"demo: {error}")
