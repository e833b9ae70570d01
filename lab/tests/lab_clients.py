"""Two clients of a lab: librouteros, and a raw one."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import librouteros
import librouteros.login
from ispvm_lab.lab import USER, Lab, router_password
from librouteros.protocol import encode_sentence

SEEDS = Path(__file__).parents[2] / "seeds"
TIMEOUT = 3.0


def free_ports(count: int) -> int:
    """The first of `count` ports of 127.0.0.1 in a row that nobody listens on."""
    for _ in range(100):
        base = random.randrange(20000, 32000 - count)
        with contextlib.ExitStack() as held:
            try:
                for port in range(base, base + count):
                    held.enter_context(socket.create_server(("127.0.0.1", port)))
            except OSError:
                continue
            return base
    raise OSError(f"no {count} free ports in a row")


def wrapped(context: ssl.SSLContext, sock: socket.socket) -> ssl.SSLSocket:
    """TLS over a socket, which is closed when that fails (librouteros does not)."""
    try:
        return context.wrap_socket(sock, server_hostname="127.0.0.1")
    except OSError:
        sock.close()
        raise


@dataclass
class Net:
    """A running lab and how to reach its routers."""

    lab: Lab
    base: int
    state: Path

    def port(self, router: str, secure: bool = False) -> int:
        return self.base + 2 * list(self.lab.stations).index(router) + int(secure)

    @property
    def password(self) -> str:
        return router_password(self.state)

    def _tls(self, sock: socket.socket) -> socket.socket:
        context = ssl.create_default_context(cafile=str(self.state / "routers-ca.crt"))
        context.verify_flags |= ssl.VERIFY_X509_STRICT  # the default from Python 3.13 on
        return wrapped(context, sock)

    def connect(
        self, router: str, *, secure: bool = False, password: str = "", old: bool = False
    ) -> librouteros.api.Api:
        """A librouteros login (blocking: call it in a thread)."""
        return librouteros.connect(
            "127.0.0.1",
            USER,
            password or self.password,
            port=self.port(router, secure),
            encoding="latin-1",
            timeout=TIMEOUT,
            ssl_wrapper=self._tls if secure else None,
            login_method=librouteros.login.token if old else librouteros.login.plain,
        )

    async def ask(self, router: str, path: str, *words: str, secure: bool = False) -> list[dict[str, Any]]:
        """The rows librouteros gets for one command on a connection of its own."""

        def run() -> list[dict[str, Any]]:
            api = self.connect(router, secure=secure)
            try:
                return list(api.rawCmd(path, *words))
            finally:
                api.close()

        return await asyncio.to_thread(run)

    async def raw(self, router: str, *, login: bool = True) -> Raw:
        """A raw client, logged in unless told otherwise."""
        client = Raw(*await asyncio.open_connection("127.0.0.1", self.port(router)))
        if login:
            assert await client.talk("/login", f"=name={USER}", f"=password={self.password}") == [["!done"]]
        return client


class Raw:
    """Sentences in, sentences out, as they stand on the wire."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, *words: str) -> None:
        self.writer.write(encode_sentence(*words, encoding="latin-1"))

    async def _word(self) -> str:
        first = (await self.reader.readexactly(1))[0]
        if first >= 0xC0:
            raise ValueError(f"control byte {first:#x}: no test needs words this long")
        length = first if first < 0x80 else (first & 0x3F) << 8 | (await self.reader.readexactly(1))[0]
        return (await self.reader.readexactly(length)).decode("latin-1")

    async def sentence(self) -> list[str]:
        """The next sentence's words."""

        async def read() -> list[str]:
            words = []
            while word := await self._word():
                words.append(word)
            return words

        return await asyncio.wait_for(read(), TIMEOUT)

    async def reply(self) -> list[list[str]]:
        """Sentences up to and with the next `!done` or `!fatal`."""
        sentences = [await self.sentence()]
        while sentences[-1][0] not in {"!done", "!fatal"}:
            sentences.append(await self.sentence())
        return sentences

    async def talk(self, *words: str) -> list[list[str]]:
        """Send a command and read its reply."""
        self.send(*words)
        return await self.reply()

    async def rows(self, *words: str) -> list[dict[str, str]]:
        """The rows of a command's reply."""
        reply = await self.talk(*words)
        return [dict(word[1:].split("=", 1) for word in row[1:]) for row in reply if row[0] == "!re"]

    async def end(self) -> bytes:
        """What comes until the peer closes; raises ConnectionResetError when it resets."""
        return await asyncio.wait_for(self.reader.read(), TIMEOUT)

    def close(self) -> None:
        self.writer.close()
