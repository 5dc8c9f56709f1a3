"""What a column of text holds: whole numbers, numbers, or words; every cell says the same, or it stays text."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bayesflowmass.catalog import CatalogError
from bayesflowmass.common.arrays import BoolArray, FloatArray
from bayesflowmass.io.text.rows import MISSING

_FORTRAN = r"^([+-]?(?:\d+\.\d*|\.\d+))[dD]([+-]?\d+)$"
_COMMA = r"^([+-]?\d*),(\d+(?:[eE][+-]?\d+)?)$"
_NUMBER = re.compile(r"[+-]?(\d+[.,]?\d*|[.,]\d+)([eEdD][+-]?\d+)?|[+-]?(nan|inf|infinity)", re.I)
_MISSING = f"^(?:{'|'.join(map(re.escape, MISSING))})$"
_CELLS_AT_ONCE = 200
"""Cells that are looked at before all are converted."""
_LONGEST = 2**28
"""Characters that a column of text may take in numpy, whose texts are all as long as the longest."""


# What makes Arrow of Python, and Arrow's own to_numpy, import pandas, which takes longer than to read most tables.


def column_values(
    cells: Any, where: str, decimal_comma: bool = False, exponents: bool = True
) -> NDArray[Any]:
    """A numpy array of a column: int64, float64 or text, masked where numbers are missing.

    A column stays text where one whole number is written with leading zeros (007 is not 7), exceeds 64 bits, or may
    be a name (12E4). Numbers may have Fortran's exponents (1.5D+02) or, where ``decimal_comma``, a comma (1,5).

    Args:
        cells: Arrow strings (n,).
        where: names the column in messages.
        decimal_comma: see above.
        exponents: an e or E may stand in the cells; to look for it in each takes longer than to make numbers of them.
    """
    cells = cells.combine_chunks() if isinstance(cells, pa.ChunkedArray) else cells
    cells = pc.utf8_trim_whitespace(cells)
    sample = [cell for cell in cells[:_CELLS_AT_ONCE].to_pylist() if cell not in MISSING]
    # Failing to convert a million words takes long; a few of them tell.
    if not all(map(is_number, sample)):
        return text_array(cells, where)
    if sample and pc.min(pc.binary_length(cells)).as_py() > 0:
        numbers = _numbers(cells, decimal_comma, exponents)
        if numbers is not None:
            return numbers
    missing = pc.match_substring_regex(cells, _MISSING)
    known = cells.filter(pc.invert(missing))
    if len(known) == 0:
        return np.ma.MaskedArray(np.zeros(len(cells)), mask=True)
    numbers = _numbers(known, decimal_comma, exponents)
    if numbers is None:
        return text_array(cells, where)
    mask: BoolArray = np.from_dlpack(pc.cast(missing, pa.uint8())).astype(bool)
    result: NDArray[Any] = np.ma.zeros(len(cells), dtype=numbers.dtype)
    result[~mask] = numbers
    result[mask] = np.ma.masked
    return result


def is_number(text: str) -> bool:
    """Whether a cell is a number, with a point or a comma, Fortran's exponents included."""
    return _NUMBER.fullmatch(text) is not None


def numbers_of_words(words: NDArray[Any], empty: BoolArray) -> tuple[FloatArray, BoolArray, BoolArray]:
    """Cells of text (n,) as numbers, NaN where there is none; which of them are empty; and which hold something else.

    Args:
        words: the cells.
        empty: those that are empty whatever stands in them.
    """

    def number(word: str) -> float:
        try:
            # Python's digits with underscores are no numbers of a table.
            return np.nan if "_" in word else float(word)
        except ValueError:
            return np.nan

    empty = empty | np.isin(np.char.strip(words), MISSING)
    numbers = np.array([np.nan if gap else number(word) for word, gap in zip(words, empty, strict=True)])
    return numbers, empty, np.isnan(numbers) & ~empty


def text_array(cells: Any, where: str) -> NDArray[Any]:
    """Arrow strings as a numpy array of text; null is empty."""
    length = pc.utf8_length(cells)
    longest = pc.max(length).as_py() or 1
    if longest * len(cells) > _LONGEST and longest > 200:
        row = length.to_pylist().index(longest)
        raise CatalogError(
            f"{where} in row {row + 1} has {longest} characters, too many for a table: shorten it."
        )
    words = cells.to_pylist()
    return np.array([word or "" for word in words] if cells.null_count else words, dtype=f"U{longest}")


def _numbers(known: Any, decimal_comma: bool, exponents: bool) -> NDArray[Any] | None:
    """int64 or float64 of cells that are all numbers, else None."""
    if re.fullmatch(r"[+-]?\d+", known[0].as_py()):
        if _all(known, r"^-?(?:0|[1-9]\d*)$"):
            return _cast(known, pa.int64())
        if _all(known, r"^[+-]?\d+$"):
            zeros = not _all(known, r"^[+-]?(?:0|[1-9]\d*)$")
            return None if zeros else _cast(pc.replace_substring_regex(known, r"^\+", ""), pa.int64())
    if exponents and _any(known, r"^\d+[eE]\d+$"):
        return None
    real = _cast(known, pa.float64())
    if real is None:
        if decimal_comma:
            known = pc.replace_substring_regex(known, _COMMA, r"\1.\2")
        real = _cast(pc.replace_substring_regex(known, _FORTRAN, r"\1e\2"), pa.float64())
    return real


def _all(cells: Any, pattern: str) -> bool:
    return bool(pc.all(pc.match_substring_regex(cells, pattern)).as_py())


def _any(cells: Any, pattern: str) -> bool:
    return bool(pc.any(pc.match_substring_regex(cells, pattern)).as_py())


def _cast(cells: Any, kind: Any) -> NDArray[Any] | None:
    try:
        return np.from_dlpack(pc.cast(cells, kind))
    except pa.ArrowInvalid:
        return None
