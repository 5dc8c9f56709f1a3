r"""How much of a width is systematic: parameters of the mocks that stand for the sky but are not known of it.

A model that can be told a parameter theta of its mocks (their velocity bias, which galaxies count as interlopers)
gives p(m | d, theta), m = log10 M200c [Msun/h]. Left unknown, it gives the average over the prior of theta, whose
variance splits by the law of total variance,

    var(m | d) = E_theta[var(m | d, theta)] + var_theta(E[m | d, theta]),

and sigma_systematic is the root of the second term, summed over the parameters: each is told in turn while the
others are averaged over. What several do together is left out, and so the cost is that of a sum, not of a product.
More clusters do not make it smaller: the same theta holds for all of them. The average is over the prior of training,
since a single cluster hardly constrains theta; what is randomised without the model being told is in neither term by
name.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from bayesflowmass.catalog import ClusterCatalog
from bayesflowmass.common.arrays import FloatArray
from bayesflowmass.encoders import Contexts
from bayesflowmass.encoders.columns import MODE_VALUES
from bayesflowmass.estimator.mass_estimator import MassEstimator
from bayesflowmass.flows import MassDistribution
from bayesflowmass.flows.endings import condition_endings
from bayesflowmass.posterior import MassPosterior, MassPrior

# Means are close to linear in each parameter: two nodes give the variance of three to 0.1 per cent.
_NODES = 2
# A mean is wanted to 1e-4 dex; where a spline bends there are nodes beside.
_MEAN_NODES = 49
# Images of so few clusters stay in the cache of a core while they are told one value after the other.
_AT_ONCE = 256


def systematic_nodes(estimator: MassEstimator) -> dict[str, tuple[FloatArray, FloatArray]]:
    """Values and weights of each parameter that the model can be told: quadrature over its prior in training.

    Empty for a model that cannot be told any.
    """
    info = estimator.training_info
    nodes: dict[str, tuple[FloatArray, FloatArray]] = {}
    randomised = (info.config.get("simulate") or {}).get("randomise") or {}
    points, weights = np.polynomial.legendre.leggauss(_NODES)
    for name in estimator.encoder.optional.names:
        if name == "mode" and info.mode == "mixed":
            nodes[name] = (
                np.array(sorted(MODE_VALUES.values())),
                np.full(len(MODE_VALUES), 1 / len(MODE_VALUES)),
            )
        elif name.removeprefix("known_") in randomised:
            low, high = randomised[name.removeprefix("known_")]
            nodes[name] = 0.5 * (low + high) + 0.5 * (high - low) * points, 0.5 * weights
    return nodes


@torch.no_grad()
def sigma_systematic(
    estimator: MassEstimator,
    catalog: ClusterCatalog,
    prior: str | MassPrior = "flat",
    contexts: Contexts | None = None,
) -> FloatArray | None:
    """Systematic part of the standard deviation of each cluster (n,), dex; None where the model knows none.

    Of a parameter that the catalogue gives for a cluster nothing is left to average over. The weights of the
    network are at their centre.

    Args:
        estimator: a model with optional columns.
        catalog: clusters, each with a kernel density (`usable_clusters`).
        prior: of the means, as in `MassEstimator.posterior`.
        contexts: of the clusters, where `MassEstimator.encode` has been called before.

    Raises:
        CatalogError: a cluster has no kernel density.
    """
    nodes = systematic_nodes(estimator)
    if not nodes:
        return None
    redshift = np.asarray(catalog.column("redshift"), dtype=np.float64)
    parts = []
    for start in range(0, len(catalog), _AT_ONCE):
        rows = slice(start, start + _AT_ONCE)
        context = estimator.encode(catalog[rows]) if contexts is None else contexts[rows]
        parts.append(_of_chunk(estimator, context, redshift[rows], nodes, prior))
    return np.concatenate(parts) if parts else np.zeros(0)


def _of_chunk(
    estimator: MassEstimator,
    context: Contexts,
    redshift: FloatArray,
    nodes: dict[str, tuple[FloatArray, FloatArray]],
    prior: str | MassPrior,
) -> FloatArray:
    told = [(name, float(value)) for name, (values, _) in nodes.items() for value in values]
    tell: Any = estimator.encoder.tell
    distributions: list[MassDistribution]
    if isinstance(context, Tensor):
        # Optional columns are the end of an image context.
        end = context[:, -estimator.encoder.optional.width :]
        endings = torch.stack([tell(end, *one) for one in told])
        distributions = [condition_endings(estimator.flow, context, endings)]
    else:
        distributions = [estimator.flow.condition(tell(context, *one)) for one in told]
    info = estimator.training_info
    posterior = MassPosterior(
        distributions,
        log10_mass_range=info.log10_mass_range,
        training_prior=info.masses,
        redshift=np.tile(redshift, len(told)),
        cosmology=info.cosmology,
        n_nodes=_MEAN_NODES,
    )
    means = iter(posterior.with_prior(prior).mean.reshape(len(told), -1))
    variance = np.zeros(len(redshift))
    for _, weights in nodes.values():
        of_name = np.array([next(means) for _ in weights])
        average = np.average(of_name, axis=0, weights=weights)
        variance += np.average((of_name - average) ** 2, axis=0, weights=weights)
    return np.asarray(np.sqrt(variance))
