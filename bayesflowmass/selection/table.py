"""A selection function given as a table."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bayesflowmass.common.arrays import FloatArray


class SelectionTable:
    """P(select | log10 mass), interpolated monotonically (cubic Hermite, Fritsch & Carlson 1980).

    Args:
        log10_mass: log10 M200c [Msun/h] (k,), increasing, two at least.
        probability: P (k,), between 0 and 1, somewhere above 0.

    Raises:
        ValueError: says which value is wrong.
    """

    def __init__(self, log10_mass: npt.ArrayLike, probability: npt.ArrayLike) -> None:
        mass = np.asarray(log10_mass, dtype=np.float64)
        chance = np.asarray(probability, dtype=np.float64)
        if mass.ndim != 1 or mass.shape != chance.shape or mass.size < 2:
            raise ValueError(
                f"selection: there are {mass.size} masses and {chance.size} probabilities; expected one of each per"
                " row, in two rows at least."
            )
        rising = np.isfinite(mass) & np.concatenate([[True], np.diff(mass) > 0.0])
        if not rising.all():
            row = int(np.flatnonzero(~rising)[0])
            raise ValueError(
                f"selection: row {row + 1} has log10_mass {mass[row]:g}; expected finite values that increase."
            )
        possible = (chance >= 0.0) & (chance <= 1.0)
        if not possible.all():
            row = int(np.flatnonzero(~possible)[0])
            raise ValueError(
                f"selection: row {row + 1} has probability {chance[row]:g}; expected a number from 0 to 1."
            )
        if not chance.max() > 0.0:
            raise ValueError("selection: every probability is 0, so that no cluster can be in the sample.")
        self.log10_mass_range = float(mass[0]), float(mass[-1])
        # Slopes of denormal numbers overflow in the interpolation; nobody's probability is so small.
        from scipy.interpolate import PchipInterpolator

        self._curve = PchipInterpolator(mass, np.where(chance < 1e-100, 0.0, chance))

    def __call__(self, log10_mass: npt.ArrayLike, redshift: npt.ArrayLike = 0.0) -> FloatArray:
        """P at log10 masses, whatever the redshift.

        Raises:
            ValueError: outside the table.
        """
        mass = np.asarray(log10_mass, dtype=np.float64)
        low, high = self.log10_mass_range
        if mass.size and not (mass.min() >= low - 1e-9 and mass.max() <= high + 1e-9):
            raise ValueError(
                f"selection: log10 mass {mass.min():g} to {mass.max():g} leaves the table, {low:g} to {high:g}; extend"
                " it over the training range of the model."
            )
        return np.asarray(np.clip(self._curve(mass), 0.0, 1.0))
