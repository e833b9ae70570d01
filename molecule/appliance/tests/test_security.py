"""What a security reviewer asks of the installed appliance."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import testinfra
import yaml
from conftest import sql
from testinfra.host import Host

ROOT = Path(__file__).resolve().parents[3]
TESTHOST = [sys.executable, str(ROOT / "ci" / "testhost.py")]
# a whole installation runs inside a fixture
pytestmark = pytest.mark.timeout(900)
FIRST = ROOT / "molecule/appliance/inventory/hosts.yml"
SECOND = ("m-appliance-two", "10.89.77.46")


@pytest.mark.parametrize(
    ("unit", "most"),
    [
        ("ispvm-server", 1.5), ("ispvm-worker", 1.5), ("ispvm-agent", 1.5), ("pgbouncer", 2.0),
        ("postgresql@17-ispvm", 3.0),
    ],
)  # fmt: skip
def test_a_unit_is_as_hardened_as_promised(appliance: Host, unit: str, most: float) -> None:
    said = appliance.check_output(f"systemd-analyze security --no-pager {unit}.service")
    exposure = re.search(r"Overall exposure level for \S+: ([0-9.]+)", said)
    assert exposure is not None, said
    print(f"{unit}: {exposure[1]}")
    assert float(exposure[1]) <= most


def test_only_ssh_and_the_pages_listen_beyond_this_host(appliance: Host) -> None:
    listening = appliance.check_output("ss -Hltn | awk '{print $4}'").split()
    outside = {address.rsplit(":", 1)[1] for address in listening if not address.startswith(("127.", "[::1]"))}
    assert outside <= {"22", "80", "443"}
    assert not any(address.endswith((":5432", ":6432")) for address in listening)


def test_no_password_exists_in_the_database_or_the_pool(appliance: Host) -> None:
    assert sql(appliance, "select count(*) from pg_authid where rolpassword is not null") == "0"
    assert sql(appliance, "select count(*) from app_user where password_hash is not null") == "0"
    assert appliance.run("grep -rIE 'password *= *[^ ]' /etc/pgbouncer /etc/ispvm /etc/ispvm-agent").rc == 1


# Takes secrets backwards, so that it never finds itself; prints every place where one of them stands.
LOOK = """
import pathlib, subprocess, sys
secrets = [word[::-1].encode() for word in sys.argv[1:]]
roots = ('/etc', '/opt/ispvm', '/var/lib/ispvm-agent', '/var/log', '/run/ispvm', '/root', '/tmp', '/var/tmp')
places = [f for p in pathlib.Path('/proc').glob('[0-9]*') for f in (p / 'cmdline', p / 'environ')]
places += [f for root in roots for f in pathlib.Path(root).rglob('*') if f.is_file()]
journal = subprocess.run(['journalctl', '--no-pager', '--output=export'], capture_output=True, check=True).stdout
found = ['journal'] if any(secret in journal for secret in secrets) else []
for place in places:
    try:
        data = place.read_bytes()
    except OSError:
        continue
    if any(secret in data for secret in secrets):
        found.append(str(place))
print(chr(10).join(found))
"""


def where(host: Host, *secrets: str) -> list[str]:
    """Where one of the secrets stands in clear: files, command lines, environments, the journal."""
    assert all(len(secret) >= 16 for secret in secrets)
    out: str = host.check_output("python3 -c %s" + " %s" * len(secrets), LOOK, *(secret[::-1] for secret in secrets))
    return out.split()


def test_no_secret_is_in_a_file_a_process_list_an_environment_or_the_journal(appliance: Host, lab: Host) -> None:
    """Router password and server token are in the agent's memory and in encrypted files, nowhere else."""
    password = lab.check_output("cat /var/lib/ispvm-lab/router-password").strip()
    name = "ispvm-agent.server-token"
    token = appliance.check_output(f"systemd-creds decrypt --name={name} /etc/credstore.encrypted/{name} -").strip()
    assert where(appliance, password, token) == []


def test_a_leaked_secret_would_be_found(appliance: Host) -> None:
    decoy = f"decoy-{uuid.uuid4()}"
    unit = "ispvm-decoy"
    appliance.check_output(f"systemd-run --unit={unit} --setenv=LEAK={decoy} sh -c 'exec sleep 300 # {decoy}'")
    try:
        found = where(appliance, decoy)
        assert any(place.endswith("/environ") for place in found)
        assert "journal" in found
    finally:
        appliance.check_output(f"systemctl stop {unit}")


def site(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the playbook an ISP runs."""
    command = ["ansible-playbook", "--inventory", str(ROOT / "molecule/shared/inventory"), *arguments, "site.yml"]
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "MOLECULE_PROJECT_DIRECTORY": str(ROOT)}
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def second(appliance: Host) -> Iterator[Host]:
    """Another appliance from the same checkout and playbook, without demo data, its one router not there."""
    assert appliance
    subprocess.run([*TESTHOST, "up", *SECOND], check=True)
    name, address = SECOND
    variables = yaml.safe_load(FIRST.read_text())["all"]["vars"]
    del variables["ispvm_seed"], variables["ispvm_seed_directory"]
    variables |= {"ispvm_public_name": address, "agent_require_credentials": False}
    variables["ispvm_routers"] = [{"name": "R1", "site": "nowhere", "address": "192.0.2.1"}]
    member = {"hosts": {name: None}}
    inventory = ROOT / ".cache" / "molecule" / "second.yml"
    everything = {
        "hosts": {name: {"ansible_host": address}}, "vars": variables,
        "children": {"appliance": member, "agents": member},
    }  # fmt: skip
    inventory.write_text(json.dumps({"all": everything}))
    done = site("--inventory", str(inventory))
    try:
        assert done.returncode == 0, done.stdout[-3000:]
        state = ROOT / ".cache" / "testhost"
        yield testinfra.get_host(
            f"ssh://root@{address}", ssh_identity_file=str(state / "id_ed25519"),
            ssh_extra_args=f"-o UserKnownHostsFile={state / 'known_hosts'} -o BatchMode=yes -o LogLevel=ERROR",
        )  # fmt: skip
    finally:
        subprocess.run([*TESTHOST, "down", name], check=True)


@pytest.mark.parametrize(
    "what",
    [
        "cat /etc/machine-id",
        "runuser -u postgres -- psql -XAtqc 'select system_identifier from pg_control_system()'",
        "sha256sum < /etc/ispvm/tls/server.key",
        "sha256sum < /etc/ispvm/tls/ca.key",
        "openssl x509 -in /etc/ispvm/tls/ca.crt -noout -fingerprint -sha256",
        "sha256sum < /var/lib/systemd/credential.secret",
        "systemd-creds decrypt --name={0} /etc/credstore.encrypted/{0} - | sha256sum".format(
            "ispvm-agent.server-token"
        ),
        "ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub",
    ],
)
def test_two_installs_share_no_secret(appliance: Host, second: Host, what: str) -> None:
    ours, theirs = appliance.check_output(what), second.check_output(what)
    assert ours.strip()
    assert ours != theirs
    nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert nothing not in ours + theirs


def test_the_play_refuses_demo_data_in_production(appliance: Host) -> None:
    """The first of three guards; the roles' and the database's own are shown in the scenario `seed`."""
    assert appliance
    done = site("--inventory", str(FIRST.parent), "--extra-vars", "ispvm_environment=production")
    assert done.returncode != 0
    assert "demo data never goes into production" in " ".join(done.stdout.split())
    assert "PLAY [Every host of the product]" not in done.stdout
