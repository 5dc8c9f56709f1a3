"""VOTables, read by astropy from bytes; what would make it open anything else is refused before."""

from __future__ import annotations

import html
import io
import re
import warnings
from pathlib import Path
from typing import Any
from xml.parsers import expat

import numpy as np
from astropy.io.votable import parse
from astropy.table import Table
from numpy.typing import NDArray

from bayesflowmass.catalog import CatalogError
from bayesflowmass.catalog.errors import damaged, refuse_repeated
from bayesflowmass.io.opening import read_bytes
from bayesflowmass.io.plain_table import plain_table

_ENCODING = re.compile(rb"""^\s*<\?xml[^>]*?\bencoding\s*=\s*["']([^"']*)["']""", re.I)
_PLAIN = {"utf-8", "us-ascii", "ascii", "iso-8859-1", "latin-1", "latin1"}


def is_votable(start: bytes) -> bool:
    """Whether the first bytes of a file are those of a VOTable."""
    plain = start.lstrip(b"\xef\xbb\xbf \t\r\n")
    return plain.lower().startswith(b"<?xml") or b"<VOTABLE" in start[:4096].upper()


def votable_columns(start: bytes) -> list[str]:
    """Names of the columns of the first table, as far as the first bytes of a file say."""
    text = start.partition(b"</TABLE>")[0].decode("utf-8", errors="replace")
    names = []
    for field in re.findall(r"<(?:\w+:)?FIELD\b((?:[^<>\"']|\"[^\"]*\"|'[^']*')*)>", text):
        match = re.search(r"""\bname\s*=\s*("([^"]*)"|'([^']*)')""", field)
        if match is not None:
            names.append(html.unescape(match.group(2) or match.group(3) or ""))
    return names


def read_votable(path: Path, name: str) -> Table:
    """The first table of a VOTable, all of its rows counted.

    A document that points to another file or address, or declares entities, is refused.
    """
    data = read_bytes(path)
    _refuse_pointers(data, name)
    with warnings.catch_warnings(), damaged(name, "not a whole VOTable, or a damaged one"):
        # Its many complaints about form are no faults of values.
        warnings.simplefilter("ignore")
        tables = list(parse(io.BytesIO(data), verify="ignore", invalid="exception").iter_tables())
        if not tables:
            raise CatalogError(f"{name}: this VOTable holds no table.")
        refuse_repeated([str(field.name or field.ID) for field in tables[0].fields], name)
        # An ID is a name without the blanks and brackets by which a format is known.
        table = tables[0].to_table(use_names_over_ids=True)
    written = _rows_written(data)
    if written is not None and written != len(table):
        raise CatalogError(
            f"{name}: the document has {written} rows and {len(table)} were understood; save the table again."
        )
    first = [f"the first of {len(tables)} tables in this VOTable is read."] * (len(tables) > 1)
    return plain_table(((one, _plain(table[one]), table[one].unit) for one in table.colnames), first, name)


def _refuse_pointers(data: bytes, name: str) -> None:
    encoding = _ENCODING.match(data.lstrip(b"\xef\xbb\xbf"))
    if data.startswith((b"\xff\xfe", b"\xfe\xff")) or (
        encoding is not None and encoding.group(1).decode("ascii", "replace").lower() not in _PLAIN
    ):
        raise CatalogError(f"{name}: this XML is not UTF-8; save it as UTF-8.")
    if b"<!" not in data.replace(b"<!--", b"").replace(b"<![CDATA[", b"") and b"STREAM" not in data.upper():
        return
    parser = expat.ParserCreate()

    def element(tag: str, attributes: dict[str, str]) -> None:
        if tag.rpartition(":")[2].upper() == "STREAM" and any(
            key.rpartition(":")[2].lower() == "href" for key in attributes
        ):
            raise CatalogError(
                f"{name}: the rows of this VOTable are elsewhere (STREAM href), and reading a table opens that file "
                "only: download what it points to, or save the table with its rows."
            )

    def entity(*_: Any) -> None:
        raise CatalogError(
            f"{name}: this XML declares entities, as no table needs; save it without a DOCTYPE."
        )

    parser.StartElementHandler = element
    parser.EntityDeclHandler = entity
    with damaged(name, "not a whole XML document"):
        parser.ParseFile(io.BytesIO(data))


def _rows_written(data: bytes) -> int | None:
    """Rows of the first table, where they are written as elements."""
    first = re.search(rb"<(?:\w+:)?TABLEDATA\b.*?(?:</(?:\w+:)?TABLEDATA\s*>|\Z)", data, re.S)
    if first is None or b"<!--" in first.group() or b"CDATA" in first.group():
        return None
    return len(re.findall(rb"<(?:\w+:)?TR\b", first.group()))


def _plain(column: Any) -> NDArray[Any] | None:
    """Numbers or text; None for what is neither."""
    values = np.ma.asarray(column)
    if values.dtype.kind == "O":
        if not all(isinstance(value, str) for value in values.compressed()):
            return None
        values = np.ma.asarray([value if isinstance(value, str) else "" for value in values.data])
    return values if np.ma.getmaskarray(values).any() else np.ma.getdata(values)
