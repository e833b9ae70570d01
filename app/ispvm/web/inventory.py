"""The inventory as files, for administrators: download it, check an import, apply exactly what was shown.

Between checking and applying nothing is kept here: the page carries the files, packed, and the digest of what it shows.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Depends, Request
from psycopg.rows import dict_row
from starlette.datastructures import FormData, UploadFile
from starlette.responses import Response

from ispvm.inventory import imports, sheets
from ispvm.inventory.imports import InventoryChangedError
from ispvm.inventory.planning import TooMuchError, Upload
from ispvm.inventory.sheets import MAX_BYTES, MAX_FAULTS, MAX_ROWS, SHEETS
from ispvm.store.pool import reading, transaction
from ispvm.web.auth import User
from ispvm.web.page import NotFoundError, PageUser, page

MAX_FILES = 20
# Rows of one kind that a page shows; a browser is slow with more. The command line shows all.
SHOWN = 500
# The files travel twice: as they are, and packed in base64 with the words of the form around them.
MAX_BODY = 2 * MAX_BYTES
STATEMENT_MS = 30_000
KEPT_IMPORTS = 10
SheetName = Literal["sites", "devices", "interfaces", "links"]

router = APIRouter(prefix="/inventory", include_in_schema=False, max_body_size=MAX_BODY)


async def _administrator(user: PageUser) -> User:
    if user.role != "admin":
        raise NotFoundError("This page is for administrators")
    return user


Administrator = Annotated[User, Depends(_administrator)]


async def _show(request: Request, user: User, status: int = 200, **values: Any) -> Response:
    """The page, with what there is to say about an import."""
    async with reading(request.app.state.pool, user.tenant, STATEMENT_MS) as connection:
        rows = await connection.cursor(row_factory=dict_row).execute(
            "select at, who, details->'files' as files, details->'counts' as counts from audit_log"
            " where tenant_id = current_tenant() and action = 'inventory import' order by id desc limit %s",
            [KEPT_IMPORTS],
        )
        past = await rows.fetchall()
    said: dict[str, Any] = {"plan": None, "packed": "", "done": False, "problem": "", **values}
    limits = {"bytes": MAX_BYTES, "rows": MAX_ROWS, "faults": MAX_FAULTS, "shown": SHOWN}
    return page("inventory.html", status, user=user, sheets=SHEETS.values(), past=past, limits=limits, **said)


@router.get("")
async def inventory(request: Request, user: Administrator) -> Response:
    """What can be downloaded and how files are imported."""
    return await _show(request, user)


@router.get("/{sheet}.csv")
async def export(request: Request, user: Administrator, sheet: SheetName) -> Response:
    """A sheet of the inventory as it is."""
    async with reading(request.app.state.pool, user.tenant, STATEMENT_MS) as connection:
        found = await imports.read(connection)
    return _csv(sheet, imports.export(found, SHEETS[sheet]))


@router.get("/template/{sheet}.csv")
async def template(_: Administrator, sheet: SheetName) -> Response:
    """An empty file with the header."""
    return _csv(sheet, sheets.written(SHEETS[sheet], []))


def _csv(name: str, text: str) -> Response:
    # With a byte order mark Excel reads it as the UTF-8 that it is.
    headers = {"Content-Disposition": f'attachment; filename="{name}.csv"', "Cache-Control": "no-store"}
    return Response(text.encode("utf-8-sig"), 200, headers, "text/csv; charset=utf-8")


@router.post("/check")
async def check(request: Request, user: Administrator) -> Response:
    """What importing the uploaded files would do; nothing is written."""
    try:
        async with request.form(max_files=MAX_FILES, max_fields=1) as form:
            uploads = [
                (f.filename or "file", await f.read()) for f in form.getlist("files") if isinstance(f, UploadFile)
            ]
        uploads = [(name, content) for name, content in uploads if content or name != "file"]
        if not uploads:
            return await _show(request, user, 422, problem="Choose at least one file.")
        async with reading(request.app.state.pool, user.tenant, STATEMENT_MS) as connection:
            plan = await imports.check(connection, uploads)
    except TooMuchError as error:
        return await _show(request, user, error.status, problem=f"{_sentence(error)} Nothing was read.")
    return await _show(request, user, 422 if plan.faults else 200, plan=plan, packed=_packed(uploads))


@router.post("/apply")
async def apply(request: Request, user: Administrator) -> Response:
    """Import what was shown, if that is still what it comes to."""
    async with request.form(max_files=0, max_fields=2, max_part_size=MAX_BODY) as form:
        uploads, digest = _unpacked(form), str(form.get("digest"))
    if uploads is None:
        return await _show(request, user, 422, problem="The files did not arrive whole. Check them again.")
    try:
        async with transaction(request.app.state.pool, user.tenant, STATEMENT_MS) as connection:
            plan = await imports.apply(connection, uploads, user.name, digest)
    except InventoryChangedError as error:
        return await _show(request, user, 409, problem=str(error))
    except TooMuchError as error:
        return await _show(request, user, error.status, problem=f"{_sentence(error)} Nothing was imported.")
    if plan.faults:
        return await _show(request, user, 422, plan=plan)
    return await _show(request, user, plan=plan, done=True)


def _sentence(error: Exception) -> str:
    text = str(error)
    return f"{text[:1].upper()}{text[1:]}."


def _packed(uploads: list[Upload]) -> str:
    return base64.b64encode(zlib.compress(msgspec.msgpack.encode(uploads))).decode()


def _unpacked(form: FormData) -> list[Upload] | None:
    """The files of the form, or None when they are not what this page gave out."""
    try:
        unpacker = zlib.decompressobj()
        # No more than what may be checked, however small it was made.
        content = unpacker.decompress(base64.b64decode(str(form.get("packed")), validate=True), MAX_BODY)
        return msgspec.msgpack.decode(content, type=list[Upload])
    except (binascii.Error, zlib.error, msgspec.DecodeError):
        return None
