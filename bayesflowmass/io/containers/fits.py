"""Tables in FITS, binary and text; columns as they are stored, without their meaning for other programmes."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from astropy.io import fits
from astropy.table import Table
from numpy.typing import NDArray

from bayesflowmass.catalog import CatalogError
from bayesflowmass.catalog.errors import damaged, refuse_repeated
from bayesflowmass.io.opening import read_bytes
from bayesflowmass.io.plain_table import plain_table
from bayesflowmass.io.text.values import column_values, text_array

_BYTES = {"L": 1, "B": 1, "I": 2, "J": 4, "K": 8, "A": 1, "E": 4, "D": 8, "C": 8, "M": 16, "P": 8, "Q": 16}
_NUMPY = {"L": "u1", "B": "u1", "I": ">i2", "J": ">i4", "K": ">i8", "E": ">f4", "D": ">f8"}
_MOST_FIELDS = 999
_BROKEN = "not a whole FITS file, or a damaged one"
_TRUE, _FALSE = ord("T"), ord("F")


def is_fits(start: bytes) -> bool:
    """Whether the first bytes of a file are those of FITS."""
    return start.startswith(b"SIMPLE  =")


def fits_columns(path: Path, name: str) -> list[str]:
    """Names of the columns of the first table."""
    with damaged(name, _BROKEN):
        return _names(_first_table(read_bytes(path), name)[0])


def read_fits_table(path: Path, name: str) -> Table:
    """The first table of a FITS file; columns of arrays of varying length are left out."""
    with damaged(name, _BROKEN):
        data = read_bytes(path)
        header, tables, start = _first_table(data, name)
        names = _names(header)
        refuse_repeated(names, name)
        rows, width = int(header["NAXIS2"]), int(header["NAXIS1"])
        if rows < 0 or width < bool(rows):
            raise ValueError(f"{rows} rows of {width} bytes")
        if start + rows * width > len(data):
            raise CatalogError(
                f"{name}: the file announces {rows} rows of {width} bytes and ends before them, so it is half-written; "
                "copy it again."
            )
        read = _text_fields if str(header["XTENSION"]).strip() == "TABLE" else _binary_fields
        units = [str(header.get(f"TUNIT{place}", "")).strip() for place in range(1, len(names) + 1)]
        columns = zip(names, read(data, start, header, names, name), units, strict=True)
        first = [f"the first of {tables} tables in this FITS file is read."] * (tables > 1)
        return plain_table(columns, first, name)


def _first_table(data: bytes, name: str) -> tuple[Any, int, int]:
    """Header of the first table, how many there are, and where its rows begin."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        hdus = fits.open(io.BytesIO(data), disable_image_compression=True)
        tables = [hdu for hdu in hdus if isinstance(hdu, fits.BinTableHDU | fits.TableHDU)]
    if not tables:
        raise CatalogError(f"{name}: this FITS file holds no table; expected one of galaxies or clusters.")
    header = tables[0].header
    if header.get("ZTABLE") or header.get("ZIMAGE"):
        raise CatalogError(f"{name}: this FITS table is compressed by fpack; unpack it with funpack.")
    return header, len(tables), int(tables[0].fileinfo()["datLoc"])


def _names(header: Any) -> list[str]:
    number = int(header["TFIELDS"])
    if not 0 <= number <= _MOST_FIELDS:
        raise ValueError(f"{number} columns")
    given = [str(header.get(f"TTYPE{place}", "")).strip() for place in range(1, number + 1)]
    return [one or f"col{place}" for place, one in enumerate(given, start=1)]


def _binary_fields(
    data: bytes, start: int, header: Any, names: list[str], name: str
) -> Iterator[NDArray[Any] | None]:
    """The columns of a binary table; None for one that is neither numbers nor text."""
    fields = []
    for place in range(1, len(names) + 1):
        form = re.match(r"(\d*)([LXBIJKAEDCMPQ])", str(header[f"TFORM{place}"]))
        if form is None:
            raise ValueError(f"TFORM{place}")
        repeat, code = int(form.group(1) or 1), form.group(2)
        fields.append((code, repeat, (repeat + 7) // 8 if code == "X" else repeat * _BYTES[code]))
    kind = np.dtype([(f"f{place}", f"V{size}") for place, (*_, size) in enumerate(fields)])
    if kind.itemsize != int(header["NAXIS1"]):
        raise ValueError(f"columns of {kind.itemsize} bytes in rows of {header['NAXIS1']}")
    records = np.frombuffer(data, dtype=kind, count=int(header["NAXIS2"]), offset=start)
    for place, (code, repeat, size) in enumerate(fields):
        if size == 0 or code in "XCMPQ":
            yield None
            continue
        raw = np.ascontiguousarray(records[f"f{place}"])
        if code == "A":
            yield _text(raw.view(f"S{size}"), f"{name}: {names[place]}")
        else:
            stored = raw.view(_NUMPY[code])
            yield _numbers(
                stored.reshape(raw.size, repeat) if repeat > 1 else stored, code, header, place + 1
            )


def _numbers(stored: NDArray[Any], code: str, header: Any, place: int) -> NDArray[Any] | None:
    """Values of what is stored, scaled, and masked where it is the null of the column."""
    if code == "L":
        known = np.isin(stored, (_TRUE, _FALSE))
        if not (known | (stored == 0)).all():
            return None
        return stored == _TRUE if known.all() else np.ma.array(stored == _TRUE, mask=~known)
    null = header.get(f"TNULL{place}")
    mask = stored == int(null) if null is not None and code in "BIJK" else np.zeros(1, dtype=bool)
    values: NDArray[Any] = stored.astype(stored.dtype.newbyteorder("="))
    scale, zero = header.get(f"TSCAL{place}", 1), header.get(f"TZERO{place}", 0)
    if scale == 1 and zero == 2**63 and code == "K":
        # Unsigned: the sign bit is turned.
        values = values.view(np.uint64) ^ np.uint64(2**63)
    elif scale == 1 and zero == int(zero) and code in "BIJK" and zero != 0:
        values = values.astype(np.int64) + int(zero)
    elif scale != 1 or zero != 0:
        values = values * float(scale) + float(zero)
    return np.ma.array(values, mask=mask) if mask.any() else values


def _text(values: NDArray[Any], where: str) -> NDArray[Any]:
    """Text without the blanks that fill it up; what follows a zero byte is no part of it."""
    characters = values.view("u1").reshape(values.size, -1)
    ended = np.logical_or.accumulate(characters == 0, axis=1)
    values = np.where(ended, np.uint8(0), characters).view(values.dtype).ravel()
    try:
        text = np.char.decode(values, "utf-8")
    except UnicodeDecodeError:
        text = np.char.decode(values, "latin-1")
    return text_array(pa.array(np.char.strip(text).tolist(), pa.string()), where)


def _text_fields(
    data: bytes, start: int, header: Any, names: list[str], name: str
) -> Iterator[NDArray[Any] | None]:
    """The columns of a table of text: its characters, read as numbers or words as their forms say."""
    rows, width = int(header["NAXIS2"]), int(header["NAXIS1"])
    lines = [data[start + row * width : start + (row + 1) * width].decode("latin-1") for row in range(rows)]
    for place, one in enumerate(names, start=1):
        form = str(header[f"TFORM{place}"]).strip().upper()
        begin, length = int(header[f"TBCOL{place}"]) - 1, int(form[1:].partition(".")[0])
        if begin < 0 or begin + length > width:
            raise ValueError(f"column {one} lies beyond the end of the rows")
        null = str(header.get(f"TNULL{place}", "")).strip()
        cells = [line[begin : begin + length].strip() for line in lines]
        array = pa.array(["" if cell == null else cell for cell in cells], pa.string())
        where = f"{name}: {one}"
        yield text_array(array, where) if form[0] == "A" else column_values(array, where)
