"""Galaxies that a survey by fibres misses because another one is too close."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from bayesflowmass.catalog import CatalogError, ClusterCatalog
from bayesflowmass.common.arrays import BoolArray
from bayesflowmass.cosmology import transverse_mpc_h_per_radian
from bayesflowmass.selection.record import generator, per_cluster, record, recordable

_RADIANS = np.pi / 180.0 / 3600.0


def fibre_collisions(
    catalog: ClusterCatalog, angle: ArrayLike, seed: int | np.random.Generator
) -> ClusterCatalog:
    """Lose galaxies until no two of a cluster are closer than an angle, as on one plate of a survey by fibres.

    Galaxies get their fibres in a random order; one is lost if one that has a fibre is too close. SDSS: 55 arcsec
    (Blanton et al. 2003, AJ 125, 2276), of which overlapping plates bring some back.

    Args:
        angle: in arcsec, one number or one per cluster; 0 loses none.
        seed: of the order.

    Records ``fibre_collisions``.

    Raises:
        CatalogError: if an angle is negative.
    """
    # Imported late: an error in a table should not wait for it.
    from scipy.spatial import cKDTree

    angles = per_cluster(catalog, "angle", angle)
    if np.any(angles < 0.0):
        raise CatalogError(f"angle of fibre collisions is {recordable(angle)}; expected arcsec, 0 or more.")
    radius = (
        angles
        * _RADIANS
        * transverse_mpc_h_per_radian(catalog.column("redshift"), catalog.metadata.cosmology)
    )
    order = generator(seed, "fibre_collisions").random(catalog.n_galaxies_total)
    rows = np.flatnonzero(radius[catalog.galaxy_rows] > 0.0)
    cluster = catalog.galaxy_rows[rows]
    # In units of the cluster's radius; clusters lie in planes of their own, too far apart to meet.
    places = [np.asarray(catalog.galaxies(name), dtype=np.float64)[rows] / radius[cluster] for name in "xy"]
    pairs = cKDTree(np.stack([*places, 2.0 * cluster], 1)).query_pairs(1.0, output_type="ndarray")
    lost = np.zeros(catalog.n_galaxies_total, dtype=bool)
    lost[rows[_without_fibre(pairs, order[rows])]] = True
    return record(catalog.filter_galaxies(~lost), seed, fibre_collisions=recordable(angles))


def _without_fibre(pairs: np.ndarray, order: np.ndarray) -> BoolArray:
    """Which galaxies a walk in that order leaves out, each that is close to one before it that has a fibre."""
    swap = order[pairs[:, 0]] > order[pairs[:, 1]]
    first, second = np.where(swap, pairs[:, 1], pairs[:, 0]), np.where(swap, pairs[:, 0], pairs[:, 1])
    lost, served = np.zeros((2, len(order)), dtype=bool)
    while len(first):
        waits = np.zeros(len(order), dtype=bool)
        waits[second] = True
        served[first[~waits[first]]] = True
        lost[second[served[first]]] = True
        open_ = ~(served[first] | lost[first] | lost[second])
        first, second = first[open_], second[open_]
    return lost
