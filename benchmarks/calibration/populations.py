"""The four combinations of test set and prior, for posteriors that are exact.

What residuals look like at fixed true and at fixed predicted mass when nothing is wrong with the posterior:
a mass is measured with a Gaussian error of known size, the posterior is the exact one under its prior. All
that differs between the four is where the masses come from and what the prior says.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bayesflowmass.diagnostics.bins import binned_statistics, merged_edges
from bayesflowmass.posterior import PRIOR_NAMES, MassPosterior, MassPrior, make_prior

__all__ = ["draw_masses", "four_combinations"]

FloatArray = NDArray[np.float64]

_NODES = 4001


def draw_masses(prior: MassPrior, n: int, redshift: float, rng: np.random.Generator) -> FloatArray:
    """n values of log10 M200c [Msun/h] from the distribution that a prior is."""
    low, high = prior.log10_mass_range
    x = np.linspace(low, high, _NODES)
    log_density = prior.log_density(np.array([redshift]))(torch.from_numpy(x)[:, None])[:, 0].numpy()
    density = np.exp(log_density - log_density.max())
    cumulative = np.concatenate([[0.0], np.cumsum(0.5 * (density[1:] + density[:-1]))])
    return np.asarray(np.interp(rng.random(n), cumulative / cumulative[-1], x))


def four_combinations(
    n_clusters: int = 4000,
    *,
    sigma: float = 0.15,
    log10_mass_range: tuple[float, float] = (13.5, 15.6),
    redshift: float = 0.117,
    bin_width: float = 0.15,
    min_count: int = 30,
    seed: int = 0,
) -> dict[tuple[str, str], dict[str, Any]]:
    """Exact posteriors of flat and mass-function sets under flat and mass-function priors, binned both ways.

    Args:
        n_clusters: of each set.
        sigma: error of the measured log10 mass [dex].
        log10_mass_range: of the sets and of the priors, log10 M200c [Msun/h].
        redshift: of all clusters.
        bin_width: of the bins [dex]; min_count: neighbours are merged up to it.
        seed: of masses, errors and bootstrap.

    Returns:
        (population, prior) -> ``by_true`` and ``by_predicted``, as
        :func:`bayesflowmass.diagnostics.binned_statistics` gives them with ``coverage_68``.
    """
    rng = np.random.default_rng(seed)
    low, high = log10_mass_range
    result: dict[tuple[str, str], dict[str, Any]] = {}
    for population in PRIOR_NAMES:
        true = draw_masses(make_prior(population, log10_mass_range), n_clusters, redshift, rng)
        measured = torch.from_numpy(true + sigma * rng.normal(size=n_clusters))
        # The likelihood as a flat-prior posterior over a range that holds all of it.
        wide = MassPosterior(
            torch.distributions.Normal(measured, sigma),
            log10_mass_range=(low - 8.0 * sigma, high + 8.0 * sigma),
            redshift=redshift,
        )
        for prior in PRIOR_NAMES:
            posterior = wide.with_prior(make_prior(prior, log10_mass_range))
            inside = np.abs(posterior.cdf(true) - 0.5) <= 0.34
            result[population, prior] = {
                name: binned_statistics(
                    true,
                    posterior.median,
                    by=by,
                    edges=merged_edges(by, bin_width, min_count),
                    halo_id=np.arange(n_clusters),
                    averages={"coverage_68": inside},
                    n_resamples=50,
                    seed=seed,
                )
                for name, by in (("by_true", true), ("by_predicted", posterior.median))
            }
    return result
