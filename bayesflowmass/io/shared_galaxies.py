"""Galaxies that lie in the cylinders of several clusters."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayesflowmass.catalog.arrays import rows_of_galaxies
from bayesflowmass.common.arrays import IntArray


def clusters_of_galaxies(found: IntArray) -> IntArray:
    """In how many clusters each galaxy is (n,), from its index in the survey (n,)."""
    return np.bincount(found, minlength=1)[found].astype(np.int64)


def shared_counts(found: IntArray, row: IntArray, n: int) -> IntArray:
    """How many galaxies of each cluster (n,) are in another one too; twice in one cluster they count once.

    Args:
        found: index in the survey of each galaxy.
        row: of its cluster.
    """
    pairs = np.unique(np.column_stack([found, row]), axis=0)
    return np.bincount(pairs[clusters_of_galaxies(pairs[:, 0]) > 1, 1], minlength=n).astype(np.int64)


def shared_columns(found: IntArray, offsets: IntArray, ids: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """``n_shared``: `shared_counts`; ``shares_with``: the cluster that most of them are shared with.

    Args:
        found: index in the survey of each galaxy, cluster after cluster.
        offsets: where each cluster begins (n + 1,).
        ids: of the clusters (n,); ``shares_with`` is text, empty where nothing is shared.
    """
    row = rows_of_galaxies(offsets)
    names = np.asarray(ids, dtype=str)
    partner = np.full_like(names, "")
    order = np.argsort(found, kind="stable")
    galaxy, cluster = found[order], row[order]
    pairs = [np.zeros((0, 2), dtype=np.int64)]
    # Clusters of one galaxy stand together: pair each with the k-th after it.
    for step in range(1, int(np.bincount(galaxy).max(initial=1))):
        same = galaxy[step:] == galaxy[:-step]
        pairs.append(np.column_stack([cluster[:-step][same], cluster[step:][same]]))
    both = np.concatenate(pairs)
    unique, count = np.unique(np.concatenate([both, both[:, ::-1]]), axis=0, return_counts=True)
    # The last write of each cluster is its largest count.
    for one, other in unique[np.argsort(count, kind="stable")]:
        partner[one] = names[other]
    return {"n_shared": shared_counts(found, row, ids.size), "shares_with": partner}
