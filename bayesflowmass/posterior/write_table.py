"""Tables to files, atomically: ecsv, fits, votable or parquet by the ending of the name."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from astropy.io.votable import from_table
from astropy.io.votable.tree import Param
from astropy.table import Table

from bayesflowmass.common.files import whole_file, write_through
from bayesflowmass.common.outputs import TABLE_FORMATS, check_table_path, check_texts
from bayesflowmass.common.terminal import plain


def write_table(table: Table, path: str | os.PathLike[str]) -> Path:
    """Write a table; a failure, a full disk for one, leaves the old file or none.

    Masked numbers are nulls: empty in ecsv, NaN in fits, null in votable and parquet.

    Args:
        table: plain columns and a flat header.
        path: the ending says the format; an existing file is replaced.

    Raises:
        ValueError: the ending names no format, the folder does not exist, or the format cannot hold a text.
        OSError: the disk is full, or the place cannot be written to.
    """
    path = check_table_path(path)
    kind = TABLE_FORMATS[path.suffix.lower()]
    for name in table.colnames:
        if table[name].dtype.kind in "UO":
            check_texts(path, np.ma.asarray(table[name]).compressed().tolist(), name)
    with whole_file(path) as temporary:
        if kind == "parquet":
            pq.write_table(_arrow(table), temporary, compression="zstd")
        elif kind == "votable":
            _votable(table).to_xml(str(temporary))
        elif kind == "fits":
            _short_header(table).write(temporary, format=kind, overwrite=True)
        else:
            # astropy opens files in the encoding of the machine; ECSV is UTF-8.
            text = io.StringIO()
            table.write(text, format=kind)
            write_through(temporary, text.getvalue().encode())
    return path


def _arrow(table: Table) -> Any:
    """Arrow table whose schema metadata ``bayesflowmass_masses`` is the header as JSON."""
    columns = {}
    for name in table.colnames:
        values, mask = np.asarray(table[name]), np.ma.getmaskarray(table[name])
        if values.ndim == 1:
            columns[name] = pa.array(values.tolist() if values.dtype.kind in "UO" else values, mask=mask)
        else:
            flat = pa.array(values.reshape(-1), mask=mask.reshape(-1))
            columns[name] = pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
    metadata = {b"bayesflowmass_masses": json.dumps(dict(table.meta)).encode()}
    for name in table.colnames:
        if table[name].dtype.kind == "U":
            # What astropy's reader needs to make a string column.
            metadata[f"table::len::{name}".encode()] = str(table[name].dtype.itemsize // 4).encode()
    return pa.table(columns, metadata=metadata)


def _votable(table: Table) -> Any:
    """VOTable with the header as PARAM elements, which astropy's own writer would drop."""
    document = from_table(table)
    first = document.get_first_table()
    for name, value in table.meta.items():
        text = isinstance(value, str)
        value = plain(value) if text else value
        kind = "unicodeChar" if text else "int" if isinstance(value, int) else "double"
        first.params.append(
            Param(document, ID=name, name=name, value=value, datatype=kind, arraysize="*" if text else None)
        )
    return document


def _short_header(table: Table) -> Table:
    """FITS keys have eight characters and its cards hold 68 of a text."""
    result = table.copy(copy_data=False)
    result.meta = {k: _ascii(v)[-68:] if isinstance(v, str) else v for k, v in table.meta.items()}
    return result


def _ascii(text: str) -> str:
    return plain(text).replace("\n", " ").replace("\t", " ").encode("ascii", "backslashreplace").decode()
