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
    r"\s*([+-]?)(\d{1,3})\s*[:hd°\s]\s*(\d{1,2})\s*[:m'′\s]\s*(\d{1,2}(?:\.\d*)?)\s*[s\"″]?\s*"
)


def degrees_of_parts(
    columns: Mapping[str, Any], values: Callable[[str], FloatArray]
) -> dict[str, FloatArray]:
    """``ra`` and ``dec`` [degrees] of a table with ``RAh, RAm, RAs, DE-, DEd, DEm, DEs``; empty without them.

    Args:
        columns: of the table, by name.
        values: gives a column as numbers.
    """
    if not {"RAh", "RAm", "DEd", "DEm"} <= set(columns):
        return {}

    def sexagesimal(names: tuple[str, ...]) -> FloatArray:
        parts = [values(name) if name in columns else np.zeros(len(columns[names[0]])) for name in names]
        return parts[0] + parts[1] / 60.0 + parts[2] / 3600.0

    signs = np.ma.getdata(columns["DE-"]).astype(str) if "DE-" in columns else np.array([""])
    sign = np.where(np.char.strip(signs) == "-", -1.0, 1.0)
    # A declination of -00 12 04 has its sign nowhere else; without the column it is that of the degrees.
    dec = sexagesimal(("DEd", "DEm", "DEs"))
    if "DE-" not in columns:
        degrees = values("DEd")
        dec = np.where(degrees < 0.0, 2.0 * degrees - dec, dec)
    return {"ra": 15.0 * sexagesimal(RA_PARTS), "dec": sign * dec}


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
        parts = [] if match is None else [float(part) for part in match.groups()[1:]]
        if not parts or parts[1] >= 60.0 or parts[2] > 60.0:
            raise CatalogError(
                f"{place(row)} is {str(cell)!r}; expected {'hours' if hours else 'degrees'}:minutes:seconds."
            )
        degrees = parts[0] + parts[1] / 60.0 + parts[2] / 3600.0
        result[row] = (-degrees if match is not None and match.group(1) == "-" else degrees) * (
            15.0 if hours else 1.0
        )
    return result
