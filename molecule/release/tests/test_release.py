"""Releases on a host: what is installed, and what happens when an installation goes wrong."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from testinfra.host import Host

ROOT = "/opt/ispvm"
TOOL = "/usr/local/sbin/ispvm-release"


def current(host: Host) -> str:
    """The release in use."""
    return str(host.check_output(f"basename $(readlink {ROOT}/current)"))


@pytest.fixture
def installed(host: Host) -> Iterator[str]:
    """The release that the role installed; in use again afterwards, the test's own ones gone."""
    name = current(host)
    yield name
    host.check_output(f"{TOOL} use {name} && rm -rf {ROOT}/releases/9.9.*")


def offer(host: Host, name: str, *, without: str = "", damaged: bool = False) -> None:
    """Put the wheels of the installed release on the host as the archive of another one."""
    damage = "echo x >> $(ls *.whl | head -n 1);" if damaged else ""
    missing = f"rm {without}; sha256sum *.whl *.txt > SHA256SUMS;" if without else ""
    host.check_output(
        f"set -e; cp -r {ROOT}/current/wheels /tmp/offer; cd /tmp/offer; {missing} {damage}"
        f" tar -cf {ROOT}/releases/{name}.tar .; rm -r /tmp/offer"
    )


def test_the_components_run(host: Host) -> None:
    for component, command in (("agent", "ispvm-agent --help"), ("lab", "ispvm-lab --help")):
        assert host.run(f"{ROOT}/current/{component}/bin/{command}").rc == 0


def test_the_code_belongs_to_root_and_nobody_else_can_change_it(host: Host) -> None:
    assert host.check_output(f"find {ROOT} ! -user root -o -perm /022 ! -type l") == ""
    assert host.run(f"runuser -u nobody -- {ROOT}/current/agent/bin/ispvm-agent --help").rc == 0


def test_it_is_compiled_and_has_no_pip(host: Host) -> None:
    packages = f"{ROOT}/current/agent/lib/python3.13/site-packages"
    assert host.file(f"{packages}/ispvm_agent/__pycache__/cli.cpython-313.pyc").exists
    assert not host.file(f"{packages}/pip").exists
    assert not host.file(f"{ROOT}/current/agent/bin/pip").exists


def test_the_archive_does_not_stay(host: Host) -> None:
    assert host.check_output(f"find {ROOT}/releases -name '*.tar'") == ""


def test_installing_what_is_there_changes_nothing(host: Host, installed: str) -> None:
    done = host.run(f"{TOOL} install {installed} agent")
    assert (done.rc, done.stdout) == (0, "unchanged\n")


def test_a_release_that_cannot_be_built_is_never_current(host: Host, installed: str) -> None:
    offer(host, "9.9.1", without="httpx-*.whl")
    done = host.run(f"{TOOL} install 9.9.1 agent")
    assert done.rc == 1
    assert "building agent of 9.9.1 failed; the current release is as it was" in done.stderr
    assert host.file(f"{ROOT}/releases/9.9.1/agent").is_directory
    assert current(host) == installed
    refused = host.run(f"{TOOL} use 9.9.1")
    assert refused.rc == 1
    assert "has no complete agent" in refused.stderr
    assert current(host) == installed


def test_a_killed_installation_is_never_current_and_the_next_one_finishes_it(host: Host, installed: str) -> None:
    offer(host, "9.9.2")
    # kill the whole process group as soon as the half-built environment is there
    host.check_output(
        f"setsid {TOOL} install 9.9.2 agent > /dev/null 2>&1 & "
        f"until [ -d {ROOT}/releases/9.9.2/agent/lib/python3.13/site-packages ]; do :; done; "
        "kill -KILL -- -$!; wait $! || true"
    )
    assert not host.file(f"{ROOT}/releases/9.9.2/agent/.complete").exists
    assert current(host) == installed
    assert host.run(f"{TOOL} use 9.9.2").rc == 1
    assert host.check_output(f"{TOOL} install 9.9.2 agent") == "changed"
    assert current(host) == "9.9.2"
    assert host.run(f"{ROOT}/current/agent/bin/ispvm-agent --help").rc == 0


def test_a_damaged_archive_is_refused(host: Host, installed: str) -> None:
    offer(host, "9.9.3", damaged=True)
    done = host.run(f"{TOOL} install 9.9.3 agent")
    assert done.rc == 1
    assert "does not match its SHA256SUMS" in done.stderr
    assert not host.file(f"{ROOT}/releases/9.9.3/agent").exists
    assert current(host) == installed


def test_all_components_move_together_and_only_the_previous_release_stays(host: Host, installed: str) -> None:
    for name in ("9.9.4", "9.9.5"):
        offer(host, name)
        assert host.check_output(f"{TOOL} install {name} agent") == "changed"
        assert current(host) == name
        # lab was not asked for, but `current` is one release and never a mixture
        assert host.file(f"{ROOT}/current/lab/.complete").exists
    assert host.check_output(f"{TOOL} list").splitlines() == ["9.9.5 (current)", "9.9.4"]
    assert host.check_output(f"{TOOL} use 9.9.4") == "changed"
    assert current(host) == "9.9.4"
    # the fixture puts the role's release back: bring it again
    offer(host, installed)
    assert host.check_output(f"{TOOL} install {installed} agent") == "changed"


def test_a_release_never_changes(host: Host, installed: str) -> None:
    offer(host, "9.9.6")
    assert host.check_output(f"{TOOL} install 9.9.6 agent") == "changed"
    host.check_output(f"echo '# other' >> {ROOT}/releases/9.9.6/wheels/agent.txt")
    done = host.run(f"{TOOL} install 9.9.6 agent")
    assert done.rc == 1
    assert "other content" in done.stderr
