"""The clusters of flat tables: from a table of their own, or from what the galaxies say."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayesflowmass.catalog import CatalogError
from bayesflowmass.cosmology import Cosmology
from bayesflowmass.io import plausibility
from bayesflowmass.io import units as convert
from bayesflowmass.io.table import FlatTable

__all__ = ["clusters_from_galaxies", "clusters_from_table", "column_place", "the_one_cluster"]

_FLOATS = ("redshift_err", "sigma_v_err", "completeness")


def clusters_from_table(
    table: FlatTable, cosmology: Cosmology, redshift: float | None = None
) -> dict[str, NDArray[Any]]:
    """Cluster columns from a table of clusters.

    Args:
        redshift: of all clusters, where the table has none.

    Raises:
        CatalogError: for a missing column or a value that cannot be; names the row.
    """
    table.require("cluster_id")
    rows: dict[str, NDArray[Any]] = {"cluster_id": table.ids("cluster_id")}
    if redshift is not None and table.first("redshift", "z") is None:
        rows["redshift"], where = np.full(table.n_rows, float(redshift)), "redshift"
    elif redshift is not None:
        raise CatalogError("redshift is given beside a table of clusters, which has its own; leave one out.")
    else:
        name = table.require("redshift", "z")
        where = column_place(table, name)
        rows["redshift"] = convert.redshift_from(table.numbers(name), table.units[name], where)
    plausibility.check_redshifts(rows["redshift"], where, lowest=0.0)
    for name in ("ra", "dec"):
        if name in table:
            rows[name] = convert.angle_to_degrees(
                table.numbers(name), table.units[name], column_place(table, name)
            )
    if "log10_mass" in table:
        given, unit = table.numbers("log10_mass"), table.units["log10_mass"]
        rows["log10_mass"] = convert.mass_to_log10_msun_h(
            given, unit, column_place(table, "log10_mass"), cosmology.h
        )
    for name in table.columns:
        if name == "halo_id":
            rows[name] = table.ids(name)
        elif name in _FLOATS:
            rows[name] = table.numbers(name)
        elif name not in rows and not (name == "z" and "redshift" not in table):
            rows[name] = table.carried(name)
    return rows


def clusters_from_galaxies(
    table: FlatTable, cluster_id: int | str | None, redshift: float | None
) -> tuple[dict[str, NDArray[Any]], NDArray[Any]]:
    """Cluster columns, and the cluster id of each galaxy, where there is no table of clusters.

    Raises:
        CatalogError: if neither the galaxies nor the arguments say the ids or the redshifts.
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
                f"{str(error)[:-1]}; or give cluster_id if all galaxies are of one cluster."
            ) from error
    unique, first, inverse = np.unique(ids, return_index=True, return_inverse=True)
    if "redshift" in table:
        where = column_place(table, "redshift")
        each = convert.redshift_from(table.numbers("redshift"), table.units["redshift"], where)
        z = each[first]
        odd = np.abs(each - z[inverse]) > 1e-6
        if odd.any():
            row = int(np.argmax(odd))
            raise CatalogError(
                f"{where} is {each[row]:g} in row {row + 1} and {z[inverse[row]]:g} elsewhere in cluster "
                f"{ids[row]}; expected the redshift of the cluster, one value (the column of galaxies' "
                "redshifts is z)."
            )
    elif redshift is not None:
        where, z = "redshift", np.full(unique.size, float(redshift))
    else:
        raise CatalogError(
            f"{table.name}: the redshifts of the clusters are missing; give a table of clusters, or a "
            "column redshift in the table of galaxies, or one redshift for all."
        )
    plausibility.check_redshifts(z, where, lowest=0.0)
    # Clusters in the order in which they first appear.
    order = np.argsort(first, kind="stable")
    return {"cluster_id": unique[order], "redshift": z[order]}, ids


def the_one_cluster(
    table: FlatTable, others: FlatTable, rows: dict[str, NDArray[Any]], cluster_id: int | str | None
) -> NDArray[Any]:
    """The cluster id of each galaxy of a table without that column.

    Raises:
        CatalogError: if there are several clusters.
    """
    if cluster_id is not None:
        return np.full(table.n_rows, cluster_id)
    if rows["cluster_id"].size == 1:
        return np.full(table.n_rows, rows["cluster_id"][0])
    table.require("cluster_id")
    raise AssertionError(f"{others.name}: require refuses a missing column")


def column_place(table: FlatTable, name: str) -> str:
    """How messages name a column."""
    return f"{table.name}: {table.theirs[name]}"
