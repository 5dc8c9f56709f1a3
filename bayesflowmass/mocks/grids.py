"""Linear interpolation on uniform grids: fast look-up tables for millions of galaxies."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bayesflowmass.common.arrays import FloatArray, IntArray


@dataclass(frozen=True)
class Axis:
    """A uniform grid of ``n`` points from ``low`` to ``high``."""

    low: float
    high: float
    n: int

    @property
    def points(self) -> FloatArray:
        """The grid points, (n,)."""
        return np.linspace(self.low, self.high, self.n)

    def locate(self, x: FloatArray) -> tuple[IntArray, FloatArray]:
        """Index of the cell and the fraction inside it.

        Raises:
            ValueError: if a value lies outside the grid (beyond rounding), instead of extrapolating.
        """
        scaled = (x - self.low) * ((self.n - 1) / (self.high - self.low))
        if scaled.size and not (scaled.min() > -1e-6 and scaled.max() < self.n - 1 + 1e-6):
            raise ValueError(
                f"table: values from {np.min(x):.6g} to {np.max(x):.6g} leave the grid "
                f"[{self.low:.6g}, {self.high:.6g}]."
            )
        index = np.clip(scaled.astype(np.int64), 0, self.n - 2)
        return index, scaled - index


class Table1D:
    """f(x) on a uniform grid, linear in between."""

    def __init__(self, axis: Axis, values: FloatArray) -> None:
        self.axis = axis
        self.values = np.ascontiguousarray(values, dtype=np.float64)
        self._steps = np.diff(self.values)

    def __call__(self, x: FloatArray) -> FloatArray:
        """f(x), same shape as x."""
        index, fraction = self.axis.locate(x)
        return self.values[index] + fraction * self._steps[index]


class Table2D:
    """f(x, y) on a uniform grid, bilinear in between; values (n_x, n_y)."""

    def __init__(self, x_axis: Axis, y_axis: Axis, values: FloatArray) -> None:
        self.x_axis, self.y_axis = x_axis, y_axis
        self._flat = np.ascontiguousarray(values, dtype=np.float64).ravel()
        if self._flat.size != x_axis.n * y_axis.n:
            raise ValueError(f"table: {self._flat.size} values for a grid of {x_axis.n} x {y_axis.n}.")

    def __call__(self, x: FloatArray, y: FloatArray) -> FloatArray:
        """f(x, y) of two arrays of one shape."""
        i, u = self.x_axis.locate(x)
        j, v = self.y_axis.locate(y)
        i *= self.y_axis.n
        i += j
        flat = self._flat
        low = flat[i] * (1.0 - v) + flat[i + 1] * v
        i += self.y_axis.n
        high = flat[i] * (1.0 - v) + flat[i + 1] * v
        low += u * (high - low)
        return low
