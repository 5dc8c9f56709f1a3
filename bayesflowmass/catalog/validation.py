"""Checks of a catalogue, each with a message that names the cluster, its row and the column."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayesflowmass.catalog.columns import Columns
from bayesflowmass.catalog.errors import CatalogError, refuse_where
from bayesflowmass.catalog.metadata import COLUMN_UNITS
from bayesflowmass.catalog.ranges import RANGES, check_range


def validate(catalog: Columns, min_galaxies: int) -> None:
    """All checks; see `ClusterCatalog.validate`."""
    _columns(catalog)
    _ids(catalog)
    _units(catalog)
    _ranges(catalog, min_galaxies)
    _richness(catalog, min_galaxies)


def cluster_name(catalog: Columns, row: int) -> str:
    """How messages name a cluster."""
    has_id = catalog.has("cluster_id")
    return f"cluster {catalog.column('cluster_id')[row]} (row {row})" if has_id else f"row {row}"


def _columns(catalog: Columns) -> None:
    for sort, needed, there in (
        ("cluster", ("cluster_id", "redshift"), catalog.cluster_columns),
        ("galaxy", ("x", "y", "v_los"), catalog.galaxy_columns),
    ):
        missing = [name for name in needed if name not in there]
        if missing:
            raise CatalogError(
                f"the {sort} column {missing[0]!r} is missing; there are {', '.join(there) or 'none'}."
            )


def _ids(catalog: Columns) -> None:
    ids = catalog.column("cluster_id")
    if ids.dtype.kind not in "iuU":
        raise CatalogError(f"cluster_id holds {ids.dtype}; expected integers or strings.")
    unique, counts = np.unique(ids, return_counts=True)
    if unique.size < ids.size:
        rows = np.flatnonzero(ids == unique[counts > 1][0])
        raise CatalogError(
            f"cluster_id {ids[rows[0]]} stands in rows {rows[0]} and {rows[1]}; ids must be unique "
            "(projections of one halo share halo_id instead)."
        )


def _units(catalog: Columns) -> None:
    for name, unit in catalog.metadata.units.items():
        expected = COLUMN_UNITS.get(name)
        if expected is not None and unit != expected and catalog.has(name):
            raise CatalogError(
                f"column {name} is in {unit!r} according to the metadata; expected {expected!r}."
            )


def _ranges(catalog: Columns, min_galaxies: int) -> None:
    for name in RANGES:
        if name in catalog.cluster_columns:
            values = _numbers(name, catalog.column(name))
            if name == "redshift" and min_galaxies == 0:
                # A cluster whose redshift nobody knows stays in a table as a row without galaxies.
                values = np.where(np.isnan(values) & (catalog.n_galaxies == 0), 0.0, values)
            check_range(name, values, lambda row: cluster_name(catalog, row))
        elif name in catalog.galaxy_columns:
            check_range(
                name, _numbers(name, catalog.galaxies(name)), lambda index: _galaxy_name(catalog, index)
            )


def _richness(catalog: Columns, min_galaxies: int) -> None:
    counts = catalog.n_galaxies
    if len(catalog) and counts.min() < min_galaxies:
        row = int(np.argmin(counts))
        few = int(np.sum(counts < min_galaxies))
        one = counts[row] == 1
        number = f"only {counts[row]} galax{'y' if one else 'ies'}" if counts[row] else "no galaxies"
        raise CatalogError(
            f"{cluster_name(catalog, row)} has {number}; expected at least {min_galaxies} "
            f"({few} of {len(catalog)} clusters have fewer): remove such clusters, or lower the limit."
        )
    # Whoever keeps poor clusters has rows without a mass for those that have no spread, too.
    if np.any(counts > 1) and min_galaxies > 0:
        v_los = catalog.galaxies("v_los")
        starts = catalog.offsets[:-1][counts > 0]
        spread = np.zeros(len(catalog))
        spread[counts > 0] = np.maximum.reduceat(v_los, starts) - np.minimum.reduceat(v_los, starts)
        refuse_where(
            (counts > 1) & (spread == 0.0),
            lambda row: (
                f"{cluster_name(catalog, row)}: v_los is {v_los[catalog.offsets[row]]} for all of its "
                f"{counts[row]} galaxies; expected velocities that differ."
            ),
        )


def _galaxy_name(catalog: Columns, galaxy: int) -> str:
    row = int(np.searchsorted(catalog.offsets, galaxy, side="right")) - 1
    return f"{cluster_name(catalog, row)}, galaxy {galaxy - int(catalog.offsets[row])}"


def _numbers(name: str, values: NDArray[Any]) -> NDArray[Any]:
    if values.dtype.kind not in "iuf":
        raise CatalogError(f"column {name} holds {values.dtype}; expected numbers.")
    return values
