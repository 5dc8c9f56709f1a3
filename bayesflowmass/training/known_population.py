"""What population the masses of a training catalogue were drawn from."""

from __future__ import annotations

import os

import numpy as np
import torch

from bayesflowmass.catalog import CatalogError, ClusterCatalog
from bayesflowmass.cosmology import Cosmology
from bayesflowmass.flows import TrainingPopulation
from bayesflowmass.io.selection_file import read_selection
from bayesflowmass.posterior import MassPrior, SelectedPrior, make_prior

__all__ = ["known_population", "tabulate"]

# Width of a cell [dex]; no PDF is so narrow that the sum over centres of such cells is not its integral to six digits.
# Where the density has a step, which need not stand at an edge, its mean over points in the cell takes the place of
# that at the centre.
_CELL, _POINTS, _STEP = 0.03, 64, 0.5
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
    width = (high - low) / n
    points = low + width / _POINTS * (torch.arange(n * _POINTS, dtype=torch.float64)[:, None] + 0.5)
    redshift = np.concatenate([np.asarray(part.column("redshift"), dtype=np.float64) for part in catalogs])
    ends = np.array([redshift.min(), redshift.max()])
    within = prior.log_density(ends)(points.expand(-1, 2)).double().view(n, _POINTS, 2)
    steps = within.diff(dim=1).nan_to_num(0.0).abs().amax(1) > _STEP
    both = torch.where(steps, within.logsumexp(1) - np.log(_POINTS), within[:, _POINTS // 2])
    both = both - both.logsumexp(0) - np.log(width)
    change = float((both[:, 1] - both[:, 0]).nan_to_num(0.0).abs().max())
    if change > _STEADY:
        raise CatalogError(
            f"The population '{prior.name}' changes by {change:.2f} in ln density between the redshifts"
            f" {ends[0]:.3f} and {ends[1]:.3f} of the training clusters; train on clusters of one redshift."
        )
    population = TrainingPopulation.of(low, high, both.mean(1))
    density = population.log_density.numpy()
    for part in catalogs:
        mass = np.asarray(part.column("log10_mass"), dtype=np.float64)
        cell = np.clip(((mass - low) / width).astype(int), 0, n - 1)
        outside = (mass < low - 1e-6) | (mass > high + 1e-6)
        odd = outside | ~(density[cell] > density.max() - _NOTHING)
        if odd.any():
            row = int(odd.argmax())
            raise CatalogError(
                f"{int(odd.sum())} training clusters have masses that the population '{prior.name}' over"
                f" {low:.2f}-{high:.2f} does not have, the first {mass[row]:.3f} at row {row}; give the population that"
                " they were drawn from."
            )
    return population
