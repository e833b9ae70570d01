"""The control socket: one JSON object a line in, one out, on `<state>/control.sock`.

A request is `{"command": "add" | "clear" | "list" | "kinds" | "status", ...}`; an answer has `"ok"`, and
`"error"` when that is false.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from .faults import KINDS, Fault

if TYPE_CHECKING:
    from .lab import Lab

SOCKET = "control.sock"
_LONGEST_LINE = 1 << 16


class Request(Struct, forbid_unknown_fields=True):
    """What the control socket is asked. `kind`, `params`, `seconds` belong to add; `id` to clear; `router` to both."""

    command: str
    kind: str = ""
    router: str | None = None
    params: dict[str, str] = {}
    seconds: float | None = None
    id: str | None = None


def _told(fault: Fault) -> dict[str, Any]:
    return {
        "id": fault.id,
        "kind": fault.kind,
        "router": fault.router,
        "params": fault.params,
        "since": round(fault.since, 3),
    }


async def obey(lab: Lab, request: Request) -> dict[str, Any]:
    """Carry a request out; raises ValueError naming the field at fault."""
    if request.command == "add":
        if request.router is None:
            raise ValueError("router: which one?")
        fault = await lab.faults.add(request.kind, request.router, request.params, request.seconds)
        return {"fault": _told(fault)}
    if request.command == "clear":
        if request.id is not None:
            return {"cleared": [_told(await lab.faults.clear(request.id))]}
        return {"cleared": [_told(fault) for fault in await lab.faults.clear_all(request.router)]}
    if request.command == "list":
        return {"faults": [_told(fault) for fault in lab.faults.faults.values()]}
    if request.command == "kinds":
        return {"kinds": {kind.name: {"does": kind.does, "params": dict(kind.params)} for kind in KINDS.values()}}
    if request.command == "status":
        return {"seed": lab.world.seed.name, "routers": lab.status()}
    raise ValueError(f"command: {request.command!r} is not one of add, clear, list, kinds, status")


@contextlib.asynccontextmanager
async def listening(lab: Lab) -> AsyncIterator[None]:
    """The control socket, for the length of a block. Only its owner and group may use it."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, ValueError):
            while line := await reader.readline():
                try:
                    answer = {"ok": True, **await obey(lab, msgspec.json.decode(line, type=Request))}
                except (ValueError, msgspec.DecodeError) as error:
                    answer = {"ok": False, "error": str(error)}
                writer.write(msgspec.json.encode(answer) + b"\n")
                await writer.drain()
        writer.close()

    path = lab.state / SOCKET
    path.unlink(missing_ok=True)
    server = await asyncio.start_unix_server(serve, path, limit=_LONGEST_LINE)
    path.chmod(0o660)
    try:
        yield
    finally:
        server.close()
        path.unlink(missing_ok=True)


def ask(state: Path, request: Request) -> dict[str, Any]:
    """Ask a running lab; raises ValueError with its complaint, OSError when none is running."""
    path = state / SOCKET
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(path))
        except OSError as error:
            raise OSError(f"{path}: {error.strerror}. Is `ispvm-lab serve --state {state}` running?") from error
        client.sendall(msgspec.json.encode(request) + b"\n")
        with client.makefile("rb") as lines:
            answer: dict[str, Any] = msgspec.json.decode(lines.readline())
    if not answer["ok"]:
        raise ValueError(answer["error"])
    return answer
