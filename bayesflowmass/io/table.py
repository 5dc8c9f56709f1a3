"""One flat table, read by astropy or pyarrow: columns looked up by our names, numbers checked."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayesflowmass.catalog import CatalogError
from bayesflowmass.common.arrays import FloatArray
from bayesflowmass.io.any_table import read_any_table

__all__ = ["FlatTable"]

_NAME_WITH_UNIT = re.compile(r"^(.*?)\s*[\[(]([^\])]+)[\])]$")


class FlatTable:
    """Columns of one table under our names, with the units that the table declares.

    Args:
        source: path, or astropy table (or anything that one is made from).
        what: "galaxies" or "clusters", for messages.
        column_map: ``{ours: theirs}``; a key ``galaxies.z`` or ``clusters.z`` is for that table only.
        name: of the table, for messages; None takes the path.
    """

    def __init__(
        self, source: Any, what: str, column_map: Mapping[str, str] | None = None, name: str | None = None
    ) -> None:
        self.what = what
        self.name = name or (str(source) if isinstance(source, str | os.PathLike) else f"the table of {what}")
        table = read_any_table(source)
        self.columns: dict[str, Any] = {}
        self.units: dict[str, str | None] = {}
        self.theirs: dict[str, str] = {}
        for column in table.colnames:
            plain = column.strip().lstrip("\ufeff")
            unit = None if table[column].unit is None else str(table[column].unit)
            match = _NAME_WITH_UNIT.match(plain)
            if match is not None and unit is None:
                plain, unit = match.group(1), match.group(2).strip()
            self.columns[plain] = _values(table[column])
            self.units[plain] = unit
            self.theirs[plain] = plain
        self.n_rows = len(table)
        self._rename(column_map or {})

    def __contains__(self, name: str) -> bool:
        return name in self.columns

    def first(self, *names: str) -> str | None:
        """The first of our names that is there."""
        return next((name for name in names if name in self.columns), None)

    def require(self, *names: str) -> str:
        """The first of our names that is there.

        Raises:
            CatalogError: if none is; names the nearest column and the remedy.
        """
        found = self.first(*names)
        if found is not None:
            return found
        raise CatalogError(f"{self.name}: column {names[0]} is missing; {self._nearest(names[0])}")

    def numbers(self, name: str) -> FloatArray:
        """A column as finite float64.

        Raises:
            CatalogError: for text, an empty cell, NaN or infinity; names the row, counted from 1 below the
                header.
        """
        values = self.columns[name]
        self._refuse_empty(name)
        plain = np.ma.getdata(values)
        if plain.dtype.kind not in "iuf":
            plain = self._parsed(name, plain)
        bad = ~np.isfinite(plain)
        if bad.any():
            row = int(np.argmax(bad))
            raise CatalogError(
                f"{self.place(name, row)} is {plain[row]}; expected a finite number: correct or remove the "
                f"row."
            )
        return plain.astype(np.float64)

    def ids(self, name: str) -> NDArray[Any]:
        """A column of ids, integers or text; never through floats.

        Raises:
            CatalogError: for an empty cell or for floats.
        """
        self._refuse_empty(name)
        plain = np.ma.getdata(self.columns[name])
        if plain.dtype.kind == "U":
            plain = np.char.strip(plain)
            empty = plain == ""
            if empty.any():
                raise CatalogError(f"{self.place(name, int(np.argmax(empty)))} is empty; expected an id.")
            return plain
        if plain.dtype.kind not in "iu":
            raise CatalogError(
                f"{self.name}: column {self.theirs[name]} holds {plain.dtype}; expected ids that are "
                "integers or text, since an id above 2^53 does not survive as a float."
            )
        return plain

    def carried(self, name: str) -> NDArray[Any]:
        """A column that only travels along: as it is, with empty cells as NaN or empty text."""
        values = self.columns[name]
        plain = np.ma.getdata(values)
        mask = np.ma.getmaskarray(values)
        if not mask.any():
            return plain
        if plain.dtype.kind == "U":
            return np.where(mask, "", plain)
        if plain.dtype.kind in "iu" and np.abs(plain[~mask]).max(initial=0) > 2**53:
            return np.where(mask, "", plain.astype(str))
        return np.where(mask, np.nan, plain.astype(np.float64))

    def place(self, name: str, row: int) -> str:
        """How messages name a cell; rows count from 1 below the header."""
        return f"{self.name}: {self.theirs[name]} in row {row + 1}"

    def _rename(self, column_map: Mapping[str, str]) -> None:
        for key, theirs in column_map.items():
            where, _, ours = key.rpartition(".")
            if where not in ("", self.what) or theirs not in self.columns or theirs == ours:
                continue
            if ours in self.columns:
                self._move(ours, f"{ours}_in_file")
            self._move(theirs, ours)
        for name in list(self.columns):
            lower = name.lower()
            # RA and ra are the same to everyone; a name that exists in both cases is left alone.
            if lower != name and lower not in self.columns and lower in _KNOWN:
                self._move(name, lower)

    def _move(self, old: str, new: str) -> None:
        # Rebuilt, so that the order of columns stays.
        self.columns = {new if name == old else name: values for name, values in self.columns.items()}
        self.units = {new if name == old else name: unit for name, unit in self.units.items()}
        self.theirs = {new if name == old else name: theirs for name, theirs in self.theirs.items()}

    def _nearest(self, name: str) -> str:
        lower = {column.lower(): column for column in self.columns}
        close = difflib.get_close_matches(name.lower(), lower, n=1, cutoff=0.4)
        there = ", ".join(self.columns) or "none"
        if close:
            theirs = lower[close[0]]
            return f"the nearest is {theirs}: if that is it, use --column {name}={theirs} (columns: {there})."
        return f"say which of its columns it is with --column {name}=THEIRS (columns: {there})."

    def _refuse_empty(self, name: str) -> None:
        mask = np.ma.getmaskarray(self.columns[name])
        if mask.any():
            raise CatalogError(f"{self.place(name, int(np.argmax(mask)))} is empty; expected a value.")

    def _parsed(self, name: str, plain: NDArray[Any]) -> FloatArray:
        try:
            return plain.astype(np.float64)
        except ValueError:
            row = next(index for index, text in enumerate(plain) if not _is_number(text))
            raise CatalogError(
                f"{self.place(name, row)} is {str(plain[row])!r}; expected a number."
            ) from None


_KNOWN = {
    *("cluster_id", "halo_id", "ra", "dec", "z", "redshift", "cz", "x", "y", "r_proj", "v_los", "log10_mass"),
    *(
        "v_err",
        "z_err",
        "abs_mag",
        "weight",
        "galaxy_id",
        "is_member",
        "component",
        "redshift_err",
        "sigma_v_err",
    ),
}


def _values(column: Any) -> Any:
    masked = np.ma.isMaskedArray(column)
    values = np.ma.asarray(column) if masked else np.asarray(column)
    mask = np.ma.getmaskarray(values) if masked else None
    plain = np.ma.getdata(values)
    if plain.dtype.kind == "S":
        plain = np.char.decode(plain, "utf-8")
    elif plain.dtype.kind == "O":
        plain = plain.astype(str)
    if not plain.dtype.isnative:
        plain = plain.astype(plain.dtype.newbyteorder("="))
    return plain if mask is None or not mask.any() else np.ma.array(plain, mask=mask)


def _is_number(text: Any) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
