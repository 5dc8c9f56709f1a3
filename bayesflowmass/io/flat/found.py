"""Centres and redshifts of clusters of which a table holds only the galaxies."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayesflowmass.catalog import CatalogMetadata, ClusterCatalog
from bayesflowmass.catalog.tables import group_galaxies
from bayesflowmass.common.arrays import FloatArray
from bayesflowmass.cosmology import SPEED_OF_LIGHT, Cosmology, transverse_mpc_h_per_radian
from bayesflowmass.io.sky import rest_frame_velocity, sky_offsets, sky_position
from bayesflowmass.selection import recentre
from bayesflowmass.selection.cuts import V_MAX

_NEAR_R, _NEAR_V = 0.7, 1000.0
"""Galaxies so near to each other [comoving Mpc/h, km/s] make a peak."""
_ENOUGH = 3
_NEAREST = 0.003
"""Redshift below which stars are, and no cluster whose galaxies fit on a plate."""


def clusters_found(
    ids: NDArray[Any],
    names: NDArray[Any],
    ra: FloatArray,
    dec: FloatArray,
    z: FloatArray,
    redshift: FloatArray | None,
    cosmology: Cosmology,
) -> dict[str, NDArray[Any]]:
    """``cluster_id, ra, dec, redshift`` of the densest peak of the galaxies of each cluster, with errors.

    From the galaxy with the most neighbours within 0.7 Mpc/h and 1000 km/s on, in turns: the biweight of the velocities
    within 0.8 Mpc/h and the centroid of the galaxies near it (`bayesflowmass.selection.recentre`). ``centre_err`` is
    the error of the centre along each axis [comoving Mpc/h], ``redshift_err`` that of the redshift: the spread of the
    galaxies near it over the root of their number.

    Args:
        ids: cluster of each galaxy (n,).
        names: of the clusters (m,), each of which has a galaxy.
        ra, dec, z: degrees and redshifts (n,).
        redshift: of the clusters (m,), where it is known.
        cosmology: turns angles into lengths.

    Returns:
        Columns (m,); without a redshift, and at one of its galaxies, where fewer than three make a peak.
    """
    order, counts = group_galaxies(ids, names)
    centre = np.full((3, names.size), np.nan)
    for k, rows in enumerate(np.split(order, np.cumsum(counts)[:-1])):
        known = None if redshift is None else float(redshift[k])
        centre[:2, k] = ra[rows[0]], dec[rows[0]]
        if (peak := _densest(ra[rows], dec[rows], z[rows], known, cosmology)) is not None:
            centre[:, k] = ra[rows[peak]], dec[rows[peak]], z[rows[peak]] if known is None else known
    each = np.repeat(np.arange(names.size), counts)
    scale = transverse_mpc_h_per_radian(np.nan_to_num(centre[2], nan=_NEAREST), cosmology)
    x, y = sky_offsets(ra[order], dec[order], centre[0, each], centre[1, each]) * scale[each]
    v = rest_frame_velocity(z[order], centre[2, each])
    # Beyond, galaxies of other redshifts would outnumber its own; NaN is beyond.
    own = np.abs(v) < V_MAX
    field = ClusterCatalog.from_arrays(
        {"cluster_id": names, "redshift": centre[2]},
        {"x": x[own], "y": y[own], "v_los": v[own]},
        np.bincount(each[own], minlength=names.size),
        CatalogMetadata(cosmology=cosmology),
    )
    field = recentre(field, velocity=redshift is None, r_inner=_NEAR_R, v_inner=_NEAR_V)
    near = (field.r_proj < _NEAR_R) & (np.abs(field.galaxies("v_los")) < _NEAR_V)
    number = np.bincount(field.galaxy_rows, weights=near, minlength=names.size)
    moved = [np.asarray(field.column(f"offset_{axis}"), dtype=np.float64) for axis in "xyv"]
    nowhere = (number < _ENOUGH) | np.isnan(centre[2])
    number = np.where(nowhere, np.nan, number)
    stretch = (1.0 + centre[2]) / SPEED_OF_LIGHT
    spread_r, spread_v = (
        np.sqrt(np.bincount(field.galaxy_rows, weights=near * values**2, minlength=names.size))
        for values in (field.r_proj / np.sqrt(2.0), field.galaxies("v_los"))
    )
    columns = dict(
        zip(
            ("ra", "dec"), sky_position(centre[0], centre[1], moved[0] / scale, moved[1] / scale), strict=True
        )
    )
    columns |= {"redshift": centre[2] + stretch * moved[2], "centre_err": spread_r / number}
    if redshift is None:
        columns["redshift_err"] = stretch * spread_v / number
    columns = {name: np.where(nowhere, np.nan, values) for name, values in columns.items()}
    for name, values in zip(("ra", "dec"), centre, strict=False):
        columns[name] = np.where(nowhere, values, columns[name])
    return {"cluster_id": names, **columns, "centre_found": np.ones(names.size, dtype=bool)}


def _densest(
    ra: FloatArray, dec: FloatArray, z: FloatArray, known: float | None, cosmology: Cosmology
) -> int | None:
    """The galaxy with the most neighbours in position and velocity; of the cluster's redshift, where it is known."""
    from scipy.spatial import cKDTree

    def neighbours(places: FloatArray) -> NDArray[np.int64]:
        return np.asarray(cKDTree(places).query_ball_point(places, 1.0, return_length=True))

    own = z > _NEAREST if known is None else np.abs(rest_frame_velocity(z, np.full(z.size, known))) < V_MAX
    rows = np.flatnonzero(own)
    if rows.size == 0:
        return None
    velocity = SPEED_OF_LIGHT * np.log1p(z[rows]) / _NEAR_V
    # Angles become lengths at the redshift of the peak along the line of sight, which comes first.
    at = z[rows[np.argmax(neighbours(velocity[:, None]))]] if known is None else known
    scale = transverse_mpc_h_per_radian(at, cosmology) / _NEAR_R
    middle = np.full(rows.size, ra[rows[0]]), np.full(rows.size, np.median(dec[rows]))
    x, y = sky_offsets(ra[rows], dec[rows], *middle) * scale
    return int(rows[np.argmax(neighbours(np.column_stack([x, y, velocity])))])
