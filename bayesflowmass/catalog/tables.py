"""Catalogue to astropy tables and back: one row per cluster, one row per galaxy."""

from __future__ import annotations

from typing import Any

import numpy as np
from astropy import units
from astropy.table import Table
from numpy.typing import NDArray

from bayesflowmass.catalog.arrays import match_ids
from bayesflowmass.catalog.columns import Columns
from bayesflowmass.catalog.errors import CatalogError, refuse_where
from bayesflowmass.catalog.metadata import COLUMN_UNITS
from bayesflowmass.common.arrays import IntArray

# Without what astropy's units have no word for: comoving, and the h of magnitudes.
_UNITS = {name: unit.split()[0] for name, unit in COLUMN_UNITS.items() if name != "log10_mass"}
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
    """Arrays for `ClusterCatalog.from_arrays`, with the galaxies of each cluster brought together."""
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
    """
    if (ids.dtype.kind in "iu") != (galaxy_ids.dtype.kind in "iu"):
        raise CatalogError(
            f"cluster_id is {ids.dtype} for the clusters and {galaxy_ids.dtype} for the galaxies; "
            "make both integers or both text."
        )
    unique, count = np.unique(ids, return_counts=True)
    if unique.size < ids.size:
        twice = unique[count > 1][0]
        first, second = np.flatnonzero(ids == twice)[:2] + 1
        raise CatalogError(
            f"cluster_id {twice} stands in rows {first} and {second} of the clusters; ids are unique."
        )
    row = match_ids(galaxy_ids, ids)
    place = np.arange(row.size) if rows is None else rows
    refuse_where(
        row < 0,
        lambda bad: (
            f"the galaxy in row {place[bad] + 1} belongs to cluster {galaxy_ids[bad]}, which is not one of the "
            f"{ids.size} clusters; {int(np.sum(row < 0))} galaxies are so: add their clusters or remove them."
        ),
    )
    return np.argsort(row, kind="stable"), np.bincount(row, minlength=ids.size).astype(np.int64)


def _plain(column: Any) -> NDArray[Any]:
    return np.ma.asarray(column) if np.ma.isMaskedArray(column) else np.asarray(column)
