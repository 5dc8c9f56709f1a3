"""Catalogue to astropy tables and back: one row per cluster, one row per galaxy."""

from __future__ import annotations

from typing import Any

import numpy as np
from astropy import units
from astropy.table import Table
from numpy.typing import NDArray

from bayesflowmass.catalog.arrays import match_ids
from bayesflowmass.catalog.columns import Columns
from bayesflowmass.catalog.errors import CatalogError
from bayesflowmass.common.arrays import IntArray

__all__ = ["from_astropy", "to_astropy"]

_UNITS = {
    "ra": "deg",
    "dec": "deg",
    "sigma_v_err": "km/s",
    "aperture": "Mpc/h",
    "x": "Mpc/h",
    "y": "Mpc/h",
    "v_los": "km/s",
    "gal_v_err": "km/s",
    "gal_ra": "deg",
    "gal_dec": "deg",
    "gal_abs_mag": "mag",
}
_MPC_PER_H = units.def_unit("Mpc/h", format={"latex": r"Mpc\,h^{-1}"})


def to_astropy(catalog: Columns) -> tuple[Any, Any]:
    """Clusters and galaxies as astropy tables; column units where we know them, all in ``meta["units"]``."""
    meta = catalog.metadata.to_dict()
    clusters = Table({name: catalog.column(name) for name in catalog.cluster_columns}, meta=meta)
    columns = {name: catalog.galaxies(name) for name in catalog.galaxy_columns}
    if catalog.has("cluster_id"):
        columns = {"cluster_id": catalog.column("cluster_id")[catalog.galaxy_rows], **columns}
    galaxies = Table(columns, meta=meta)
    for table in (clusters, galaxies):
        for name in table.colnames:
            if name in _UNITS:
                table[name].unit = _MPC_PER_H if _UNITS[name] == "Mpc/h" else units.Unit(_UNITS[name])
    return clusters, galaxies


def from_astropy(
    clusters: Any, galaxies: Any
) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]], IntArray]:
    """Arrays for `ClusterCatalog.from_arrays`, with the galaxies of each cluster brought together.

    Raises:
        CatalogError: without ``cluster_id`` in both, for an id used twice, or for a galaxy of an unknown
            cluster.
    """
    for what, table in (("clusters", clusters), ("galaxies", galaxies)):
        if "cluster_id" not in table.colnames:
            raise CatalogError(
                f"the table of {what} has no column cluster_id; it has {', '.join(table.colnames)}."
            )
    ids = np.asarray(clusters["cluster_id"])
    order, counts = group_galaxies(np.asarray(galaxies["cluster_id"]), ids)
    rows = {name: _plain(clusters[name]) for name in clusters.colnames}
    flats = {name: _plain(galaxies[name])[order] for name in galaxies.colnames if name != "cluster_id"}
    return rows, flats, counts


def group_galaxies(
    galaxy_ids: NDArray[Any], ids: NDArray[Any], rows: IntArray | None = None
) -> tuple[IntArray, IntArray]:
    """Order that brings the galaxies of each cluster together (n_galaxies,), and their numbers (n,).

    Args:
        galaxy_ids: cluster of each galaxy (n_galaxies,).
        ids: of the clusters (n,).
        rows: of the galaxies in their table, from 0, for messages; default: all of them.

    Raises:
        CatalogError: for a cluster id used twice, ids of different sorts, or a galaxy of an unknown cluster.
    """
    if (ids.dtype.kind in "iu") != (galaxy_ids.dtype.kind in "iu"):
        raise CatalogError(
            f"cluster_id is {ids.dtype} for the clusters and {galaxy_ids.dtype} for the galaxies; "
            "make both integers or both text."
        )
    unique, count = np.unique(ids, return_counts=True)
    if unique.size < ids.size:
        twice = unique[count > 1][0]
        rows = np.flatnonzero(ids == twice)
        raise CatalogError(
            f"cluster_id {twice} stands in rows {rows[0] + 1} and {rows[1] + 1} of the clusters; ids are "
            f"unique."
        )
    row = match_ids(galaxy_ids, ids)
    if np.any(row < 0):
        bad = int(np.argmax(row < 0))
        place = bad if rows is None else int(rows[bad])
        raise CatalogError(
            f"the galaxy in row {place + 1} belongs to cluster {galaxy_ids[bad]}, which is not one of the "
            f"{ids.size} clusters; {int(np.sum(row < 0))} galaxies are so: add their clusters or remove them."
        )
    return np.argsort(row, kind="stable"), np.bincount(row, minlength=ids.size).astype(np.int64)


def _plain(column: Any) -> NDArray[Any]:
    return np.ma.asarray(column) if np.ma.isMaskedArray(column) else np.asarray(column)
