"""One API connection: login, commands, replies; several commands in flight when they are tagged."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import secrets
import socket
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from hashlib import md5
from itertools import islice
from typing import TYPE_CHECKING

from .access import lte_monitor
from .catalogue import MENUS, PREFIXES
from .faults import Fault
from .menus import Menu, Row, Session, View, ethernet_monitor, traffic_monitor
from .query import QueryError, matches
from .wire import FramingError, encode_row, encode_sentence, encode_word, read_sentence
from .world import Port, Router

if TYPE_CHECKING:
    from .station import Station

PLAIN_LOGIN = (6, 43, 0)
EMPTY_SENTENCE = (7, 18, 0)
_BATCH_ROWS = 64
_PRINT_ARGUMENTS = frozenset(
    {
        ".proplist",
        "count-only",
        "detail",
        "stats",
        "stats-detail",
        "terse",
        "brief",
        "value-list",
        "without-paging",
        "from",
    }
)
_WRITING = frozenset(
    {"add", "set", "remove", "unset", "move", "enable", "disable", "comment", "edit", "reset", "reboot", "shutdown"}
    | {"reset-counters", "reset-mac-address", "clear"}
)
_TEXTS = frozenset({"comment", "host-name", "identity"})
_LETTERS = {"latin-1": "Zürich", "cp1252": "Zürich – 5 €", "cp1251": "Узел", "utf-8": "Zürich – узел"}


_MONITORS = {"/interface/monitor-traffic": traffic_monitor, "/interface/ethernet/monitor": ethernet_monitor}


class TrapError(Exception):
    """A command that fails: the message of its `!trap`, and the category where there is one."""

    def __init__(self, message: str, category: str = "") -> None:
        """`category` is a digit, or nothing."""
        super().__init__(message)
        self.category = category


class Command:
    """One sentence of the client's, taken apart."""

    def __init__(self, words: list[bytes]) -> None:
        """Take `words` of a sentence apart; nothing is refused here."""
        texts = [word.decode("utf-8", errors="surrogateescape") for word in words]
        self.path = texts[0]
        self.menu, _, self.verb = self.path.rpartition("/")
        self.arguments: dict[str, str] = {}
        self.queries: list[str] = []
        self.tag = ""
        for text in texts[1:]:
            if text.startswith(".tag="):
                self.tag = text.removeprefix(".tag=")
            elif text.startswith("?"):
                self.queries.append(text[1:])
            elif text.startswith("="):
                name, _, value = text[1:].partition("=")
                self.arguments[name] = value

    @property
    def tail(self) -> bytes:
        """The tag as every sentence of the reply repeats it."""
        return encode_word(f".tag={self.tag}".encode("utf-8", errors="surrogateescape")) if self.tag else b""


class Connection:
    """A client on one of a router's two API ports."""

    def __init__(
        self, station: Station, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int, *, secure: bool
    ) -> None:
        """`number` tells this connection from the others of its router."""
        self.station = station
        self.router = station.router
        self.reader = reader
        self.writer = writer
        host, port = (writer.get_extra_info("peername") or ("gone", 0))[:2]
        self.peer = f"{host}:{port}"
        self.via = "api-ssl" if secure else "api"
        self.number = number
        self.session: Session | None = None
        self._challenge = b""
        self._running: dict[str, asyncio.Task[None]] = {}
        self._untagged: set[asyncio.Task[None]] = set()
        self._turn = asyncio.Lock()  # sentences of different replies mix, their bytes do not

    @property
    def socket(self) -> socket.socket:
        """The connection's socket, for what asyncio does not do."""
        found: socket.socket = self.writer.get_extra_info("socket")
        return found

    async def serve(self) -> None:
        """Answer until either side ends it."""
        try:
            while (words := await read_sentence(self.reader)) is not None:
                command = Command(words)
                if command.path == "/login":
                    await self._login(command)
                elif self.session is None:
                    await self._fatal("not logged in")
                    return
                elif command.path == "/quit":
                    await self._fatal("session terminated on request")
                    return
                elif command.path == "/cancel":
                    await self._cancel(command)
                else:
                    self._start(command)
        except (FramingError, ConnectionError):
            pass
        finally:
            running = [*self._running.values(), *self._untagged]
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            self.writer.close()
            if self.session is not None:
                self._note("system,info,account", f"user {self.session.user} logged out from {self._host} via api")

    def abort(self) -> None:
        """Reset the connection: the peer sees an error, not an end."""
        if self.socket is not None and self.socket.fileno() >= 0:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    # Login

    async def _login(self, command: Command) -> None:
        user = command.arguments.get("name", "")
        if self.router.version < PLAIN_LOGIN and "response" not in command.arguments:
            # an old router answers the new way of login with a challenge too
            self._challenge = secrets.token_bytes(16)
            await self._send(encode_sentence(b"!done", b"=ret=" + self._challenge.hex().encode(), *_tag(command)))
            return
        right = user == self.station.user and self._proven(command)
        if not right or self.station.faults.active("password", self.router.name) is not None:
            self._note("system,error,critical", f"login failure for user {user} from {self._host} via api")
            await self._trap(command, TrapError("invalid user name or password (6)"))
            return
        self.session = Session(self.number, user, self.peer, self.via, self.station.now())
        self._note("system,info,account", f"user {user} logged in from {self._host} via api")
        await self._send(encode_sentence(b"!done", *_tag(command)))

    def _proven(self, command: Command) -> bool:
        """Whether the client knows the password: it sends it, or, before 6.43, an MD5 over it and our challenge."""
        secret = self.station.password.encode()
        if self.router.version < PLAIN_LOGIN:
            digest = md5(b"\x00" + secret + self._challenge, usedforsecurity=False).hexdigest()
            known = bool(self._challenge) and hmac.compare_digest(command.arguments["response"], f"00{digest}")
            self._challenge = b""
            return known
        given = command.arguments.get("password", "").encode("utf-8", errors="surrogateescape")
        return hmac.compare_digest(given, secret)

    @property
    def _host(self) -> str:
        return self.peer.rpartition(":")[0]

    def _note(self, topics: str, message: str) -> None:
        self.router.note(self.station.now(), topics, message)

    # Commands

    def _start(self, command: Command) -> None:
        task = asyncio.create_task(self._run(command))
        if command.tag:
            self._running[command.tag] = task
            task.add_done_callback(lambda ended: self._forget(command.tag, ended))
        else:
            self._untagged.add(task)
            task.add_done_callback(self._untagged.discard)

    def _forget(self, tag: str, ended: asyncio.Task[None]) -> None:
        if self._running.get(tag) is ended:
            del self._running[tag]

    async def _cancel(self, command: Command) -> None:
        """End the command of the given tag, or all: each answers that it was interrupted."""
        wanted = command.arguments.get("tag")
        tasks = [task for tag, task in self._running.items() if wanted in {None, tag}]
        if wanted is None:
            tasks += self._untagged
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._send(encode_sentence(b"!done", *_tag(command)))

    async def _run(self, command: Command) -> None:
        try:
            await self._answer(command)
        except asyncio.CancelledError:
            if not self.writer.is_closing():
                await self._trap(command, TrapError("interrupted", "2"))
        except TrapError as trap:
            await self._trap(command, trap)
        except QueryError as error:
            await self._trap(command, TrapError(str(error)))
        except ConnectionError:
            pass

    async def _answer(self, command: Command) -> None:
        faults, name = self.station.faults, self.router.name
        if (fault := faults.active("fatal", name, command.menu)) is not None:
            await self._fatal(fault.params["text"])
            return
        if faults.active("garbage", name, command.menu) is not None:
            await self._send(b"\xff\xfe\xf9garbage", command.menu)
            return
        if command.verb in _WRITING and (command.menu in MENUS or command.menu in PREFIXES):
            raise TrapError("not enough permissions (9)")
        menu = self._menu(command)
        if (row_of := _monitor_of(command, self.router)) is not None:
            if command.menu != "/interface" and not self.router.v7 and faults.active("no-test-policy", name):
                raise TrapError("not enough permissions (9)")
            await self._monitor(command, row_of)
        elif command.verb in {"print", "getall"}:
            await self._print(command, menu)
        else:
            raise TrapError("no such command")

    def _menu(self, command: Command) -> Menu:
        menu = MENUS.get(command.menu)
        if menu is not None and menu.exists(self.router):
            return menu
        raise TrapError("no such command" if command.menu in PREFIXES else "no such command prefix")

    async def _print(self, command: Command, menu: Menu) -> None:
        unknown = sorted(command.arguments.keys() - _PRINT_ARGUMENTS)
        if unknown:
            raise TrapError("unknown parameter")
        huge = self.station.faults.active("huge", self.router.name, command.menu)
        view = View(self.router, self.station.now(), self.station.sessions())
        rows = menu.rows(view)
        if (missing := self.station.faults.active("missing-fields", self.router.name, command.menu)) is not None:
            rows = _without(rows, frozenset(missing.params["fields"].split(",")))
        if huge is not None:
            rows = _multiplied(list(rows), int(huge.number("rows")))
        if command.queries:
            rows = (row for row in rows if matches(row, command.queries))
        trap = self.station.faults.active("trap", self.router.name, command.menu)
        if trap is not None:
            rows = islice(rows, int(trap.number("rows")))
        if "count-only" in command.arguments and trap is None:
            quick = menu.count if huge is None and not command.queries else None
            count = quick(view) if quick is not None else await _count(rows)
            await self._send(encode_sentence(b"!done", b"=ret=%d" % count, *_tag(command)), command.menu)
            return
        sent = 0
        async for batch, count in self._batches(rows, command):
            sent += count
            await self._send(batch, command.menu)
        if trap is not None:
            raise TrapError(trap.params["message"], trap.params["category"])
        ending = encode_sentence(b"!done", *_tag(command))
        if not sent and self.router.version >= EMPTY_SENTENCE:
            ending = encode_sentence(b"!empty", *_tag(command)) + ending
        await self._send(ending, command.menu)

    async def _batches(self, rows: Iterator[Row], command: Command) -> AsyncIterator[tuple[bytes, int]]:
        """Rows as bytes, some at a time: a long table neither fills the memory nor keeps the others waiting."""
        wanted = command.arguments.get(".proplist")
        fields = wanted.split(",") if wanted else None
        encoding = self.station.faults.active("encoding", self.router.name)
        codepage = encoding.params["codepage"] if encoding is not None else "utf-8"
        tail = command.tail
        first = True
        while batch := list(islice(rows, _BATCH_ROWS)):
            if not first:
                await asyncio.sleep(0)
            first = False
            if fields is not None:
                batch = [{name: row[name] for name in fields if name in row} for row in batch]
            if encoding is not None:
                batch = [_mistype(row, command.menu, encoding) for row in batch]
            yield b"".join([encode_row(row, tail, codepage) for row in batch]), len(batch)

    async def _monitor(self, command: Command, row_of: Callable[[View, Port], Row]) -> None:
        """A row a port and second, or one only when asked for `once`."""
        given = (
            command.arguments[name] for name in ("numbers", "number", "interface", ".id") if name in command.arguments
        )
        numbers = next(given, "")
        ports = []
        for name in filter(None, numbers.split(",")):
            found = self.router.ports.get(name)
            found = found or next((p for p in self.router.ports.values() if f"*{p.index + 1:X}" == name), None)
            if found is None:
                raise TrapError("no such item")
            ports.append(found)
        if not ports:
            raise TrapError("missing value(s) of argument(s) numbers")
        while True:
            view = View(self.router, self.station.now())
            rows = iter([row_of(view, port) for port in ports])
            async for batch, _ in self._batches(rows, command):
                await self._send(batch, command.menu)
            if "once" in command.arguments:
                break
            await asyncio.sleep(1)
        await self._send(encode_sentence(b"!done", *_tag(command)), command.menu)

    # What goes out

    async def _trap(self, command: Command, trap: TrapError) -> None:
        words = [b"!trap"]
        if trap.category:
            words.append(b"=category=" + trap.category.encode())
        words.append(b"=message=" + str(trap).encode())
        done = encode_sentence(b"!done", *_tag(command))
        with contextlib.suppress(ConnectionError):
            await self._send(encode_sentence(*words, *_tag(command)) + done)

    async def _fatal(self, text: str) -> None:
        await self._send(encode_sentence(b"!fatal", text.encode()))
        self.writer.close()

    async def _send(self, data: bytes, menu: str = "") -> None:
        """Send whole sentences, or what a wire fault leaves of them."""
        async with self._turn:
            await self.station.awake.wait()
            faults, name = self.station.faults, self.router.name
            if menu and (fault := faults.active("reset", name, menu)) is not None:
                self.writer.write(data[: int(fault.number("after"))])
                await self.writer.drain()
                self.abort()
                raise ConnectionResetError
            if menu and (fault := faults.active("stall", name, menu)) is not None:
                after = int(fault.number("after"))
                self.writer.write(data[:after])
                await fault.cleared.wait()
                data = data[after:]
            if menu and (fault := faults.active("drip", name, menu)) is not None:
                data = await self._drip(data, fault)
            self.writer.write(data)
            await self.writer.drain()

    async def _drip(self, data: bytes, fault: Fault) -> bytes:
        """Send a few bytes at a time while the fault lasts; what is left then."""
        size, pause = max(1, int(fault.number("bytes"))), fault.number("every")
        while data and not fault.cleared.is_set():
            self.writer.write(data[:size])
            data = data[size:]
            await asyncio.sleep(pause)
        return data


def _monitor_of(command: Command, router: Router) -> Callable[[View, Port], Row] | None:
    """What makes the rows of a monitoring command; None when it is none."""
    if (command.menu, command.verb) == ("/interface/lte", "monitor" if router.v7 else "info"):
        return lte_monitor
    return _MONITORS.get(command.path)


def _without(rows: Iterator[Row], fields: frozenset[str]) -> Iterator[Row]:
    """The rows without some fields."""
    return ({name: value for name, value in row.items() if name not in fields} for row in rows)


async def _count(rows: Iterator[Row]) -> int:
    count = 0
    for _ in rows:
        count += 1
        if count % 1024 == 0:
            await asyncio.sleep(0)
    return count


def _tag(command: Command) -> tuple[bytes, ...]:
    return (f".tag={command.tag}".encode("utf-8", errors="surrogateescape"),) if command.tag else ()


def _mistype(row: Row, menu: str, fault: Fault) -> Row:
    """A row whose texts somebody typed on a machine with another codepage."""
    letters = _LETTERS.get(fault.params["codepage"], "é")
    texts = _TEXTS
    if menu == "/system/identity" or (menu == "/interface" and fault.params["names"] == "yes"):
        texts = _TEXTS | {"name"}
    return {name: f"{value} {letters}" if name in texts else value for name, value in row.items()}


def _multiplied(rows: list[Row], count: int) -> Iterator[Row]:
    """`count` rows made from the given ones, each with an id and a name of its own."""
    for number in range(count):
        row = dict(rows[number % len(rows)]) if rows else {}
        row[".id"] = f"*{0x10000 + number:X}"
        if "name" in row and number >= len(rows):
            row["name"] = f"{row['name']}-{number}"
        yield row
