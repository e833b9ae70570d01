"""All menus there are, and the directories they are in."""

from __future__ import annotations

from . import access, menus
from .menus import Menu

MENUS: dict[str, Menu] = {**menus.MENUS, **access.MENUS}
# Directories that hold other menus: a wrong word under them is another error than a wrong menu.
PREFIXES = frozenset(
    "/".join(path.split("/")[:depth]) for path in MENUS for depth in range(2, path.count("/") + 2)
) - frozenset(MENUS)
