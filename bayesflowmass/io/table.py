"""One flat table under our names: columns found by the names that the field gives them, cells checked."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np
from astropy import units as astropy_units
from numpy.typing import NDArray

from bayesflowmass.catalog import CatalogError
from bayesflowmass.catalog.errors import refuse_where
from bayesflowmass.common.arrays import BoolArray, FloatArray
from bayesflowmass.io.any_table import read_any_table
from bayesflowmass.io.names import LIKELY, OF_MICROWAVE_BACKGROUND, SURE, find_names, normal_name
from bayesflowmass.io.sexagesimal import degrees_of_parts, degrees_of_text, is_sexagesimal
from bayesflowmass.io.text.values import numbers_of_words

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
        guess: take the columns that are proposed for what is missing.

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
        self,
        source: Any,
        what: str,
        column_map: Mapping[str, str] | None = None,
        name: str | None = None,
        guess: bool = False,
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
        self._recognise(guess)

    def __contains__(self, name: str) -> bool:
        return name in self.columns

    def has(self, *names: str) -> bool:
        """Whether all of our names are there."""
        return all(name in self.columns for name in names)

    def first(self, *names: str) -> str | None:
        """The first of our names that is there."""
        return next((name for name in names if name in self.columns), None)

    def require(self, *names: str) -> str:
        """The first of our names that is there; without one the error proposes a column."""
        found = self.first(*names)
        if found is not None:
            return found
        raise CatalogError(f"{self.name}: column {names[0]} is missing; {self._nearest(names[0])}")

    def numbers(self, name: str) -> FloatArray:
        """A column as finite float64; an empty cell, NaN or infinity is refused."""
        values = self.measured(name)
        remedy = "is empty or nan; expected a number: correct or remove the row."
        refuse_where(np.isnan(values), lambda row: f"{self.place(name, row)} {remedy}")
        return values

    def measured(self, name: str) -> FloatArray:
        """A column as float64, NaN where a cell is empty; text that is no number, or infinity, is refused."""
        plain, mask = self._split(name)
        if plain.dtype.kind == "U":
            result, _, odd = numbers_of_words(plain, mask)
            refuse_where(
                odd, lambda row: f"{self.place(name, row)} is {str(plain[row])!r}; expected a number."
            )
        elif plain.dtype.kind in "iufb" and plain.ndim == 1:
            result = np.where(mask, np.nan, plain.astype(np.float64))
        else:
            raise CatalogError(
                f"{self.name}: column {self.theirs[name]} holds {plain.dtype}; expected numbers."
            )
        remedy = "expected a finite number: correct or remove the row."
        refuse_where(np.isinf(result), lambda row: f"{self.place(name, row)} is {result[row]}; {remedy}")
        return result

    def ids(self, name: str) -> NDArray[Any]:
        """A column of ids, integers or text; whole numbers stored as floats become integers while they are exact."""
        plain, mask = self._split(name)
        kind = plain.dtype.kind
        plain = np.char.strip(plain) if kind == "U" else plain
        empty = mask | (plain == "" if kind == "U" else np.isnan(plain) if kind == "f" else False)
        refuse_where(empty, lambda row: f"{self.place(name, row)} is empty; expected an id.")
        if kind == "U":
            return plain
        if kind not in "iuf" or plain.ndim != 1:
            raise CatalogError(f"{self.name}: column {self.theirs[name]} holds {plain.dtype}; expected ids.")
        if kind != "f":
            return plain
        refuse_where(
            (plain != np.round(plain)) | (np.abs(plain) >= _LARGEST_EXACT),
            lambda row: (
                f"{self.place(name, row)} is {float(plain[row])!r}, of {plain.dtype}; expected ids that are integers "
                "or text, since an id above 2^53 does not survive as a float."
            ),
        )
        return plain.astype(np.int64)

    def carried(self, name: str) -> NDArray[Any]:
        """A column that only travels along: as it is, with empty cells as NaN or empty text."""
        plain, mask = self._split(name)
        kind, of_ids = plain.dtype.kind, name.endswith("_id")
        if kind == "f" and of_ids:
            # An id that a gap made a float is one still.
            mask = mask | np.isnan(plain)
            known = plain[~mask]
            if np.all((known == np.round(known)) & (np.abs(known) < _LARGEST_EXACT)):
                plain = np.where(mask, 0, plain).astype(np.int64)
            elif not mask.any():
                return plain.astype(str)
        if not mask.any():
            return plain
        exact = kind not in "iu" or bool(np.all(np.abs(plain[~mask]) < _LARGEST_EXACT))
        if kind in "iuf" and not of_ids and exact:
            return np.where(mask, np.nan, plain.astype(np.float64))
        return np.where(mask, "", plain.astype(str))

    def _split(self, name: str) -> tuple[NDArray[Any], BoolArray]:
        values = self.columns[name]
        return np.ma.getdata(values), np.ma.getmaskarray(values)

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
        self._take({new if name == old else name: name for name in self.columns})

    def _take(self, columns: Mapping[str, str]) -> None:
        """Columns under new names, in that order: ``{new: old}``."""
        self.columns = {new: self.columns[old] for new, old in columns.items()}
        self.units = {new: self.units[old] for new, old in columns.items()}
        self.theirs = {new: self.theirs[old] for new, old in columns.items()}

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
        self._take(columns)
        self.given = set(wanted)

    def _recognise(self, guess: bool) -> None:
        """Our names in another case, and names that mean the same to everyone."""
        known = SURE[self.what]
        for name in list(self.columns):
            lower = name.lower()
            # RA and ra are the same to everyone; a name that exists in both cases is left alone.
            if lower not in self.columns and (lower in _OURS or lower in known):
                self.move(name, lower)
        for name, degrees in degrees_of_parts(self.columns, self.measured).items():
            if name not in self.columns:
                self.set(name, degrees, "deg", "RAh, RAm, RAs" if name == "ra" else "DEd, DEm, DEs")
                self.notes.append(f"{self.name}: {name} is made of {self.theirs[name]}.")
        pairs = [
            name[:-3] for name in self.columns if name.endswith(".ra") and f"{name[:-3]}.dec" in self.columns
        ]
        if len(pairs) == 1 and "ra" not in self.columns and "dec" not in self.columns:
            for part in ("ra", "dec"):
                self.move(f"{pairs[0]}.{part}", part)
        in_frame = "v_los" in self.columns and ("r_proj" in self.columns or self.has("x", "y"))
        for ours, theirs in find_names(self.columns, known).items():
            if not (in_frame and ours in ("ra", "dec", "z", "cz", "z_err", "r_proj")):
                self.move(theirs, ours)
                self.assumed[ours] = theirs
        if guess:
            self._guess()
        for name in ("ra", "dec"):
            if name in self.columns and is_sexagesimal(self.columns[name]):
                hours = name == "ra" and not (self.units[name] or "").startswith("d")
                degrees = degrees_of_text(self.columns[name], hours, partial(self.place, name))
                self.set(name, degrees, "deg", self.theirs[name])
        if self.assumed:
            words = ", ".join(f"{theirs} for {ours}" for ours, theirs in self.assumed.items())
            self.notes.append(f"{self.name}: taken by their names: {words}.")
        for theirs in self.assumed.values():
            if normal_name(theirs) in OF_MICROWAVE_BACKGROUND:
                self.notes.append(
                    f"{self.name}: {theirs} is in the frame of the microwave background, up to 370 km/s from the "
                    "heliocentric one: redshifts of galaxies and clusters must be of one frame."
                )

    def _guess(self) -> None:
        """Take what is proposed for an id, and for the first form of a table that it completes."""
        # Which of galaxies and clusters a redshift is of is settled by whoever reads the table.
        there = set(self.columns) | ({"z"} if "redshift" in self.columns else set())
        proposed = {
            name: theirs for name in LIKELY[self.what] if name not in there and (theirs := self._near(name))
        }
        wanted = next((form for form in _FORMS[self.what] if form.issubset(there | set(proposed))), set())
        # An error by its own names alone: that of a magnitude has one much like it.
        errors = find_names(self.columns, {"v_err": LIKELY[self.what].get("v_err", ())})
        proposed |= errors
        for ours in [name for name in proposed if name in wanted | {"cluster_id", *errors}]:
            if proposed[ours] in self.columns:
                self.move(proposed[ours], ours)
                self.assumed[ours] = proposed[ours]

    def _near(self, name: str) -> str | None:
        """A column that may be the one of our name that is missing."""
        likely = find_names(self.columns, {name: LIKELY[self.what].get(name, ())})
        lower = {column.lower(): column for column in self.columns}
        close = difflib.get_close_matches(name.lower(), lower, cutoff=0.75)
        return likely.get(name) or (lower[close[0]] if close and close[0] not in _OURS else None)

    def _nearest(self, name: str) -> str:
        there = ", ".join(self.columns) or "none"
        if theirs := self._near(name):
            return (
                f"the nearest is {theirs}: if that is it, use --column {name}={_quoted(theirs)}, or --guess for this "
                f"and all others that are proposed (columns: {there})."
            )
        if nameless(self.columns):
            return NAMELESS
        return f"say which of its columns it is with --column {name}=THEIRS (columns: {there})."


NAMELESS = (
    "its columns have no names: give them by their number, such as --column x=col2 y=col3 v_los=col4 "
    "--unit 'x=proper kpc' 'y=proper kpc', as the author of the file describes them."
)


def nameless(columns: Iterable[str]) -> bool:
    """Whether the reader numbered the columns because the file does not name them."""
    return all(re.fullmatch(r"col\d+", name) for name in columns)


_FORMS: dict[str, tuple[set[str], ...]] = {
    "galaxies": ({"v_los", "x", "y"}, {"ra", "dec", "z"}, {"ra", "dec", "cz"}, {"v_los", "r_proj"}),
    "clusters": ({"ra", "dec", "redshift"}, {"redshift"}),
}
_OURS = {
    *("cluster_id", "halo_id", "ra", "dec", "z", "redshift", "cz", "x", "y", "r_proj", "v_los", "log10_mass"),
    *("v_err", "z_err", "abs_mag", "weight", "galaxy_id", "is_member", "component", "redshift_err"),
    *("sigma_v_err", "completeness", "abs_mag_limit", "aperture", "mode"),
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


def _quoted(text: str) -> str:
    return text if re.fullmatch(r"[\w.+-]+", text) else f"'{text}'"
