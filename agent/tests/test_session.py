"""One connection to a router: login, pipelining, and everything that goes wrong."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import ssl
from pathlib import Path

import pytest
import trustme
from agent_fakes import EMPTY, PASSWORD, FakeRouter, rows, trap
from ispvm_agent.routeros import session as module
from ispvm_agent.routeros.commands import Aimed, Command
from ispvm_agent.routeros.session import RouterError, Session, Target, Tls, connect
from ispvm_agent.routeros.wire import encode_sentence

USER = "ispvm"


def plain(router: FakeRouter) -> Target:
    return Target("127.0.0.1", router.port, "off")


async def logged_in(router: FakeRouter) -> Session:
    return await connect(plain(router), USER, PASSWORD)


async def test_all_commands_travel_in_one_write() -> None:
    async with FakeRouter().serving() as router:
        session = await logged_in(router)
        replies = await session.run([Command.RESOURCE, Command.INTERFACES, Command.PPP_COUNT])
        session.close()
    assert router.reads[1:] == [3]
    assert replies[0].rows[0]["version"] == "7.22.2 (stable)"
    assert [row["name"] for row in replies[1].rows] == ["no", "bridge"]
    assert replies[2].ret == "812"
    assert all(reply.done is not None and reply.trap is None for reply in replies)


async def test_names_that_look_like_numbers_stay_text() -> None:
    async with FakeRouter().serving() as router:
        session = await logged_in(router)
        (reply,) = await session.run([Command.IDENTITY])
        session.close()
    assert reply.rows == [{"name": "123"}]


def test_the_list_prints_and_cannot_be_extended() -> None:
    secret = re.compile(
        r"secret|password|key|md5|pass|caller|host-name|mac|comment|script|source|imei|imsi|iccid|owner"
    )
    for command in Command:
        menu, *rest = command.words
        if re.fullmatch(r"/interface/(ethernet|lte)/(monitor|info)", menu):
            assert rest.pop(0) == "=once="
        else:
            assert re.fullmatch(r"(/[a-z0-9-]+)+/print", menu)
        assert rest[0].startswith("=.proplist=") or rest[0] == "=count-only="
        assert all(word.startswith("?") for word in rest[1:])
        assert not any(secret.search(field) for field in command.fields)
        assert command.menu not in {"/ppp/secret", "/user", "/ip/route", "/log", "/interface/wireguard"}
    with pytest.raises(TypeError):
        Command("/system/reboot", ("/system/reboot",))  # type: ignore[call-arg]
    with pytest.raises(TypeError):

        class More(Command):  # type: ignore[misc]
            REBOOT = ("/system/reboot",)


def test_a_command_is_aimed_only_at_items_of_the_router() -> None:
    assert Aimed(Command.ETHERNET_MONITOR, ("*1", "*2F")).words[:3] == (
        "/interface/ethernet/monitor", "=numbers=*1,*2F", "=once=",
    )  # fmt: skip
    assert Aimed(Command.POOL_USED, ("pool 1",)).words == ("/ip/pool/used/print", "?pool=pool 1", "=count-only=")
    for command, items in (
        (Command.ETHERNET_MONITOR, ()),
        (Command.ETHERNET_MONITOR, ("ether1",)),
        (Command.ETHERNET_MONITOR, ("*1,*2",)),
        (Command.LTE_MONITOR_V7, ("*1\n",)),
        (Command.POOL_USED, ("a\0b",)),
        (Command.INTERFACES, ("*1",)),
    ):
        with pytest.raises(ValueError, match=r"aimed|ids|name"):
            _ = Aimed(command, items).words


def test_one_place_writes_to_a_router() -> None:
    """The reviewer's grep: `.write(` occurs once in the RouterOS package, behind the closed list."""
    sources = (Path(module.__file__).parent).glob("*.py")
    assert sum(source.read_text().count(".write(") for source in sources) == 1


async def test_old_login_by_challenge() -> None:
    router = FakeRouter()
    router.old_login = True
    async with router.serving():
        session = await logged_in(router)
        session.close()
        assert router.logins == 2
        with pytest.raises(RouterError) as caught:
            await connect(plain(router), USER, "wrong")
    assert caught.value.state == "auth"


async def test_wrong_password_is_auth_and_leaves_nothing_open() -> None:
    async with FakeRouter().serving() as router:
        with pytest.raises(RouterError) as caught:
            await connect(plain(router), USER, "wrong")
    assert caught.value.state == "auth"
    assert "wrong" not in str(caught.value)


async def test_hang_up_at_login_is_refused() -> None:
    router = FakeRouter()
    router.hang_up_at_login = True
    async with router.serving():
        with pytest.raises(RouterError) as caught:
            await logged_in(router)
    assert caught.value.state == "refused"
    assert "too many sessions" in caught.value.detail


async def test_nobody_listens_is_refused() -> None:
    async with FakeRouter().serving() as router:
        port = router.port
    with pytest.raises(RouterError) as caught:
        await connect(Target("127.0.0.1", port, "off"), USER, PASSWORD)
    assert caught.value.state == "refused"


async def test_router_that_does_not_echo_tags_is_asked_one_by_one() -> None:
    router = FakeRouter()
    router.echo_tags = False
    async with router.serving():
        session = await logged_in(router)
        assert not session.tagged
        replies = await session.run([Command.RESOURCE, Command.IDENTITY, Command.PPP_COUNT])
        session.close()
    assert router.reads == [1, 1, 1, 1]
    assert replies[2].ret == "812"
    assert not any(word.startswith(".tag=") for words in router.commands for word in words)


async def test_empty_traps_and_unknown_words() -> None:
    router = FakeRouter()
    router.menus["/routing/bgp/session"] = EMPTY
    router.menus["/system/health"] = trap("no such command prefix")
    router.menus["/system/identity"] = [["!note", "=x=y"], *rows({"name": "a"})]
    async with router.serving():
        session = await logged_in(router)
        empty, trapped, unknown = await session.run([Command.BGP_SESSIONS_V7, Command.HEALTH_V7, Command.IDENTITY])
        assert session.unknown_replies == 1
        session.close()
    assert (empty.rows, empty.trap) == ([], None)
    assert trapped.trap == "no such command prefix"
    assert trapped.done is not None
    assert unknown.rows == [{"name": "a"}]


async def test_row_without_any_field_is_no_row() -> None:
    router = FakeRouter()
    router.menus["/system/health"] = [["!re"], ["!done"]]
    async with router.serving():
        session = await logged_in(router)
        (reply,) = await session.run([Command.HEALTH_V6])
        session.close()
    assert reply.rows == []


async def test_timeout_keeps_what_was_answered_and_closes_for_good() -> None:
    router = FakeRouter()
    router.silent_menus.add("/routing/ospf/neighbor")
    async with router.serving():
        session = await logged_in(router)
        resource, ospf = await session.run([Command.RESOURCE, Command.OSPF_V7], seconds=0.2)
        assert resource.rows
        assert ospf.done is None
        assert session.failure is not None
        assert session.failure.state == "timeout"
        with pytest.raises(RouterError) as caught:
            await session.run([Command.RESOURCE])
    assert caught.value.state == "timeout"
    assert len(router.commands) == 2


async def test_slow_drip_does_not_outlive_the_deadline() -> None:
    """Each byte comes in time, the reply does not."""
    reply = encode_sentence(["!re", "=name=" + "x" * 100])

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\0")
            writer.write(encode_sentence(["!done", ".tag=1"]))
            for byte in reply:
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(0.05)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(drip, "127.0.0.1", 0)
    async with server:
        session = await connect(Target("127.0.0.1", server.sockets[0].getsockname()[1], "off"), USER, PASSWORD)
        began = asyncio.get_running_loop().time()
        (answer,) = await session.run([Command.IDENTITY], seconds=0.3)
        assert asyncio.get_running_loop().time() - began < 1
    assert answer.done is None
    assert session.failure is not None
    assert session.failure.state == "timeout"


@pytest.mark.parametrize(
    ("raw", "state", "words"),
    [
        (encode_sentence(["!fatal", "not logged in"]), "refused", "not logged in"),
        (b"\xff\xff\xff\xff", "protocol", "begins no length"),
        (encode_sentence(["!done", ".tag=zz"]), "protocol", "nobody is waiting"),
        (b"\xe1\x00\x00\x00", "protocol", "at most"),
    ],
)
async def test_broken_answers_end_the_session(raw: bytes, state: str, words: str) -> None:
    router = FakeRouter()
    router.raw = lambda menu: raw if menu == "/system/identity" else None
    async with router.serving():
        session = await logged_in(router)
        replies = await session.run([Command.RESOURCE, Command.IDENTITY])
    assert replies[1].done is None
    assert session.failure is not None
    assert session.failure.state == state
    assert words in session.failure.detail


async def test_huge_table_ends_the_session(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ROWS", 10)
    router = FakeRouter()
    router.menus["/interface"] = rows(*({"name": f"vlan{n}"} for n in range(11)))
    async with router.serving():
        session = await logged_in(router)
        await session.run([Command.INTERFACES])
    assert session.failure is not None
    assert "more than 10 rows" in session.failure.detail


async def test_endless_answer_ends_the_session(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_REPLY_BYTES", 1000)
    router = FakeRouter()
    router.raw = lambda menu: encode_sentence(["!re", "=name=" + "x" * 400]) * 10
    async with router.serving():
        session = await logged_in(router)
        await session.run([Command.INTERFACES])
    assert session.failure is not None
    assert "more than 1000 bytes" in session.failure.detail


async def test_connection_lost_between_polls() -> None:
    async with FakeRouter().serving() as router:
        session = await logged_in(router)
        router.drop_all()
        (reply,) = await session.run([Command.IDENTITY])
        assert reply.done is None
        with pytest.raises(RouterError) as caught:
            await session.run([Command.IDENTITY])
    assert caught.value.state == "refused"


# TLS


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def certificate(ca: trustme.CA) -> trustme.LeafCert:
    return ca.issue_cert("127.0.0.1")


def router_tls(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


def fingerprint(certificate: trustme.LeafCert) -> str:
    der = ssl.PEM_cert_to_DER_cert(certificate.cert_chain_pems[0].bytes().decode())
    return hashlib.sha256(der).hexdigest()


def test_routers_judged_alike_share_what_is_loaded(ca: trustme.CA, tmp_path: Path) -> None:
    """The system's authorities take 850 kB: a thousand routers must not load them a thousand times."""
    system = [module.tls_context(Target(f"192.0.2.{number}", 8729, "ca")) for number in (1, 2)]
    assert system[0] is system[1]
    assert module.tls_context(Target("192.0.2.1", 8729, "anonymous")) is not system[0]
    path = tmp_path / "ca.crt"
    ca.cert_pem.write_to_path(str(path))
    target = Target("192.0.2.1", 8729, "ca", ca_file=str(path))
    before = module.tls_context(target)
    assert module.tls_context(target) is before
    os.utime(path, ns=(1, 1))  # replaced
    assert module.tls_context(target) is not before


async def test_tls_by_ca(ca: trustme.CA, certificate: trustme.LeafCert, tmp_path: Path) -> None:
    ca.cert_pem.write_to_path(str(tmp_path / "ca.crt"))
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "other.crt"))
    async with FakeRouter().serving(tls=router_tls(certificate)) as router:
        right = Target("127.0.0.1", router.port, "ca", ca_file=str(tmp_path / "ca.crt"))
        (await connect(right, USER, PASSWORD)).close()
        wrong_ca = Target("127.0.0.1", router.port, "ca", ca_file=str(tmp_path / "other.crt"))
        wrong_name = Target("127.0.0.1", router.port, "ca", str(tmp_path / "ca.crt"), server_name="other.example")
        no_file = Target("127.0.0.1", router.port, "ca", ca_file=str(tmp_path / "missing.crt"))
        for target in (wrong_ca, wrong_name, no_file):
            with pytest.raises(RouterError) as caught:
                await connect(target, USER, PASSWORD)
            assert caught.value.state == "protocol"
    assert router.logins == 1


async def test_tls_by_pin(certificate: trustme.LeafCert) -> None:
    async with FakeRouter().serving(tls=router_tls(certificate)) as router:
        (
            await connect(Target("127.0.0.1", router.port, "pin", fingerprint=fingerprint(certificate)), USER, PASSWORD)
        ).close()
        with pytest.raises(RouterError, match="pinned"):
            await connect(Target("127.0.0.1", router.port, "pin", fingerprint="0" * 64), USER, PASSWORD)
    assert router.logins == 1  # the password is not sent to a router with another certificate


async def test_tls_anonymous_only_when_configured(tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("ADH:@SECLEVEL=0")
    context.load_dh_params(str(Path(__file__).with_name("ffdhe2048.dh")))
    async with FakeRouter().serving(tls=context) as router:
        (await connect(Target("127.0.0.1", router.port, "anonymous"), USER, PASSWORD)).close()
        modes: tuple[Tls, ...] = ("ca", "pin")
        for tls in modes:
            with pytest.raises(RouterError):
                await connect(Target("127.0.0.1", router.port, tls, fingerprint="0" * 64), USER, PASSWORD)
    assert router.logins == 1
