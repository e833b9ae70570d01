"""The agent and its own host: journal lines, sd_notify, the kernel's view of the clock, metrics on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import os
import socket
from collections.abc import Callable, Mapping

METRICS_HOST, METRICS_PORT = "127.0.0.1", 9469
_PRIORITY = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}


class JournalFormatter(logging.Formatter):
    """ "<4>poller: text", a prefix that journald turns into a priority; every line of a traceback gets it."""

    def format(self, record: logging.LogRecord) -> str:
        """One or more prefixed lines."""
        text = f"{record.name}: {super().format(record)}"
        return "\n".join(f"<{_PRIORITY.get(record.levelno, 6)}>{line}" for line in text.splitlines())


def log_to_journal() -> None:
    """Log to stderr, which systemd passes to the journal."""
    handler = logging.StreamHandler()
    handler.setFormatter(JournalFormatter("%(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # one line a request is no news


def notify(state: str) -> None:
    """Tell systemd, if it listens: "READY=1", "STATUS=…", "WATCHDOG=1"."""
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.sendto(state.encode(), f"\0{path[1:]}" if path.startswith("@") else path)


def watchdog_seconds() -> float | None:
    """How often systemd wants a sign of life: half of what the unit allows; None without a watchdog."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    return int(microseconds) / 2e6 if microseconds.isdigit() else None


def clock_synchronised() -> bool | None:
    """What the kernel knows of NTP (adjtimex, read only); None where the question is not allowed."""
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        buffer = ctypes.create_string_buffer(512)  # struct timex is 208 bytes; modes = 0 changes nothing
        state: int = libc.adjtimex(buffer)
    except (OSError, AttributeError):
        return None
    return None if state < 0 else state != 5  # TIME_ERROR


def prometheus(metrics: Mapping[str, tuple[str, str, Mapping[str, float]]]) -> str:
    """Prometheus text: name -> (type, help, value by label text such as `{router="A"}` or "")."""
    lines: list[str] = []
    for name, (kind, description, samples) in metrics.items():
        lines += (f"# HELP {name} {description}", f"# TYPE {name} {kind}")
        lines += [f"{name}{labels} {value!r}" for labels, value in samples.items()]
    return "\n".join((*lines, ""))


async def serve_loopback(pages: Mapping[str, tuple[str, Callable[[], str]]], port: int) -> asyncio.Server:
    """A few read-only pages, path -> (content type, text now), on 127.0.0.1 only."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(5):
                head = await reader.readuntil(b"\r\n\r\n")
                method, _, rest = head.decode("latin-1").partition(" ")
                page = pages.get(rest.partition(" ")[0]) if method == "GET" else None
                kind, text, status = ("text/plain", "", "404 Not Found")
                if page is not None:
                    kind, text, status = page[0], page[1](), "200 OK"
                body = text.encode()
                lines = (f"HTTP/1.1 {status}", f"Content-Type: {kind}", f"Content-Length: {len(body)}",
                         "Connection: close", "", "")  # fmt: skip
                writer.write("\r\n".join(lines).encode() + body)
                await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            writer.close()

    return await asyncio.start_server(answer, METRICS_HOST, port, limit=8192)
