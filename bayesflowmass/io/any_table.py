"""A table from any file that holds one, recognised by its content: text of many forms, FITS, VOTable, parquet."""

from __future__ import annotations

import os
from typing import Any

from astropy.table import Table

from bayesflowmass.catalog import CatalogError
from bayesflowmass.io.containers.fits import is_fits, read_fits_table
from bayesflowmass.io.containers.parquet import is_parquet, read_parquet_table
from bayesflowmass.io.containers.votable import is_votable, read_votable
from bayesflowmass.io.opening import at_rest, open_bytes
from bayesflowmass.io.text.table import read_text_table

_READERS = ((is_fits, read_fits_table), (is_parquet, read_parquet_table), (is_votable, read_votable))
_WEB_PAGE = "a web page, perhaps in place of a table that could not be had: download the table again"
_LATEX = "LaTeX: save the table as text"
_OTHERS = {
    b"PK\x03\x04": "a zip archive (or an Excel workbook): unpack it, or save its sheet as CSV",
    b"\x89HDF": "HDF5: save the table as parquet, FITS or CSV",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook: save its sheet as CSV",
    b"ARROW1": "an Arrow file: save the table as parquet",
    b"%PDF": "a PDF: save the table as text",
    b"\x93NUMPY": "a numpy array without the fields of a catalogue that is known: save the table as CSV or parquet",
    b"7z\xbc\xaf": "a 7z archive: unpack it",
    b"\x28\xb5\x2f\xfd": "a zstd archive: unpack it",
}
_OTHER_TEXTS = {
    b"\\documentclass": _LATEX,
    b"\\begin{": _LATEX,
    b"<html": _WEB_PAGE,
    b"<!doctype": _WEB_PAGE,
    b"{": "JSON: save the table as CSV or parquet",
}
"""Texts, in lower case, that may follow a mark of the byte order and blanks."""


def read_any_table(source: Any) -> Table:
    """An astropy table from a path or from a table-like object; ``meta["notes"]`` says what a reader decided.

    Reading a file opens that file and nothing else. A path may be a pipe; it is read once.
    """
    if not isinstance(source, str | os.PathLike):
        return source if isinstance(source, Table) else Table(source)
    path, name = at_rest(source), str(source)
    with open_bytes(path) as stream:
        start = stream.read(4096)
    if not start:
        raise CatalogError(f"{name}: the file is empty.")
    plain = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    others = [what for magic, what in _OTHERS.items() if start.startswith(magic)]
    others += [what for magic, what in _OTHER_TEXTS.items() if plain.startswith(magic)]
    if others:
        raise CatalogError(f"{name}: this is {others[0]}.")
    read = next((read for is_so, read in _READERS if is_so(start)), read_text_table)
    table = read(path, name)
    if len(table) == 0:
        raise CatalogError(f"{name}: the table has no rows.")
    return table
