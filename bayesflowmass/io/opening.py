"""The one place where data files are opened: pipes are read once, packed files unpacked within limits."""

from __future__ import annotations

import atexit
import bz2
import gzip
import io
import lzma
import os
import stat
import tempfile
import zlib
from pathlib import Path
from typing import IO, Any, cast

from bayesflowmass.catalog import CatalogError

UNPACKED_LIMIT = 128 * 2**20
UNPACKED_RATIO = 100
"""A packed file may hold `UNPACKED_LIMIT` bytes, or `UNPACKED_RATIO` times its own size where that is more: tables
shrink to a third or a tenth, and what shrinks to a thousandth was made to fill a memory."""

HEAD_BYTES = 262_144
"""Of a file, by which it is recognised."""

PIPE_LIMIT = 2**31
"""Bytes that are taken from a pipe."""

_BYTES_AT_ONCE = 2**20

_PACKED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz"}
_OPENERS: dict[str, Any] = {"gzip": gzip.open, "bzip2": bz2.open, "xz": lzma.open}
_DAMAGED = (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile, OSError)
_taken: dict[str, Path] = {}


def at_rest(path: str | os.PathLike[str]) -> Path:
    """The path of a file that can be read more than once.

    A pipe (``/dev/stdin``, ``<(command)``) is read once, to a temporary file that goes with the process; asked for
    again it is the same file. ``~`` is the home folder.
    """
    text = os.fspath(path)
    if text in _taken:
        return _taken[text]
    if text == "-":
        raise CatalogError("-: expected the name of a file; for standard input it is /dev/stdin.")
    if "://" in text:
        raise CatalogError(
            f"{text}: an address, and files are read from this computer only; download it first."
        )
    place = Path(text).expanduser() if text.startswith("~") else Path(text)
    try:
        kind = place.stat().st_mode
    except OSError as error:
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            many = (
                "; a pattern is not expanded here, give one file"
                if any(mark in text for mark in "*?[")
                else ""
            )
            raise CatalogError(f"{text}: no such file{many}.") from None
        raise CatalogError(f"{text}: cannot be opened: {error.strerror or error}.") from None
    except ValueError as error:
        raise CatalogError(f"{text!r}: no name of a file ({error}).") from None
    if stat.S_ISREG(kind) or stat.S_ISDIR(kind):
        return place
    _taken[text] = _copied(place)
    return _taken[text]


def packed_as(start: bytes) -> str | None:
    """How a file is packed, from its first bytes: gzip, bzip2, xz or not."""
    return next((name for magic, name in _PACKED.items() if start.startswith(magic)), None)


def open_bytes(path: str | os.PathLike[str]) -> IO[bytes]:
    """A file opened for reading, unpacked where its content (not its name) says that it is packed.

    Reading raises `CatalogError` where a packed file is damaged, or unpacks beyond the limits.
    """
    place = at_rest(path)
    if place.is_dir():
        raise CatalogError(f"{path}: a folder where a file is expected.")
    try:
        stream = place.open("rb")
    except OSError as error:
        raise CatalogError(f"{path}: cannot be opened: {error.strerror or error}.") from error
    packed = packed_as(stream.peek())
    if packed is None:
        return stream
    unpacked = _Unpacked(stream, packed, str(path))
    return cast(IO[bytes], io.BufferedReader(unpacked, _BYTES_AT_ONCE))


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """The whole content of a file, unpacked."""
    with open_bytes(path) as stream:
        try:
            return stream.read()
        except OSError as error:
            raise CatalogError(f"{path}: cannot be read: {error.strerror or error}.") from error


class _Unpacked(io.RawIOBase):
    """The content of a packed file, as far as the limits go."""

    def __init__(self, stream: IO[bytes], packed: str, name: str) -> None:
        size = os.fstat(stream.fileno()).st_size
        self._limit = max(UNPACKED_LIMIT, UNPACKED_RATIO * size)
        self._name, self._packed, self._done = name, packed, 0
        self._stream = stream
        self._inner = _OPENERS[packed](stream, "rb")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._inner.read(len(buffer))
        except _DAMAGED as error:
            raise CatalogError(
                f"{self._name}: the compressed file is damaged or half-written ({error}); copy it again."
            ) from error
        self._done += len(data)
        if self._done > self._limit:
            raise CatalogError(
                f"{self._name}: unpacks to more than {self._limit / 2**20:.0f} MiB, {UNPACKED_RATIO} times its size, "
                f"as no table does; unpack it with {self._packed} and look at it."
            )
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._inner.close()
            self._stream.close()
        super().close()


def _copied(place: Path) -> Path:
    folder = tempfile.TemporaryDirectory(prefix="bayesflowmass-")
    atexit.register(folder.cleanup)
    target = Path(folder.name, place.name)
    done = 0
    try:
        with place.open("rb") as source, target.open("wb") as copy:
            if source.isatty():
                raise CatalogError(f"{place}: a terminal where a file is expected; pipe a table into it.")
            while part := source.read(_BYTES_AT_ONCE):
                done += len(part)
                if done > PIPE_LIMIT:
                    raise CatalogError(
                        f"{place}: gives more than {PIPE_LIMIT / 2**30:.0f} GiB; write it to a file."
                    )
                copy.write(part)
    except OSError as error:
        raise CatalogError(f"{place}: cannot be read: {error.strerror or error}.") from error
    if not done:
        raise CatalogError(f"{place}: nothing came through the pipe.")
    return target
