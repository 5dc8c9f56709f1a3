"""Calibration: do the stated probabilities come true?

The probability integral transform of cluster i is u_i = F_i(log10 M_true,i). Where the predictive
densities are right **for the population that the clusters were drawn from**, the u are uniform on [0, 1],
whatever the densities look like.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

__all__ = [
    "PitEcdf",
    "PitHistogram",
    "coverage",
    "coverage_curve",
    "nominal_pair",
    "pit_ecdf",
    "pit_histogram",
]

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class PitHistogram:
    """Histogram of PIT values as a density (1 where calibrated).

    Attributes:
        edges: shape (bins + 1,).
        density: shape (bins,).
        band: lower and upper density that a calibrated sample of this size stays within in **all** bins
            together, at the stated probability; binomial, Bonferroni over bins.
        probability: of the band.
    """

    edges: FloatArray
    density: FloatArray
    band: tuple[float, float]
    probability: float


@dataclass(frozen=True)
class PitEcdf:
    """Empirical distribution of the PIT minus the uniform one, with its simultaneous band.

    Attributes:
        u: sorted PIT values, shape (n,).
        difference: ECDF(u) - u, shape (n,).
        half_width: |difference| stays below it everywhere, for a calibrated sample, at the stated probability
            (exact law of the two-sided Kolmogorov statistic).
        p_value: of the largest |difference|.
    """

    u: FloatArray
    difference: FloatArray
    half_width: float
    p_value: float


def _checked(pit: ArrayLike) -> FloatArray:
    u = np.asarray(pit, dtype=np.float64)
    if u.size == 0:
        raise ValueError("No PIT values were given.")
    bad = np.flatnonzero(~((u >= 0) & (u <= 1)))
    if bad.size:
        raise ValueError(
            f"PIT values must lie in [0, 1]; {bad.size} do not, the first in row {bad[0]}: {u.flat[bad[0]]}."
        )
    return u


def coverage(pit: ArrayLike, level: float) -> float:
    """Share of clusters whose true mass lies inside the central interval of probability ``level``."""
    return float(np.mean(np.abs(_checked(pit) - 0.5) <= 0.5 * level))


def coverage_curve(pit: ArrayLike, levels: ArrayLike) -> FloatArray:
    """Empirical coverage of central intervals at each of ``levels``; a calibrated sample returns the
    levels.
    """
    distance = np.sort(2.0 * np.abs(_checked(pit) - 0.5))
    return np.searchsorted(distance, np.asarray(levels, dtype=np.float64), side="right") / distance.size


def pit_histogram(pit: ArrayLike, bins: int = 20, probability: float = 0.95) -> PitHistogram:
    """Histogram of the PIT with the band that a calibrated sample respects in all bins at once."""
    u = _checked(pit)
    counts, edges = np.histogram(u, bins=bins, range=(0.0, 1.0))
    tail = 0.5 * (1.0 - probability) / bins
    low, high = (float(stats.binom.ppf(p, u.size, 1.0 / bins)) for p in (tail, 1.0 - tail))
    return PitHistogram(
        edges, counts * bins / u.size, (low * bins / u.size, high * bins / u.size), probability
    )


def pit_ecdf(pit: ArrayLike, probability: float = 0.95) -> PitEcdf:
    """ECDF of the PIT minus the diagonal, with a simultaneous band."""
    u = np.sort(_checked(pit))
    difference = np.arange(1, u.size + 1) / u.size - u
    statistic = float(np.max(np.maximum(difference, 1.0 / u.size - difference)))
    return PitEcdf(
        u,
        difference,
        float(stats.kstwo.ppf(probability, u.size)),
        float(stats.kstwo.sf(statistic, u.size)),
    )


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
