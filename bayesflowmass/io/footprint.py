"""How much of a cluster's disc a survey has looked at."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bayesflowmass.common.arrays import BoolArray, FloatArray, IntArray
from bayesflowmass.io.sky import sky_position

_POINTS = 256
_PER_CELL = 6.0
_LARGEST_CELL = 2.0
_ROUNDS = 4
_SAMPLE = 300_000
_CELLS_IN_RADIUS = 2.0
_NEIGHBOURS = 5
_FEWEST = 1000


def disc_points(
    ra: FloatArray, dec: FloatArray, angle: FloatArray, points: int = _POINTS
) -> tuple[FloatArray, FloatArray]:
    """Points spread evenly over discs on the sky (Vogel's spiral): ra, dec [deg] (n, points).

    Args:
        ra, dec: centres, degrees (n,).
        angle: radii, radians (n,).
    """
    index = np.arange(points) + 0.5
    radius, turn = angle[:, None] * np.sqrt(index / points), index * np.pi * (3.0 - np.sqrt(5.0))
    return sky_position(ra[:, None], dec[:, None], radius * np.sin(turn), radius * np.cos(turn))


class GalaxyFootprint:
    """The survey is where its galaxies are, at any redshift.

    The sky is divided into cells of equal size, so large that the average one inside the survey holds six
    galaxies; a cell with a galaxy is inside, and so is an empty one with five or more neighbours that are not
    empty. Edges are known to about half a cell. A disc with a radius below two cells has no known share; nor has
    any in a table of fewer than a thousand galaxies, which may be those of a cluster and not of a survey.

    Args:
        ra, dec: of all galaxies, degrees (n,).
    """

    method = "galaxies"

    def __init__(self, ra: FloatArray, dec: FloatArray) -> None:
        # The area follows from an even sample, and the cells from the area and the number of all.
        every = max(1, ra.size // _SAMPLE)
        size = _LARGEST_CELL
        for _ in range(_ROUNDS):
            occupied = np.unique(_cell(ra[::every], dec[::every], size)).size
            area = occupied * size**2
            size = min(_LARGEST_CELL, float(np.sqrt(_PER_CELL * area / ra[::every].size)))
        size = min(_LARGEST_CELL, float(np.sqrt(_PER_CELL * area / ra.size)))
        cells = np.unique(_cell(ra, dec, size))
        self._cells, self._n = cells, ra.size
        self.cell = float(np.radians(size))
        """Side of a cell, radians."""

    def fraction(self, ra: FloatArray, dec: FloatArray, angle: FloatArray) -> FloatArray:
        """Share of each disc inside the survey (n,), NaN where it cannot be told.

        Args:
            ra, dec: centres, degrees (n,).
            angle: radii, radians (n,).
        """
        known = (angle > _CELLS_IN_RADIUS * self.cell) & (self._n >= _FEWEST)
        shares = np.full(ra.size, np.nan)
        if known.any():
            points = disc_points(ra[known], dec[known], angle[known])
            shares[known] = self._inside(*points).mean(axis=1)
        return shares

    def _inside(self, ra: FloatArray, dec: FloatArray) -> BoolArray:
        size = np.degrees(self.cell)
        inside = np.isin(_cell(ra, dec, size), self._cells)
        at_ra, at_dec = ra[~inside], dec[~inside]
        wide = size / np.maximum(np.cos(np.radians(at_dec)), 1e-6)
        # The cell itself, which is empty, does not count.
        around = [
            np.isin(_cell(east, north, size), self._cells)
            for east in (at_ra - wide, at_ra, at_ra + wide)
            for north in (at_dec - size, at_dec, at_dec + size)
        ]
        inside[~inside] = np.sum(around, axis=0) >= _NEIGHBOURS
        return inside


def _cell(ra: FloatArray, dec: FloatArray, size: float) -> IntArray:
    """Number of the cell of each point: bands of dec, cut in ra."""
    band = np.floor((dec + 90.0) / size).astype(np.int64)
    middle = np.radians((band + 0.5) * size - 90.0)
    along = np.floor((ra % 360.0) * np.maximum(np.cos(middle), 1e-6) / size).astype(np.int64)
    number: IntArray = (band << 32) | along
    return number


class RectangleFootprint:
    """The survey is inside rectangles of ra and dec.

    Args:
        rectangles: (ra_min, ra_max, dec_min, dec_max) of each, degrees; ra_min above ra_max crosses 0.
    """

    method = "rectangles"

    def __init__(self, rectangles: Sequence[tuple[float, float, float, float]]) -> None:
        self._rectangles = [tuple(float(value) for value in one) for one in rectangles]

    def fraction(self, ra: FloatArray, dec: FloatArray, angle: FloatArray) -> FloatArray:
        """Share of each disc inside the survey (n,); arguments of `GalaxyFootprint.fraction`."""
        at_ra, at_dec = disc_points(ra, dec, angle)
        inside = np.zeros(at_ra.shape, dtype=bool)
        for low, high, bottom, top in self._rectangles:
            width = (high - low) % 360.0 or 360.0
            inside |= ((at_ra - low) % 360.0 <= width) & (at_dec >= bottom) & (at_dec <= top)
        shares: FloatArray = inside.mean(axis=1)
        return shares
