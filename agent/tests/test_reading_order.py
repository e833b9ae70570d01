"""The reading order in docs/agent-security.md is complete, and what it says of lines and sockets is true."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CODE = ROOT / "agent" / "ispvm_agent"
_LAYOUT = {
    tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER,
}  # fmt: skip
# What opens a socket or starts a program, by the name under which a module gets it.
_REACH = {"socket", "ssl", "httpx", "urllib.request", "http.client", "subprocess", "ctypes"}
_CALLS = {"open_connection", "create_connection", "start_server", "create_server", "create_datagram_endpoint",
          "sock_connect", "create_subprocess_exec", "create_subprocess_shell", "system", "popen"}  # fmt: skip


def code_lines(source: str) -> int:
    """Lines that are neither empty nor comment nor docstring."""
    tree, described = ast.parse(source), set[int]()
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and (
            ast.get_docstring(node, clean=False) is not None
        ):
            described.update(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    lines = set[int]()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in _LAYOUT:
            lines.update(range(token.start[0], token.end[0] + 1))
    return len(lines - described)


def reaches(source: str) -> set[str]:
    """What a module imports or calls to get at a socket or a program."""
    found = set[str]()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names} & _REACH
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)} & _REACH
        elif isinstance(node, ast.Attribute) and node.attr in _CALLS:
            found.add(node.attr)
    return found


def reading_order() -> dict[int, dict[str, int]]:
    """The page's files and their lines, by part."""
    page = (ROOT / "docs" / "agent-security.md").read_text()
    chapter = page[page.index("## In which order to read it") :]
    rows = re.findall(r"^\| ([1-4]) \| `([\w/.]+)` \| (\d+) \|", chapter[: chapter.index("\n## ", 1)], re.MULTILINE)
    parts: dict[int, dict[str, int]] = {}
    for part, name, lines in rows:
        parts.setdefault(int(part), {})[name] = int(lines)
    return parts


def modules() -> dict[str, str]:
    return {str(path.relative_to(CODE)): path.read_text() for path in CODE.rglob("*.py") if path.stat().st_size > 200}


def test_every_file_is_in_it_with_as_many_lines_as_it_has() -> None:
    told = {name: lines for part in reading_order().values() for name, lines in part.items()}
    real = {name: code_lines(source) for name, source in modules().items()}
    assert set(told) == set(real)
    # a change of a few lines need not touch the page
    wrong = {name: f"says {told[name]}, has {real[name]}" for name in real if abs(told[name] - real[name]) > 10}
    assert wrong == {}


def test_the_sums_are_those_of_the_files() -> None:
    page = (ROOT / "docs" / "agent-security.md").read_text()
    for number, files in reading_order().items():
        (told,) = re.findall(rf"^{number}\. .*\((\d+) lines\)", page, re.MULTILINE)
        assert int(told) == sum(files.values()), number


def test_only_the_first_three_parts_reach_beyond_the_process() -> None:
    parts = reading_order()
    outside = {name: found for name, source in modules().items() if name in parts[4] and (found := reaches(source))}
    assert outside == {"daemon.py": {"httpx"}}  # the type of the client that uplink.py makes and uses


def test_only_the_first_part_reaches_a_router() -> None:
    """Sessions are made by `connect`, and no other part writes to a transport of a router."""
    makers = {name for name, source in modules().items() if "Session(" in source or "create_connection(" in source}
    assert makers <= set(reading_order()[1]) | {"routeros/session.py"}


@pytest.mark.parametrize(
    "source",
    [
        "import socket",
        "from subprocess import run",
        "import asyncio\nasyncio.open_connection",
        "from http import client",
    ],
)
def test_the_search_can_fail(source: str) -> None:
    assert reaches(source)


def test_lines_are_counted_without_what_is_no_code() -> None:
    assert (
        code_lines('"""A module."""\n\n# why\nimport os\n\n\ndef f():\n    """Do."""\n    return (\n        1\n    )\n')
        == 5
    )
