"""Calibration: do the stated probabilities come true?

The probability integral transform of cluster i is u_i = F_i(log10 M_true,i). Where the predictive
densities are right **for the population that the clusters were drawn from**, the u are uniform on [0, 1],
whatever the densities look like.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from bayesflowmass.common.arrays import FloatArray
from bayesflowmass.diagnostics.dependence import halo_correlation
from bayesflowmass.diagnostics.uniformity import checked_unit_interval, simulate_counts


@dataclass(frozen=True)
class PitHistogram:
    """Histogram of PIT values as a density (1 where calibrated).

    Attributes:
        edges: shape (bins + 1,).
        density: shape (bins,).
        band: lower and upper density that a calibrated sample of this size stays within in **all** bins
            together, with a probability of 95 %.
    """

    edges: FloatArray
    density: FloatArray
    band: tuple[float, float]


def coverage(pit: ArrayLike, level: float) -> float:
    """Share of clusters whose true mass lies inside the central interval of probability ``level``."""
    return float(np.mean(np.abs(checked_unit_interval(pit) - 0.5) <= 0.5 * level))


def central_level(pit: ArrayLike) -> FloatArray:
    """Probability 2 |u - 1/2| of the central interval that ends at the truth; uniform where calibrated."""
    return np.asarray(2.0 * np.abs(checked_unit_interval(pit) - 0.5))


def pit_histogram(pit: ArrayLike, bins: int = 20, *, halo_id: ArrayLike | None = None) -> PitHistogram:
    """Histogram of the PIT with the band that a calibrated sample respects in all bins at once.

    The band is simulated (:func:`bayesflowmass.diagnostics.uniformity.simulate_counts`): the emptiest bin
    of calibrated samples lies above it, and the fullest below, each at 97.5 %.

    Args:
        pit: shape (n,).
        bins: number of bins.
        halo_id: shape (n,); projections of one halo are simulated with their measured correlation.
    """
    u = checked_unit_interval(pit)
    counts, edges = np.histogram(u, bins=bins, range=(0.0, 1.0))
    halo = np.arange(u.size) if halo_id is None else np.asarray(halo_id)
    simulated = simulate_counts(halo, halo_correlation(u, halo), bins, n_simulations=999, seed=0)
    low = float(np.quantile(simulated.min(axis=1), 0.025, method="lower"))
    high = float(np.quantile(simulated.max(axis=1), 0.975, method="higher"))
    return PitHistogram(edges, counts * bins / u.size, (low * bins / u.size, high * bins / u.size))


def nominal_pair(population: str | None, prior: str) -> tuple[bool, str]:
    """Whether the coverage of this population under this prior can be nominal, and a sentence that says so.

    A posterior states probabilities for masses drawn from its prior. Only a test set drawn from the same
    distribution of masses can confirm them.

    Args:
        population: "flat", "hmf" (halo mass function), or None where unknown.
        prior: "flat" or "hmf".
    """
    names = {"flat": "flat in log mass", "hmf": "the halo mass function"}
    if population is None:
        return False, f"The population of the test set is unknown; the prior is {names.get(prior, prior)}."
    here, there = names.get(population, population), names.get(prior, prior)
    if population == prior:
        return True, f"Population and prior are both {here}: coverage should be nominal."
    return (
        False,
        f"Population {here}, prior {there}: coverage and mean residual of this mixed pair cannot be nominal.",
    )
