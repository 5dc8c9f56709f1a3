"""Masses from the number of galaxies alone.

The scatter of richness at fixed mass of a mock is an assumption, and sampling must be complete: this baseline
says how much of a result could come from counting.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.polynomial import polynomial
from numpy.typing import ArrayLike

from bayesflowmass.common.arrays import FloatArray


@dataclass(frozen=True)
class RichnessRelation:
    """log10 M = a polynomial in log10(N / 100), with a Gaussian error.

    Attributes:
        coefficients: of increasing degree; log10 of Msun/h.
        scatter: standard deviation of the residuals of the training sample [dex].
        richness_range: smallest and largest N of the training sample, beyond which the polynomial goes on
            as a straight line.
    """

    coefficients: tuple[float, ...]
    scatter: float
    richness_range: tuple[int, int]

    def predict(self, n_galaxies: ArrayLike) -> FloatArray:
        """log10 M200c [Msun/h] for numbers of galaxies, shape (n,).

        Raises:
            ValueError: a count is not positive.
        """
        x, inside = _log_richness(n_galaxies), _log_richness(self.richness_range)
        held = np.clip(x, *inside)
        tangent = polynomial.polyval(held, polynomial.polyder(self.coefficients))
        return np.asarray(polynomial.polyval(held, self.coefficients) + tangent * (x - held))


def fit_richness(n_galaxies: ArrayLike, log10_mass: ArrayLike) -> RichnessRelation:
    """Regress log10 mass on log10 N over a sample flat in log mass.

    Args:
        n_galaxies: galaxies of each cluster in the cylinder, interlopers included, shape (n,).
        log10_mass: log10 M200c [Msun/h], shape (n,).

    Raises:
        ValueError: a count is not positive, or there are too few clusters for a cubic.
    """
    x = _log_richness(n_galaxies)
    y = np.asarray(log10_mass, dtype=np.float64)
    if np.unique(x).size < 5:
        raise ValueError(f"A cubic needs at least 5 different galaxy counts; found {np.unique(x).size}.")
    coefficients = polynomial.polyfit(x, y, 3)
    scatter = np.std(y - polynomial.polyval(x, coefficients), ddof=4)
    counts = np.asarray(n_galaxies)
    return RichnessRelation(
        tuple(float(c) for c in coefficients), float(scatter), (int(counts.min()), int(counts.max()))
    )


def _log_richness(n_galaxies: ArrayLike) -> FloatArray:
    n = np.asarray(n_galaxies, dtype=np.float64)
    empty = np.flatnonzero(~(n > 0))
    if empty.size:
        raise ValueError(f"A galaxy count must be positive; cluster {empty[0]} has {n[empty[0]]:g} galaxies.")
    return np.asarray(np.log10(n / 100.0))
