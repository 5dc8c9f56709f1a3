"""How far a long work has come."""

from __future__ import annotations

from typing import Any

from tqdm import tqdm


def progress_bar(total: int, what: str, unit: str, shown: bool) -> Any:
    """A bar on standard error, gone when the work is done: a context with ``update(n)``."""
    return tqdm(total=total, desc=what, unit=unit, disable=not shown, leave=False)
