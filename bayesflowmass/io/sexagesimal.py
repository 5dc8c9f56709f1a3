"""Coordinates in hours, minutes and seconds: in three or four columns, or as text in one."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from bayesflowmass.catalog import CatalogError
from bayesflowmass.common.arrays import FloatArray

RA_PARTS = ("RAh", "RAm", "RAs")
DEC_PARTS = ("DE-", "DEd", "DEm", "DEs")
_TEXT = re.compile(
    r"\s*(?P<sign>[+-]?)(?P<whole>\d{1,3})\s*[:hd°\s]\s*(?P<minutes>\d{1,2})\s*[:m'′\s]\s*"
    r"(?P<seconds>\d{1,2}(?:\.\d*)?)\s*[s\"″]?\s*"
)


def degrees_of_parts(
    columns: Mapping[str, Any], values: Callable[[str], FloatArray]
) -> dict[str, FloatArray]:
    """``ra`` and ``dec`` [degrees] of a table with ``RAh, RAm, RAs, DE-, DEd, DEm, DEs``; empty without them.

    Args:
        columns: of the table, by name.
        values: gives a column as numbers.
    """
    if not all(name in columns for name in ("RAh", "RAm", "DEd", "DEm")):
        return {}

    def sexagesimal(names: tuple[str, ...]) -> FloatArray:
        parts = [values(name) if name in columns else np.zeros(len(columns[names[0]])) for name in names]
        return parts[0] + parts[1] / 60.0 + parts[2] / 3600.0

    dec = sexagesimal(("DEd", "DEm", "DEs"))
    if "DE-" in columns:
        # A declination of -00 12 04 has its sign nowhere else; without the column it is that of the degrees.
        dec = np.where(np.char.strip(np.ma.getdata(columns["DE-"]).astype(str)) == "-", -dec, dec)
    else:
        degrees = values("DEd")
        dec = np.where(degrees < 0.0, degrees - (dec - degrees), dec)
    return {"ra": 15.0 * sexagesimal(RA_PARTS), "dec": dec}


def is_sexagesimal(values: Any) -> bool:
    """Whether a column of text has coordinates in three parts, to judge by its first cells."""
    plain = np.ma.getdata(values)
    if plain.dtype.kind != "U":
        return False
    filled = [cell for cell in plain[:20] if cell.strip()]
    return bool(filled) and all(_TEXT.fullmatch(cell) for cell in filled)


def degrees_of_text(values: Any, hours: bool, place: Callable[[int], str]) -> FloatArray:
    """Degrees of text such as ``10 00 01.2`` or ``-0:12:04``; NaN for an empty cell.

    Args:
        hours: the first part is hours, as that of a right ascension.
        place: names the cell of a row.
    """
    result = np.full(len(values), np.nan)
    for row, cell in enumerate(np.ma.getdata(values)):
        if not cell.strip():
            continue
        match = _TEXT.fullmatch(cell)
        if match is None or float(match["minutes"]) >= 60.0 or float(match["seconds"]) > 60.0:
            raise CatalogError(
                f"{place(row)} is {str(cell)!r}; expected {'hours' if hours else 'degrees'}:minutes:seconds."
            )
        whole = float(match["whole"]) + float(match["minutes"]) / 60.0 + float(match["seconds"]) / 3600.0
        degrees = 15.0 * whole if hours else whole
        result[row] = -degrees if match["sign"] == "-" else degrees
    return result
