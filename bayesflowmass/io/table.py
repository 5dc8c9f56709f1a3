"""One flat table under our names: columns found by the names that the field gives them, cells checked."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from astropy import units as astropy_units
from numpy.typing import NDArray

from bayesflowmass.catalog import CatalogError
from bayesflowmass.common.arrays import BoolArray, FloatArray
from bayesflowmass.io.any_table import read_any_table
from bayesflowmass.io.names import LIKELY, SURE, find_names
from bayesflowmass.io.sexagesimal import degrees_of_parts, degrees_of_text, is_sexagesimal
from bayesflowmass.io.text.rows import MISSING

__all__ = ["FlatTable"]

_NAME_WITH_UNIT = re.compile(r"^(.*?)\s*[\[(]([^\])]+)[\])]$")
_FRAMES = ("j2000", "j2000.0", "icrs", "fk5", "helio", "heliocentric", "hel", "spec", "opt", "eq")
_OLD_FRAMES = ("b1950", "b1950.0", "fk4", "1950")
_LARGEST_EXACT = 2.0**53


class FlatTable:
    """Columns of one table under our names, with the units that the table declares.

    Args:
        source: path, or astropy table (or anything that one is made from).
        what: "galaxies" or "clusters": whose names are looked for, and for messages.
        column_map: ``{ours: theirs}``; a key ``galaxies.z`` or ``clusters.z`` is for that table only. All columns
            are renamed at once, so that ``z=zspec redshift=z`` says what it seems to say.
        name: of the table, for messages; None takes the path.

    Attributes:
        columns: values by name; masked where cells are empty.
        units: as declared, by name.
        theirs: name in the file of each column.
        notes: what was decided, in sentences.
        assumed: ``{ours: theirs}`` for columns that were recognised by other names.
        given: our names that the user gave.
        used_by_reader: names in the file that the reader of a known format has taken up.
    """

    def __init__(
        self, source: Any, what: str, column_map: Mapping[str, str] | None = None, name: str | None = None
    ) -> None:
        self.what = what
        self.name = name or (str(source) if isinstance(source, str | os.PathLike) else f"the table of {what}")
        table = read_any_table(source)
        self.notes: list[str] = [f"{self.name}: {note}" for note in table.meta.get("notes", [])]
        self.columns: dict[str, Any] = {}
        self.units: dict[str, str | None] = {}
        self.theirs: dict[str, str] = {}
        self.assumed: dict[str, str] = {}
        self.given: set[str] = set()
        self.used_by_reader: set[str] = set()
        headers: dict[str, str] = {}
        for column in table.colnames:
            if hasattr(table[column], "icrs"):
                # SkyCoord: two columns, as files have it.
                for part in ("ra", "dec"):
                    self.set(
                        f"{column}.{part}", getattr(table[column].icrs, part).deg, "deg", f"{column}.{part}"
                    )
                continue
            plain, unit = self._name_and_unit(column, table[column].info.unit)
            if plain in self.columns or (plain != column.strip() and plain in table.colnames):
                # "Redshift (z)" beside "Redshift" is another column, not a unit.
                plain, unit = column.strip(), None
            headers[column.strip()] = plain
            self.set(plain, _values(table[column]), unit, plain)
        self.n_rows = len(table)
        self._headers = headers
        self._rename(column_map or {})
        self._recognise()

    def __contains__(self, name: str) -> bool:
        return name in self.columns

    def first(self, *names: str) -> str | None:
        """The first of our names that is there."""
        return next((name for name in names if name in self.columns), None)

    def require(self, *names: str) -> str:
        """The first of our names that is there.

        Raises:
            CatalogError: if none is; names a column that it may be, and the remedy.
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
        values = self.measured(name)
        bad = np.isnan(values)
        if bad.any():
            row = int(np.argmax(bad))
            raise CatalogError(
                f"{self.place(name, row)} is empty or nan; expected a number: correct or remove the row."
            )
        return values

    def measured(self, name: str) -> FloatArray:
        """A column as float64, NaN where a cell is empty.

        Raises:
            CatalogError: for text that is no number, or infinity; names the row.
        """
        values = self.columns[name]
        plain, mask = np.ma.getdata(values), np.ma.getmaskarray(values)
        if plain.dtype.kind == "U":
            result = self._parsed(name, plain, mask)
        elif plain.dtype.kind in "iufb" and plain.ndim == 1:
            result = plain.astype(np.float64)
        else:
            raise CatalogError(
                f"{self.name}: column {self.theirs[name]} holds {plain.dtype}; expected numbers."
            )
        result = np.where(mask, np.nan, result)
        infinite = np.isinf(result)
        if infinite.any():
            row = int(np.argmax(infinite))
            raise CatalogError(
                f"{self.place(name, row)} is {result[row]}; expected a finite number: correct or remove the row."
            )
        return result

    def ids(self, name: str) -> NDArray[Any]:
        """A column of ids, integers or text; whole numbers stored as floats become integers.

        Raises:
            CatalogError: for an empty cell, or for floats that are no whole numbers or are too large to be exact.
        """
        values = self.columns[name]
        plain, mask = np.ma.getdata(values), np.ma.getmaskarray(values)
        empty = mask | (
            np.char.strip(plain) == "" if plain.dtype.kind == "U" else np.zeros(plain.shape, dtype=bool)
        )
        if plain.dtype.kind == "f":
            empty = empty | np.isnan(plain)
        if empty.any():
            raise CatalogError(f"{self.place(name, int(np.argmax(empty)))} is empty; expected an id.")
        if plain.dtype.kind == "U":
            return np.char.strip(plain)
        if plain.dtype.kind in "iu" and plain.ndim == 1:
            return plain
        if plain.dtype.kind == "f" and plain.ndim == 1:
            if np.all((plain == np.round(plain)) & (np.abs(plain) < _LARGEST_EXACT)):
                return plain.astype(np.int64)
            row = int(np.argmin((plain == np.round(plain)) & (np.abs(plain) < _LARGEST_EXACT)))
            raise CatalogError(
                f"{self.place(name, row)} is {plain[row]!r}, of {plain.dtype}; expected ids that are integers or "
                "text, since an id above 2^53 does not survive as a float."
            )
        raise CatalogError(f"{self.name}: column {self.theirs[name]} holds {plain.dtype}; expected ids.")

    def carried(self, name: str) -> NDArray[Any]:
        """A column that only travels along: as it is, with empty cells as NaN or empty text."""
        values = self.columns[name]
        plain, mask = np.ma.getdata(values), np.ma.getmaskarray(values)
        if plain.dtype.kind == "f" and name.endswith("_id"):
            # An id that a gap made a float is one still.
            mask = mask | np.isnan(plain)
            whole = plain[~mask] == np.round(plain[~mask])
            if whole.all() and np.all(np.abs(plain[~mask]) < _LARGEST_EXACT):
                whole_numbers = np.where(mask, 0, plain).astype(np.int64)
                return np.where(mask, "", whole_numbers.astype(str)) if mask.any() else whole_numbers
            return np.where(mask, "", plain.astype(str))
        if not mask.any():
            return plain
        if plain.dtype.kind == "U":
            return np.where(mask, "", plain)
        if plain.dtype.kind == "b":
            return np.where(mask, "", plain.astype(str))
        if plain.dtype.kind in "iu" and (
            name.endswith("_id") or np.abs(plain[~mask]).max(initial=0) > _LARGEST_EXACT
        ):
            return np.where(mask, "", plain.astype(str))
        return np.where(mask, np.nan, plain.astype(np.float64))

    def has_in_file(self, theirs: str) -> bool:
        """Whether the file has a column of this name, with or without what stands in brackets behind it."""
        name = self._in_file(theirs)
        return name in self.theirs.values() or name in self.used_by_reader

    def place(self, name: str, row: int) -> str:
        """How messages name a cell; rows count from 1 below the header."""
        return f"{self.name}: {self.theirs[name]} in row {row + 1}"

    def set(self, name: str, values: Any, unit: str | None, theirs: str) -> None:
        """Put a column that was made from others under one of our names."""
        self.columns[name], self.units[name], self.theirs[name] = values, unit, theirs

    def move(self, old: str, new: str) -> None:
        """Give a column another name; the order of columns stays."""
        self.columns = {new if name == old else name: values for name, values in self.columns.items()}
        self.units = {new if name == old else name: unit for name, unit in self.units.items()}
        self.theirs = {new if name == old else name: theirs for name, theirs in self.theirs.items()}

    def _name_and_unit(self, column: str, declared: Any) -> tuple[str, str | None]:
        plain = column.strip().lstrip("\ufeff")
        unit = None if declared is None else str(declared)
        match = _NAME_WITH_UNIT.match(plain)
        if match is None or unit is not None or not match.group(1):
            return plain, unit
        inside = match.group(2).strip()
        if inside.lower() in _OLD_FRAMES:
            raise CatalogError(
                f"{self.name}: {plain} is in the frame of 1950; expected J2000: convert it, with astropy for example."
            )
        return match.group(1), None if inside.lower() in _FRAMES else inside

    def _in_file(self, name: str) -> str:
        """A name as users write it, as the table has it: without its unit, and without the # of a comment."""
        plain = name.strip()
        return self._headers.get(plain) or self._headers.get(plain.lstrip("# ")) or plain

    def _rename(self, column_map: Mapping[str, str]) -> None:
        """All columns that the user names, at once; what already has such a name becomes ``<name>_in_file``."""
        wanted: dict[str, str] = {}
        for key in sorted(column_map, key=lambda one: "." in one):
            where, _, ours = key.rpartition(".")
            theirs = self._in_file(column_map[key])
            if where in ("", self.what) and theirs in self.columns:
                wanted[ours] = theirs
        columns: dict[str, str] = {}
        for name in self.columns:
            new = [ours for ours, theirs in wanted.items() if theirs == name]
            if not new:
                new = [f"{name}_in_file" if name in wanted else name]
            for one in new:
                columns[one] = name
        self.theirs = {new: self.theirs[old] for new, old in columns.items()}
        self.units = {new: self.units[old] for new, old in columns.items()}
        self.columns = {new: self.columns[old] for new, old in columns.items()}
        self.given = set(wanted)

    def _recognise(self) -> None:
        """Our names in another case, and names that mean the same to everyone."""
        known = SURE[self.what]
        for name in list(self.columns):
            lower = name.lower()
            # RA and ra are the same to everyone; a name that exists in both cases is left alone.
            if lower != name and lower not in self.columns and (lower in _OURS or lower in known):
                self.move(name, lower)
        for name, degrees in degrees_of_parts(self.columns, self.measured).items():
            if name not in self.columns:
                self.set(name, degrees, "deg", "RAh, RAm, RAs" if name == "ra" else "DEd, DEm, DEs")
                self.notes.append(f"{self.name}: {name} is made of {self.theirs[name]}.")
        pairs = [
            name[:-3] for name in self.columns if name.endswith(".ra") and f"{name[:-3]}.dec" in self.columns
        ]
        if len(pairs) == 1 and not {"ra", "dec"} & set(self.columns):
            for part in ("ra", "dec"):
                self.move(f"{pairs[0]}.{part}", part)
        in_frame = "v_los" in self.columns and ("r_proj" in self.columns or {"x", "y"} <= set(self.columns))
        for ours, theirs in find_names(self.columns, known).items():
            if not (in_frame and ours in ("ra", "dec", "z", "cz", "z_err", "r_proj")):
                self.move(theirs, ours)
                self.assumed[ours] = theirs
        for name in ("ra", "dec"):
            if name in self.columns and is_sexagesimal(self.columns[name]):
                hours = name == "ra" and "d" not in (self.units[name] or "h")[:1]
                degrees = degrees_of_text(self.columns[name], hours, partial(self.place, name))
                self.set(name, degrees, "deg", self.theirs[name])
        if self.assumed:
            words = ", ".join(f"{theirs} for {ours}" for ours, theirs in self.assumed.items())
            self.notes.append(f"{self.name}: taken by their names: {words}.")

    def _nearest(self, name: str) -> str:
        there = ", ".join(self.columns) or "none"
        likely = find_names(self.columns, {name: LIKELY[self.what].get(name, ())})
        lower = {column.lower(): column for column in self.columns}
        close = difflib.get_close_matches(name.lower(), lower, n=1, cutoff=0.75)
        theirs = likely.get(name) or (lower[close[0]] if close and close[0] not in _OURS else None)
        if theirs:
            return f"the nearest is {theirs}: if that is it, use --column {name}={_quoted(theirs)} (columns: {there})."
        return f"say which of its columns it is with --column {name}=THEIRS (columns: {there})."

    def _parsed(self, name: str, plain: NDArray[Any], mask: BoolArray) -> FloatArray:
        empty = mask | np.isin(np.char.strip(plain), MISSING)
        known = np.flatnonzero(~empty)
        result = np.full(plain.shape, np.nan)
        try:
            if any("_" in cell for cell in plain[known]):
                raise ValueError("Python's digits with underscores are no numbers of a table")
            result[known] = plain[known].astype(np.float64)
        except ValueError:
            row = next(int(index) for index in known if not _is_number(plain[index]))
            raise CatalogError(
                f"{self.place(name, row)} is {str(plain[row])!r}; expected a number."
            ) from None
        return result


_OURS = {
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
    *("completeness", "abs_mag_limit", "aperture", "mode"),
}


def _values(column: Any) -> Any:
    """Numbers, truth values or text, masked where cells are empty."""
    masked = np.ma.isMaskedArray(column)
    values = np.ma.asarray(column) if masked else _plain(column)
    mask = np.ma.getmaskarray(values) if masked else None
    plain = np.ma.getdata(values)
    if plain.dtype.kind == "S":
        try:
            plain = np.char.decode(plain, "utf-8")
        except UnicodeDecodeError:
            plain = np.char.decode(plain, "latin-1")
    elif plain.dtype.kind == "O":
        missing = np.array(
            [value is None or value is np.ma.masked or value != value for value in plain.ravel()]
        )
        mask = missing.reshape(plain.shape) if mask is None else mask | missing.reshape(plain.shape)
        plain = np.where(mask, "", plain).astype(str)
    elif plain.dtype.kind in "Mm":
        mask = np.isnat(plain) if mask is None else mask | np.isnat(plain)
        plain = np.where(mask, "", plain.astype(str))
    elif plain.dtype.kind == "T":
        plain = plain.astype(str)
    if not plain.dtype.isnative:
        plain = plain.astype(plain.dtype.newbyteorder("="))
    return plain if mask is None or not mask.any() else np.ma.array(plain, mask=mask)


def _plain(column: Any) -> NDArray[Any]:
    """An array of a column of any sort: those that are no arrays (times, coordinates) become text."""
    if hasattr(column, "dtype") and hasattr(column, "shape") and not hasattr(column, "to_value"):
        return np.asarray(column)
    if isinstance(column, astropy_units.Quantity):
        return np.asarray(column.value)
    if hasattr(column, "isot"):
        return np.asarray(column.isot).astype(str)
    return np.array([str(value) for value in column])


def _is_number(text: Any) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in str(text)


def _quoted(text: str) -> str:
    return text if re.fullmatch(r"[\w.+-]+", text) else f"'{text}'"
