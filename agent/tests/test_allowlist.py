"""Nothing but the approved list of commands can reach a router: tried through every public path."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from agent_fakes import FakeRouter
from ispvm_agent import cli
from ispvm_agent.collectors.base import Findings, Stateless
from ispvm_agent.routeros import allowlist
from ispvm_agent.routeros.commands import Aimed, Command
from ispvm_agent.routeros.session import ForbiddenCommandError
from test_poller import Rig
from test_session import logged_in


class Pretender:
    """Looks like a command."""

    words = ("/system/reboot",)
    menu = "/system/reboot"


class AimedPretender(Aimed):  # type: ignore[misc]
    """A class of its own, with words of its own."""

    @property
    def words(self) -> tuple[str, ...]:
        return ("/system/reboot",)


def aimed(command: object, *items: str) -> Aimed:
    return Aimed(command, items)  # type: ignore[arg-type]


FORBIDDEN = [
    "/system/reboot", ("/user/add",), ["/system/reboot"], None, "RESOURCE", b"/system/reboot", Pretender(), Pretender,
    Command, AimedPretender(Command.POOL_USED, ("a",)), aimed(Pretender(), "*1"), aimed(Command.RESOURCE, "*1"),
    aimed(Command.ETHERNET_MONITOR, "*1", "ether1"), aimed(Command.ETHERNET_MONITOR, "*1,*2"),
    aimed(Command.ETHERNET_MONITOR, "*1\0\0/system/reboot"), aimed(Command.POOL_USED, "a\0\x0e/system/reboot\0"),
    aimed(Command.POOL_USED, "a", "b"), aimed(Command.POOL_USED),
]  # fmt: skip


@pytest.mark.parametrize("command", FORBIDDEN, ids=repr)
@pytest.mark.parametrize("tagged", [True, False])
async def test_nothing_but_the_closed_list_can_be_sent(command: object, tagged: bool) -> None:
    """Nothing arrives at the router, not even the allowed command beside it."""
    async with FakeRouter().serving() as router:
        session = await logged_in(router)
        session.tagged = tagged
        with pytest.raises((ForbiddenCommandError, ValueError)):
            await session.run([command, Command.RESOURCE])  # type: ignore[list-item]
        session.close()
    assert router.commands == []


async def test_a_collector_cannot_bring_its_own_command() -> None:
    class Rogue(Stateless):
        name, tier, publishes, later = "rogue", "fast", (), ()

        def ask(self, version: tuple[int, int]) -> tuple[Any, ...]:
            return (Pretender(),)

        def publish(self, replies: Any, moment: Any) -> Findings:
            return Findings()

    async with FakeRouter().serving() as router:
        rig = Rig(router)
        rig.poller.collectors.append(Rogue())  # type: ignore[arg-type]
        with pytest.raises(ForbiddenCommandError):
            await rig.poll()
        rig.poller.close()
    assert {words[0] for words in router.commands} == {"/system/resource/print"}  # asked for the version before


async def test_a_command_changed_at_run_time_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Command.IDENTITY, "_value_", ("/system/reboot", "=.proplist=name"))
    async with FakeRouter().serving() as router:
        session = await logged_in(router)
        with pytest.raises(ForbiddenCommandError):
            await session.run([Command.IDENTITY])
        session.close()
    assert router.commands == []


def test_the_list_is_the_approved_one() -> None:
    """If this fails you have changed what routers are asked: read the difference, then put its digest into DIGEST."""
    assert allowlist.digest() == allowlist.DIGEST, (
        f"python -m ispvm_agent.routeros.allowlist gives {allowlist.digest()}"
    )
    allowlist.verify()
    allowlist.verify(allowlist.DIGEST.upper())


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (("/system/identity/print", "=.proplist=name,x"), "has been changed"),
        (("/system/reboot",), "only reads"),
        (("/interface/ethernet/set", "=once=", "=.proplist=a"), "only reads"),
        (("/system/identity/print", "=.proplist=name", "=x=y"), "only reads"),
        (("/system/identity/print",), "only reads"),
    ],
)
def test_a_changed_list_is_refused_at_the_start(
    value: tuple[str, ...],
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "agent.toml").write_text(MINIMAL)
    monkeypatch.setattr(Command.IDENTITY, "_value_", value)
    for command in (["run"], ["check", "R"], ["check-config", str(tmp_path / "agent.toml")]):
        assert cli.main(["--config", str(tmp_path / "agent.toml"), *command]) == 1
        assert says in capsys.readouterr().err


def test_a_list_that_the_site_has_not_approved_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "agent.toml"
    path.write_text(MINIMAL.replace("[agent]", f'[agent]\ncommands_sha256 = "{"0" * 64}"'))
    assert cli.main(["check-config", str(path)]) == 1
    assert f"write commands_sha256 = {allowlist.DIGEST!r}" in capsys.readouterr().err
    path.write_text(MINIMAL.replace("[agent]", f'[agent]\ncommands_sha256 = "{allowlist.DIGEST}"'))
    assert cli.main(["check-config", str(path)]) == 0


MINIMAL = """
schema_version = 1
[agent]
name = "a"
tenant = "t"
[server]
url = "https://server"
[[router]]
name = "R"
site = "s"
address = "192.0.2.1"
user = "u"
credential = "routers"
"""
