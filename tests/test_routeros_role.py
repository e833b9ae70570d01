"""The role `routeros`, as far as it can be run without a router: the script, and what goes over SSH, to programs that
stand in for ssh and sftp. That RouterOS takes the script has not been seen here."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.timeout(300)  # whole playbooks: a loaded machine takes its time
ROOT = Path(__file__).parents[1]
PASSWORD = "A-very-l0ng-random-password"
ASKED = {"routeros_agent_addresses": ["192.0.2.10"]}
STAND_IN = f"""#!{sys.executable}
import json, os, pathlib, re, sys
state = pathlib.Path(os.environ["STAND_IN"])
text = sys.stdin.read() if "sftp" in sys.argv[0] else ""
with (state / "log").open("a") as log:
    log.write(json.dumps([pathlib.Path(sys.argv[0]).name, *sys.argv[1:], text]) + "\\n")
if text:
    (state / "ispvm.rsc").write_text(pathlib.Path(text.split()[1]).read_text())
elif sys.argv[-1].startswith(":put"):
    print((state / "comment").read_text() if (state / "comment").exists() else "no such item")
elif (state / "broken").exists():
    sys.exit("the import has failed")
else:
    (state / "comment").write_text(re.search('comment="([^"]*)"', sys.argv[-1])[1])
    print("fingerprint_sha256: 00ff")
"""


def play(directory: Path, expect: int = 0, **extra: Any) -> str:
    for name in ("ssh", "sftp"):
        program = directory / name
        program.write_text(STAND_IN)
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
    environment = {**os.environ, "PATH": f"{directory}:{os.environ['PATH']}", "STAND_IN": str(directory),
                   "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}  # fmt: skip
    variables = {"routeros_password": "", "routeros_script_directory": str(directory / "out"), **ASKED, **extra}
    (directory / "extra.json").write_text(json.dumps(variables))
    command = [str(Path(sys.executable).parent / "ansible-playbook"), "-i", "localhost,", "playbooks/routeros.yml"]
    done = subprocess.run([*command, "-e", f"@{directory / 'extra.json'}"], cwd=ROOT, env=environment,
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == expect, done.stdout + done.stderr
    return done.stdout


def test_the_script_of_the_handbook_is_the_role_s(tmp_path: Path) -> None:
    play(tmp_path)
    script = (tmp_path / "out" / "readonly-user.rsc").read_text()
    assert script == (ROOT / "docs/handbook/routeros/readonly-user.rsc").read_text()
    granted = next(line for line in script.splitlines() if line.startswith(":local policy")).split('"')[1].split(",")
    assert [policy for policy in granted if not policy.startswith("!")] == ["read", "api"]
    assert {"!write", "!policy", "!sensitive", "!reboot", "!test"} <= set(granted)
    assert ':local agentPassword ""' in script
    assert 'address="192.0.2.10/32"' in script
    assert not (tmp_path / "log").exists()  # no router was contacted


def test_applied_once_then_unchanged_and_the_password_is_in_no_argument(tmp_path: Path) -> None:
    apply: dict[str, Any] = {"routeros_apply": True, "routeros_password": PASSWORD,
             "routeros_routers": [{"name": "R1", "address": "192.0.2.21"}]}  # fmt: skip
    first = play(tmp_path, **apply)
    assert "R1: fingerprint_sha256: 00ff" in first
    assert PASSWORD not in first
    calls = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [call[0] for call in calls] == ["ssh", "sftp", "ssh"]
    assert all("StrictHostKeyChecking=yes" in call for call in calls)
    assert not any(PASSWORD in word for call in calls for word in call)
    assert f':local agentPassword "{PASSWORD}"' in (tmp_path / "ispvm.rsc").read_text()
    uploaded = Path(calls[1][-1].split()[1])
    assert not uploaded.parent.exists()  # nothing of it stays on the control node
    assert "/file remove [find name=ispvm.rsc]" in calls[2][-2]
    assert "changed=0" in play(tmp_path, **apply)
    apply["routeros_manage_from"] = ["198.51.100.0/24"]
    assert "changed=0" not in play(tmp_path, **apply)


def test_an_import_that_fails_leaves_no_password_behind(tmp_path: Path) -> None:
    (tmp_path / "broken").touch()
    play(tmp_path, expect=2, routeros_apply=True, routeros_password=PASSWORD,
         routeros_routers=[{"name": "R1", "address": "192.0.2.21"}])  # fmt: skip
    calls = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert not Path(calls[1][-1].split()[1]).parent.exists()


@pytest.mark.parametrize(
    "wrong",
    [
        {"routeros_agent_addresses": ['192.0.2.10" policy=full']},
        {"routeros_apply": True, "routeros_password": 'x" ; /system reboot; "yyyyyyyy',
         "routeros_routers": [{"name": "R", "address": "192.0.2.21"}]},
    ],
)  # fmt: skip
def test_what_could_not_be_meant_is_refused(wrong: dict[str, Any], tmp_path: Path) -> None:
    assert "Give routeros_agent_addresses" in play(tmp_path, expect=2, **wrong)
