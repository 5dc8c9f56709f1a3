"""One galaxy, several measurements: the best redshift is kept, the others are counted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bayesflowmass.common.arrays import BoolArray, FloatArray
from bayesflowmass.cosmology import SPEED_OF_LIGHT
from bayesflowmass.io.sky import unit_vectors

DISCORDANT = 300.0
"""km/s: two measurements of one galaxy that differ by more than this are not both right."""


@dataclass(frozen=True)
class Duplicates:
    """Which measurements to keep.

    Args:
        kept: mask of the best measurement of each object (n,).
        repeated: rows that are left out.
        discordant: objects with a measurement further than `DISCORDANT` from the one that is kept.
    """

    kept: BoolArray
    repeated: int
    discordant: int


def find_duplicates(
    ra: FloatArray,
    dec: FloatArray,
    z: FloatArray,
    z_err: FloatArray | None = None,
    ids: NDArray[np.generic] | None = None,
    *,
    radius: float = 1.0,
) -> Duplicates:
    """Rows of one id, or closer than ``radius`` on the sky, are one object; its smallest error is kept.

    Without errors, or where they are equal, the first row is kept.

    Args:
        ra, dec: degrees (n,).
        z: redshifts (n,).
        z_err: errors of the redshifts; NaN and what is not positive count as the worst.
        ids: integers or text.
        radius: arcseconds; rows that are chained by it are one object.
    """
    n = ra.size
    if n == 0:
        return Duplicates(np.zeros(0, dtype=bool), 0, 0)
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import cKDTree

    tree = cKDTree(unit_vectors(ra, dec))
    links = [tree.query_pairs(np.radians(radius / 3600.0), output_type="ndarray").astype(np.int64)]
    if ids is not None:
        order = np.argsort(ids, kind="stable")
        same = ids[order][1:] == ids[order][:-1]
        links.append(np.column_stack([order[:-1][same], order[1:][same]]))
    pairs = np.concatenate(links)
    graph = coo_matrix((np.ones(len(pairs)), tuple(pairs.T)), shape=(n, n))
    n_objects, of = connected_components(graph, directed=False)
    error = np.zeros(n) if z_err is None else np.where(z_err > 0.0, z_err, np.inf)
    best_first = np.lexsort((np.arange(n), error, of))
    first = np.unique(of[best_first], return_index=True)[1]
    kept = np.zeros(n, dtype=bool)
    kept[best_first[first]] = True
    z_best = z[best_first[first]]
    apart = SPEED_OF_LIGHT * np.abs(z - z_best[of]) / (1.0 + z_best[of]) > DISCORDANT
    return Duplicates(kept, n - int(n_objects), int(np.unique(of[apart]).size))
