"""Galaxies that lie in the cylinders of several clusters."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayesflowmass.catalog.arrays import rows_of_galaxies
from bayesflowmass.common.arrays import IntArray

__all__ = ["clusters_of_galaxies", "shared_columns"]


def clusters_of_galaxies(found: IntArray) -> IntArray:
    """In how many clusters each galaxy is (n,), from its index in the survey (n,)."""
    return np.bincount(found, minlength=1)[found].astype(np.int64)


def shared_columns(found: IntArray, offsets: IntArray, ids: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """``n_shared``: galaxies of each cluster that are in another one too; ``shares_with``: in which most.

    Args:
        found: index in the survey of each galaxy, cluster after cluster.
        offsets: where each cluster begins (n + 1,).
        ids: of the clusters (n,); ``shares_with`` is text, empty where nothing is shared.
    """
    n = ids.size
    row = rows_of_galaxies(offsets)
    several = clusters_of_galaxies(found) > 1 if found.size else np.zeros(0, dtype=bool)
    n_shared = np.bincount(row[several], minlength=n).astype(np.int64)
    partner = np.full(n, "", dtype=f"U{max(1, np.asarray(ids, dtype=str).dtype.itemsize // 4)}")
    galaxy, cluster = found[several], row[several]
    order = np.argsort(galaxy, kind="stable")
    galaxy, cluster = galaxy[order], cluster[order]
    pairs = []
    # Clusters of one galaxy stand together: pair each with the k-th after it.
    for step in range(1, int(np.bincount(galaxy).max(initial=1)) if galaxy.size else 1):
        same = galaxy[step:] == galaxy[:-step]
        pairs.append(np.stack([cluster[:-step][same], cluster[step:][same]], axis=-1))
    if pairs:
        both = np.concatenate(pairs)
        unique, count = np.unique(np.concatenate([both, both[:, ::-1]]), axis=0, return_counts=True)
        # The last write of each cluster is its largest count.
        for one, other in unique[np.argsort(count, kind="stable")]:
            partner[one] = str(ids[other])
    return {"n_shared": n_shared, "shares_with": partner}
