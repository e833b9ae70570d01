#!/usr/bin/env python3
"""Install a signed bundle on a bare Debian 13 host that has no way out, and count every packet that tries to leave.

The host's interface is shut. In its place stands a sink: a default route into an interface that counts and drops what
it is given, so that a name look-up, a time query or a connection to a mirror is counted, not merely impossible. The
routers of the demo's seed are emulated on the same host. It is done when they are live on the dashboard, a second
installation changed nothing, the bundle rebuilt its own artefacts, every executable file of the host is explained by
the SBOM, a newer bundle was installed over it and every forbidden step was refused.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import testhost

ROOT = Path(__file__).resolve().parent.parent
NAME, ADDRESS = "ispvm-airgap", "10.89.77.81"
BUNDLE, NEWER = "/root/bundle", "/root/newer"
FACT = "/etc/ansible/facts.d/ispvm.fact"
SINK = """
set -eu
ip link set eth0 down
echo 'nameserver 192.0.2.53' > /etc/resolv.conf
ip link add sink type veth peer name drain
echo 1 > /proc/sys/net/ipv6/conf/sink/disable_ipv6
echo 1 > /proc/sys/net/ipv6/conf/drain/disable_ipv6
ip link set drain up
ip address add 192.0.2.1/24 dev sink
ip link set sink up
ip neighbour replace 192.0.2.254 lladdr 02:00:00:00:00:fe dev sink
ip route add default via 192.0.2.254 dev sink
"""
INVENTORY = """
all:
  vars:
    ansible_connection: local
    ispvm_environment: demo
    ispvm_tenant: demo
    ispvm_public_name: 192.0.2.1
    ispvm_require_synchronised_clock: false
    ispvm_memory_mb: 4096
    ispvm_minimum_disk_gb: 5
    ispvm_expected_routers: 6
    ispvm_expected_interfaces_per_router: 4
    ispvm_poll_seconds: 5
    ispvm_seed: demo_small
    lab_interface: sink
  children:
    appliance: {hosts: {here: {}}}
    agents:
      hosts:
        here:
          ispvm_agent_name: head-office
          ispvm_routers: "{{ lookup('ansible.builtin.file', lab_seed) | from_json | seed_routers }}"
    lab: {hosts: {here: {}}}
"""
# Runs on the host: signs in with a one-time link and waits until every router of the seed is up.
LIVE = """
import json, ssl, sys, time, urllib.request
link, expected = sys.argv[1], set(sys.argv[2].split(","))
trust = ssl.create_default_context(cafile="/etc/ispvm/tls/ca.crt")
browser = urllib.request.build_opener(urllib.request.HTTPSHandler(context=trust), urllib.request.HTTPCookieProcessor())
origin = "/".join(link.split("/")[:3])
page = browser.open(urllib.request.Request(link, data=b"", headers={"Origin": origin})).read()
assert b"<html" in page, page[:200]
deadline = time.monotonic() + 120
while True:
    devices = json.load(browser.open(origin + "/api/v1/devices"))["devices"]
    if expected <= {device["name"] for device in devices if device["state"] == "up"}:
        break
    assert time.monotonic() < deadline, devices
    time.sleep(0.5)
print(len(expected))
"""


def inside(*command: str, stdin: str | None = None) -> str:
    """Run a command on the host, not over its network."""
    return testhost.podman("exec", *(["--interactive"] if stdin else []), NAME, *command, stdin=stdin)


def counters() -> tuple[int, int]:
    """Packets that the sink was given, and sends that found no route at all (IPv4 and IPv6)."""
    sink = int(inside("cat", "/sys/class/net/sink/statistics/tx_packets"))
    names, values = (line.split()[1:] for line in inside("grep", "^Ip:", "/proc/net/snmp").splitlines())
    routeless = int(values[names.index("OutNoRoutes")])
    for line in inside("cat", "/proc/net/snmp6").splitlines():
        if line.startswith("Ip6OutNoRoutes"):
            routeless += int(line.split()[1])
    return sink, routeless


def bring(bundle: Path, into: str) -> None:
    """Put the bundle on the host: an archive is unpacked there by what a bare Debian has, a tree is streamed."""
    ssh = testhost.ssh_command(ADDRESS)
    if bundle.is_dir():
        with subprocess.Popen(["tar", "-C", bundle, "-c", "."], stdout=subprocess.PIPE) as tar:
            subprocess.run([*ssh, f"mkdir {into} && tar -C {into} -x"], stdin=tar.stdout, check=True)
    else:
        unpack = f"cat > /root/b.tar.zst && mkdir {into} && /usr/lib/apt/apt-helper cat-file /root/b.tar.zst"
        with bundle.open("rb") as file:
            command = f"{unpack} | tar -C {into} -x --strip-components=1 && rm /root/b.tar.zst"
            subprocess.run([*ssh, command], stdin=file, check=True)


def install(bundle: str) -> float:
    """Run a bundle's installer; return the seconds it took."""
    started = time.monotonic()
    command = f"cd {bundle} && ./install --allow-test-key -i /root/inventory.yml > /root/install.log 2>&1"
    try:
        inside("sh", "-c", command)
    except testhost.TesthostError:
        raise testhost.TesthostError(f"install failed:\n{inside('tail', '-n', '60', '/root/install.log')}") from None
    return time.monotonic() - started


def install_again(bundle: str) -> float:
    """The same, over what is installed already: nothing may change."""
    seconds = install(bundle)
    log = inside("cat", "/root/install.log")
    tasks = re.split(r"^(?:TASK|RUNNING HANDLER) \[", log, flags=re.MULTILINE)
    changed = [task.partition("]")[0] for task in tasks if re.search(r"^changed: ", task, re.MULTILINE)]
    if changed or " changed=0 " not in log:
        raise testhost.TesthostError(f"a second installation changed: {', '.join(changed)}\n{log[-400:]}")
    return seconds


def refused(bundle: str, reason: str) -> None:
    """A bundle that must not be installed on this host is refused for this reason, and the host stays as it is."""
    before = inside("cat", FACT)
    try:
        install(bundle)
    except testhost.TesthostError as error:
        if reason not in " ".join(str(error).split()):
            raise testhost.TesthostError(f"refused, but not because of {reason!r}: {error}") from None
    else:
        raise testhost.TesthostError(f"installed, though {reason!r}")
    if inside("cat", FACT) != before:
        raise testhost.TesthostError(f"refused because of {reason!r}, but the host was changed")
    print(f"refused: {reason}")


def live(names: list[str]) -> None:
    """Wait until these routers are up on the dashboard."""
    command = ("runuser", "-u", "ispvm-owner", "--", "/opt/ispvm/current/server/bin/ispvm", "login-link")
    link = inside(*command).splitlines()[-1]
    print(f"routers live on the dashboard: {inside('python3', '-c', LIVE, link, ','.join(names)).strip()}")


def explained(bundle: Path, newer: Path | None) -> None:
    """Every executable or importable file of the host belongs to one component of the SBOM, and back."""
    tree = bundle.with_name(bundle.name.removesuffix(".tar.zst"))
    files = inside("python3", "-", stdin=(ROOT / "release/sbom/host_files.py").read_text())
    with tempfile.NamedTemporaryFile("w", suffix=".json") as read:
        read.write(files)
        read.flush()
        command = [sys.executable, "-m", "release.sbom", "bijection", str(newer or tree), "--files", read.name]
        command += ["--before", str(tree)] if newer else []
        command += ["--without", "chrony"]  # a container's clock is its machine's
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    print(done.stdout, end="")
    if done.returncode != 0:
        raise testhost.TesthostError(f"the SBOM does not describe this host: {done.stderr}")


def upgrade() -> None:
    """Install a newer bundle over the older one; every way back, and a step that is too long, is refused."""
    version, newer = (inside("cat", f"{where}/VERSION").strip() for where in (BUNDLE, NEWER))
    print(f"upgraded from {version} to {newer} in {install(NEWER):.0f} s")
    if json.loads(inside("cat", FACT))["version"] != newer:
        raise testhost.TesthostError(f"the host does not say that it runs {newer}")
    refused(BUNDLE, "REFUSED rollback: ")
    inside("rm", "/root/.ispvm-release")  # as if it had been installed from another machine: the host itself knows
    refused(BUNDLE, f"{newer} is installed and {version} is older")
    inside("sed", "-i", f's/"{newer}"/"0.0.9"/', FACT)
    refused(NEWER, f"0.0.9 is installed and cannot become {newer} in one step")
    inside("sed", "-i", f's/"0.0.9"/"{newer}"/', FACT)
    install_again(NEWER)


def main() -> None:
    """All of it; exit 1 when one packet tried to leave."""
    parser = argparse.ArgumentParser(prog="airgap.py", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bundle", type=Path, help="a signed tree, or the .tar.zst beside it")
    parser.add_argument("--newer", type=Path, help="the signed tree of a later release, to be installed over it")
    parser.add_argument("--again", type=int, default=1, metavar="N", help="how many times it is installed again")
    parser.add_argument("--keep", action="store_true", help="leave the host running")
    parser.add_argument("--leak", action="store_true", help="let the host look a name up: the count must not be 0 then")
    args = parser.parse_args()
    testhost.down(NAME)
    testhost.up(NAME, ADDRESS)
    try:
        bring(args.bundle, BUNDLE)
        if args.newer:
            bring(args.newer, NEWER)
        inside("sh", "-c", SINK)
        inside("sh", "-c", "cat > /root/inventory.yml", stdin=INVENTORY)
        inside("sh", "-c", "rm -rf /var/cache/apt/archives/*.deb /var/lib/apt/lists/*")
        if args.leak:
            inside("sh", "-c", "getent hosts example.org || true")
        # what packages bring into apt.conf.d is theirs; where packages come from is the host's
        listing = "find /etc/apt/sources.list* /etc/apt/preferences* /etc/apt/keyrings -type f | sort | xargs sha256sum"
        sources = inside("sh", "-c", listing)
        print(f"installed in {install(BUNDLE):.0f} s")
        if inside("sh", "-c", listing) != sources:
            raise testhost.TesthostError("the host's own apt sources were changed")
        routers = [device["name"] for device in json.loads((ROOT / "seeds/demo_small.json").read_text())["devices"]]
        live(routers)
        again = [install_again(BUNDLE) for _ in range(args.again)]
        print(f"installed again, nothing changed: {', '.join(f'{seconds:.0f} s' for seconds in again)}")
        rebuilt = inside(f"{BUNDLE}/rebuild").splitlines()
        print(f"rebuilt from the bundle, byte for byte the same: {len(rebuilt)} artefacts")
        if args.newer:
            upgrade()
            live(routers)
        inside("rm", "-r", BUNDLE, *([NEWER] if args.newer else []))  # what is left is what was installed
        explained(args.bundle, args.newer)
        sink, routeless = counters()
        print(f"packets to the sink: {sink}; sends without a route: {routeless}")
        if sink or routeless:
            raise testhost.TesthostError("something on the host tried to leave it")
    finally:
        if not args.keep:
            testhost.down(NAME)


if __name__ == "__main__":
    try:
        main()
    except testhost.TesthostError as error:
        sys.exit(f"airgap: {error}")
