"""The agent at a PoP: it polls, it reports, its secrets stay where they are, and it comes back."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
from testinfra.host import Host

ROOT = Path(__file__).resolve().parents[3]
STORE = "/etc/credstore.encrypted"
SECRETS = ["ispvm-agent.server-token", "ispvm-agent.router.routers"]


def converge(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the scenario's playbook again, with other variables."""
    inventories = [f"--inventory={ROOT}/molecule/{name}/inventory" for name in ("shared", "agent")]
    settings = {
        "ANSIBLE_CONFIG": f"{ROOT}/ansible.cfg",
        "MOLECULE_PROJECT_DIRECTORY": str(ROOT),
        "ANSIBLE_FORCE_COLOR": "0",
    }
    environment = {**os.environ, **settings}
    command = ["ansible-playbook", *inventories, *arguments, str(ROOT / "molecule/agent/converge.yml")]
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)


def until(host: Host, condition: str, seconds: int = 30) -> None:
    """Wait until a shell condition holds on the host."""
    done = host.run("timeout %s sh -c %s", str(seconds), f"until {condition}; do sleep 0.2; done")
    assert done.rc == 0, f"not within {seconds} s: {condition}\n{host.run('journalctl -n 30 -u ispvm-agent').stdout}"


def stored_polls(server: Host) -> int:
    """Polls of routers in the server's database."""
    return int(server.check_output("runuser -u postgres -- psql -XAtqd ispvm -c 'select count(*) from poll_device'"))


@pytest.fixture(scope="module")
def server(hosts: dict[str, Host]) -> Host:
    """The appliance that the agent reports to."""
    return hosts["m-agent-server"]


def test_the_agent_runs_and_polls_every_router(host: Host) -> None:
    assert host.service("ispvm-agent").is_running
    assert host.service("ispvm-agent").is_enabled
    status = json.loads(host.check_output("ispvm-agent status --json"))
    assert {router["name"] for router in status["routers"]} == {"CORE-NTH-1", "AGG-HIL-1"}
    assert status["probes"] == "ok"
    until(host, "ispvm-agent status | grep -c ': ok' | grep -qx 2")


def test_it_is_enrolled_for_its_sites_and_data_arrive(host: Host, server: Host) -> None:
    line = next(line for line in server.check_output("ispvm agent list").splitlines() if "\tpop\t" in line)
    assert line.split("\t")[0:3] == ["molecule", "pop", "hill,north"]
    assert line.endswith("active")
    until(
        server,
        "runuser -u postgres -- psql -XAtqd ispvm -c 'select count(distinct device_id) from poll_device' | grep -qx 2",
    )


def test_secrets_are_encrypted_and_roots(host: Host) -> None:
    for name in SECRETS:
        file = host.file(f"{STORE}/{name}")
        assert (file.user, file.group, file.mode) == ("root", "root", 0o400)
    lab = host.check_output("cat /var/lib/ispvm-lab/router-password")
    assert lab not in host.check_output(f"cat {STORE}/*")
    decrypted = host.check_output(f"systemd-creds decrypt --name={SECRETS[1]} {STORE}/{SECRETS[1]} -")
    assert decrypted == lab


def test_the_token_is_known_to_the_server_by_its_hash_only(host: Host, server: Host) -> None:
    digest = host.check_output("ispvm-agent token ensure").splitlines()[0]
    query = "runuser -u postgres -- psql -XAtqd ispvm -c \"select encode(token_sha256, 'hex') from agent\""
    assert server.check_output(query) == digest


def test_the_unit_may_ask_for_the_clock_but_has_no_capability(host: Host) -> None:
    properties = host.service("ispvm-agent").systemd_properties
    assert "clock_adjtime" in properties["SystemCallFilter"]
    assert properties.get("CapabilityBoundingSet", "") == ""
    said = host.check_output("systemd-analyze security --no-pager ispvm-agent.service")
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", said)
    assert found is not None
    assert float(found[1]) <= 1.5, found[0]


def test_a_killed_agent_comes_back_and_data_flow_again(host: Host, server: Host) -> None:
    before = host.check_output("systemctl show --property=MainPID --value ispvm-agent")
    host.check_output(f"kill -KILL {before}")
    until(
        host,
        f'[ "$(systemctl show --property=MainPID --value ispvm-agent)" != {before} ] &&'
        " systemctl is-active --quiet ispvm-agent",
    )
    polls = stored_polls(server)
    count = "runuser -u postgres -- psql -XAtqd ispvm -c 'select count(*) from poll_device'"
    until(server, f'[ "$({count})" -gt {polls + 4} ]', 60)


def files_with(secret: str, *places: Path) -> list[str]:
    """Files that hold the secret; those that vanish meanwhile are others' temporary ones."""
    grep = ["grep", "--recursive", "--files-with-matches", "--no-messages", "--fixed-strings", "--regexp", secret]
    done = subprocess.run([*grep, *places], capture_output=True, text=True, check=False)
    return done.stdout.splitlines()


def test_a_new_password_reaches_the_agent_and_no_log(host: Host, tmp_path: Path) -> None:
    """The role runs as chattily as it can while it carries a password; the password is in nothing it says."""
    password = host.check_output("cat /var/lib/ispvm-lab/router-password")
    token = host.check_output(f"systemd-creds decrypt --name={SECRETS[0]} {STORE}/{SECRETS[0]} -")
    host.check_output(f"rm {STORE}/{SECRETS[1]}")
    log = tmp_path / "ansible.log"
    done = converge("-vvvv", "--diff")
    log.write_text(done.stdout + done.stderr)
    assert done.returncode == 0, done.stdout[-2000:]
    assert re.search(r"m-agent +: ok=\d+ +changed=2 ", done.stdout), done.stdout[-500:]
    assert host.file(f"{STORE}/{SECRETS[1]}").exists
    for secret in (password, token):
        assert len(secret) >= 16
        assert secret not in log.read_text()
        assert files_with(secret, ROOT / ".cache", Path("/tmp")) == []
        (tmp_path / "planted").write_text(f"token={secret}\n")
        assert files_with(secret, tmp_path) == [str(tmp_path / "planted")]
    until(host, "ispvm-agent status | grep -c ': ok' | grep -qx 2")


def test_a_missing_password_is_refused_with_the_command_that_helps(host: Host) -> None:
    done = converge("--extra-vars", '{"agent_credentials_from": [], "agent_routers": [{"name": "CORE-NTH-1",'
                    ' "site": "north", "address": "192.0.2.11", "credential": "core"}]}')  # fmt: skip
    assert done.returncode != 0
    said = " ".join(done.stdout.split())
    assert "m-agent has no credential 'core'" in said
    assert "`ispvm-agent credential set core`" in said
    # the agent that ran goes on; the next run with the right variables puts everything back
    assert host.service("ispvm-agent").is_running
    assert converge().returncode == 0


def test_wrong_settings_are_refused_before_anything_changes(host: Host) -> None:
    before = host.file("/etc/ispvm-agent/agent.toml").sha256sum
    done = converge(
        "--extra-vars", '{"agent_routers": [{"name": "CORE-NTH-1", "site": "north", "address": "core.lan"}]}'
    )
    assert done.returncode != 0
    assert "'core.lan' is not an IP address" in " ".join(done.stdout.split())
    assert host.file("/etc/ispvm-agent/agent.toml").sha256sum == before
