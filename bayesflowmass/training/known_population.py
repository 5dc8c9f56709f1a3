"""What population the masses of a training catalogue were drawn from."""

from __future__ import annotations

import math
import os

import numpy as np
import torch
from torch import Tensor

from bayesflowmass.catalog import CatalogError, ClusterCatalog
from bayesflowmass.cosmology import Cosmology
from bayesflowmass.flows import TrainingPopulation
from bayesflowmass.io.selection_file import read_selection
from bayesflowmass.posterior.priors import MassPrior, SelectedPrior, breaks_of, make_prior

# Width of a cell [dex], in which the density is taken for its mean over so many points.
_CELL, _POINTS = 0.03, 64
# Change of ln q with redshift that a cluster would not notice.
_STEADY = 0.1
# ln q this far below its largest value stands for zero; no mass function falls by so much over the range of clusters.
_NOTHING = 60.0


def known_population(
    name: str,
    selection: str | os.PathLike[str] | None,
    log10_mass_range: tuple[float, float],
    cosmology: Cosmology,
) -> MassPrior:
    """The population ``flat`` or ``hmf``, times P(in the sample | log10 mass) of a table.

    Args:
        name: of the population.
        selection: file with columns log10_mass and probability (`read_selection`); None: all are in it.
        log10_mass_range: its limits.
        cosmology: of the mass function.

    Raises:
        CatalogError: the table cannot be used.
        ValueError: an unknown population.
    """
    prior = make_prior(name, log10_mass_range, cosmology)
    return prior if selection is None else SelectedPrior(prior, read_selection(selection))


def tabulate(prior: MassPrior, *catalogs: ClusterCatalog) -> TrainingPopulation:
    """The density of the masses of these catalogues, for the likelihood of training.

    Args:
        prior: the population.
        catalogs: that were drawn from it, with ``log10_mass`` and ``redshift``.

    Raises:
        CatalogError: a cluster could not have been drawn, or the density changes with redshift from cluster to
            cluster.
    """
    low, high = prior.log10_mass_range
    n = int(np.ceil((high - low) / _CELL - 1e-9))
    jumps = [mass for mass in breaks_of(prior) if low < mass < high]
    edges = torch.from_numpy(np.union1d(np.linspace(low, high, n + 1), jumps))
    width = edges.diff()
    points = edges[:-1, None] + width[:, None] * (
        (torch.arange(_POINTS, dtype=torch.float64) + 0.5) / _POINTS
    )
    redshift = np.concatenate([np.asarray(part.column("redshift"), dtype=np.float64) for part in catalogs])
    ends = np.array([redshift.min(), redshift.max()])
    within = prior.log_density(ends)(points.reshape(-1, 1).expand(-1, 2)).double().view(-1, _POINTS, 2)
    both = within.logsumexp(1) - np.log(_POINTS)
    both = both - (both + width.log()[:, None]).logsumexp(0)
    change = float((both[:, 1] - both[:, 0]).nan_to_num(0.0).abs().max())
    if change > _STEADY:
        raise CatalogError(
            f"The population '{prior.name}' changes by {change:.2f} in ln density between the redshifts"
            f" {ends[0]:.3f} and {ends[1]:.3f} of the training clusters; train on clusters of one redshift."
        )
    density = both.mean(1)
    for part in catalogs:
        mass = np.asarray(part.column("log10_mass"), dtype=np.float64)
        cell = np.clip(np.searchsorted(edges.numpy(), mass, side="right") - 1, 0, len(density) - 1)
        outside = (mass < low - 1e-6) | (mass > high + 1e-6)
        odd = outside | ~(density.numpy()[cell] > float(density.max()) - _NOTHING)
        if odd.any():
            row = int(odd.argmax())
            raise CatalogError(
                f"{int(odd.sum())} training clusters have masses that the population '{prior.name}' over"
                f" {low:.2f}-{high:.2f} does not have, the first {mass[row]:.3f} at row {row}; give the population that"
                " they were drawn from."
            )
    return TrainingPopulation.of(edges, density)


def population_of_halos(
    views: TrainingPopulation | None, log10_mass: Tensor, weight: Tensor
) -> TrainingPopulation:
    """The population of halos whose views are training clusters, relative to that which the network is for.

    A network that learned p(m | d) under the population r(m) of the views would, once each halo counts once, learn
    it under that of the halos: rare masses are shown from many sides to make r flat. Told q(m) = r(m) E[weight | m]
    over r(m), the likelihood keeps the network's population, whatever the weights.

    Args:
        views: that the likelihood is told of the views; None: nothing, r is the network's own.
        log10_mass, weight: (N,), of the views.
    """
    mass, counted = log10_mass.double().cpu(), weight.double().cpu()
    low, high = float(mass.min()), float(mass.max()) + 1e-6
    n = max(1, math.ceil((high - low) / _CELL))
    grid = torch.linspace(low, high, n + 1, dtype=torch.float64)
    cell = torch.bucketize(mass, grid[1:-1], right=True)
    number = torch.bincount(cell, minlength=n).numpy()
    mean = torch.bincount(cell, counted, minlength=n).numpy() / np.maximum(number, 1)
    held = np.flatnonzero(number)
    # A cell without clusters is as its neighbours.
    ratio = torch.from_numpy(np.interp(np.arange(n), held, np.log(mean[held])))
    if views is None:
        return TrainingPopulation.of(grid, ratio)
    edges = torch.cat([grid, views.edges.double().cpu()]).unique()
    middle = 0.5 * (edges[1:] + edges[:-1])
    told = views.log_density.double().cpu()[torch.bucketize(middle, views.edges.double().cpu(), right=True)]
    return TrainingPopulation.of(edges, told + ratio[torch.bucketize(middle, grid[1:-1], right=True)])
