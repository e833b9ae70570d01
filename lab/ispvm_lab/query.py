"""What a print command asks for beside a menu: `?` queries, `.proplist`, flags."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

Row = Mapping[str, str]

# Flags a row leaves out when they are false; a query sees them as false all the same (assumed).
FLAGS = frozenset({"dynamic", "disabled", "running", "slave", "invalid"})
_TRUTH = {"yes": "true", "no": "false"}


class QueryError(ValueError):
    """A query word that RouterOS would refuse."""


def _value(row: Row, name: str) -> str | None:
    value = row.get(name)
    if value is None and name in FLAGS:
        return "false"
    return value


def _less(left: str, right: str) -> bool:
    try:
        return int(left) < int(right)
    except ValueError:
        return left < right


def _operate(stack: list[bool], operations: str) -> None:
    """`?#`: `!` not, `&` and, `|` or, `.` copy of the top, a number pushes (or at the end becomes) that value."""
    try:
        for number, operator in re.findall(r"(\d+)|(\D)", operations):
            if number:
                stack.append(stack[-1 - int(number)])
            elif operator == "!":
                stack[-1] = not stack[-1]
            elif operator in "&|":
                top, below = stack.pop(), stack.pop()
                stack.append((top and below) if operator == "&" else (top or below))
            elif operator == ".":
                stack.append(stack[-1])
            else:
                raise QueryError(f"bad operator in query: {operator}")
    except IndexError:
        raise QueryError("query stack is empty") from None
    if operations[-1:].isdigit():
        stack[:] = stack[-1:]


def matches(row: Row, queries: Sequence[str]) -> bool:
    """Whether a row passes the query words (without their leading `?`): all that is left on the stack is true."""
    stack: list[bool] = []
    for query in queries:
        if query.startswith("#"):
            _operate(stack, query[1:])
            continue
        kind, word = (query[0], query[1:]) if query[:1] in {"-", "=", "<", ">"} else ("", query)
        name, given, wanted = word.partition("=")
        if not name or (kind in {"=", "<", ">"} and not given):
            raise QueryError(f"bad query: ?{query}")
        value = _value(row, name)
        if kind == "-":
            stack.append(name not in row)
        elif kind == "" and not given:
            stack.append(name in row)
        elif value is None:
            stack.append(False)
        elif kind == "<":
            stack.append(_less(value, wanted))
        elif kind == ">":
            stack.append(_less(wanted, value))
        else:
            stack.append(value == wanted or value == _TRUTH.get(wanted))
    return all(stack)
