"""What a test catalogue knows of its clusters: their haloes, their members, three that stand for all."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bayesflowmass.catalog import ClusterCatalog
from bayesflowmass.common.arrays import IntArray


def halo_of(catalog: ClusterCatalog) -> NDArray[Any]:
    """``halo_id``, or ``cluster_id`` where every cluster is its own halo (n,)."""
    return np.asarray(catalog.column("halo_id" if catalog.has("halo_id") else "cluster_id"))


def member_counts(catalog: ClusterCatalog) -> tuple[IntArray | None, str]:
    """Members of each cluster (n,), N of equation 8, and in words what was counted; None where nobody knows."""
    if catalog.has("gal_is_member"):
        member = np.asarray(catalog.galaxies("gal_is_member"), dtype=bool)
        counts = np.bincount(catalog.galaxy_rows[member], minlength=len(catalog))
        return counts, "true members among the galaxies given"
    if catalog.metadata.kind == "pure":
        return np.asarray(catalog.n_galaxies), "galaxies given, all members"
    if catalog.has("n_members"):
        return np.asarray(catalog.column("n_members"), dtype=np.int64), "the column n_members"
    return None, "unknown"


def clusters_of_three_masses(log10_mass: ArrayLike) -> IntArray:
    """Rows of the clusters nearest to 15, 50 and 85 % of the range of mass: chosen by mass, not by success."""
    mass = np.asarray(log10_mass, dtype=np.float64)
    wanted = mass.min() + (mass.max() - mass.min()) * np.array([0.15, 0.5, 0.85])
    nearest = np.abs(mass[:, None] - wanted).argmin(axis=0)
    return np.array(list(dict.fromkeys(nearest.tolist())), dtype=np.int64)
