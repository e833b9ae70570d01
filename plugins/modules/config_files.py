#!/usr/bin/python
"""Ansible module: put a set of files, directories and links into place in one round trip."""

from __future__ import annotations

import os
import shlex
import shutil
import tempfile
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: config_files
short_description: Put a set of files, directories and links into place in one round trip
description:
  - Writes every file whose content differs, atomically and after its validator has accepted it.
  - A role with ten files costs one module run instead of twenty; a run without changes is as fast as one C(stat).
  - Nothing is written when any validator refuses, so a role never leaves half of its files behind.
options:
  files:
    description:
      - What shall be in place, in the order in which it is made.
      - A file has C(content) (usually a template lookup); its validator sees the new file's path as C(%s).
      - A link has C(src). Anything can be C(absent).
    type: list
    elements: dict
    required: true
    suboptions:
      dest: {description: Absolute path., type: path, required: true}
      state: {description: What it is., type: str, choices: [file, directory, link, absent], default: file}
      content: {description: The whole content of a file., type: str}
      src: {description: Where a link points to., type: str}
      owner: {description: Owner., type: str, default: root}
      group: {description: Group., type: str, default: root}
      mode: {description: Octal mode as a string; 0644 for files and 0755 for directories by default., type: str}
      validate: {description: Command that must accept the file; C(%s) is its path., type: str}
      secret: {description: Keep the content out of the diff., type: bool, default: false}
attributes:
  check_mode: {support: full}
  diff_mode: {support: full}
author: [ISPVisualMonitor]
"""

EXAMPLES = r"""
- name: Configure the thing
  config_files:
    files:
      - {dest: /etc/thing, state: directory, mode: "0750", group: thing}
      - dest: /etc/thing/thing.conf
        content: "{{ lookup('ansible.builtin.template', 'thing.conf.j2') }}"
        validate: thing --check %s
  notify: Restart thing
"""

RETURN = r"""
changed_paths: {description: What was not as wanted., type: list, elements: str, returned: always}
"""

SPEC: dict[str, Any] = {
    "dest": {"type": "path", "required": True},
    "state": {"type": "str", "choices": ["file", "directory", "link", "absent"], "default": "file"},
    "content": {"type": "str"},
    "src": {"type": "str"},
    "owner": {"type": "str", "default": "root"},
    "group": {"type": "str", "default": "root"},
    "mode": {"type": "str"},
    "validate": {"type": "str"},
    "secret": {"type": "bool", "default": False},
}


def current_text(path: str) -> str | None:
    """The content of a regular file, None when there is none."""
    if os.path.islink(path) or not os.path.isfile(path):
        return None
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


def staged(module: AnsibleModule, entry: dict[str, Any]) -> str:
    """Write the new content beside its place, have it validated, return the temporary path."""
    in_place = os.path.isdir(os.path.dirname(entry["dest"])) and not module.check_mode
    directory = os.path.dirname(entry["dest"]) if in_place else module.tmpdir
    # the name keeps its suffix: some validators go by it
    base, suffix = os.path.splitext(os.path.basename(entry["dest"]))
    handle, path = tempfile.mkstemp(prefix=f".{base}.", suffix=suffix or ".new", dir=directory)
    module.add_cleanup_file(path)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(entry["content"])
    if command := entry["validate"]:
        words = [path if word == "%s" else word.replace("%s", path) for word in shlex.split(command)]
        missing = shutil.which(words[0]) is None
        if module.check_mode and missing:
            return path
        if missing:
            module.fail_json(msg=f"{entry['dest']}: the validator {words[0]} is not installed")
        if not entry["secret"]:
            os.chmod(path, 0o644)  # some validators run as another user
        code, out, err = module.run_command(words)
        if code != 0:
            said = (err or out).strip().replace(path, entry["dest"])
            module.fail_json(msg=f"{entry['dest']} was refused by `{command}`: {said}", rc=code)
    return path


def attributes(module: AnsibleModule, entry: dict[str, Any], *, changed: bool) -> bool:
    """Owner, group and mode. A virgin host in check mode does not know our users yet: then they count as a change."""
    default = "0755" if entry["state"] == "directory" else "0644"
    wanted = {
        "path": entry["dest"], "owner": entry["owner"], "group": entry["group"],
        "mode": None if entry["state"] == "link" else entry["mode"] or default,
        "secontext": None, "attributes": None,
    }  # fmt: skip
    if module.check_mode and (changed or not os.path.lexists(entry["dest"])):
        return changed
    return bool(module.set_fs_attributes_if_different(wanted, changed))


def place(module: AnsibleModule, entry: dict[str, Any], new_file: str | None) -> bool:
    """Make one entry true; returns whether it was not."""
    dest, state = entry["dest"], entry["state"]
    write = not module.check_mode
    changed = False
    if state == "absent":
        changed = os.path.lexists(dest)
        if changed and write:
            shutil.rmtree(dest) if os.path.isdir(dest) and not os.path.islink(dest) else os.unlink(dest)
        return changed
    if state == "directory":
        changed = not os.path.isdir(dest)
        if changed and write:
            os.makedirs(dest)
    elif state == "link":
        changed = not os.path.islink(dest) or os.readlink(dest) != entry["src"]
        if changed and write:
            beside = f"{dest}.new"
            if os.path.lexists(beside):
                os.unlink(beside)
            os.symlink(entry["src"], beside)
            os.replace(beside, dest)
    elif new_file is not None:
        changed = True
        if write:
            if os.path.islink(dest):
                os.unlink(dest)
            module.atomic_move(new_file, dest)
    return attributes(module, entry, changed=changed)


def main() -> None:
    """Validate everything first, then write."""
    module = AnsibleModule(
        argument_spec={"files": {"type": "list", "elements": "dict", "options": SPEC, "required": True}},
        supports_check_mode=True,
    )
    new_files: dict[str, str] = {}
    diffs: list[dict[str, str]] = []
    for entry in module.params["files"]:
        if entry["state"] == "file" and entry["content"] is None:
            module.fail_json(msg=f"files[{entry['dest']}].content: a file needs content")
        if entry["state"] == "link" and not entry["src"]:
            module.fail_json(msg=f"files[{entry['dest']}].src: a link needs src")
        if entry["state"] != "file":
            continue
        before = current_text(entry["dest"])
        if before != entry["content"]:
            new_files[entry["dest"]] = staged(module, entry)
            hidden = "(not shown)\n" if entry["secret"] else None
            diffs.append(
                {"before_header": entry["dest"], "after_header": entry["dest"],
                 "before": hidden or before or "", "after": hidden or entry["content"]}
            )  # fmt: skip
    changed = [e["dest"] for e in module.params["files"] if place(module, e, new_files.get(e["dest"]))]
    module.exit_json(changed=bool(changed), changed_paths=changed, diff=diffs)


if __name__ == "__main__":
    main()
