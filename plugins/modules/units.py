#!/usr/bin/python
"""Ansible module: systemd units enabled, running, and running what is on disk, in one round trip."""

from __future__ import annotations

import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: units
short_description: Systemd units enabled, running, and running what is on disk, in one round trip
description:
  - Asks for the state of all units at once, then does only what is missing; without changes that one question is all.
  - A unit whose file or drop-in changed since systemd read it is restarted. So a restart that a failed run did not get
    to is made up for by the next one. A role makes a unit restart for a new configuration by writing the
    configuration's checksum into the unit as a comment.
  - A unit that does not start fails the task with the unit's last journal lines.
options:
  units: {description: Units in the order in which they start., type: list, elements: str, required: true}
  started_by_others:
    description: Units that a timer or another unit starts; of these systemd only reads again what changed on disk.
    type: list
    elements: str
    default: []
  restart: {description: Restart these of them although they run., type: list, elements: str, default: []}
  reload: {description: Reload these of them unless restarted anyway., type: list, elements: str, default: []}
attributes:
  check_mode: {support: full}
author: [ISPVisualMonitor]
"""

EXAMPLES = r"""
- name: Run the thing
  units:
    units: [thing.service, thing.timer]
    restart: "{{ ['thing.service'] if __thing_files is changed else [] }}"
"""

RETURN = r"""
actions: {description: What was done, in order., type: list, elements: str, returned: always}
"""

PROPERTIES = ("Id", "Names", "LoadState", "ActiveState", "UnitFileState", "NeedDaemonReload")
# states in which `enable` would have nothing to do, or nothing it could do
ENABLED = frozenset({"enabled", "enabled-runtime", "static", "alias", "indirect", "generated", "transient"})


def systemctl(module: AnsibleModule, *words: str) -> tuple[int, str, str]:
    """Run systemctl; returns code, stdout, stderr."""
    code, out, err = module.run_command(["systemctl", *words])
    return int(code), str(out), str(err)


def states(module: AnsibleModule, units: list[str]) -> list[dict[str, str]]:
    """What systemd knows of each unit, in the order asked."""
    code, out, err = systemctl(module, "show", f"--property={','.join(PROPERTIES)}", *units)
    if code != 0:
        module.fail_json(msg=f"systemctl show failed: {err.strip()}")
    blocks = [dict(line.split("=", 1) for line in block.splitlines()) for block in out.strip().split("\n\n")]
    if len(blocks) != len(units):
        module.fail_json(msg=f"systemctl show answered for {len(blocks)} of {len(units)} units")
    return blocks


def must(module: AnsibleModule, verb: str, unit: str) -> None:
    """Run a verb on a unit; on failure say why in the unit's own words."""
    code, _, err = systemctl(module, verb, unit)
    if code == 0:
        return
    _, journal, _ = module.run_command(
        ["journalctl", "--no-pager", "--lines=20", "--output=cat", f"--unit={unit}", "--boot"]
    )
    module.fail_json(msg=f"{unit}: {verb} failed: {err.strip()}\n{journal.strip()}", rc=code)


def settled(module: AnsibleModule, unit: str, seconds: float = 10) -> str:
    """The unit's state once it is no longer between two states."""
    deadline = time.monotonic() + seconds
    while True:
        state = systemctl(module, "is-active", unit)[1].strip()
        if state not in ("activating", "reloading", "deactivating") or time.monotonic() > deadline:
            return state
        time.sleep(0.1)


def main() -> None:
    """Ask once, then act."""
    module = AnsibleModule(
        argument_spec={
            "units": {"type": "list", "elements": "str", "required": True},
            "started_by_others": {"type": "list", "elements": "str", "default": []},
            "restart": {"type": "list", "elements": "str", "default": []},
            "reload": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    units: list[str] = module.params["units"]
    for option in ("restart", "reload"):
        if strangers := set(module.params[option]) - set(units):
            module.fail_json(msg=f"{option}: {', '.join(sorted(strangers))} not in units")
    found: list[dict[str, Any]] = states(module, [*units, *module.params["started_by_others"]])
    actions: list[tuple[str, str]] = []
    if any(state["NeedDaemonReload"] == "yes" for state in found):
        actions.append(("daemon-reload", ""))
    for unit, state in zip(units, found, strict=False):
        if state["LoadState"] == "not-found" and not module.check_mode:
            module.fail_json(msg=f"{unit}: there is no such unit")
        if state["UnitFileState"] not in ENABLED:
            actions.append(("enable", unit))
        if state["ActiveState"] not in ("active", "reloading"):
            actions.append(("start", unit))
        elif state["NeedDaemonReload"] == "yes" or unit in module.params["restart"]:
            actions.append(("restart", unit))
        elif unit in module.params["reload"]:
            actions.append(("reload", unit))
    if not module.check_mode:
        for verb, unit in actions:
            if verb == "daemon-reload":
                code, _, err = systemctl(module, verb)
                if code != 0:
                    module.fail_json(msg=f"daemon-reload failed: {err.strip()}")
                continue
            must(module, verb, unit)
        for unit in (unit for verb, unit in actions if verb in ("start", "restart")):
            if (state_now := settled(module, unit)) != "active":
                module.fail_json(msg=f"{unit} did not stay up: it is {state_now}; see journalctl -u {unit}")
    module.exit_json(changed=bool(actions), actions=[f"{verb} {unit}".strip() for verb, unit in actions])


if __name__ == "__main__":
    main()
