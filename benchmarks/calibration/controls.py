"""Posteriors whose fault is known, to try diagnostics on: a diagnostic that passes all of them says nothing.

The clusters are a conjugate toy in closed form: m ~ N(14.3, 0.4^2); a dynamical mass x ~ N(m, s^2) with s of
each cluster between 0.10 and 0.22 dex; a richness with ln N ~ N(ln 30 + 2.07 (m - 14.3), 0.35^2). The
posterior of m given x and N is Gaussian and exact. Projections of a halo share its mass, its richness and
half of the variance of the error of x.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bayesflowmass.diagnostics.posterior_summary import PosteriorSummary

__all__ = ["FAULTS", "Control", "gaussian_control"]

FloatArray = NDArray[np.float64]

FAULTS = {
    "none": "the exact posterior",
    "bias": "every mass 0.05 dex too high",
    "narrow": "every posterior 20 % too narrow",
    "ignores the data": "the prior, whatever the cluster looks like",
}
"""What is wrong with each control."""

_MEAN, _SIGMA = 14.3, 0.4
_SLOPE, _RICHNESS_SCATTER = 2.07, 0.35


@dataclass(frozen=True)
class Control:
    """Clusters and their posteriors, shape (n,).

    Attributes:
        summary: posteriors and truths.
        halo_id: projections of one halo share it.
        richness, redshift: known without the truth; redshift has no bearing on the mass.
    """

    summary: PosteriorSummary
    halo_id: NDArray[np.int64]
    richness: FloatArray
    redshift: FloatArray


def gaussian_control(fault: str, n_clusters: int, seed: int, *, n_projections: int = 1) -> Control:
    """A sample with one of ``FAULTS``.

    Args:
        fault: key of ``FAULTS``.
        n_clusters: n; the last halo may have fewer projections.
        seed: same seed, same clusters, whatever the fault.
        n_projections: clusters of each halo.

    Raises:
        ValueError: the fault is unknown.
    """
    if fault not in FAULTS:
        raise ValueError(f"Unknown fault {fault!r}; the faults are {', '.join(map(repr, FAULTS))}.")
    rng = np.random.default_rng(seed)
    halo = np.arange(n_clusters) // n_projections
    n_haloes = int(halo[-1]) + 1
    true = rng.normal(_MEAN, _SIGMA, n_haloes)[halo]
    log_richness = (
        np.log(30.0) + _SLOPE * (true - _MEAN) + _RICHNESS_SCATTER * rng.normal(size=n_haloes)[halo]
    )
    error = np.sqrt(0.5) * (rng.normal(size=n_haloes)[halo] + rng.normal(size=n_clusters))
    scatter = rng.uniform(0.10, 0.22, n_clusters)
    dynamical = true + scatter * (error if n_projections > 1 else rng.normal(size=n_clusters))
    from_richness = _MEAN + (log_richness - np.log(30.0)) / _SLOPE
    precision = np.stack(
        [np.full(n_clusters, _SIGMA**-2), scatter**-2, np.full(n_clusters, (_SLOPE / _RICHNESS_SCATTER) ** 2)]
    )
    values = np.stack([np.full(n_clusters, _MEAN), dynamical, from_richness])
    sigma = precision.sum(0) ** -0.5
    mean = (precision * values).sum(0) * sigma**2
    if fault == "bias":
        mean = mean + 0.05
    elif fault == "narrow":
        sigma = 0.8 * sigma
    elif fault == "ignores the data":
        mean, sigma = np.full(n_clusters, _MEAN), np.full(n_clusters, _SIGMA)
    return Control(
        PosteriorSummary.gaussian(true, mean, sigma, _SIGMA),
        halo,
        np.exp(log_richness),
        rng.uniform(0.05, 0.2, n_clusters),
    )
