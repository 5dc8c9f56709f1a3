"""Training sets of the flagship comparison: where massive clusters are scarce, and why.

    flat500, flat2000   flat in log10 mass to 15.6: scarce everywhere, no shift of the prior
    few_haloes          2 000 flat clusters, whose part above 14.7 shows only 50 haloes, from many sides, as in an
                        N-body box
    thinned             20 000 flat clusters, the part above 14.7 thinned a hundredfold; the likelihood of training
                        is told by how much, so that the network learns PDFs under a flat prior
    test                fresh mocks, flat over 14.0-15.4, at least 150 in each 0.1 dex

Every seed has clusters of its own. All in log10 M200c [Msun/h].
"""

from __future__ import annotations

import math

import numpy as np

from bayesflowmass.catalog import ClusterCatalog
from bayesflowmass.mocks import simulate_catalog
from bayesflowmass.posterior import FlatPrior, MassPrior, PiecewisePrior
from bayesflowmass.training.random_state import derive_seed

__all__ = [
    "MASS_RANGE",
    "SETS",
    "SPARSE_ABOVE",
    "TEST_RANGE",
    "population",
    "simulate_test",
    "simulate_training",
]

MASS_RANGE = (13.2, 15.6)
TEST_RANGE = (14.0, 15.4)
SPARSE_ABOVE = 14.7
THINNING = 0.01
N_HALOES = 50
SETS = {"flat500": 500, "few_haloes": 2000, "thinned": 20000, "flat2000": 2000}


def simulate_training(name: str, seed: int) -> ClusterCatalog:
    """The training clusters of a set, for one seed."""
    full = simulate_catalog(SETS[name], log10_mass_range=MASS_RANGE, seed=derive_seed(seed, "flagship", name))
    massive = full.column("log10_mass") >= SPARSE_ABOVE
    if name == "thinned":
        rng = np.random.default_rng(derive_seed(seed, "flagship thinning"))
        return full.filter(~massive | (rng.random(len(full)) < THINNING))
    if name == "few_haloes":
        n = int(massive.sum())
        sides = math.ceil(n / N_HALOES)
        views = simulate_catalog(
            N_HALOES * sides,
            log10_mass_range=(SPARSE_ABOVE, MASS_RANGE[1]),
            n_projections=sides,
            seed=derive_seed(seed, "flagship few haloes"),
        )
        below = full.filter(~massive)
        parts = []
        for tag, part in (("below", below), ("above", views)):
            names = {
                column: np.array([f"{tag}-{value}" for value in part.column(column)])
                for column in ("cluster_id", "halo_id")
            }
            parts.append(part.with_columns(**names))
        return ClusterCatalog.concatenate(parts, full.metadata)
    return full


def simulate_test(n_per_bin: int = 150, seed: int = 779) -> ClusterCatalog:
    """Fresh mocks with at least ``n_per_bin`` clusters in each 0.1 dex of `TEST_RANGE`."""
    bins = round((TEST_RANGE[1] - TEST_RANGE[0]) / 0.1)
    # Six standard deviations of a binomial above the mean: every bin is full.
    n = round(bins * (n_per_bin + 6.0 * math.sqrt(n_per_bin)))
    catalog = simulate_catalog(n, log10_mass_range=TEST_RANGE, seed=derive_seed(seed, "flagship test"))
    counts, _ = np.histogram(catalog.column("log10_mass"), np.linspace(*TEST_RANGE, bins + 1))
    if counts.min() < n_per_bin:
        raise SystemExit(f"A bin of the test set holds {counts.min()} clusters instead of {n_per_bin}.")
    return catalog


def population(name: str) -> MassPrior:
    """The density that the masses of a training set were drawn from."""
    if name == "thinned":
        return PiecewisePrior((MASS_RANGE[0], SPARSE_ABOVE, MASS_RANGE[1]), (1.0, THINNING), "thinned")
    return FlatPrior(MASS_RANGE)
