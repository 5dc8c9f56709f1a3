"""How the mass answers when a galaxy moves: exact gradients through flow, network and kernel density."""

from __future__ import annotations

import math
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bayesflowmass.catalog import ClusterCatalog
from bayesflowmass.common.arrays import BoolArray, FloatArray
from bayesflowmass.encoders import Encoder
from bayesflowmass.estimator import MassEstimator
from bayesflowmass.estimator.weight_draws import condition_draws
from bayesflowmass.flows import ConditionalFlow, MassDistribution
from bayesflowmass.saliency.masses import Statistic, check_statistic, median, mixture_median, seen_by

# Clusters, times draws of the weights, whose intermediates autograd keeps at once.
_AT_ONCE = 256


@dataclass(frozen=True)
class GalaxyGradients:
    """Gradients of log10 M200c, float64; galaxies in the order of the catalogue.

    Attributes:
        r_proj: d log10 M / d R_proj of each galaxy [dex per comoving Mpc/h], (n_galaxies_total,); 0 outside the
            cylinder of the model.
        v_los: d log10 M / d v_los of each galaxy [dex per km/s], (n_galaxies_total,), likewise.
        log10_velocity: d log10 M / d log10 s of each cluster, all its velocities multiplied by s, (n,): ln 10
            times the sum of v_los d log10 M / d v_los. About 3 for a dynamical mass, 0 for one that counts.
        log10_mass: the mass itself [log10 Msun/h], (n,).
    """

    r_proj: FloatArray
    v_los: FloatArray
    log10_velocity: FloatArray
    log10_mass: FloatArray


def galaxy_gradients(
    estimator: MassEstimator,
    catalog: ClusterCatalog,
    *,
    statistic: Statistic = "median",
    n_draws: int | None = None,
    seed: int = 0,
) -> GalaxyGradients:
    """Exact gradients of each mass with respect to where its galaxies lie, in double precision throughout.

    The covariance of a cluster, and so every kernel, moves with each galaxy. The gradient of the median
    follows from its definition F(m) = 1/2: dm = -dF / p(m); that of the mean goes through its quadrature.
    Galaxies stay in or out of the cylinder whatever they do.

    Args:
        estimator: the model; the mass is that under the prior of its training.
        catalog: clusters with at least three galaxies each.
        statistic: of the posterior: ``"median"`` or ``"mean"``.
        n_draws, seed: of the weights (`MassEstimator.posterior`).

    Raises:
        CatalogError: the catalogue is empty, or a cluster has no kernel density.
        ValueError: an unknown statistic, or fewer than two draws of the weights.
    """
    check_statistic(statistic, ("median", "mean"))
    seen, inside = seen_by(estimator, catalog)
    flow, draws = _double(estimator, estimator.draw(n_draws, seed))
    at_once = max(1, _AT_ONCE // (1 if draws is None else len(next(iter(draws.values())))))
    names = estimator.encoder.galaxy_columns
    masses, gradients = [], []
    for start in range(0, len(seen), at_once):
        part = seen[start : start + at_once]
        points = part.galaxy_tensor(names, torch.float64).to(estimator.device).requires_grad_()
        with torch.enable_grad():
            mass = differentiable_masses(estimator.encoder, flow, part, points, statistic, draws)
        masses.append(mass.detach())
        gradients.append(torch.autograd.grad(mass.sum(), points)[0])
    gradient = torch.cat(gradients).cpu().numpy()
    velocity = gradient[:, -1]
    response = seen.galaxies("v_los").astype(np.float64) * velocity
    return GalaxyGradients(
        r_proj=_of_every_galaxy(_radial(seen, names, gradient), inside),
        v_los=_of_every_galaxy(velocity, inside),
        log10_velocity=math.log(10.0) * np.add.reduceat(response, seen.offsets[:-1]),
        log10_mass=torch.cat(masses).cpu().numpy(),
    )


def _of_every_galaxy(values: FloatArray, inside: BoolArray) -> FloatArray:
    result = np.zeros(len(inside))
    result[inside] = values
    return result


def differentiable_masses(
    encoder: Encoder,
    flow: ConditionalFlow,
    catalog: ClusterCatalog,
    points: Tensor,
    statistic: Statistic = "median",
    draws: Mapping[str, Tensor] | None = None,
) -> Tensor:
    """log10 M200c [Msun/h] (n,) of clusters whose galaxies are at points, differentiable in the points.

    Args:
        encoder: of the model.
        flow: of the model, in double precision.
        catalog: gives offsets, cluster columns and weights of galaxies.
        points: (n_galaxies_total, D) float64, the columns ``encoder.galaxy_columns``.
        statistic: ``"median"`` or ``"mean"``.
        draws: of the weights, in double precision; None for a point model.
    """
    contexts = encoder.at(catalog, points)
    distribution = flow.condition(contexts) if draws is None else condition_draws(flow, draws, contexts)
    if statistic == "mean":
        return distribution.mean if draws is None else distribution.mean.mean(0)
    return _median(distribution, draws is not None)


def _median(distribution: MassDistribution, mixture: bool) -> Tensor:
    """The median, with the gradient of the implicit function F(m) = 1/2."""
    with torch.no_grad():
        value = mixture_median(distribution) if mixture else median(distribution)
    log_prob, cdf = distribution.log_prob_and_cdf(value)
    density = log_prob.detach().exp()
    if mixture:
        cdf, density = cdf.mean(0), density.mean(0)
    return value - (cdf - cdf.detach()) / density


def _double(
    estimator: MassEstimator, draws: dict[str, Tensor] | None
) -> tuple[ConditionalFlow, dict[str, Tensor] | None]:
    flow = deepcopy(estimator.flow).double().requires_grad_(False)
    return flow, None if draws is None else {name: value.double() for name, value in draws.items()}


def _radial(catalog: ClusterCatalog, names: tuple[str, ...], gradient: FloatArray) -> FloatArray:
    """The component along R_proj; zero for a model that sees velocities alone."""
    if "r_proj" in names:
        return gradient[:, 0]
    if "x" not in names:
        return np.zeros(len(gradient))
    x, y = (catalog.galaxies(name).astype(np.float64) for name in ("x", "y"))
    radius = np.hypot(x, y)
    along: FloatArray = (x * gradient[:, 0] + y * gradient[:, 1]) / np.where(radius > 0.0, radius, 1.0)
    return along
