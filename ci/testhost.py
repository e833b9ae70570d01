#!/usr/bin/env python3
"""Bare Debian 13 machines as systemd containers: the test host of the demo, Molecule and the integration tests.

No image registry is needed: mmdebstrap builds the root from the machine's own Debian mirror, podman runs it. A test
host is reached over SSH with a key of its own, exactly as an ISP's server is, and has its own address on a private
network. Runs as root on Debian 12 or 13, with or without cgroup v2, CAP_SYS_RESOURCE or an init as PID 1: what the
machine offers is detected, not assumed.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import ipaddress
import os
import re
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
STATE = ROOT / ".cache" / "testhost"
KEY = STATE / "id_ed25519"
KNOWN_HOSTS = STATE / "known_hosts"
HOLDER_PID = Path("/run/ispvm-testhost.pid")
NETWORK = "ispvm-testhost"
SUBNET = ipaddress.ip_network("10.89.77.0/24")
LABEL = "org.ispvm.testhost"
SUITE = "trixie"

# What a freshly installed Debian 13 server has; nothing of the appliance.
PACKAGES = (
    "ca-certificates", "dbus", "iproute2", "iputils-ping", "openssh-server", "procps", "python3", "python3-apt",
    "sudo", "systemd", "systemd-sysv", "tzdata",
)  # fmt: skip

# Mounts propagate as on a real server: without this the kernel would hide the mounts that systemd makes for a unit's
# credentials from the unit (in a container systemd leaves the root as the container manager made it: private).
INIT = ("/bin/sh", "-c", "mount --make-rshared / && exec /sbin/init")

# Finishes the root: fresh identity at first boot, packages of the roles waiting in the apt cache.
HOOK = Path(__file__).with_name("testhost-image.sh")


class TesthostError(Exception):
    """Something the caller can act on; printed as one line."""


def run(argv: Sequence[str | Path], *, check: bool = True, stdin: str | None = None) -> str:
    """Run a command and return its output; on failure raise with the tail of what it said."""
    done = subprocess.run([str(a) for a in argv], input=stdin, capture_output=True, text=True, check=False)
    if check and done.returncode != 0:
        said = (done.stderr or done.stdout).strip()[-1500:]
        raise TesthostError(f"{argv[0]} {argv[1] if len(argv) > 1 else ''} failed ({done.returncode}): {said}")
    return done.stdout


@cache
def unified_cgroups() -> bool:
    """Whether /sys/fs/cgroup is a pure cgroup v2 tree."""
    return run(["stat", "-f", "-c", "%T", "/sys/fs/cgroup"]).strip() == "cgroup2fs"


@cache
def has_sys_resource() -> bool:
    """Whether this process may raise resource limits (bit 24 of its effective capabilities)."""
    status = Path("/proc/self/status").read_text()
    effective = re.search(r"^CapEff:\s*([0-9a-f]+)", status, re.MULTILINE)
    return effective is not None and bool(int(effective[1], 16) >> 24 & 1)


def holder() -> list[str]:
    """The command prefix that enters the mount namespace with a cgroup v2 tree; empty where the tree is v2 anyway.

    One namespace serves every later podman call: a second one would not see the first one's network namespaces.
    """
    if unified_cgroups():
        return []
    if not holder_alive():
        script = (
            "mount --make-private /sys/fs/cgroup 2>/dev/null; umount -R /sys/fs/cgroup && "
            f"mount -t cgroup2 none /sys/fs/cgroup && echo $$ > {HOLDER_PID} && exec sleep infinity"
        )
        subprocess.Popen(
            ["unshare", "-m", "--propagation", "unchanged", "sh", "-c", script],
            start_new_session=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        wait_for(holder_alive, 10, "the mount namespace for cgroup v2 did not come up")
    return ["nsenter", "-t", HOLDER_PID.read_text().strip(), "-m"]


def holder_alive() -> bool:
    """Whether the namespace holder of an earlier call still runs (and is ours, not a reused process id)."""
    try:
        return b"sleep" in Path(f"/proc/{int(HOLDER_PID.read_text())}/cmdline").read_bytes()
    except (OSError, ValueError):
        return False


def podman(*args: str, check: bool = True, stdin: str | None = None) -> str:
    """Run podman where it can work."""
    options = ["--events-backend=none"]
    if not Path("/run/systemd/system").is_dir():
        options.append("--cgroup-manager=cgroupfs")
    if not (unified_cgroups() and has_sys_resource()):
        options.append("--runtime=runc")
    return run([*holder(), "podman", *options, *args], check=check, stdin=stdin)


def limits() -> list[str]:
    """Options for `podman run`: the limits that this machine lets a container have."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    files = 65536 if hard == resource.RLIM_INFINITY else min(hard, 65536)
    options = [f"--ulimit=nofile={files}:{files}", "--pids-limit=0"]
    if not has_sys_resource():
        hard = resource.getrlimit(resource.RLIMIT_NPROC)[1]
        processes = 30000 if hard == resource.RLIM_INFINITY else min(hard, 30000)
        options.append(f"--ulimit=nproc={processes}:{processes}")
    return options


def wait_for(condition: Callable[[], bool], seconds: float, message: str) -> None:
    """Poll `condition` until it is true; raise TesthostError after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TesthostError(message)
        time.sleep(0.1)


@contextmanager
def alone(what: str) -> Iterator[None]:
    """One caller at a time: scenarios that start together share what the first one makes."""
    STATE.mkdir(parents=True, exist_ok=True)
    with (STATE / f"{what}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def mirrors() -> list[str]:
    """apt lines for Debian 13, from the archive this machine itself uses."""
    targets = run(["apt-get", "indextargets", "--format", "$(LABEL)|$(REPO_URI)", "Created-By: Packages"])
    found = dict(reversed([line.split("|", 1) for line in targets.splitlines() if "|" in line]))
    if "Debian" not in found:
        raise TesthostError("apt: no Debian archive among this machine's sources; run `apt-get update` first")
    lines = [f"deb {found['Debian']} {SUITE} main", f"deb {found['Debian']} {SUITE}-updates main"]
    if "Debian-Security" in found:
        lines.append(f"deb {found['Debian-Security']} {SUITE}-security main")
    return lines


def prefetched() -> list[str]:
    """The packages that roles will ask for: in the image's apt cache, not installed, so hosts install offline."""
    names: set[str] = set()
    for defaults in sorted(ROOT.glob("roles/*/defaults/main.yml")):
        values = yaml.safe_load(defaults.read_text()) or {}
        names.update(values.get(f"{defaults.parent.parent.name}_packages", []))
    return sorted(names)


def image() -> str:
    """The image's name, built when its inputs are new (about 45 s)."""
    packages = prefetched()
    inputs = "\n".join([SUITE, *mirrors(), *PACKAGES, *packages, HOOK.read_text()])
    tag = f"localhost/ispvm-testhost:{hashlib.sha256(inputs.encode()).hexdigest()[:16]}"
    with alone("image"):
        if not podman("images", "--quiet", tag).strip():
            build(tag, packages)
    return tag


def build(tag: str, packages: Sequence[str]) -> None:
    """Make the root with mmdebstrap and import it."""
    print("testhost: building the Debian 13 image (about a minute, once)", file=sys.stderr, flush=True)
    tree = STATE / "image.tar"
    run(
        ["mmdebstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", "--skip=cleanup/apt",
         f'--customize-hook=PREFETCH="{" ".join(packages)}" {HOOK} "$1"', SUITE, tree, *mirrors()]
    )  # fmt: skip
    podman("import", "--change", 'CMD ["/sbin/init"]', str(tree), tag)
    tree.unlink()


def key() -> Path:
    """The private key that opens every test host of this checkout."""
    with alone("key"):
        if not KEY.exists():
            run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "ispvm-testhost", "-f", KEY])
    return KEY


def ssh_command(address: str) -> list[str]:
    """ssh to a test host, checking its host key, with a shared connection."""
    return [
        "ssh", "-i", str(KEY), "-o", f"UserKnownHostsFile={KNOWN_HOSTS}", "-o", "StrictHostKeyChecking=yes",
        "-o", "BatchMode=yes", "-o", "LogLevel=ERROR", "-o", "ControlMaster=auto", "-o", "ControlPersist=60s",
        "-o", "ControlPath=~/.ssh/ispvm-%C", f"root@{address}",
    ]  # fmt: skip


def address_of(name: str) -> str:
    """The address of a running test host."""
    found = podman("inspect", "--format", f'{{{{(index .NetworkSettings.Networks "{NETWORK}").IPAddress}}}}', name)
    return found.strip()


def running(name: str) -> bool:
    """Whether the test host exists and runs."""
    return podman("inspect", "--format", "{{.State.Running}}", name, check=False).strip() == "true"


def boot_state(name: str) -> str:
    """What systemd says of the host as a whole; empty while it cannot say yet."""
    return podman("exec", name, "systemctl", "is-system-running", check=False).strip()


def make_network() -> None:
    """The private network, made by whoever comes first."""
    with alone("network"):
        if NETWORK not in podman("network", "ls", "--format", "{{.Name}}").split():
            remove_bridge()
            podman("network", "create", "--subnet", str(SUBNET), NETWORK)


def remove_bridge() -> None:
    """Remove the network's bridge where podman left it: a host whose start was killed still counts as using it."""
    gateway = f"{SUBNET[1]}/{SUBNET.prefixlen}"
    for line in run(["ip", "-o", "-4", "address"]).splitlines():
        words = line.split()
        if gateway in words:
            run(["ip", "link", "delete", words[1]])


def up(name: str, address: str) -> None:
    """Start a host and wait until systemd has booted and SSH answers. A host that runs already is left as it is."""
    if ipaddress.ip_address(address) not in SUBNET:
        raise TesthostError(f"ADDRESS: {address} is outside the private network; choose one of {SUBNET}")
    if running(name):
        if (actual := address_of(name)) != address:
            raise TesthostError(f"{name} runs already, on {actual}; `testhost.py down {name}` first")
        return
    wait_for(lambda: removed(name), 20, f"{name}: an older one could not be removed")
    make_network()
    podman(
        "run", "--detach", f"--name={name}", f"--hostname={name}", f"--label={LABEL}={ROOT}", "--privileged",
        "--systemd=always", f"--network={NETWORK}:ip={address}", *limits(), image(), *INIT,
    )  # fmt: skip
    wait_for(lambda: boot_state(name) in ("running", "degraded"), 60, f"{name} did not finish booting")
    if boot_state(name) == "degraded":
        failed = podman("exec", name, "systemctl", "list-units", "--failed", "--plain", "--no-legend")
        raise TesthostError(f"{name} booted with failed units: {failed.strip()}")
    public = key().with_suffix(".pub").read_text().strip()
    podman("exec", name, "sh", "-c", f"install -d -m 0700 /root/.ssh && echo '{public}' > /root/.ssh/authorized_keys")
    trust(address, podman("exec", name, "cat", "/etc/ssh/ssh_host_ed25519_key.pub"))
    Path("~/.ssh").expanduser().mkdir(mode=0o700, exist_ok=True)
    ready = [*ssh_command(address), "true"]
    wait_for(lambda: subprocess.run(ready, capture_output=True, check=False).returncode == 0, 30, f"{name}: no SSH")


def trust(address: str, public_key: str) -> None:
    """Remember the host key that was read inside the container, in place of an older one."""
    with alone("known_hosts"):
        old = KNOWN_HOSTS.read_text().splitlines() if KNOWN_HOSTS.exists() else []
        kept = [line for line in old if not line.startswith(f"{address} ")]
        if public_key:
            kept.append(f"{address} {' '.join(public_key.split()[:2])}")
        # in one step: another scenario's ssh may read it at any moment
        new = KNOWN_HOSTS.with_suffix(".new")
        new.write_text("".join(f"{line}\n" for line in kept))
        new.replace(KNOWN_HOSTS)


def down(name: str) -> None:
    """Remove a host with everything in it. Unknown names are fine."""
    if running(name):
        address = address_of(name)
        subprocess.run([*ssh_command(address)[:-1], "-O", "exit", f"root@{address}"], capture_output=True, check=False)
        trust(address, "")
    # podman may find the host just stopping by itself and give up: ask again until it is gone
    wait_for(lambda: removed(name), 20, f"{name} could not be removed")


def removed(name: str) -> bool:
    """Try to remove a host; whether it is gone."""
    podman("rm", "--force", "--time=0", "--ignore", name, check=False)
    return not podman("ps", "--all", f"--filter=name=^{name}$", "--quiet").strip()


def hosts() -> list[str]:
    """The names of this checkout's hosts."""
    return podman("ps", "--all", f"--filter=label={LABEL}={ROOT}", "--format", "{{.Names}}").split()


def purge() -> None:
    """Remove this checkout's hosts; then image, network and namespace, unless another checkout has hosts."""
    for name in hosts():
        down(name)
    shutil.rmtree(STATE, ignore_errors=True)
    if podman("ps", "--all", f"--filter=label={LABEL}", "--quiet").strip():
        return
    podman("network", "rm", "--force", NETWORK, check=False)
    tags = podman("images", "--quiet", "localhost/ispvm-testhost").split()
    if tags:
        podman("rmi", "--force", *tags)
    if not unified_cgroups() and holder_alive():
        os.kill(int(HOLDER_PID.read_text()), 9)
        HOLDER_PID.unlink()


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="testhost.py", description=__doc__.splitlines()[0] if __doc__ else None)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("image", help="build the image if its inputs changed and print its name")
    verb = verbs.add_parser("up", help="start a host and wait until it answers")
    verb.add_argument("name")
    verb.add_argument("address", help=f"an address of {SUBNET}")
    verb = verbs.add_parser("down", help="remove hosts and all that is in them")
    verb.add_argument("names", nargs="+")
    verb = verbs.add_parser("ssh", help="run a command on a host")
    verb.add_argument("name")
    verb.add_argument("command", nargs="*")
    verbs.add_parser("list", help="this checkout's hosts")
    verbs.add_parser("purge", help="remove every trace: hosts, image, network, keys")
    args = parser.parse_args()
    if os.geteuid() != 0:
        raise TesthostError("needs root: it makes containers with systemd and a private network")
    match args.verb:
        case "image":
            print(image())
        case "up":
            up(args.name, args.address)
        case "down":
            for name in args.names:
                down(name)
        case "ssh":
            command = [*ssh_command(address_of(args.name)), *args.command]
            return subprocess.run(command, check=False).returncode
        case "list":
            print("\n".join(f"{name} {address_of(name)}" for name in hosts()))
        case "purge":
            purge()
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except TesthostError as error:
        sys.exit(f"testhost: {error}")
