"""Pages."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import HTMLResponse

router = APIRouter(include_in_schema=False)


@router.get("/")
async def home() -> HTMLResponse:
    """Home."""
    return HTMLResponse("<!doctype html><title>ISPVisualMonitor</title>")
