#!/usr/bin/env python3
"""Run the agent's one file of a bundle on amd64 and, by emulation, on arm64, against an emulated router.

Each processor's root is the bundle's own container image, so Python is Debian 13's and no package is fetched. The
router listens on the loopback of a network namespace without any other interface.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EMULATOR = "/usr/bin/qemu-aarch64-static"


def unpack(image: Path, into: Path) -> None:
    """The layers of an OCI image, one over the other."""
    with tarfile.open(image) as archive:

        def blob(digest: str) -> bytes:
            file = archive.extractfile(f"blobs/sha256/{digest.removeprefix('sha256:')}")
            assert file is not None  # noqa: S101 - our own images have it
            return file.read()

        index = archive.extractfile("index.json")
        assert index is not None  # noqa: S101 - our own images have it
        manifest = json.loads(blob(json.load(index)["manifests"][0]["digest"]))
        for layer in manifest["layers"]:
            subprocess.run(["tar", "-C", into, "-x"], input=blob(layer["digest"]), check=True)


def settings(root: Path, state: Path, device: dict[str, str], port: int) -> None:
    """An agent's configuration for one router, with its password as systemd would hand it over."""
    (root / "etc/ispvm-agent").mkdir()
    (root / "run/credentials").mkdir(parents=True)
    shutil.copyfile(state / "router-password", root / "run/credentials/ispvm-agent.router.routers")
    shutil.copyfile(state / "routers-ca.crt", root / "etc/ispvm-agent/routers-ca.crt")
    (root / "etc/ispvm-agent/agent.toml").write_text(f"""schema_version = 1
[agent]
name = "anywhere"
tenant = "demo"
[server]
url = "https://127.0.0.1"
[[router]]
name = "{device["name"]}"
site = "{device["site"]}"
address = "127.0.0.1"
port = {port}
user = "ispvm"
tls = "off"
credential = "routers"
""")


def check(root: Path, name: str) -> dict[str, object]:
    """Run `ispvm-agent check` from the one file inside `root`; what every collector read."""
    environment = {
        "PATH": "/usr/bin",
        "CREDENTIALS_DIRECTORY": "/run/credentials",
        "PEX_ROOT": "/run/pex",
        "LC_ALL": "C.UTF-8",
    }
    command: list[str | Path] = [
        "/usr/sbin/chroot",
        root,
        "/usr/bin/python3",
        "/ispvm-agent.pex",
        "check",
        name,
        "--json",
    ]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"agent_everywhere: exit {done.returncode}: {done.stdout[-1000:]}{done.stderr[-2000:]}")
    answer: dict[str, object] = json.loads(done.stdout)
    return answer


def emulate(register: bool) -> None:
    """Let the kernel hand arm64 programs to the emulator, or no longer."""
    directory = Path("/proc/sys/fs/binfmt_misc")
    if not (directory / "register").exists():
        subprocess.run(["mount", "-t", "binfmt_misc", "none", directory], check=True)
    entry = directory / "ispvm-arm64"
    if entry.exists():
        entry.write_text("-1")
    if register:
        magic = r"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"
        mask = r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff"
        (directory / "register").write_text(f":ispvm-arm64:M::{magic}:{mask}:{EMULATOR}:F")


def main() -> None:
    """Emulate a router, poll it from both processors, say what was read."""
    parser = argparse.ArgumentParser(prog="agent_everywhere.py", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bundle", type=Path, help="an unpacked bundle")
    bundle = parser.parse_args().bundle.resolve()
    if not Path(EMULATOR).exists():
        sys.exit("agent_everywhere: needs the package qemu-user-static")
    if os.environ.get("ISPVM_ALONE") != "yes":  # again, in a network namespace that has a loopback and nothing else
        command = ["unshare", "--net", "sh", "-euc", 'ip link set lo up; exec "$@"', "sh", sys.executable, *sys.argv]
        sys.exit(subprocess.run(command, env={**os.environ, "ISPVM_ALONE": "yes"}, check=False).returncode)
    seed = ROOT / "seeds/demo_small.json"
    device, base = json.loads(seed.read_text())["devices"][0], 18000
    with tempfile.TemporaryDirectory() as scratch:
        state = Path(scratch) / "lab"
        environment = {**os.environ, "PYTHONPATH": f"{ROOT}/contract:{ROOT}/lab"}
        serve: list[str | Path] = [sys.executable, "-m", "ispvm_lab", "serve", "--seed", seed, "--state", state,
                   "--listen-override", f"127.0.0.1:{base}"]  # fmt: skip
        with subprocess.Popen(serve, env=environment) as lab:
            try:
                deadline = time.monotonic() + 60
                while (
                    subprocess.run(["ss", "-Hltn", f"sport = :{base}"], capture_output=True, check=True).stdout == b""
                ):
                    if time.monotonic() > deadline or lab.poll() is not None:
                        sys.exit("agent_everywhere: the emulated router did not come up")
                    time.sleep(0.1)
                emulate(register=True)
                for architecture in ("amd64", "arm64"):
                    root = Path(scratch) / architecture
                    root.mkdir()
                    unpack(bundle / f"agent/ispvm-agent-{architecture}.oci.tar", root)
                    shutil.copyfile(bundle / "agent/ispvm-agent.pex", root / "ispvm-agent.pex")
                    settings(root, state, device, base)
                    started = time.monotonic()
                    answer = check(root, device["name"])
                    print(f"{architecture}: {time.monotonic() - started:.1f} s  {json.dumps(answer)[:300]}", flush=True)
            finally:
                emulate(register=False)
                lab.terminate()


if __name__ == "__main__":
    main()
