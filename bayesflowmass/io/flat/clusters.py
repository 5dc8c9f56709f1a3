"""The clusters of flat tables: from a table of their own, or from what the galaxies say."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayesflowmass.catalog import CatalogError
from bayesflowmass.catalog.errors import refuse_where
from bayesflowmass.catalog.metadata import MODES
from bayesflowmass.catalog.ranges import RANGES, check_range, known_values, without_sentinels
from bayesflowmass.common.arrays import BoolArray, FloatArray
from bayesflowmass.cosmology import Cosmology
from bayesflowmass.io import plausibility
from bayesflowmass.io import units as convert
from bayesflowmass.io.names import LIKELY, find_names
from bayesflowmass.io.table import FlatTable

OF_GALAXIES = ("x", "y", "v_los", "r_proj", "n_shared", "shares_with")
"""Names that are columns of galaxies, or made by readers: in a table of clusters they mean something else."""

_MEASURED = ("redshift_err", "sigma_v_err", "completeness", "abs_mag_limit")


def clusters_from_table(
    table: FlatTable, cosmology: Cosmology, redshift: float | None = None
) -> dict[str, NDArray[Any]]:
    """Cluster columns from a table of clusters; a redshift or position that is missing is NaN.

    Args:
        redshift: of all clusters, where the table has none.
    """
    if "cluster_id" not in table:
        _take_id(table)
    rows: dict[str, NDArray[Any]] = {"cluster_id": table.ids("cluster_id")}
    rows["redshift"] = _redshifts(table, redshift)
    for name in ("ra", "dec"):
        if name in table:
            rows[name] = sky_angles(table, name)
    rows |= _masses(table, cosmology)
    for name in table.columns:
        if name in rows or name in ("log10_mass", "log10_mass_published", "redshift"):
            continue
        if name == "z" and "redshift" not in table:
            continue
        if name in _MEASURED:
            rows[name] = measured_column(table, name, name)
        elif name == "aperture":
            at, place = partial(rows.__getitem__, "redshift"), column_place(table, name)
            ones = np.ones(table.n_rows)
            factor = convert.length_to_comoving(ones, table.units[name], place, cosmology, at)
            rows[name] = measured_column(table, name, name, factor)
        elif name in OF_GALAXIES or name.startswith("gal_"):
            rows[f"cluster_{name}"] = table.carried(name)
        elif name == "mode" and not np.isin(np.asarray(table.carried(name)).astype(str), MODES).all():
            rows["mode_in_file"] = table.carried(name)
        else:
            rows[name] = table.carried(name)
    return rows


def clusters_from_galaxies(
    table: FlatTable, cluster_id: int | str | None, redshift: float | None, find: bool = False
) -> tuple[dict[str, NDArray[Any]], NDArray[Any]]:
    """Cluster columns, and the cluster id of each galaxy, where there is no table of clusters.

    Args:
        find: redshifts that nobody says are to be found, and are left out.
    """
    if cluster_id is not None:
        ids = np.full(table.n_rows, cluster_id)
    elif "cluster_id" in table:
        ids = table.ids("cluster_id")
    else:
        try:
            table.require("cluster_id")
        except CatalogError as error:
            raise CatalogError(
                f"{str(error)[:-1]}; or give --cluster-id NAME if all galaxies are of one cluster."
            ) from error
    unique, first, inverse = np.unique(ids, return_index=True, return_inverse=True)
    # Clusters in the order in which they first appear.
    order = np.argsort(first, kind="stable")
    if "redshift" in table:
        where = column_place(table, "redshift")
        each = convert.redshift_from(table.measured("redshift"), table.units["redshift"], where)
        each = without_sentinels(each, "redshift")
        z = np.full(unique.size, np.nan)
        known = np.isfinite(each)
        # The last write of each cluster is its first known value.
        z[inverse[known][::-1]] = each[known][::-1]
        refuse_where(
            known & (np.abs(each - z[inverse]) > 1e-6),
            lambda row: (
                f"{where} is {each[row]:g} in row {row + 1} and {z[inverse[row]]:g} elsewhere in cluster {ids[row]}; "
                "expected the redshift of the cluster, one value (the column of galaxies' redshifts is z)."
            ),
        )
    elif redshift is not None:
        where, z = "redshift", np.full(unique.size, float(redshift))
    elif find:
        return {"cluster_id": unique[order]}, ids
    else:
        raise CatalogError(
            f"{table.name}: the redshifts of the clusters are missing; give a table of clusters (--clusters), a "
            "column redshift in the table of galaxies, or one redshift for all (--redshift)."
        )
    plausibility.check_redshifts(z, "redshift", where)
    return {"cluster_id": unique[order], "redshift": z[order]}, ids


def measured_column(
    table: FlatTable, name: str, range_name: str, factor: float | FloatArray = 1.0
) -> FloatArray:
    """An optional column in the unit of a catalogue, NaN where it is unknown; what cannot be is refused.

    Args:
        range_name: its name in `bayesflowmass.catalog.ranges.RANGES`.
        factor: from the declared unit to that of a catalogue.
    """
    given = table.measured(name)
    values, unknown = known_values(range_name, given * factor)
    if unknown.any():
        table.notes.append(f"{table.name}: {not_measured(table.theirs[name], given, unknown)}")
    try:
        check_range(range_name, values, lambda row: table.place(name, row))
    except CatalogError as error:
        raise CatalogError(str(error).replace(f": {range_name} is", " is", 1)) from None
    return values


def require_places(table: FlatTable, rows: Mapping[str, NDArray[Any]]) -> None:
    """Refuse clusters without the columns of positions, or with a redshift that is not above 0."""
    for name in ("ra", "dec"):
        table.require(name)
    refuse_where(
        rows["redshift"] <= 0.0,
        lambda row: (
            f"{table.name}: the redshift in row {row + 1} is {rows['redshift'][row]:g}; angles need a redshift above 0."
        ),
    )


def not_measured(column: str, values: FloatArray, unknown: BoolArray) -> str:
    """The sentence that says which values (n,) of a column are taken for not measured."""
    written = ", ".join(f"{value:g}" for value in np.unique(values[unknown])[:3])
    rows = f"in {int(unknown.sum())} of {values.size} rows; the first is row {int(np.argmax(unknown)) + 1}"
    return f"{column}: {written} is taken for not measured, {rows}."


def column_place(table: FlatTable, name: str) -> str:
    """How messages name a column."""
    return f"{table.name}: {table.theirs[name]}"


def _take_id(table: FlatTable) -> None:
    """Take the column that may be the id of the clusters, if it has another value in each row."""
    for theirs in find_names(table.columns, {"cluster_id": LIKELY["clusters"]["cluster_id"]}).values():
        values = np.ma.getdata(table.columns[theirs])
        if np.unique(values).size == table.n_rows and not np.ma.getmaskarray(table.columns[theirs]).any():
            table.move(theirs, "cluster_id")
            table.notes.append(f"{table.name}: {theirs} is taken for cluster_id.")
            return
    table.require("cluster_id")


def _redshifts(table: FlatTable, redshift: float | None) -> FloatArray:
    if table.first("redshift", "z") is None and redshift is not None:
        values, where = np.full(table.n_rows, float(redshift)), "redshift"
    elif redshift is not None:
        raise CatalogError("redshift is given beside a table of clusters, which has its own; leave one out.")
    else:
        name = table.require("redshift", "z")
        where = column_place(table, name)
        values = convert.redshift_from(table.measured(name), table.units[name], where)
    values = without_sentinels(values, "redshift")
    plausibility.check_redshifts(values, "redshift", where)
    unknown = np.isnan(values)
    if unknown.all():
        raise CatalogError(f"{where}: none of the {table.n_rows} clusters has a redshift.")
    if unknown.any():
        table.notes.append(
            f"{where}: {int(unknown.sum())} of {table.n_rows} clusters have no redshift and get no mass; the first is "
            f"row {int(np.argmax(unknown)) + 1}."
        )
    return values


def sky_angles(table: FlatTable, name: str) -> FloatArray:
    """``ra`` or ``dec`` in degrees, NaN where it is missing; what no coordinate has is refused."""
    values = convert.angle_to_degrees(table.measured(name), table.units[name], column_place(table, name))
    values, limits = without_sentinels(values, name), RANGES[name]
    within = f"expected degrees, within [{limits.low:g}, {limits.high:g}]."
    bad = ~limits.holds(values) & ~np.isnan(values)
    refuse_where(bad, lambda row: f"{table.place(name, row)} is {values[row]:g}; {within}")
    return values


def _masses(table: FlatTable, cosmology: Cosmology) -> dict[str, NDArray[Any]]:
    """``log10_mass``, or ``log10_mass_published`` where some are missing: a truth has no gaps."""
    if "log10_mass" not in table:
        published = "log10_mass_published"
        return {published: table.carried(published)} if published in table else {}
    where = column_place(table, "log10_mass")
    values = without_sentinels(table.measured("log10_mass"), "log10_mass")
    known = np.isfinite(values)
    values[known] = convert.mass_to_log10_msun_h(values[known], table.units["log10_mass"], where, cosmology.h)
    if known.all():
        return {"log10_mass": values}
    table.notes.append(
        f"{where}: {int(np.sum(~known))} of {known.size} masses are missing (the first in row "
        f"{int(np.argmin(known)) + 1}), so the column is kept as log10_mass_published and is no truth."
    )
    return {"log10_mass_published": values}
