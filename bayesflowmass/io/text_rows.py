"""Numbers from long text files, block by block in bounded memory; a broken row is named by its line."""

from __future__ import annotations

import bz2
import gzip
import lzma
import math
import os
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Literal, cast

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
from numpy.typing import NDArray

from bayesflowmass.catalog import CatalogError

__all__ = ["Kind", "iterate_rows", "open_bytes", "read_rows"]

Kind = Literal["id", "number", "maybe"]
"""Of a column: a 64-bit integer, a finite number, or a number that may be missing (NaN)."""

BLOCK_BYTES = 32 * 2**20
_OPENERS: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_MISSING = ["", "nan", "NaN", "NAN", "null", "NULL", "None", "\\N", "--", "N/A"]


def open_bytes(path: str | os.PathLike[str]) -> IO[bytes]:
    """A file opened for reading, unpacked where its name ends in .gz, .bz2 or .xz.

    Raises:
        CatalogError: if there is no such file, or it cannot be opened.
    """
    place = Path(path)
    if place.is_dir():
        raise CatalogError(f"{place}: a folder where a file is expected.")
    try:
        return cast(IO[bytes], _OPENERS.get(place.suffix.lower(), open)(place, "rb"))
    except FileNotFoundError:
        raise CatalogError(f"{place}: no such file.") from None
    except OSError as error:
        raise CatalogError(f"{place}: cannot be opened: {error.strerror or error}.") from error


def iterate_rows(
    path: str | os.PathLike[str],
    names: Sequence[str],
    wanted: Mapping[str, Kind],
    *,
    delimiter: str = " ",
    skip_lines: int = 0,
    block_bytes: int = BLOCK_BYTES,
) -> Iterator[dict[str, NDArray[Any]]]:
    """Columns of successive blocks of rows; lines that begin with # and empty lines are passed over.

    Args:
        names: of all columns in the file, in their order.
        wanted: which of them to return: ``"id"`` as int64 (never through floats), ``"number"`` as finite
            float64, ``"maybe"`` as float64 with NaN where a value is missing.
        delimiter: ``","``, or ``" "`` for any run of blanks.
        skip_lines: lines before the first row.
        block_bytes: of (unpacked) text held at once, about.

    Raises:
        CatalogError: names the line, counted from 1 with the header, and the column.
    """
    place = Path(path)
    line = 1 + skip_lines
    with open_bytes(place) as stream, _reading_errors(place):
        for _ in range(skip_lines):
            stream.readline()
        while block := stream.read(block_bytes):
            block += stream.readline()
            columns = _parsed(block, names, wanted, delimiter)
            if columns is None:
                last = not stream.read(1)
                raise CatalogError(f"{place}: {_fault(block, line, names, wanted, delimiter, last)}")
            yield columns
            line += block.count(b"\n")


def read_rows(
    path: str | os.PathLike[str], names: Sequence[str], wanted: Mapping[str, Kind], **options: Any
) -> dict[str, NDArray[Any]]:
    """All rows at once; arguments and errors of `iterate_rows`, and a file without rows is one too."""
    parts = list(iterate_rows(path, names, wanted, **options))
    columns = {name: np.concatenate([np.zeros(0), *(p[name] for p in parts)][not parts :]) for name in wanted}
    if not parts or columns[next(iter(wanted))].size == 0:
        raise CatalogError(f"{path}: the table has no rows.")
    return columns


def _parsed(
    block: bytes, names: Sequence[str], wanted: Mapping[str, Kind], delimiter: str
) -> dict[str, NDArray[Any]] | None:
    """The columns, or None where a row is broken."""
    text = _plain(block, delimiter)
    if not text.strip():
        kinds = {"id": np.int64, "number": np.float64, "maybe": np.float64}
        return {name: np.zeros(0, dtype=kinds[kind]) for name, kind in wanted.items()}
    try:
        table = pacsv.read_csv(
            pa.BufferReader(text),
            read_options=pacsv.ReadOptions(
                column_names=list(names), use_threads=False, block_size=len(text) + 1
            ),
            parse_options=pacsv.ParseOptions(delimiter=delimiter),
            convert_options=pacsv.ConvertOptions(
                include_columns=list(wanted),
                column_types={n: pa.int64() if k == "id" else pa.float64() for n, k in wanted.items()},
                null_values=_MISSING,
            ),
        )
    except pa.ArrowInvalid:
        return None
    columns: dict[str, NDArray[Any]] = {}
    for name, kind in wanted.items():
        column = table[name].combine_chunks()
        if column.null_count and kind == "id":
            return None
        values = column.to_numpy(zero_copy_only=False)
        if kind == "number" and not np.all(np.isfinite(values)):
            return None
        columns[name] = values
    return columns


def _plain(block: bytes, delimiter: str) -> bytes:
    """Text without comments and runs of blanks."""
    if b"#" in block:
        block = re.sub(rb"(?m)^[ \t]*#.*\n?", b"", block)
    if delimiter == " ":
        if b"\t" in block or b"  " in block:
            block = re.sub(rb"[ \t]+", b" ", block)
        if b"\n " in block or b" \n" in block or b" \r" in block or block[:1] == b" ":
            block = re.sub(rb"(?m)^ | (?=\r?$)", b"", block)
    return block


def _fault(
    block: bytes, first: int, names: Sequence[str], wanted: Mapping[str, Kind], delimiter: str, last: bool
) -> str:
    """What is wrong with the first broken row of a block."""
    lines = block.decode("utf-8", errors="replace").splitlines()
    for number, text in enumerate(lines, start=first):
        if not text.strip() or text.lstrip().startswith("#"):
            continue
        fields = text.split() if delimiter == " " else [field.strip(' "') for field in text.split(delimiter)]
        if len(fields) != len(names):
            found = f"line {number} has {len(fields)} values; expected {len(names)} ({_listed(names)})"
            if last and number == first + len(lines) - 1 and len(fields) < len(names):
                return f"{found}: the file ends in the middle of a row, so it is half-written; copy it again."
            return f"{found}: correct or remove the line."
        for name, field in zip(names, fields, strict=True):
            if name in wanted and (complaint := _complaint(field, wanted[name])):
                return f"{name} in line {number} is {field[:40]!r}; {complaint}"
    return "a row cannot be read, though every one looks right by itself; save the table again as plain text."


def _complaint(field: str, kind: Kind) -> str:
    if kind == "id":
        if re.fullmatch(r"[+-]?\d+", field) and -(2**63) <= int(field) < 2**63:
            return ""
        return "expected a whole number of 64 bits (an id that passed through floats is damaged above 2^53)."
    if kind == "maybe" and field in _MISSING:
        return ""
    try:
        value = float(field)
    except ValueError:
        return "expected a number: correct or remove the line."
    if kind == "number" and not math.isfinite(value):
        return "expected a finite number: correct or remove the line."
    return ""


def _listed(names: Sequence[str]) -> str:
    shown = [name or "(unnamed)" for name in names]
    return ", ".join(shown if len(shown) <= 8 else [*shown[:6], "...", shown[-1]])


@contextmanager
def _reading_errors(place: Path) -> Iterator[None]:
    try:
        yield
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise CatalogError(
            f"{place}: the compressed file is damaged or half-written ({error}); copy it again."
        ) from error
    except OSError as error:
        raise CatalogError(f"{place}: cannot be read: {error.strerror or error}.") from error
