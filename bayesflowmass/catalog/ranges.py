"""The one table of what values a column can have, for every reader, for catalogues, and for what a model is told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from bayesflowmass.catalog.errors import refuse_where
from bayesflowmass.common.arrays import BoolArray, FloatArray


@dataclass(frozen=True)
class ColumnRange:
    """What values a column can have.

    Args:
        low, high: ends of the range, both inside.
        expected: what the value is, for messages, as in "expected ...".
        optional: measured, and not always: NaN, and what tables write in its place (`is_sentinel`), mean unknown.
    """

    low: float
    high: float
    expected: str
    optional: bool = False

    def holds(self, values: ArrayLike) -> BoolArray:
        """Which values are in the range; NaN is where the column is optional."""
        array = np.asarray(values, dtype=np.float64)
        inside = (array >= self.low) & (array <= self.high)
        return inside | np.isnan(array) if self.optional else inside


_POSITION = ColumnRange(-50.0, 50.0, "comoving Mpc/h from the centre, not kpc or degrees")
_VELOCITY_ERROR = ColumnRange(0.0, 30_000.0, "an error in km/s", optional=True)

RANGES: dict[str, ColumnRange] = {
    "redshift": ColumnRange(0.0, 3.0, "the cosmological redshift, not cz or per cent"),
    "log10_mass": ColumnRange(10.0, 17.0, "log10 of M200c in Msun/h, not the mass itself"),
    "ra": ColumnRange(-360.0, 360.0, "degrees"),
    "dec": ColumnRange(-90.0, 90.0, "degrees"),
    "redshift_err": ColumnRange(0.0, 1.0, "the error of a redshift, not km/s", optional=True),
    "completeness": ColumnRange(0.0, 1.0, "a fraction, not per cent", optional=True),
    "sigma_v_err": _VELOCITY_ERROR,
    "abs_mag_limit": ColumnRange(
        -28.0, -8.0, "the faintest absolute magnitude M_r - 5 log10 h", optional=True
    ),
    "aperture": ColumnRange(
        0.01, 50.0, "the radius to which galaxies were observed, in comoving Mpc/h", optional=True
    ),
    "x": _POSITION,
    "y": _POSITION,
    "r_proj": ColumnRange(0.0, 50.0, "a distance from the centre in comoving Mpc/h, not kpc or degrees"),
    "v_los": ColumnRange(-30_000.0, 30_000.0, "km/s in the rest frame of the cluster, not m/s or cz"),
    "gal_ra": ColumnRange(-360.0, 360.0, "degrees", optional=True),
    "gal_dec": ColumnRange(-90.0, 90.0, "degrees", optional=True),
    "gal_z": ColumnRange(-0.02, 3.0, "the redshift of a galaxy, not cz or per cent", optional=True),
    "gal_z_err": ColumnRange(0.0, 0.1, "the error of a redshift, not km/s", optional=True),
    "gal_v_err": _VELOCITY_ERROR,
    "gal_abs_mag": ColumnRange(-35.0, 40.0, "a magnitude", optional=True),
    "gal_weight": ColumnRange(0.0, 1e20, "a weight"),
}
"""Of cluster columns and of galaxy columns (``x, y, r_proj, v_los`` and those with ``gal_``), in the units of a
catalogue. What a catalogue calls ``gal_z`` is ``z`` in a table of galaxies, and so on."""


def is_sentinel(values: ArrayLike) -> BoolArray:
    """Which numbers are those that tables write for "not measured": -1, 99.9, -9999 and their like, 1e20 on."""
    size = np.abs(np.asarray(values, dtype=np.float64))
    # 9, 99, 99.9, 999.99, ...: a power of ten less a unit of some decimal place, as float32 may have rounded it.
    power = 10.0 ** np.ceil(np.log10(np.where((size > 1.0) & (size < 1e20), size, 2.0)))
    gap = power - size
    unit = 10.0 ** np.round(np.log10(np.where(gap > 0.0, gap, 1.0)))
    nines = (size > 8.0) & (gap > 0.0) & (unit <= 1.0) & (np.abs(gap - unit) < 1e-3 * unit + 1e-7 * size)
    result: BoolArray = (np.asarray(values) == -1.0) | nines | (size >= 1e20)
    return result


def unmeasured(name: str, values: ArrayLike, written: ArrayLike | None = None) -> BoolArray:
    """Which values (n,) of a column in `RANGES` are beyond it and written as "not measured" (`is_sentinel`).

    Args:
        written: what stands in the table, where that is in another unit.
    """
    outside: BoolArray = ~RANGES[name].holds(values)
    # Of a million values hardly one is outside, and to look at all of them takes as long as to read them.
    outside[outside] = is_sentinel(np.asarray(values if written is None else written)[outside])
    return outside


def without_sentinels(values: ArrayLike, name: str) -> FloatArray:
    """Values of a column in `RANGES` (n,), NaN where tables write for "not measured" what cannot be a value."""
    array = np.array(values, dtype=np.float64)
    array[unmeasured(name, array)] = np.nan
    return array


def known_values(name: str, values: ArrayLike) -> tuple[FloatArray, BoolArray]:
    """Values (n,) of a column in `RANGES` with NaN for every sentinel if it is optional, and where those were.

    A number that can be a value is one, whatever it looks like: an error of 99 km/s stays.
    """
    given = np.asarray(values, dtype=np.float64)
    array = without_sentinels(given, name) if RANGES[name].optional else given.copy()
    return array, np.isnan(array) & ~np.isnan(given)


def check_range(name: str, values: ArrayLike, where: Callable[[int], str]) -> None:
    """Refuse a value that a column cannot have.

    Args:
        name: of a column in `RANGES`.
        values: (n,), in the unit of a catalogue.
        where: names a row, counted from 0, as in "cluster A".
    """
    limits = RANGES[name]
    array = np.asarray(values, dtype=np.float64)
    expected = f"{limits.expected}, within [{limits.low:g}, {limits.high:g}]"

    def sentence(row: int) -> str:
        wanted = expected if np.isfinite(array[row]) else "a finite number"
        return f"{where(row)}: {name} is {array[row]:g}; expected {wanted}."

    refuse_where(~limits.holds(array), sentence)
