"""What a column of text holds: whole numbers, numbers, or words; every cell says the same, or it stays text."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bayesflowmass.catalog import CatalogError
from bayesflowmass.io.text.rows import MISSING

__all__ = ["column_values", "is_number", "text_array"]

_FORTRAN = r"^([+-]?(?:\d+\.\d*|\.\d+))[dD]([+-]?\d+)$"
_WHOLE = r"^[+-]?\d+$"
_NAME_LIKE = r"^\d+[eE]\d+$"
_COMMA = r"^([+-]?\d*),(\d+(?:[eE][+-]?\d+)?)$"
_SAMPLE = 200
_LONGEST = 2**28
"""Characters that a column of text may take in numpy, whose texts are all as long as the longest."""


def column_values(cells: Any, where: str, decimal_comma: bool = False) -> NDArray[Any]:
    """A numpy array of a column: int64, float64 or text, masked where numbers are missing.

    A column stays text where one whole number is written with leading zeros (007 is not 7), exceeds 64 bits, or may
    be a name (12E4). Numbers may have Fortran's exponents (1.5D+02) or, where ``decimal_comma``, a comma (1,5).

    Args:
        cells: Arrow strings (n,).
        where: names the column in messages.
    """
    cells = cells.combine_chunks() if isinstance(cells, pa.ChunkedArray) else cells
    cells = pc.utf8_trim_whitespace(cells)
    sample = [cell for cell in cells.slice(0, _SAMPLE).to_pylist() if cell not in MISSING]
    # Failing to convert a million words takes long; a few of them tell.
    if not all(map(is_number, sample)):
        return text_array(cells, where)
    if sample and not pc.any(pc.equal(cells, "")).as_py():
        numbers = _numbers(cells, decimal_comma)
        if numbers is not None:
            return numbers
    missing = pc.is_in(cells, value_set=pa.array(MISSING))
    known = cells.filter(pc.invert(missing))
    if len(known) == 0:
        return np.ma.MaskedArray(np.zeros(len(cells)), mask=True)
    numbers = _numbers(known, decimal_comma)
    if numbers is None:
        return text_array(cells, where)
    mask = missing.to_numpy(zero_copy_only=False)
    result: NDArray[Any] = np.ma.zeros(len(cells), dtype=numbers.dtype)
    result[~mask] = numbers
    result[mask] = np.ma.masked
    return result


def is_number(text: str) -> bool:
    """Whether a cell is a number, with a point or a comma, Fortran's exponents included."""
    return (
        re.fullmatch(r"[+-]?(\d+[.,]?\d*|[.,]\d+)([eEdD][+-]?\d+)?|[+-]?(nan|inf|infinity)", text, re.I)
        is not None
    )


def text_array(cells: Any, where: str) -> NDArray[Any]:
    """Arrow strings as a numpy array of text; null is empty.

    Raises:
        CatalogError: one cell is so long that the column would fill the memory.
    """
    longest = pc.max(pc.utf8_length(cells)).as_py() or 0
    if longest * len(cells) > _LONGEST and longest > 200:
        row = pc.index(pc.utf8_length(cells), longest).as_py()
        raise CatalogError(
            f"{where} in row {row + 1} has {longest} characters, too many for a table: shorten it."
        )
    if cells.null_count:
        cells = cells.fill_null("")
    return np.asarray(cells.to_numpy(zero_copy_only=False)).astype(f"U{max(1, longest)}")


def _numbers(known: Any, decimal_comma: bool) -> NDArray[Any] | None:
    """int64 or float64 of cells that are all numbers, else None."""
    if (
        re.fullmatch(r"[+-]?\d+", known[0].as_py())
        and pc.all(pc.match_substring_regex(known, _WHOLE)).as_py()
    ):
        if _any(known, r"^[+-]?0\d"):
            return None
        whole = _cast(
            pc.replace_substring_regex(known, r"^\+", "") if _any(known, r"^\+") else known, pa.int64()
        )
        return None if whole is None else np.asarray(whole.to_numpy(zero_copy_only=False))
    if _any(known, _NAME_LIKE):
        return None
    real = _cast(known, pa.float64()) if not (decimal_comma and _any(known, ",")) else None
    if real is None:
        if decimal_comma:
            known = pc.replace_substring_regex(known, _COMMA, r"\1.\2")
        known = pc.replace_substring_regex(known, _FORTRAN, r"\1e\2")
        real = _cast(known, pa.float64())
    return None if real is None else np.asarray(real.to_numpy(zero_copy_only=False))


def _any(cells: Any, pattern: str) -> bool:
    return bool(pc.any(pc.match_substring_regex(cells, pattern)).as_py())


def _cast(cells: Any, kind: Any) -> Any:
    try:
        return pc.cast(cells, kind)
    except pa.ArrowInvalid:
        return None
