"""The script for routers is written where it was asked for, without a password, and bad input is refused."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from testinfra.host import Host

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = "/root/routeros/readonly-user.rsc"


def converge(*options: str) -> subprocess.CompletedProcess[str]:
    here = ROOT / "molecule" / "routeros"
    inventories = ["--inventory", ROOT / "molecule/shared/inventory", "--inventory", here / "inventory"]
    command = ["ansible-playbook", *inventories, here / "converge.yml", *options]
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=ROOT)


def test_the_script_lets_both_addresses_in_and_holds_no_password(host: Host) -> None:
    script = host.file(SCRIPT)
    assert (script.user, script.mode) == ("root", 0o644)
    text = script.content_string
    assert "192.0.2.10" in text
    assert "2001:db8::10" in text
    assert ':local agentPassword ""' in text


@pytest.mark.parametrize(
    "wrong",
    [
        '{"routeros_agent_addresses": []}',
        '{"routeros_agent_addresses": ["pop north"]}',
        '{"routeros_user": "a;b"}',
        '{"routeros_apply": true, "routeros_routers": [{"name": "R1"}], "routeros_password": "short"}',
        '{"routeros_apply": true, "routeros_routers": [], "routeros_password": "long-enough-it-seems"}',
    ],
)
def test_what_cannot_be_right_is_refused_and_changes_nothing(host: Host, wrong: str) -> None:
    before = host.file(SCRIPT).sha256sum
    done = converge("--extra-vars", wrong)
    assert done.returncode != 0
    assert "Give routeros_agent_addresses" in " ".join(done.stdout.split())
    assert host.file(SCRIPT).sha256sum == before
