"""A table from any file that holds one, recognised by its content: text of many forms, FITS, VOTable, parquet."""

from __future__ import annotations

import os
from collections import Counter
from typing import Any

from astropy.table import Table

from bayesflowmass.catalog import CatalogError
from bayesflowmass.io.containers.fits import is_fits, read_fits_table
from bayesflowmass.io.containers.parquet import read_parquet_table
from bayesflowmass.io.containers.votable import is_votable, read_votable
from bayesflowmass.io.opening import at_rest, open_bytes
from bayesflowmass.io.text.table import read_text_table

__all__ = ["read_any_table", "refuse_other_content"]

_START = 4096
_OTHERS = {
    b"PK\x03\x04": "a zip archive (or an Excel workbook): unpack it, or save its sheet as CSV",
    b"\x89HDF": "HDF5: save the table as parquet, FITS or CSV",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook: save its sheet as CSV",
    b"ARROW1": "an Arrow file: save the table as parquet",
    b"%PDF": "a PDF: save the table as text",
    b"\x93NUMPY": "a numpy array without the fields of a catalogue that is known: save the table as CSV or parquet",
    b"\\documentclass": "LaTeX: save the table as text",
    b"\\begin{": "LaTeX: save the table as text",
    b"<html": "a web page, perhaps in place of a table that could not be had: download the table again",
    b"<!doctype": "a web page, perhaps in place of a table that could not be had: download the table again",
    b"{": "JSON: save the table as CSV or parquet",
    b"7z\xbc\xaf": "a 7z archive: unpack it",
    b"\x28\xb5\x2f\xfd": "a zstd archive: unpack it",
}


def read_any_table(source: Any) -> Table:
    """An astropy table from a path or from a table-like object; ``meta["notes"]`` says what a reader decided.

    Reading a file opens that file and nothing else. A path may be a pipe; it is read once.

    Raises:
        CatalogError: if the file is missing, empty, damaged, or of no known sort.
    """
    if not isinstance(source, str | os.PathLike):
        return source if isinstance(source, Table) else Table(source)
    path, name = at_rest(source), str(source)
    with open_bytes(path) as stream:
        start = stream.read(_START)
    if not start:
        raise CatalogError(f"{name}: the file is empty.")
    refuse_other_content(start, name)
    table = _reader(start)(path, name)
    if len(table) == 0:
        raise CatalogError(f"{name}: the table has no rows.")
    twice = [one for one, count in Counter(one.strip() for one in table.colnames).items() if count > 1]
    if twice:
        raise CatalogError(f"{name}: column {twice[0]} is there more than once; rename all but one.")
    return table


def refuse_other_content(start: bytes, name: str) -> None:
    """Refuse a file whose first bytes say that it is no table.

    Raises:
        CatalogError: says what it is, and what to do.
    """
    plain = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for magic, what in _OTHERS.items():
        if start.startswith(magic) or (
            magic.isascii() and magic[:1] != b"P" and plain.startswith(magic.lower())
        ):
            raise CatalogError(f"{name}: this is {what}.")


def _reader(start: bytes) -> Any:
    if is_fits(start):
        return read_fits_table
    if start[:4] == b"PAR1":
        return read_parquet_table
    if is_votable(start):
        return read_votable
    return read_text_table
