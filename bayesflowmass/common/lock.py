"""One writer for a folder at a time."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from bayesflowmass.common.files import make_folder, reason_of

if sys.platform != "win32":
    import fcntl

LOCK = ".in-use"


class FolderInUseError(ValueError):
    """Another process writes into the folder; the message names it."""


@contextmanager
def sole_writer(folder: Path, what: str) -> Iterator[None]:
    """Within the block no other process can enter such a block for this folder, which is made where it is not there.

    The system lets go of the lock when its process ends, however it ends: what a killed process leaves locks nobody
    out.

    Args:
        folder: to write into.
        what: the work, such as ``"training"``, for the message to others.

    Raises:
        FolderInUseError: another process is at work there.
        ValueError: nothing can be written there.
    """
    there = os.path.isdir(folder)
    try:
        make_folder(folder)
        stream = _locked(folder / LOCK)
    except OSError as error:
        raise ValueError(f"Cannot write to '{folder}': {reason_of(error)}; choose another folder.") from error
    try:
        stream.truncate(0)
        stream.write(f"{what}, process {os.getpid()} on {platform.node()}")
        stream.flush()
        yield
    finally:
        (folder / LOCK).unlink(missing_ok=True)
        stream.close()
        if not there:
            # Nothing came of it.
            with suppress(OSError):
                folder.rmdir()


def _locked(path: Path) -> IO[str]:
    """The file, open and locked."""
    while True:
        stream = path.open("a+", encoding="utf-8")
        if sys.platform == "win32":
            # It has no such locks: two writers are not told apart.
            return stream
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stream.seek(0)
            holder = stream.read() or "another process"
            stream.close()
            raise FolderInUseError(
                f"'{path.parent}' is in use by {holder}; wait until it ends, or choose another folder."
            ) from None
        except OSError:
            # A file system without locks.
            return stream
        # The holder before us may have removed the file after we opened it: then this lock locks nothing.
        with suppress(FileNotFoundError):
            if os.fstat(stream.fileno()).st_ino == path.stat().st_ino:
                return stream
        stream.close()
