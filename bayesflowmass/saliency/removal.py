"""What one galaxy is worth: the mass with it and without it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from bayesflowmass.catalog import CatalogError, ClusterCatalog
from bayesflowmass.common.arrays import FloatArray, IntArray
from bayesflowmass.estimator import MassEstimator
from bayesflowmass.estimator.flags import usable_clusters
from bayesflowmass.saliency.masses import Statistic, check_statistic, point_masses, seen_by

# Clusters less one galaxy, and galaxies in them, encoded at once: 40 MB of contexts of two images.
_SUBSETS_AT_ONCE = 2048
_GALAXIES_AT_ONCE = 1 << 20


def leave_one_out(
    estimator: MassEstimator,
    catalog: ClusterCatalog,
    *,
    statistic: Statistic = "median",
    n_draws: int | None = None,
    seed: int = 0,
) -> FloatArray:
    """How much each galaxy adds to the mass of its cluster: log10 M(all) - log10 M(all but this one), in dex.

    Every removal is a cluster of its own: its covariance, its kernels and its number of galaxies are those
    of the galaxies that remain, so the differences are exact to the single precision of the network (1e-6
    dex). A cluster of n galaxies costs n kernel densities. Positive: the galaxy raised the mass.

    Args:
        estimator: the model; the mass is that under the prior of its training.
        catalog: clusters with at least three galaxies each.
        statistic: of the posterior: ``"median"``, ``"mean"`` or ``"map"``.
        n_draws, seed: of the weights (`MassEstimator.posterior`); the same draws with and without a galaxy.

    Returns:
        Change of log10 M200c [dex], (n_galaxies_total,) float64, in the order of the galaxies of the
        catalogue. NaN where the remaining galaxies have no kernel density, 0 for a galaxy outside the cylinder of
        the model.

    Raises:
        CatalogError: the catalogue is empty, or a cluster has too few galaxies or no spread.
        ValueError: an unknown statistic, or fewer than two draws of the weights.
    """
    check_statistic(statistic)
    seen, in_sight = seen_by(estimator, catalog)
    needed = _only_needed(estimator, seen)
    draws = estimator.draw(n_draws, seed)

    def masses_of(clusters: ClusterCatalog) -> FloatArray:
        return _masses(estimator, clusters, statistic, draws)

    whole = np.concatenate(
        [masses_of(needed[i : i + _SUBSETS_AT_ONCE]) for i in range(0, len(needed), _SUBSETS_AT_ONCE)]
    )
    change = np.full(needed.n_galaxies_total, np.nan)
    inside = _seen(estimator, needed)
    left_inside = np.add.reduceat(inside, needed.offsets[:-1])[needed.galaxy_rows] - inside
    for first, last in _slices(needed):
        removed = np.arange(first, last)
        subsets = without_one(needed, removed)
        usable = (usable_clusters(subsets) == "") & (left_inside[removed] > 0)
        if usable.any():
            less = _masses_or_nan(masses_of, subsets.filter(usable))
            change[removed[usable]] = whole[needed.galaxy_rows[removed[usable]]] - less
    every = np.zeros(catalog.n_galaxies_total)
    every[in_sight] = change
    return every


def without_one(catalog: ClusterCatalog, removed: IntArray) -> ClusterCatalog:
    """For each galaxy, by its place in the flat order (k,), its cluster without it: k clusters."""
    rows = catalog.galaxy_rows[removed]
    copies = catalog[rows]
    keep = np.ones(copies.n_galaxies_total, dtype=bool)
    keep[copies.offsets[:-1] + removed - catalog.offsets[rows]] = False
    return copies.filter_galaxies(keep)


def _masses(
    estimator: MassEstimator,
    clusters: ClusterCatalog,
    statistic: Statistic,
    draws: Mapping[str, Tensor] | None,
) -> FloatArray:
    contexts = estimator.encoder.encode(clusters, device=estimator.device)
    masses: FloatArray = point_masses(estimator, contexts, (statistic,), draws)[0]
    return masses


def _masses_or_nan(masses_of: Callable[[ClusterCatalog], FloatArray], clusters: ClusterCatalog) -> FloatArray:
    """Masses, NaN for those few that have no density after all (a kernel much narrower than a bin)."""
    try:
        return masses_of(clusters)
    except CatalogError:
        if len(clusters) == 1:
            return np.full(1, np.nan)
    half = len(clusters) // 2
    return np.concatenate([_masses_or_nan(masses_of, part) for part in (clusters[:half], clusters[half:])])


def _only_needed(estimator: MassEstimator, catalog: ClusterCatalog) -> ClusterCatalog:
    """Copies carry every column along, so the others go first."""
    needed = {"cluster_id", "redshift", *estimator.encoder.catalog_columns}
    return catalog.without(*(name for name in catalog.column_names if name not in needed))


def _seen(estimator: MassEstimator, catalog: ClusterCatalog) -> IntArray:
    points = catalog.galaxy_tensor(estimator.encoder.galaxy_columns, torch.float64)
    return np.asarray(estimator.encoder.sees(points).numpy(), dtype=np.int64)


def _slices(catalog: ClusterCatalog) -> Iterator[tuple[int, int]]:
    """Runs of galaxies whose subsets are few enough, and small enough together."""
    cost = np.cumsum((catalog.n_galaxies - 1)[catalog.galaxy_rows])
    first = 0
    while first < cost.size:
        before = cost[first - 1] if first else 0
        within = int(np.searchsorted(cost, before + _GALAXIES_AT_ONCE, side="right"))
        last = min(max(first + 1, within), first + _SUBSETS_AT_ONCE, cost.size)
        yield first, last
        first = last
