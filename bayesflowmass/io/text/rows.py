"""The core of every text reader: lines go in, as many rows come out, or the line at fault is named."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv

from bayesflowmass.catalog import CatalogError

Kind = Literal["id", "number", "maybe", "text"]
"""What a column holds: a 64-bit integer, a finite number, a number that may be missing (NaN), or text as it stands."""

BYTES_AT_ONCE = 32 * 2**20
"""Of text, by default."""

_BLOCK_AT_ONCE, _COLUMNS_AT_ONCE = 2**31 - 1, False
"""What Arrow is given as one block, and whether it converts columns in threads: most tables are small."""

MISSING = (
    *("", "nan", "NaN", "NAN", "null", "NULL", "Null", "None", "none", "\\N"),
    *("-", "--", "---", "N/A", "n/a", "NA", "...", "masked"),
)
"""What stands in a column of numbers where there is none."""

_ARROW = {"id": pa.int64(), "number": pa.float64(), "maybe": pa.float64(), "text": pa.string()}
_FORTRAN = re.compile(rb"(?<=[0-9.])[dD](?=[+-]?[0-9]+(?![0-9A-Za-z.]))")


@dataclass(frozen=True)
class RowFormat:
    """How the lines of a table are made.

    Args:
        names: of all columns, in their order.
        delimiter: one character, or a blank for any run of blanks and tabs.
        spans: first and last place (from 0, the last one not included) of each column, where places and not a
            delimiter tell columns apart.
    """

    names: tuple[str, ...]
    delimiter: str = " "
    spans: tuple[tuple[int, int], ...] = ()


class _Fault(Exception):
    """A line cannot be read: what was found, what to do, and whether it is the last of its block, and too short."""

    def __init__(self, found: str, remedy: str, cut: bool = False) -> None:
        super().__init__(found, remedy)
        self.found, self.remedy, self.cut = found, remedy, cut


def iterate_parts(
    stream: IO[bytes],
    form: RowFormat,
    wanted: Mapping[str, Kind],
    where: str,
    *,
    first_line: int = 1,
    block_bytes: int = BYTES_AT_ONCE,
    notes: dict[str, int] | None = None,
) -> Iterator[Any]:
    """Arrow tables of successive blocks of rows, in bounded memory.

    Empty lines and lines that begin with ``#`` are passed over (the latter counted in ``notes``), unless such a
    line has as many values as there are columns: then nobody knows whether it is a comment.

    Args:
        stream: at the beginning of the first row.
        form: how the lines are made.
        wanted: columns to return, with their kinds.
        where: names the file in messages.
        first_line: number of the first line, from 1.
        block_bytes: of text held at once, about.
        notes: counts are added to it: ``comment_lines``, ``not_utf8`` (1 where a block is not), ``exponents`` (1 where
            a block has an e or E).
    """
    line = first_line
    counted: dict[str, int] = {} if notes is None else notes
    while block := stream.read(block_bytes):
        block += stream.readline()
        lines = block.count(b"\n")
        try:
            table = _parsed(block, form, wanted, line, counted)
        except _Fault as fault:
            half = fault.cut and not block.endswith(b"\n")
            cut = "the file ends in the middle of a row, so it is half-written; copy it again"
            raise CatalogError(f"{where}: {fault.found}: {cut if half else fault.remedy}.") from None
        yield table
        line += lines


def split_line(line: str, delimiter: str) -> list[str] | None:
    """The cells of one line, without blanks and quotes around them; None where its quotes do not close."""
    if delimiter == " ":
        cells = re.findall(r'"(?:[^"]|"")*"(?=\s|$)|[^\s"][^\s]*|"\S*', line)
    else:
        cells, text, at = [], line.rstrip("\r\n"), 0
        mark = re.escape(delimiter)
        cell = re.compile(rf' *("(?:[^"]|"")*") *(?={mark}|$)|[^{mark}]*')
        while (match := cell.match(text, at)) is not None:
            cells.append((match.group(1) or match.group()).strip())
            at = match.end() + 1
            if at > len(text):
                break
    plain = []
    for one in cells:
        quoted = re.fullmatch(r'"(.*)"', one, re.S)
        if quoted is None and one.startswith('"'):
            return None
        plain.append(one if quoted is None else quoted.group(1).replace('""', '"').strip())
    return plain


def _parsed(
    block: bytes, form: RowFormat, wanted: Mapping[str, Kind], first: int, notes: dict[str, int]
) -> Any:
    """The rows of a block; as many as it has lines that are neither empty nor comments."""
    text = _unicode(block, notes)
    if b"\0" in text:
        line = first + text[: text.index(b"\0")].count(b"\n")
        raise _Fault(f"line {line} holds a zero byte, as text never does", "copy the file again")
    if b"e" in text or b"E" in text:
        notes["exponents"] = 1
    delimiter = form.delimiter
    if delimiter != " " and b"#" not in text and b'"' not in text:
        # Most tables: nothing to clean, and as many rows as lines is all that there is to check.
        table = _arrow(text, form.names, wanted, delimiter)
        if table is not None and table.num_rows == _lines(text):
            return table
    rows = _rows_only(text, form, first, notes)
    if form.spans:
        rows, delimiter = _cut_at_places(rows, text, form, first), "\t"
    elif delimiter == " ":
        rows, delimiter = _without_runs(rows, text, form, first)
    elif b'"' in rows:
        rows = _closed_quotes(rows, text, form, first)
    expected = _lines(rows)
    if expected == 0:
        return pa.table({name: pa.array([], _ARROW[kind]) for name, kind in wanted.items()})
    table = _arrow(rows, form.names, wanted, delimiter)
    if table is None and _FORTRAN.search(rows):
        table = _arrow(_FORTRAN.sub(b"e", rows), form.names, wanted, delimiter)
    if table is None or table.num_rows != expected:
        _raise_fault(text, form, wanted, first)
    return table


def _lines(text: bytes) -> int:
    return text.count(b"\n") + (text[-1:] not in (b"", b"\n"))


def _arrow(rows: bytes, names: Sequence[str], wanted: Mapping[str, Kind], delimiter: str) -> Any:
    """An Arrow table, or None where a row is broken or a value cannot be."""
    # Names are for messages; Arrow gets numbers, so that odd names do no harm.
    index = {name: str(place) for place, name in enumerate(names)}
    try:
        table = pacsv.read_csv(
            pa.BufferReader(rows),
            read_options=pacsv.ReadOptions(
                column_names=[str(place) for place in range(len(names))],
                use_threads=_COLUMNS_AT_ONCE,
                block_size=_BLOCK_AT_ONCE,
            ),
            parse_options=pacsv.ParseOptions(delimiter=delimiter),
            convert_options=pacsv.ConvertOptions(
                include_columns=[index[name] for name in wanted],
                column_types={index[name]: _ARROW[kind] for name, kind in wanted.items()},
                null_values=list(MISSING),
            ),
        )
    except pa.ArrowInvalid:
        return None
    for name, kind in wanted.items():
        column = table[index[name]]
        if kind in ("id", "number") and column.null_count:
            return None
        if kind == "number" and not np.all(np.isfinite(column.to_numpy())):
            return None
    return table.rename_columns(list(wanted))


def _unicode(block: bytes, notes: dict[str, int]) -> bytes:
    """UTF-8 text with line ends of one byte, without a byte-order mark."""
    block = block.removeprefix(b"\xef\xbb\xbf")
    try:
        block.decode("utf-8")
    except UnicodeDecodeError:
        notes["not_utf8"] = 1
        block = block.decode("latin-1").encode("utf-8")
    return block.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in block else block


def _rows_only(text: bytes, form: RowFormat, first: int, notes: dict[str, int]) -> bytes:
    """The text without empty lines and comments."""
    if b"#" in text:
        kept, comments = [], 0
        for number, line in enumerate(text.split(b"\n"), start=first):
            if line.lstrip()[:1] == b"#" and _is_comment(line, number, form):
                comments += 1
            else:
                kept.append(line)
        if comments:
            notes["comment_lines"] = notes.get("comment_lines", 0) + comments
            text = b"\n".join(kept)
    blank = rb"(?m)^ *(?:\n|\Z)" if form.delimiter == "\t" else rb"(?m)^[ \t]*(?:\n|\Z)"
    if b"\n\n" in text or b"\n " in text or b"\n\t" in text or text[:1] in (b"\n", b" ", b"\t"):
        text = re.sub(blank, b"", text)
    return text


def _is_comment(line: bytes, number: int, form: RowFormat) -> bool:
    """Whether a line that begins with # is a comment, and not a row whose first value begins so."""
    if form.spans:
        return True
    cells = split_line(line.decode("utf-8", errors="replace"), form.delimiter) or []
    if len(cells) != len(form.names) or len(cells) < 2:
        return True
    if form.delimiter != " ":
        return False
    if cells[0] == "#" or not any(re.match(r"[+-]?\.?\d", cell) for cell in cells[1:]):
        return True
    raise _Fault(
        f"line {number} begins with # and has as many values as there are columns, so it may be a comment or a row",
        "remove the line, or its #",
    )


def _without_runs(rows: bytes, text: bytes, form: RowFormat, first: int) -> tuple[bytes, str]:
    """Rows with one delimiter between values in place of runs of blanks."""
    if b'"' in rows:
        return _closed_quotes(re.sub(rb"(?m)^[ \t]+|[ \t]+$", b"", rows), text, form, first), "\t"
    if b"\t" in rows or b"  " in rows:
        rows = re.sub(rb"[ \t]+", b" ", rows)
    if b"\n " in rows or b" \n" in rows or rows[:1] == b" " or rows[-1:] == b" ":
        rows = re.sub(rb"(?m)^ | $", b"", rows)
    return rows, " "


def _cut_at_places(rows: bytes, text: bytes, form: RowFormat, first: int) -> bytes:
    """Rows with tabs between the columns that places tell apart."""
    width = max(stop for _, stop in form.spans)
    gaps = sorted({*range(width)}.difference(*(range(*span) for span in form.spans)))
    columns = sorted(zip(form.names, form.spans, strict=True), key=lambda column: column[1])
    lines = []
    for line in rows.decode("utf-8").split("\n"):
        if not line.strip():
            continue
        padded = line.ljust(width)
        odd = next((place for place in gaps if padded[place] not in " |"), line.find("\t"))
        if padded[width:].strip() and odd < 0:
            odd = len(padded.rstrip()) - len(padded[width:].strip())
        if odd >= 0:
            number = next((n for n, t in enumerate(text.decode().split("\n"), first) if t == line), first)
            where = next((f"at {name}" for name, (_, stop) in columns if odd < stop), "at its end")
            raise _Fault(
                f"line {number} has {line[odd]!r} in place {odd + 1}, between or beyond its columns ({where})",
                "it was shifted or edited; correct the line",
            )
        cells = [padded[start:stop].strip() for start, stop in form.spans]
        lines.append(
            "\t".join('"' + cell.replace('"', '""') + '"' if '"' in cell else cell for cell in cells)
        )
    return "\n".join(lines).encode("utf-8")


def _closed_quotes(rows: bytes, text: bytes, form: RowFormat, first: int) -> bytes:
    """Rows in which every quote that opens closes at the end of its value, in its line; blanks around them go.

    Where blanks part the values, tabs part them in the result.
    """
    blanks = form.delimiter == " "
    mark = b"\t" if blanks else form.delimiter.encode()
    gap = rb"[ \t]+" if blanks else re.escape(mark)
    plain = rb'[^\s"]\S*' if blanks else rb'(?!")[^' + re.escape(mark) + rb"\n]*"
    value = rb'(?:"[^"\n]*(?:""[^"\n]*)*"|' + plain + rb")"
    whole_line = rb"(?m)^" + value + rb"(?:" + gap + value + rb")*$"
    lines = rows.split(b"\n")
    if not blanks and len(re.findall(whole_line, rows)) == len(lines):
        return rows
    cell = re.compile(rb" *(" + value + rb") *(" + gap + rb"|$)")
    for number, one in enumerate(lines):
        if b'"' in one:
            cells = _cells(one, cell)
            if cells is None:
                at = next(
                    n for n, whole in enumerate(text.split(b"\n"), first) if whole.strip() == one.strip()
                )
                raise _Fault(
                    f"line {at} has a double quote that does not close in that line, or closes before its value ends",
                    "remove it, or double it",
                )
            lines[number] = mark.join(cells)
        elif blanks:
            lines[number] = mark.join(one.split())
    return b"\n".join(lines)


def _cells(line: bytes, cell: re.Pattern[bytes]) -> list[bytes] | None:
    """The cells of a line; None where a quote does not close."""
    cells, at = [], 0
    while (match := cell.match(line, at)) is not None:
        cells.append(match.group(1))
        at = match.end()
        if not match.group(2):
            return cells
    return None


def _raise_fault(text: bytes, form: RowFormat, wanted: Mapping[str, Kind], first: int) -> None:
    """Say what is wrong with the first broken row of a block."""
    names = form.names
    lines = text.decode("utf-8").split("\n")
    for number, line in enumerate(lines, start=first):
        hashed = line.lstrip().startswith("#")
        if not line.strip() or (hashed and _is_comment(line.encode(), number, form)):
            continue
        if form.spans:
            fields: list[str] | None = [line[start:stop].strip() for start, stop in form.spans]
        else:
            fields = split_line(line, form.delimiter)
        if fields is None:
            raise _Fault(f"line {number} has a double quote that does not close", "remove it")
        if len(fields) != len(names):
            raise _Fault(
                f"line {number} has {len(fields)} values; expected {len(names)} ({_listed(names)})",
                "correct or remove the line"
                + "; a table in fixed places, with blank cells, needs its byte-by-byte description above it"
                * (form.delimiter == " "),
                cut=number == first + len(lines) - 1 and len(fields) < len(names),
            )
        for name, field in zip(names, fields, strict=True):
            if name in wanted and (complaint := _complaint(field, wanted[name])):
                raise _Fault(
                    f"{name} in line {number} is {field[:40]!r}; {complaint}", "correct or remove the line"
                )
    raise _Fault(
        f"of the lines from {first} on, not every one became a row, though each looks right by itself",
        "save the table again as plain text",
    )


def _complaint(field: str, kind: Kind) -> str:
    if kind == "text":
        return ""
    if kind == "id":
        if re.fullmatch(r"-?\d+", field) and -(2**63) <= int(field) < 2**63:
            return ""
        return "expected a whole number of 64 bits (an id that passed through floats is damaged above 2^53)"
    if kind == "maybe" and field in MISSING:
        return ""
    try:
        value = float(field)
    except ValueError:
        return "expected a number"
    if kind == "number" and not math.isfinite(value):
        return "expected a finite number"
    return ""


def _listed(names: Sequence[str]) -> str:
    shown = [name or "(unnamed)" for name in names]
    return ", ".join(shown if len(shown) <= 8 else [*shown[:6], "...", shown[-1]])
