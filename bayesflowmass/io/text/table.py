"""A text table of any of the forms that are known, as an astropy table."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
from astropy.table import Table
from numpy.typing import NDArray

from bayesflowmass.catalog import CatalogError
from bayesflowmass.catalog.errors import refuse_repeated
from bayesflowmass.io.opening import HEAD_BYTES, open_bytes, read_bytes
from bayesflowmass.io.plain_table import plain_table
from bayesflowmass.io.text.ecsv import ecsv_layout, typed
from bayesflowmass.io.text.layout import TextLayout, find_layout
from bayesflowmass.io.text.machine_readable import is_machine_readable, machine_readable_layout
from bayesflowmass.io.text.rows import Kind, iterate_parts
from bayesflowmass.io.text.values import column_values


def layout_of(lines: Sequence[str]) -> TextLayout | None:
    """The layout of a text table from its first lines; None where they hold no row. Errors do not name the file."""
    if lines[0].startswith("# %ECSV"):
        return ecsv_layout(lines)
    if is_machine_readable(lines):
        return machine_readable_layout(lines)
    return find_layout(lines)


def read_text_table(path: Path, name: str) -> Table:
    """A text table; columns are int64, float64 or text, masked where numbers are missing.

    Args:
        path: of the file.
        name: of it, for messages.
    """
    stream, head = text_stream(path)
    with stream:
        try:
            layout = layout_of(head.split("\n"))
        except CatalogError as error:
            raise CatalogError(f"{name}: {error}") from None
        if layout is None:
            raise CatalogError(f"{name}: the table has no rows.")
        names = layout.form.names
        refuse_repeated(names, name)
        for _ in range(layout.skip):
            stream.readline()
        counted: dict[str, int] = {}
        wanted: dict[str, Kind] = dict.fromkeys(names, "text")
        parts = list(
            iterate_parts(stream, layout.form, wanted, name, first_line=layout.skip + 1, notes=counted)
        )
    table = pa.concat_tables(parts) if parts else pa.table({one: pa.array([], pa.string()) for one in names})
    columns = {
        one: _values(table[one], one, layout, f"{name}: {one}", "exponents" in counted) for one in names
    }
    notes = list(layout.notes)
    if counted.get("comment_lines"):
        notes.append(f"lines among the rows that begin with # are passed over: {counted['comment_lines']}.")
    if counted.get("not_utf8"):
        notes.append("the text is not UTF-8; it was read as Latin-1.")
    empty = np.ones(table.num_rows, dtype=bool)
    for values in columns.values():
        empty &= np.ma.getmaskarray(values) if values.dtype.kind != "U" else values == ""
    if empty.any():
        notes.append(f"rows without any value are passed over: {int(empty.sum())}.")
        columns = {one: values[~empty] for one, values in columns.items()}
    # A delimiter at the end of every line makes a column that has neither name nor values.
    last, several = names[-1], len(names) > 1
    if layout.named and several and last == f"col{len(names)}" and np.ma.getmaskarray(columns[last]).all():
        del columns[last]
    units = dict(zip(names, layout.units, strict=True))
    return plain_table(((one, values, units[one]) for one, values in columns.items()), notes, name)


def _values(cells: Any, name: str, layout: TextLayout, where: str, exponents: bool) -> NDArray[Any]:
    if name in layout.kinds:
        return typed(cells, layout.kinds[name], where)
    # With another delimiter than a comma, a comma can be the point of a number.
    return column_values(cells, where, layout.form.delimiter != ",", exponents)


def text_stream(path: Path) -> tuple[IO[bytes], str]:
    """A text opened at its first line, behind any byte-order mark, and its first lines, comments and more."""
    with open_bytes(path) as stream:
        head = _first_lines(stream)
    stream, mark = open_bytes(path), b"\xef\xbb\xbf"
    wide = head.startswith((b"\xff\xfe", b"\xfe\xff"))
    if wide or b"\n" not in head:
        with stream:
            data = read_bytes(path)
        if wide:
            data = data.decode("utf-16", errors="replace").encode("utf-8")
        stream = io.BytesIO(data.replace(b"\r\n", b"\n").replace(b"\r", b"\n"))
        head = _first_lines(stream)
        stream.seek(0)
    if head.startswith(mark):
        stream.read(len(mark))
    head = head.removeprefix(mark)
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError:
        text = head.decode("latin-1")
    return stream, text.replace("\r\n", "\n").replace("\r", "\n")


def _first_lines(stream: IO[bytes]) -> bytes:
    """Whole lines, up to some that are no comments."""
    head: list[bytes] = []
    while more := stream.readlines(HEAD_BYTES):
        head += more
        if not more[-1].lstrip().startswith(b"#"):
            break
    return b"".join(head)
