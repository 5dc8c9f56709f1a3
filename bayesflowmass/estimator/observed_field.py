"""What a footprint makes of the fields of clusters: how far out they reach, and which share of them was observed."""

from __future__ import annotations

import numpy as np

from bayesflowmass.catalog import CatalogError, ClusterCatalog
from bayesflowmass.common.arrays import FloatArray
from bayesflowmass.cosmology import transverse_mpc_h_per_radian
from bayesflowmass.io.footprint import disc_points
from bayesflowmass.io.footprint_file import ObservedSky
from bayesflowmass.io.sky import sky_position

_POINTS = 8192
_ANNULI = 32
_LEAST = 0.5
"""A field ends where an annulus has less than this part of the share that was observed inside it."""
_CORE = 0.15
"""Mpc/h: mocks have as many galaxies, interlopers included, in a step of radius as R / (R + 0.15) says, to a tenth."""
_CLUSTERS_AT_ONCE = 64


def in_footprint(catalog: ClusterCatalog, sky: ObservedSky, r_max: float) -> ClusterCatalog:
    """Clusters with the radius to which they were observed, and without galaxies outside the footprint.

    Cluster columns: ``aperture`` [comoving Mpc/h], not above one that is there; ``footprint_fraction``, the share of
    the galaxies inside it that lie where the survey looked, were they distributed as those of mocks are on average;
    ``completeness``, times that share, where it is known or the footprint says it.

    Args:
        catalog: clusters with ``ra, dec`` [deg] and ``redshift``; x points east and y north.
        sky: where the survey has looked.
        r_max: radius of the model's cylinder, comoving Mpc/h.

    Raises:
        CatalogError: clusters have no places on the sky.
    """
    if not (catalog.has("ra") and catalog.has("dec")):
        raise CatalogError(
            "--footprint needs places on the sky, columns ra and dec of the clusters; without them give --aperture."
        )
    ra, dec, redshift = (np.asarray(catalog.column(name), np.float64) for name in ("ra", "dec", "redshift"))
    known = np.isfinite(ra) & np.isfinite(dec) & (redshift > 0.0)
    scale = transverse_mpc_h_per_radian(np.where(known, redshift, 1.0), catalog.metadata.cosmology)
    told = np.asarray(catalog.column("aperture") if catalog.has("aperture") else np.nan, np.float64)
    radius = np.fmin(np.broadcast_to(told, (len(catalog),)), r_max)
    edge, share = np.ones(len(catalog)), np.full(len(catalog), np.nan)
    edge[known], share[known] = _fields(sky, ra[known], dec[known], radius[known], scale[known])
    rows = np.flatnonzero(known[catalog.galaxy_rows])
    at = catalog.galaxy_rows[rows]
    east, north = (catalog.galaxies(name)[rows].astype(np.float64) / scale[at] for name in ("x", "y"))
    outside = np.zeros(catalog.n_galaxies_total, dtype=bool)
    outside[rows] = sky.share(*sky_position(ra[at], dec[at], east, north)) == 0.0
    inside = (
        catalog.column("completeness")
        if catalog.has("completeness")
        else 1.0
        if sky.says_completeness
        else np.nan
    )
    # What was not observed at all has no galaxies either, and a logarithm is taken of what is told.
    completeness = np.where(share > 0.0, np.asarray(inside, dtype=np.float64) * share, np.nan)
    columns = {"aperture": radius * edge, "footprint_fraction": share}
    if np.isfinite(completeness).any():
        columns["completeness"] = completeness
    return _with_notes(catalog.filter_galaxies(~outside).with_columns(**columns), sky, int(outside.sum()))


def _fields(
    sky: ObservedSky, ra: FloatArray, dec: FloatArray, radius: FloatArray, scale: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """How much of each radius [Mpc/h] a field reaches, and the share that was observed inside (n,).

    ``scale``: Mpc/h per radian.
    """
    annulus = (np.sqrt((np.arange(_POINTS) + 0.5) / _POINTS) * _ANNULI).astype(np.int64)
    middle = radius[:, None] * (np.arange(_ANNULI) + 0.5) / _ANNULI
    weight = middle / (middle + _CORE)
    edges, shares = np.ones(ra.size), np.zeros(ra.size)
    for start in range(0, ra.size, _CLUSTERS_AT_ONCE):
        few = slice(start, start + _CLUSTERS_AT_ONCE)
        found = sky.share(*disc_points(ra[few], dec[few], (radius / scale)[few], _POINTS))
        mean = np.stack([found[:, annulus == k].mean(axis=1) for k in range(_ANNULI)], axis=1)
        within = np.cumsum(mean * weight[few], axis=1) / np.cumsum(weight[few], axis=1)
        ended = mean[:, 1:] < _LEAST * within[:, :-1]
        last = np.where(ended.any(axis=1), ended.argmax(axis=1), _ANNULI - 1)
        edges[few] = (last + 1) / _ANNULI
        shares[few] = np.take_along_axis(within, last[:, None], axis=1)[:, 0]
    return edges, shares


def _span(values: FloatArray, digits: str) -> str:
    """The least and the largest, or one number where they look alike."""
    return "-".join(dict.fromkeys(format(end, digits) for end in (values.min(), values.max())))


def _with_notes(catalog: ClusterCatalog, sky: ObservedSky, n_outside: int) -> ClusterCatalog:
    said = [*sky.notes]
    if n_outside:
        said.append(f"{n_outside} galaxies outside the footprint are left out.")
    share = catalog.column("footprint_fraction")
    if (share == 0.0).any():
        first = catalog.column("cluster_id")[int(np.argmax(share == 0.0))]
        said.append(f"{int((share == 0.0).sum())} clusters are outside the footprint; the first is {first}.")
    if (share > 0.0).any():
        seen = catalog.filter(share > 0.0)
        radius, share = seen.column("aperture"), seen.column("footprint_fraction")
        said.append(
            f"by the footprint, fields reach to {_span(radius, '.2f')} Mpc/h, with {_span(100 * share, '.0f')} % of"
            " them observed."
        )
    extra = catalog.metadata.extra
    return catalog.with_metadata(extra={**extra, "notes": [*extra.get("notes", []), *said]})
