"""Whole-file writing: a path holds its old content or all of the new, also after a kill, a full disk, a power cut."""

from __future__ import annotations

import errno
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

if sys.platform != "win32":
    import fcntl

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
"""Error numbers of a full disk or quota."""

_LONG_AGO = 3600.0
"""Seconds: longer than it takes from making a file to locking it, whatever else the machine does."""

PARTIAL = ".partial-"
"""Start of the names of files that are being written; what a killed process leaves begins with it."""


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path, in the folder and with the ending of ``path``, that takes its place when the block succeeds.

    The content is flushed to the disk before the rename and the folder after it. If the block raises, the temporary
    file is removed and ``path`` is as it was. The new file has the permissions of any new file.

    Args:
        path: of the file; its folder must exist.

    Raises:
        OSError: the disk is full, or the place cannot be written to.
    """
    path = Path(path)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=PARTIAL, suffix=path.suffix)
    temporary = Path(name)
    try:
        if not _lock(handle):
            os.close(handle)
            handle = -1
        yield temporary
        _flush(temporary)
        # mkstemp makes files private.
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
        os.replace(temporary, path)
    finally:
        if handle >= 0:
            os.close(handle)
        temporary.unlink(missing_ok=True)
    flush_folder(path.parent)


def write_whole(path: str | os.PathLike[str], content: bytes | str) -> Path:
    """Write a file, whole or not at all; text is UTF-8.

    Raises:
        OSError: the disk is full, or the place cannot be written to.
    """
    path = Path(path)
    with whole_file(path) as temporary:
        write_through(temporary, content.encode() if isinstance(content, str) else content)
    return path


def write_json(path: str | os.PathLike[str], values: Any) -> Path:
    """Write JSON, whole or not at all.

    Raises:
        ValueError: a number is not finite, which JSON has no word for.
        OSError: the disk is full, or the place cannot be written to.
    """
    return write_whole(path, json.dumps(values, indent=1, allow_nan=False) + "\n")


def write_through(path: Path, content: bytes) -> None:
    """Write a file and flush it to the disk; for files of a folder that is renamed when all of them are there."""
    with path.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def make_folder(folder: str | os.PathLike[str]) -> None:
    """Make a folder, and those above it that are not there, so that a power cut does not take them back.

    Raises:
        OSError: the place cannot be written to.
    """
    folder = Path(folder)
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        flush_folder(folder.parent)


def remove_partials(folder: str | os.PathLike[str]) -> None:
    """Remove the files that killed processes left half written; no process may be writing into the folder."""
    for path in Path(folder).glob(f"{PARTIAL}*"):
        path.unlink(missing_ok=True)


def remove_leftovers(folder: str | os.PathLike[str]) -> None:
    """Remove the files that killed processes left half written long ago; others may be writing into the folder.

    A file that is being written is locked, and the system lets go of the lock when its process ends. Where files cannot
    be locked nothing is removed.
    """
    for path in Path(folder).glob(f"{PARTIAL}*"):
        try:
            if time.time() - path.stat().st_mtime > _LONG_AGO:
                with path.open("rb") as stream:
                    if _lock(stream.fileno()):
                        path.unlink()
        except OSError:
            # It is gone already, or it is another's.
            continue


def _lock(handle: int) -> bool:
    """Lock an open file until it is closed; whether that was possible."""
    if sys.platform == "win32":
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def flush_folder(folder: str | os.PathLike[str]) -> None:
    """Flush the names in a folder to the disk, so that a rename survives a power cut."""
    # Windows cannot open folders; its renames are flushed with the file.
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def reason_of(error: OSError) -> str:
    """Why a file could not be written, in words."""
    if error.errno in DISK_FULL or "No space left" in str(error):
        return "the disk is full"
    return error.strerror or str(error)


def _flush(path: Path) -> None:
    with path.open("rb+") as stream:
        os.fsync(stream.fileno())
