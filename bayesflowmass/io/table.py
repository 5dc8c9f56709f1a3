"""One flat table, read by astropy or pyarrow: columns looked up by our names, numbers checked."""

from __future__ import annotations

import difflib
import gzip
import os
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from astropy.table import Table
from numpy.typing import NDArray

from bayesflowmass.catalog import CatalogError
from bayesflowmass.common.arrays import FloatArray

__all__ = ["FlatTable", "read_any_table"]

_FORMATS = {
    ".csv": "ascii.csv",
    ".ecsv": "ascii.ecsv",
    ".tsv": "ascii.tab",
    ".fits": "fits",
    ".fit": "fits",
    ".vot": "votable",
    ".votable": "votable",
    ".xml": "votable",
    ".parquet": "parquet",
}
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


def read_any_table(source: Any) -> Any:
    """An astropy table from a path (csv, ecsv, fits, votable, parquet, text) or from a table-like object.

    Raises:
        CatalogError: if the file is missing, empty, or not of the format that its name says.
    """
    if not isinstance(source, str | os.PathLike):
        return source if isinstance(source, Table) else Table(source)
    path = Path(source)
    if not path.is_file():
        raise CatalogError(f"{path}: no such file.")
    suffix = Path(path.stem).suffix if path.suffix == ".gz" else path.suffix
    kind = _FORMATS.get(suffix.lower(), "ascii")
    try:
        table = _read_parquet(path) if kind == "parquet" else _read_astropy(path, kind)
    except CatalogError:
        raise
    except Exception as error:
        # Readers of a dozen formats fail in as many ways; to the user all of them mean one thing.
        reason = " ".join(str(error).removeprefix("ERROR: ").partition(" with the guesses")[0].split())[:200]
        raise CatalogError(f"{path}: cannot be read as {kind.removeprefix('ascii.')}: {reason}") from error
    if len(table) == 0:
        raise CatalogError(f"{path}: the table has no rows.")
    return table


def _read_astropy(path: Path, kind: str) -> Any:
    with warnings.catch_warnings():
        # Unknown units are refused by name later, and integers beyond int64 kept as text.
        warnings.simplefilter("ignore")
        if kind == "votable":
            # An ID is a name without the blanks and brackets by which a format is known.
            return Table.read(path, format=kind, use_names_over_ids=True)
        if not kind.startswith("ascii"):
            return Table.read(path, format=kind)
        packed = path.suffix == ".gz"
        with path.open("rb") as stream:
            start = stream.read(6)
        text: Any = str(path)
        if packed or start[:3] == b"\xef\xbb\xbf" or start == b"#Table":
            # astropy's fast reader knows neither compression nor byte-order marks.
            with (gzip.open if packed else open)(path, "rt", encoding="utf-8-sig") as lines:
                text = lines.read().splitlines()
            # SkyServer puts a line such as "#Table1" above the names.
            text = text[1:] if text and text[0].startswith("#Table") else text
        if kind != "ascii":
            return Table.read(text, format=kind, guess=False)
        header = None if packed else _commented_header(path)
        if header is not None:
            return Table.read(text, format="ascii.commented_header", header_start=header, guess=False)
        return Table.read(text, format=kind)


def _commented_header(path: Path) -> int | None:
    """Which of several comments above a text table has its names: the last one, if it has as many words."""
    comments: list[list[str]] = []
    with path.open(encoding="utf-8-sig", errors="replace") as lines:
        for line in lines:
            if line.strip() and not line.startswith("#"):
                words: list[str] = next((c for c in reversed(comments) if c), [])
                fits = len(words) == len(line.split()) and not any(_is_number(word) for word in words)
                return comments.index(words) if fits and len(comments) > 1 else None
            comments.append(line.lstrip("#").split())
    return None


def _read_parquet(path: Path) -> Any:
    table = pq.read_table(path)
    columns = {}
    for name in table.column_names:
        column = table[name].combine_chunks()
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        missing = column.is_null().to_numpy(zero_copy_only=False)
        if missing.any() and not pa.types.is_floating(column.type):
            filler = "" if pa.types.is_string(column.type) or pa.types.is_large_string(column.type) else 0
            columns[name] = np.ma.array(column.fill_null(filler).to_numpy(zero_copy_only=False), mask=missing)
        else:
            columns[name] = column.to_numpy(zero_copy_only=False)
    return Table(columns)


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
