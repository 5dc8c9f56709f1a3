"""One number of log10 mass for each of many contexts: what every attribution differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from bayesflowmass.catalog import ClusterCatalog
from bayesflowmass.common.arrays import BoolArray, FloatArray
from bayesflowmass.encoders import Contexts
from bayesflowmass.estimator import MassEstimator, flags
from bayesflowmass.estimator.conditioning import condition_in_parts
from bayesflowmass.estimator.cylinder import in_cylinder
from bayesflowmass.flows import MassDistribution
from bayesflowmass.posterior import MassPosterior

Statistic = Literal["median", "mean", "map"]

_LARGEST_STEP = 0.5  # dex
_TOLERANCE = 1e-12


def check_statistic(statistic: str, allowed: tuple[str, ...] = get_args(Statistic)) -> None:
    """Refuse an unknown statistic of the posterior.

    Raises:
        ValueError: if it is not one of those allowed.
    """
    if statistic not in allowed:
        raise ValueError(f"statistic must be one of {', '.join(allowed)}, not {statistic!r}")


def seen_by(estimator: MassEstimator, catalog: ClusterCatalog) -> tuple[ClusterCatalog, BoolArray]:
    """The clusters as the model sees them, and which of their galaxies that leaves.

    Args:
        estimator: the model.
        catalog: clusters with galaxies anywhere.

    Returns:
        The clusters cut to the cylinder of the model, and a mask of the galaxies of the catalogue inside it
        (n_galaxies_total,): the others have no part in a mass.

    Raises:
        CatalogError: there are no clusters, or one has no kernel density, naming it.
    """
    marked = catalog.with_galaxies(gal_place=np.arange(catalog.n_galaxies_total))
    seen = in_cylinder(marked, estimator.training_info.selection)
    inside = np.zeros(catalog.n_galaxies_total, dtype=bool)
    inside[seen.galaxies("gal_place")] = True
    flags.require_usable(
        seen, "attribute", "since it has no mass whose change could be attributed to galaxies"
    )
    return seen.without("gal_place"), inside


@torch.no_grad()
def point_masses(
    estimator: MassEstimator,
    contexts: Contexts,
    statistics: Sequence[Statistic] = ("median",),
    draws: Mapping[str, Tensor] | None = None,
) -> FloatArray:
    """Statistics of p(log10 M200c | context) of each context, under the prior of training.

    Args:
        estimator: the model.
        contexts: of n clusters, as its encoder makes them.
        statistics: of ``"median"``, ``"mean"`` and ``"map"``, the mass of the highest density per dex.
        draws: of the weights (`MassEstimator.draw`); None for a point model.

    Returns:
        log10 M200c [Msun/h], (len(statistics), n) float64.
    """
    limits = estimator.training_info.log10_mass_range
    parts = [
        np.stack([_statistic(distribution, s, draws is not None, limits) for s in statistics])
        for distribution in condition_in_parts(estimator.flow, contexts, draws)
    ]
    return np.concatenate(parts, 1)


def median(distribution: MassDistribution) -> Tensor:
    """Medians of a distribution, of its batch shape."""
    half = torch.full(distribution.batch_shape, 0.5, dtype=distribution.dtype)
    value: Tensor = distribution.icdf(half.to(distribution.base_dist.components[1].device))
    return value


def mixture_median(distribution: MassDistribution, start: Tensor | None = None) -> Tensor:
    """Median (n,) of the equal mixture over the first axis of a distribution of batch shape (draws, n).

    Newton steps on the exact cdf, kept inside the bracket that its values give: |cdf - 1/2| <= 1e-12.

    Args:
        distribution: one row for each draw of the weights.
        start: first guess (n,); default: the mean over draws of their medians.
    """
    x = median(distribution).mean(0) if start is None else start
    low, high = torch.full_like(x, -torch.inf), torch.full_like(x, torch.inf)
    for _ in range(100):
        log_prob, cdf = distribution.log_prob_and_cdf(x)
        excess, slope = cdf.mean(0) - 0.5, log_prob.exp().mean(0)
        if bool((excess.abs() <= _TOLERANCE).all()):
            break
        low, high = torch.where(excess < 0.0, x, low), torch.where(excess > 0.0, x, high)
        new = x - (excess / slope).nan_to_num(0.0).clamp(-_LARGEST_STEP, _LARGEST_STEP)
        outside = (new <= low) | (new >= high)
        bisect = outside & torch.isfinite(low) & torch.isfinite(high)
        x = torch.where(bisect, 0.5 * (low + high), torch.where(outside, x, new))
    return x


def _statistic(
    distribution: MassDistribution, statistic: Statistic, mixture: bool, limits: tuple[float, float]
) -> FloatArray:
    if statistic == "map":
        # The prior of training leaves the PDF of the flow as it is, whatever it is called.
        return MassPosterior(distribution, log10_mass_range=limits).map
    if statistic == "mean":
        value = distribution.mean.mean(0) if mixture else distribution.mean
    else:
        value = mixture_median(distribution) if mixture else median(distribution)
    return np.asarray(value.cpu().numpy(), dtype=np.float64)
