"""Cells of a flat table that cannot be what their column says, counted column by column."""

from __future__ import annotations

import numpy as np

from bayesflowmass.catalog import CatalogError
from bayesflowmass.catalog.ranges import RANGES, is_sentinel
from bayesflowmass.common.arrays import BoolArray, FloatArray
from bayesflowmass.inspection.report import Inspection
from bayesflowmass.io.flat.clusters import not_measured
from bayesflowmass.io.plausibility import check_not_radians
from bayesflowmass.io.table import FlatTable
from bayesflowmass.io.text.values import numbers_of_words

_NEEDED = {
    "galaxies": ("ra", "dec", "z", "cz", "x", "y", "r_proj", "v_los"),
    "clusters": ("ra", "dec", "redshift"),
}
_MEASURED = ("v_err", "z_err", "completeness", "redshift_err", "sigma_v_err", "abs_mag_limit", "aperture")
_RANGE_OF = {"z": "gal_z", "v_err": "gal_v_err", "z_err": "gal_z_err"}
_OF_GALAXY = {"ra", "dec", "z"}


def check_cells(report: Inspection, table: FlatTable) -> None:
    """Say how many cells of the columns that matter are empty, no numbers, or beyond what can be.

    A table is not usable where `infer` would refuse it: for words among numbers, and for coordinates and errors that
    cannot be. Rows without a value that they need are left out, and said.
    """
    for name in (*_NEEDED[table.what], *_MEASURED):
        if name not in table:
            continue
        numbers, empty, words = _read(table, name)
        if words.any():
            row = int(np.argmax(words))
            report.problems.append(
                f"{_rows(words)} without a number in {table.theirs[name]}: the first is row {row + 1}, which is "
                f"{str(np.ma.getdata(table.columns[name])[row])!r}; correct or remove them."
            )
            report.usable = False
        if empty.any() and name in _NEEDED[table.what]:
            row = int(np.argmax(empty))
            what = "they are left out" if table.what == "galaxies" else "those clusters get no mass"
            report.problems.append(
                f"{_rows(empty)} without a number in {table.theirs[name]}: the first is row {row + 1}, which is empty; "
                f"{what}."
            )
        _check_range(report, table, name, numbers)
    if {"ra", "dec"} <= set(table.columns) and table.units["ra"] is None and report.usable:
        try:
            ra, dec = table.measured("ra"), table.measured("dec")
            known = np.isfinite(ra) & np.isfinite(dec)
            check_not_radians(ra[known], dec[known], table.name)
        except CatalogError as error:
            report.refuse(error)
    if "cluster_id" in table:
        try:
            table.ids("cluster_id")
        except CatalogError as error:
            report.problems.append(str(error).removeprefix(f"{table.name}: "))
            report.usable = False


def _check_range(report: Inspection, table: FlatTable, name: str, numbers: FloatArray) -> None:
    limits = RANGES.get(_RANGE_OF.get(name, name))
    if limits is None or table.units[name] is not None or name in ("x", "y", "r_proj", "v_los"):
        return
    odd = np.isfinite(numbers) & ~limits.holds(numbers)
    if name in _MEASURED and (unknown := odd & is_sentinel(numbers)).any():
        report.facts.append(f"note: {not_measured(table.theirs[name], numbers, unknown)}")
        odd &= ~unknown
    if not odd.any():
        return
    row = int(np.argmax(odd))
    report.problems.append(
        f"{_rows(odd)} with {table.theirs[name]} outside {limits.low:g} to {limits.high:g}: the first is row "
        f"{row + 1}, {numbers[row]:g}."
    )
    beyond = odd & ~(is_sentinel(numbers) & (name in _OF_GALAXY or name == "redshift"))
    # Galaxies far behind are left out; a column that is nowhere a redshift is another column.
    allowed = 0.5 * np.sum(np.isfinite(numbers)) if name == "z" else 0.0
    report.usable = report.usable and bool(np.sum(beyond) <= allowed)


def _read(table: FlatTable, name: str) -> tuple[FloatArray, BoolArray, BoolArray]:
    """Numbers (NaN where there is none), empty cells, and cells that hold something else."""
    values = table.columns[name]
    plain, empty = np.ma.getdata(values), np.ma.getmaskarray(values)
    if plain.dtype.kind == "U":
        return numbers_of_words(plain, empty)
    if plain.dtype.kind not in "iuf":
        return np.full(table.n_rows, np.nan), empty, ~empty
    numbers = np.where(empty, np.nan, plain.astype(np.float64))
    return numbers, np.isnan(numbers), np.zeros(table.n_rows, dtype=bool)


def _rows(mask: BoolArray) -> str:
    number = int(np.sum(mask))
    return f"{number} row{'' if number == 1 else 's'}"
