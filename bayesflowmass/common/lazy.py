"""Rooms whose names are imported on first use: no command line should wait for what it does not need."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any


def lazy_exports(package: str, file: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """``__getattr__`` and ``__dir__`` of a package that imports its names on first use (PEP 562).

    Where each name is at home, the block ``if TYPE_CHECKING:`` of the package says, as it does to type checkers.

    Args:
        package: ``__name__`` of the package.
        file: its ``__file__``.
    """

    @cache
    def homes() -> dict[str, str]:
        # Imported late, as everything is that a command line may not need.
        import ast

        blocks = ast.parse(Path(file).read_text(encoding="utf-8")).body
        imports = [node for block in blocks if isinstance(block, ast.If) for node in block.body]
        return {
            alias.name: str(node.module)
            for node in imports
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }

    def find(name: str) -> Any:
        # Python asks for names such as __path__ whenever it imports.
        if name.startswith("__") or name not in homes():
            raise AttributeError(f"module '{package}' has no attribute '{name}'")
        return getattr(importlib.import_module(homes()[name]), name)

    def names() -> list[str]:
        return sorted([*vars(importlib.import_module(package)), *homes()])

    return find, names
