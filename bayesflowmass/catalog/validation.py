"""Checks of a catalogue, each with a message that names the cluster, its row and the column."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayesflowmass.catalog.columns import Columns
from bayesflowmass.catalog.metadata import COLUMN_UNITS, CatalogError

__all__ = ["validate"]

_CLUSTER_FLOATS = ("redshift", "log10_mass", "ra", "dec", "redshift_err", "completeness", "sigma_v_err")
_GALAXY_FLOATS = ("x", "y", "v_los", "gal_v_err", "gal_weight")
MAX_REDSHIFT = 3.0
MAX_POSITION = 50.0
"""Mpc/h; no cluster reaches so far, and radii in kpc do."""
MAX_VELOCITY = 30_000.0
"""km/s in the rest frame; peculiar velocities and the depth of any cut stay far below, m/s and cz do not."""


def validate(catalog: Columns, min_galaxies: int) -> None:
    """All checks; see `ClusterCatalog.validate`."""
    _columns(catalog)
    _ids(catalog)
    _finite(catalog)
    _units(catalog)
    _ranges(catalog)
    _richness(catalog, min_galaxies)


def cluster_name(catalog: Columns, row: int) -> str:
    """How messages name a cluster."""
    return (
        f"cluster {catalog.column('cluster_id')[row]} (row {row})"
        if catalog.has("cluster_id")
        else f"row {row}"
    )


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


def _finite(catalog: Columns) -> None:
    for name in _CLUSTER_FLOATS:
        if name in catalog.cluster_columns:
            values = _numbers(name, catalog.column(name))
            bad = ~np.isfinite(values)
            if bad.any():
                row = int(np.argmax(bad))
                raise CatalogError(
                    f"{cluster_name(catalog, row)}: {name} is {values[row]}; expected a finite number."
                )
    for name in _GALAXY_FLOATS:
        if name in catalog.galaxy_columns:
            values = _numbers(name, catalog.galaxies(name))
            bad = ~np.isfinite(values)
            if bad.any():
                _galaxy_error(catalog, name, values, int(np.argmax(bad)), "expected a finite number.")


def _units(catalog: Columns) -> None:
    for name, unit in catalog.metadata.units.items():
        expected = COLUMN_UNITS.get(name)
        if expected is not None and unit != expected and catalog.has(name):
            raise CatalogError(
                f"column {name} is in {unit!r} according to the metadata; expected {expected!r}."
            )


def _ranges(catalog: Columns) -> None:
    _cluster_range(
        catalog, "redshift", 0.0, MAX_REDSHIFT, "expected the cosmological redshift, not cz or per cent"
    )
    _cluster_range(
        catalog, "log10_mass", 10.0, 17.0, "expected log10 of M200c in Msun/h, not the mass itself"
    )
    _cluster_range(catalog, "dec", -90.0, 90.0, "expected degrees")
    _cluster_range(catalog, "ra", -360.0, 360.0, "expected degrees")
    _cluster_range(catalog, "completeness", 0.0, 1.0, "expected a fraction")
    _cluster_range(catalog, "sigma_v_err", 0.0, MAX_VELOCITY, "expected an error in km/s")
    for name in ("x", "y"):
        _galaxy_range(
            catalog, name, MAX_POSITION, "expected comoving Mpc/h from the centre, not kpc or degrees"
        )
    _galaxy_range(
        catalog, "v_los", MAX_VELOCITY, "expected km/s in the rest frame of the cluster, not m/s or cz"
    )


def _richness(catalog: Columns, min_galaxies: int) -> None:
    counts = catalog.n_galaxies
    if len(catalog) and counts.min() < min_galaxies:
        row = int(np.argmin(counts))
        few = int(np.sum(counts < min_galaxies))
        number = (
            "no galaxies"
            if counts[row] == 0
            else f"only {counts[row]} galax{'y' if counts[row] == 1 else 'ies'}"
        )
        raise CatalogError(
            f"{cluster_name(catalog, row)} has {number}; expected at least {min_galaxies} "
            f"({few} of {len(catalog)} clusters have fewer): remove such clusters, or lower the limit."
        )
    several = np.flatnonzero(counts > 1)
    if several.size:
        v_los = catalog.galaxies("v_los")
        starts = catalog.offsets[:-1][counts > 0]
        spread = np.zeros(len(catalog))
        spread[counts > 0] = np.maximum.reduceat(v_los, starts) - np.minimum.reduceat(v_los, starts)
        flat = several[spread[several] == 0.0]
        if flat.size:
            row = int(flat[0])
            raise CatalogError(
                f"{cluster_name(catalog, row)}: v_los is {v_los[catalog.offsets[row]]} for all of its "
                f"{counts[row]} galaxies; expected velocities that differ."
            )


def _cluster_range(catalog: Columns, name: str, low: float, high: float, expected: str) -> None:
    if name in catalog.cluster_columns:
        values = catalog.column(name)
        bad = (values < low) | (values > high)
        if bad.any():
            row = int(np.argmax(bad))
            raise CatalogError(
                f"{cluster_name(catalog, row)}: {name} is {values[row]:g}; {expected}, "
                f"within [{low:g}, {high:g}]."
            )


def _galaxy_range(catalog: Columns, name: str, limit: float, expected: str) -> None:
    values = catalog.galaxies(name)
    bad = np.abs(values) > limit
    if bad.any():
        _galaxy_error(catalog, name, values, int(np.argmax(bad)), f"{expected}, within +-{limit:g}.")


def _galaxy_error(catalog: Columns, name: str, values: NDArray[Any], galaxy: int, expected: str) -> None:
    row = int(np.searchsorted(catalog.offsets, galaxy, side="right")) - 1
    number = galaxy - int(catalog.offsets[row])
    raise CatalogError(
        f"{cluster_name(catalog, row)}, galaxy {number}: {name} is {values[galaxy]:g}; {expected}"
    )


def _numbers(name: str, values: NDArray[Any]) -> NDArray[Any]:
    if values.dtype.kind not in "iuf":
        raise CatalogError(f"column {name} holds {values.dtype}; expected numbers.")
    return values
