#!/usr/bin/python
"""Ansible module: which Debian packages are installed, read from dpkg's own list in milliseconds."""

from __future__ import annotations

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: installed_packages
short_description: Which Debian packages are installed, read from dpkg's own list in milliseconds
description:
  - Sets the fact C(packages) to name, version and whether it is held. The builtin C(package_facts) takes 1.5 s for it.
options:
  status: {description: dpkg's list., type: path, default: /var/lib/dpkg/status}
attributes:
  check_mode: {support: full}
author: [ISPVisualMonitor]
"""

EXAMPLES = r"""
- name: Read what is installed
  installed_packages:
  when: ansible_facts.packages is not defined
"""

RETURN = r"""
ansible_facts:
  description: C(packages), a mapping of package name to C(version) and C(held).
  type: dict
  returned: always
"""


def installed(status: str) -> dict[str, dict[str, object]]:
    """The installed packages in the text of dpkg's status file."""
    found: dict[str, dict[str, object]] = {}
    for stanza in status.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in stanza.splitlines() if ": " in line and not line.startswith(" "))
        want, _, state = fields.get("Status", "").partition(" ")
        if state == "ok installed":
            found[fields["Package"]] = {"version": fields["Version"], "held": want == "hold"}
    return found


def main() -> None:
    """Answer."""
    module = AnsibleModule(
        argument_spec={"status": {"type": "path", "default": "/var/lib/dpkg/status"}}, supports_check_mode=True
    )
    with open(module.params["status"], encoding="utf-8", errors="replace") as file:
        module.exit_json(changed=False, ansible_facts={"packages": installed(file.read())})


if __name__ == "__main__":
    main()
