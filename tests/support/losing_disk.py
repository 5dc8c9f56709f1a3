"""A disk that loses, in a power cut, all that was not flushed: content of files, and names in folders."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

__all__ = ["LosingDisk"]


class LosingDisk:
    """Watches what is flushed under ``root`` (all that is there at the start is), and shows what power cuts leave.

    Of a file the content of its last ``os.fsync`` is left, and nothing where there was none. Names (new files and
    folders, renames) are left as of the last ``os.fsync`` of their folder, or, with ``names=True``, as they are: a disk
    may write them early or late. What was removed is gone in both.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.content: dict[int, bytes] = {}
        self.names: dict[int, dict[str, int]] = {}
        self.kinds: dict[int, bool] = {}
        self.replaced: set[int] = set()
        # Open, so that the system gives no number of a file twice.
        self.open = ExitStack()
        for path in [root, *root.rglob("*")]:
            self.flushed(path)

    def flushed(self, path: Path) -> None:
        """The content of a file, or the names in a folder, are on the disk now."""
        descriptor = os.open(path, os.O_RDONLY)
        self.open.callback(os.close, descriptor)
        number = os.fstat(descriptor).st_ino
        self.kinds[number] = path.is_dir()
        if self.kinds[number]:
            self.names[number] = {one.name: one.stat().st_ino for one in path.iterdir()}
            self.kinds |= {one.stat().st_ino: one.is_dir() for one in path.iterdir()}
        else:
            self.content[number] = path.read_bytes()

    @contextmanager
    def watch(self, each: Callable[[], Any] = lambda: None) -> Iterator[None]:
        """Within the block flushes are noted; ``each`` is called before each flush and each rename."""
        fsync, replace = os.fsync, os.replace

        def flush(descriptor: int) -> None:
            each()
            fsync(descriptor)
            path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
            if path.is_relative_to(self.root):
                self.flushed(path)

        def rename(source: Any, target: Any, **options: Any) -> None:
            each()
            if os.path.isfile(target):
                descriptor = os.open(target, os.O_RDONLY)
                self.open.callback(os.close, descriptor)
                self.replaced.add(os.fstat(descriptor).st_ino)
            replace(source, target, **options)

        with self.open, patch("os.fsync", flush), patch("os.replace", rename):
            yield

    def after_power_cut(self, copy: Path, names: bool) -> Path:
        """What is left under ``root``, written into ``copy``."""
        visible = {path.stat().st_ino: path for path in self.root.rglob("*") if path.exists()}

        def write(number: int, path: Path | None, to: Path) -> None:
            if self.kinds[number] if path is None else path.is_dir():
                to.mkdir()
                now = {} if path is None else {one.name: one.stat().st_ino for one in path.iterdir()}
                for name, inner in (now if names else self.names.get(number, {})).items():
                    if inner in visible or inner in self.replaced:
                        write(inner, visible.get(inner), to / name)
            else:
                to.write_bytes(self.content.get(number, b""))

        write(self.root.stat().st_ino, self.root, copy)
        return copy
