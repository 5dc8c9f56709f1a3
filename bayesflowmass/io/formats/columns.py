"""What the converters of tables share: finding columns, numbers with gaps, carrying the rest along."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from astropy.table import Table
from numpy.typing import NDArray

from bayesflowmass.catalog import CatalogError
from bayesflowmass.catalog.errors import refuse_where
from bayesflowmass.common.arrays import FloatArray
from bayesflowmass.io.names import normal_name
from bayesflowmass.io.text.values import numbers_of_words

_TAKEN = frozenset(
    (
        *("x", "y", "z", "r_proj", "v_los", "cz", "redshift", "ra"),
        *("dec", "cluster_id", "halo_id", "v_err", "z_err"),
    )
)


def find_column(table: Any, *names: str) -> str | None:
    """The table's name of the first of these that it has, compared by `normal_name`."""
    there = {normal_name(name): name for name in reversed(table.colnames)}
    return next((there[name] for name in names if name in there), None)


def name_columns(
    table: Any,
    where: str,
    needed: Mapping[str, tuple[str, ...]],
    others: Mapping[str, tuple[str, ...]] | None = None,
) -> dict[str, str]:
    """``{ours: the table's name}``, from the names that each may have; ``others`` may be missing."""
    used = {}
    for ours, names in {**needed, **(others or {})}.items():
        found = find_column(table, *names)
        if found is not None:
            used[ours] = found
        elif ours in needed:
            there = ", ".join(table.colnames)
            raise CatalogError(f"{where}: column {names[0]} is missing (there are {there}).")
    return used


def numbers(table: Any, name: str, where: str) -> FloatArray:
    """A column as float64, with NaN for empty cells."""
    column = np.ma.asarray(table[name])
    mask, plain = np.ma.getmaskarray(column), np.ma.getdata(column)
    if plain.dtype.kind not in "iufb":
        words = text(table, name)
        plain, mask, odd = numbers_of_words(words, mask)
        refuse_where(
            odd, lambda row: f"{where}: {name} in row {row + 1} is {str(words[row])!r}; expected a number."
        )
    return np.where(mask, np.nan, plain.astype(np.float64))


def whole_ids(table: Any, name: str, where: str) -> NDArray[Any]:
    """A column of ids, integers or text; floats, which keep 16 of the 19 digits that such ids have, are refused."""
    ids = np.ma.getdata(np.ma.asarray(table[name]))
    if ids.dtype.kind == "f":
        raise CatalogError(
            f"{where}: {name} is stored as {ids.dtype}; ids of surveys have up to 19 digits and floats keep 16: "
            "export it as text or as whole numbers."
        )
    return ids.astype(str) if ids.dtype.kind in "SO" else ids


def text(table: Any, name: str) -> NDArray[np.str_]:
    """A column as text without blanks around it; empty cells are empty."""
    column = np.ma.asarray(table[name])
    plain = np.ma.getdata(column)
    plain = np.char.decode(plain, "utf-8") if plain.dtype.kind == "S" else plain.astype(str)
    return np.where(np.ma.getmaskarray(column), "", np.char.strip(plain))


def carry_others(table: Any, used: Collection[str], made: Mapping[str, Any], rows: NDArray[Any]) -> Any:
    """A table of the columns made, and of those that were not used, at some rows.

    A column that is called as one of ours but is not it becomes ``<name>_in_file``.
    """
    result = Table(dict(made))
    for name in table.colnames:
        if name not in used:
            plain = name.strip().lower()
            clash = plain in _TAKEN or plain in result.colnames
            result[f"{name.strip()}_in_file" if clash else name] = np.ma.asarray(table[name])[rows]
    return result


def plural(number: int, noun: str, several: str = "") -> str:
    """``3 rows``, ``1 row``."""
    return f"{number} {noun if number == 1 else several or noun + 's'}"
