"""The server, its worker and upkeep as the role leaves them."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from testinfra.host import Host

ROOT = Path(__file__).resolve().parents[3]
UNITS = ["ispvm-server", "ispvm-worker"]
SOCKET = "/run/ispvm/server.sock"
# status of a request over the unix socket
CLIENT = """
import http.client, socket, sys
class Unix(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect('/run/ispvm/server.sock')
c = Unix('localhost')
c.request('GET', '/')
print(c.getresponse().status)
"""


def main_pid(host: Host, unit: str) -> str:
    """The unit's process."""
    return str(host.check_output(f"systemctl show --property=MainPID --value {unit}"))


@pytest.mark.parametrize("unit", [*UNITS, "ispvm-upkeep.timer"])
def test_a_unit_runs_and_starts_at_boot(host: Host, unit: str) -> None:
    assert host.service(unit).is_running
    assert host.service(unit).is_enabled


@pytest.mark.parametrize("unit", [*UNITS, "ispvm-upkeep"])
def test_a_unit_is_hardened(host: Host, unit: str) -> None:
    said = host.check_output(f"systemd-analyze security --no-pager {unit}.service")
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", said)
    assert found is not None
    assert float(found[1]) <= 0.5, found[0]


@pytest.mark.parametrize("unit", UNITS)
def test_a_unit_has_no_network(host: Host, unit: str) -> None:
    links = host.check_output(f"nsenter --target {main_pid(host, unit)} --net ip -o link")
    assert [line.split(":")[1].strip() for line in links.splitlines()] == ["lo"]


@pytest.mark.parametrize("unit", UNITS)
def test_a_killed_unit_comes_back(host: Host, unit: str) -> None:
    before = main_pid(host, unit)
    host.check_output(f"kill -KILL {before}")
    comes_back = (
        f'[ "$(systemctl show --property=MainPID --value {unit})" != {before} ] && systemctl is-active --quiet {unit}'
    )
    host.check_output(f"timeout 30 sh -c 'until {comes_back}; do sleep 0.1; done'")


def test_a_server_that_hangs_is_replaced(host: Host) -> None:
    """The watchdog: a process that lives but does nothing is not good enough."""
    assert host.service("ispvm-server").systemd_properties["WatchdogUSec"] == "30s"
    before = main_pid(host, "ispvm-server")
    host.check_output(f"kill -STOP {before}")
    host.check_output(
        "timeout 100 sh -c 'until"
        f' [ "$(systemctl show --property=MainPID --value ispvm-server)" != {before} ] &&'
        " systemctl is-active --quiet ispvm-server; do sleep 0.5; done'"
    )
    assert "Watchdog timeout" in host.check_output("journalctl --no-pager --unit=ispvm-server")


def test_the_proxys_group_reaches_the_server_and_nobody_else(host: Host) -> None:
    socket = host.file(SOCKET)
    assert (socket.user, socket.group, socket.mode) == ("ispvm", "ispvm-proxy", 0o660)
    assert host.file("/run/ispvm").mode == 0o750
    ask = "setpriv --reuid=nobody --regid=%s --clear-groups python3 -c %s"
    assert int(host.check_output(ask, "ispvm-proxy", CLIENT)) in (200, 302, 303, 307)
    assert "PermissionError" in host.run(ask, "nogroup", CLIENT).stderr


def test_each_process_is_its_own_user_and_database_role(host: Host) -> None:
    for unit, user in (("ispvm-server", "ispvm"), ("ispvm-worker", "ispvm-worker")):
        assert host.check_output(f"ps -o user:32= -p {main_pid(host, unit)}").strip() == user
    for user in ("ispvm", "ispvm-worker", "ispvm-owner"):
        assert host.user(user).shell.endswith("nologin")
    roles = host.check_output(
        "runuser -u postgres -- psql -XAtqd ispvm -c "
        "\"select distinct usename from pg_stat_activity where usename like 'ispvm%' order by 1\""
    )
    assert roles.split() == ["ispvm", "ispvm_worker"]


def test_the_schema_is_that_of_the_release(host: Host) -> None:
    assert host.check_output("ispvm migrate").splitlines()[-1] == "unchanged"
    environment = "runuser -u postgres -- psql -XAtqd ispvm -c 'select environment from deployment'"
    assert host.check_output(environment) == "demo"


def test_upkeep_runs(host: Host) -> None:
    host.check_output("systemctl start ispvm-upkeep.service")
    assert host.service("ispvm-upkeep").systemd_properties["Result"] == "success"


def test_root_administers_without_further_ado(host: Host) -> None:
    link = host.check_output("ispvm login-link --tenant default --user first").splitlines()[-1]
    assert link.startswith("https://10.89.77.39/login/one-time/")


def test_wrong_settings_are_refused_by_name(host: Host) -> None:
    host.check_output("sed 's/raw_days = 30/raw_days = 0/' /etc/ispvm/server.toml > /tmp/server.toml")
    done = host.run("ispvm check-config /tmp/server.toml")
    assert done.rc == 2
    assert "retention.raw_days" in done.stderr


def test_there_is_no_secret_in_the_settings(host: Host) -> None:
    assert "password" not in host.file("/etc/ispvm/server.toml").content_string.lower()


def converge(*arguments: str) -> str:
    """Run the scenario's playbook again, with other variables; returns its last lines."""
    inventories = [f"--inventory={ROOT}/molecule/{name}/inventory" for name in ("shared", "server")]
    settings = {"ANSIBLE_CONFIG": f"{ROOT}/ansible.cfg", "MOLECULE_PROJECT_DIRECTORY": str(ROOT)}
    command = ["ansible-playbook", *inventories, *arguments, str(ROOT / "molecule/server/converge.yml")]
    done = subprocess.run(
        command, env={**os.environ, **settings}, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:]
    return done.stdout[-300:]


def test_other_settings_restart_the_units_and_the_same_do_not(host: Host) -> None:
    before = [main_pid(host, unit) for unit in UNITS]
    converge("--extra-vars", "server_retention_raw_days=31")
    assert "raw_days = 31" in host.file("/etc/ispvm/server.toml").content_string
    changed = [main_pid(host, unit) for unit in UNITS]
    assert not set(changed) & set(before)
    converge()
    back = [main_pid(host, unit) for unit in UNITS]
    assert not set(back) & set(changed)
    assert "changed=0" in re.sub(r"\x1b\[[0-9;]*m", "", converge())
    assert [main_pid(host, unit) for unit in UNITS] == back


def test_a_restart_that_an_interrupted_run_owed_is_made_up_for(host: Host) -> None:
    before = main_pid(host, "ispvm-worker")
    # as a run leaves it that was interrupted between writing the unit and restarting it
    host.check_output("mkdir -p /etc/systemd/system/ispvm-worker.service.d")
    host.check_output("printf '[Service]\nNice=6\n' > /etc/systemd/system/ispvm-worker.service.d/test.conf")
    converge()
    assert main_pid(host, "ispvm-worker") != before
    assert host.service("ispvm-worker").systemd_properties["Nice"] == "6"
    host.check_output("rm -r /etc/systemd/system/ispvm-worker.service.d")
    converge()
    assert host.service("ispvm-worker").systemd_properties["Nice"] == "5"
