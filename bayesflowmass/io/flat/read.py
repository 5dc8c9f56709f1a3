"""Flat tables, one row per galaxy and one row per cluster, made into a catalogue.

A table of galaxies comes in one of four forms: ``cluster_id, x, y, v_los``; ``cluster_id, r_proj, v_los``
(no angle is known, so x = r_proj and y = 0); ``cluster_id, ra, dec, z`` (or ``cz`` [km/s]); ``ra, dec, z``
alone, from which the galaxies around each cluster are cut, one galaxy in as many clusters as it falls into.
Positions become comoving Mpc/h, angle x d_A(z_cl) (1 + z_cl) h, east and north of the centre; velocities c
(z - z_cl)/(1 + z_cl).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayesflowmass.catalog import CatalogError, CatalogMetadata, ClusterCatalog
from bayesflowmass.catalog.tables import group_galaxies
from bayesflowmass.common.arrays import FloatArray, IntArray
from bayesflowmass.cosmology import MDPL2, SPEED_OF_LIGHT, Cosmology, transverse_mpc_h_per_radian
from bayesflowmass.io import plausibility
from bayesflowmass.io import units as convert
from bayesflowmass.io.flat.clusters import (
    clusters_from_galaxies,
    clusters_from_table,
    column_place,
    measured_column,
    require_places,
)
from bayesflowmass.io.flat.found import clusters_found
from bayesflowmass.io.flat.galaxies import (
    carried_galaxies,
    galaxies_in_frame,
    galaxies_on_sky,
    settle_redshift,
)
from bayesflowmass.io.shared_galaxies import shared_counts
from bayesflowmass.io.sky import galaxies_around, rest_frame_velocity, sky_offsets
from bayesflowmass.io.sources import OpenedTables, open_tables
from bayesflowmass.io.table import FlatTable
from bayesflowmass.selection import cylinder
from bayesflowmass.selection.cuts import R_MAX, V_MAX

FEW_GALAXIES = ("error", "drop", "keep")

Rows = dict[str, NDArray[Any]]


def read_flat(
    galaxies: Any,
    clusters: Any = None,
    column_map: Mapping[str, str] | None = None,
    *,
    units: Mapping[str, str] | None = None,
    cluster_id: int | str | None = None,
    redshift: float | None = None,
    cosmology: Cosmology = MDPL2,
    table_cosmology: Cosmology | None = None,
    r_max: float | None = R_MAX,
    v_max: float | None = V_MAX,
    min_galaxies: int = 3,
    few_galaxies: str = "error",
    kind: str | None = None,
    mode: str | None = None,
    cleaned: bool = False,
    guess: bool = False,
) -> ClusterCatalog:
    """Read flat tables into a catalogue.

    ``metadata.extra`` counts ``galaxies_read``, ``galaxies_left_out`` (without a redshift, velocity or position),
    ``galaxies_outside_cylinder`` and, with sky coordinates, ``repeated_positions`` (rows of one cluster at the very
    same ra and dec: all of them are kept); ``notes`` says in sentences what was decided.

    Args:
        galaxies: path (any file of `bayesflowmass.io.any_table`, or a pipe) or astropy table of galaxies, in any of
            the formats of `bayesflowmass.io.formats`, or with our names, or those of `bayesflowmass.io.names`, or
            with names given in ``column_map``.
        clusters: the same of clusters: ``cluster_id, redshift`` (or ``z``), ``ra, dec`` where the galaxies
            have sky coordinates, optional ``log10_mass``. None where the galaxies have ``x, y, v_los`` and
            their cluster's ``redshift``, or where centres and redshifts are to be found from galaxies on the sky
            (`clusters_found`). A cluster without a redshift or position stays, without galaxies.
        column_map: ``{our name: their name}``, for both tables; ``galaxies.z`` or ``clusters.z`` for one. All
            columns are renamed at once.
        units: ``{our name: unit}`` in place of what a table declares, such as ``{"r_proj": "proper kpc"}``.
            A column without a unit is in ours: degrees, km/s, comoving Mpc/h, log10 of Msun/h.
        cluster_id: the whole table of galaxies is this one cluster.
        redshift: of all clusters, where there is no table of them, or it has none.
        cosmology: turns angles into Mpc/h.
        table_cosmology: that the lengths of the table were made with; default: ``cosmology``.
        r_max, v_max: cylinder [comoving Mpc/h, km/s]; None keeps all, and is refused where galaxies are cut
            around clusters.
        min_galaxies, few_galaxies: what to do with clusters with fewer galaxies in the cylinder: "error"
            refuses the tables, "drop" leaves those clusters out and lists them in
            ``metadata.extra["dropped_clusters"]``, "keep" keeps them.
        kind, mode: for the metadata.
        cleaned: someone has removed interlopers from the table already; recorded, so that models can flag it.
        guess: take the columns that errors propose for what is missing, by names that probably mean it.

    Returns:
        A validated catalogue, with ``gal_ra, gal_dec, gal_z`` where known, the cluster column ``n_shared``
        (galaxies that are in another cluster too) where galaxies have sky coordinates, and all other columns
        as they were.

    Raises:
        CatalogError: one sentence with the table, column, row or cluster, what was found and what to do.
    """
    if few_galaxies not in FEW_GALAXIES:
        raise CatalogError(f"few_galaxies is {few_galaxies!r}; expected one of {', '.join(FEW_GALAXIES)}.")
    opened = open_tables(galaxies, clusters, column_map, guess)
    table, others = opened.galaxies, opened.clusters
    _check_map(column_map or {}, table, others)
    _take_units(units or {}, table, others)
    settle_redshift(table)
    on_sky = table.has("ra", "dec") and table.first("z", "cz") is not None
    rows, ids = _clusters(opened, on_sky, cluster_id, redshift, cosmology)
    selection = {"cleaned": True} if cleaned or opened.cleaned else {}
    metadata = CatalogMetadata(kind=kind, mode=mode, cosmology=cosmology, selection=selection)
    if on_sky and (others is not None or "v_los" not in table):
        catalog = _from_sky(table, others or table, rows, ids, metadata, r_max, v_max)
    else:
        catalog = _from_frame(table, rows, ids, metadata, table_cosmology)
    extra: dict[str, Any] = {**opened.all_said(), **catalog.metadata.extra, "galaxies_read": table.n_rows}
    if r_max is not None or v_max is not None:
        before = catalog.n_galaxies_total
        catalog = cylinder(catalog, r_max or np.inf, v_max or np.inf)
        limits = {**catalog.metadata.selection, "r_max": r_max, "v_max": v_max}
        catalog = catalog.with_metadata(selection=limits)
        extra["galaxies_outside_cylinder"] = before - catalog.n_galaxies_total
    catalog = catalog.with_metadata(extra=extra)
    return drop_or_refuse_poor_clusters(catalog, min_galaxies, few_galaxies)


def drop_or_refuse_poor_clusters(
    catalog: ClusterCatalog, min_galaxies: int, few_galaxies: str
) -> ClusterCatalog:
    """Validate, and treat clusters poorer than ``min_galaxies`` as ``few_galaxies`` says; see `read_flat`."""
    poor = catalog.n_galaxies < min_galaxies
    if few_galaxies == "error" and poor.any():
        row = int(np.argmax(poor))
        count = int(catalog.n_galaxies[row])
        found = "no galaxies" if count == 0 else "one galaxy" if count == 1 else f"{count} galaxies"
        where = "" if catalog.metadata.selection.get("r_max") is None else " in the cylinder"
        if np.isnan(catalog.column("redshift")[row]):
            found, where = "no redshift", ""
        raise CatalogError(
            f"cluster {catalog.column('cluster_id')[row]} has {found}{where}; expected at least "
            f"{min_galaxies} ({int(poor.sum())} of {len(catalog)} clusters have fewer): remove such "
            "clusters, or leave them out with few_galaxies='drop'."
        )
    if few_galaxies == "drop" and poor.any():
        if poor.all():
            raise CatalogError(f"none of the {len(catalog)} clusters has {min_galaxies} galaxies.")
        dropped = {"dropped_clusters": catalog.column("cluster_id")[poor].tolist()}
        catalog = catalog.filter(~poor).with_metadata(extra={**catalog.metadata.extra, **dropped})
    return catalog.validate(0 if few_galaxies == "keep" else min_galaxies)


def _clusters(
    opened: OpenedTables,
    on_sky: bool,
    cluster_id: int | str | None,
    redshift: float | None,
    cosmology: Cosmology,
) -> tuple[Rows, NDArray[Any] | None]:
    """Columns of the clusters, and the cluster_id of each galaxy (None: the sky says)."""
    table, others = opened.galaxies, opened.clusters
    if others is None:
        if cluster_id is None and "cluster_id" not in table:
            cluster_id = opened.one_cluster
        if not on_sky:
            table.require(*(("z", "cz") if table.has("ra", "dec") else ()), "v_los")
        find = on_sky and "v_los" not in table
        unnamed = cluster_id is None and "cluster_id" not in table
        if find and (unnamed or _looks_like_clusters(table)):
            raise CatalogError(
                f"{table.name}: galaxies with ra, dec and z need a table of clusters (cluster_id, ra, dec, redshift)"
                + (
                    ", --clusters; or a column that names their clusters, --column cluster_id=THEIRS; or, where all "
                    "are of one cluster, its name, --cluster-id NAME: its centre and redshift are then found."
                    if unnamed
                    else "; this one looks like that table, with another cluster in each row: give it as --clusters."
                )
            )
        return clusters_from_galaxies(table, cluster_id, redshift, find)
    rows = clusters_from_table(others, cosmology, redshift)
    if cluster_id is not None:
        return rows, np.full(table.n_rows, cluster_id)
    if "cluster_id" in table:
        ids = table.ids("cluster_id")
        assumed = on_sky and "cluster_id" in table.assumed
        if not assumed or np.isin(ids.astype(str), rows["cluster_id"].astype(str)).all():
            return rows, ids
        table.notes.append(
            f"{table.name}: {table.theirs['cluster_id']} holds names that are not those of {others.name}, so "
            "galaxies are assigned to clusters by their positions."
        )
        return rows, None
    if on_sky:
        return rows, None
    if rows["cluster_id"].size > 1:
        table.require("cluster_id")
    return rows, np.full(table.n_rows, rows["cluster_id"][0])


def _looks_like_clusters(table: FlatTable) -> bool:
    if "cluster_id" not in table or table.n_rows == 1:
        return False
    return np.unique(np.ma.getdata(table.columns["cluster_id"])).size == table.n_rows


def _from_sky(
    table: FlatTable,
    others: FlatTable,
    rows: Rows,
    ids: NDArray[Any] | None,
    metadata: CatalogMetadata,
    r_max: float | None,
    v_max: float | None,
) -> ClusterCatalog:
    sky, at = galaxies_on_sky(table)
    ra, dec, z = sky["ra"], sky["dec"], sky["z"]
    if others is table and ids is not None:
        seen = np.isin(rows["cluster_id"], ids[at])
        if not seen.all():
            table.notes.append(
                f"{table.name}: {int(np.sum(~seen))} clusters have no galaxy with a redshift and are left out, such as"
                f" {rows['cluster_id'][~seen][0]}."
            )
        rows = {name: values[seen] for name, values in rows.items()}
        rows = clusters_found(
            ids[at], rows["cluster_id"], ra, dec, z, rows.get("redshift"), metadata.cosmology
        )
        _say_found(table, rows)
    require_places(others, rows)
    centres = (rows["ra"], rows["dec"], rows["redshift"])
    usable = np.isfinite(np.sum(centres, axis=0))
    if not np.all(usable | np.isnan(rows["redshift"])):
        first = int(np.argmax(~usable & np.isfinite(rows["redshift"])))
        table.notes.append(
            f"{others.name}: clusters without a position get no galaxies; the first is row {first + 1}."
        )
    if ids is not None:
        order, counts = _grouped(table, ids[at], rows["cluster_id"], at)
        order, counts = _of_usable(table, order, counts, usable)
    else:
        order, counts = _cut(table, others, sky, rows, usable, r_max, v_max, metadata.cosmology)
    row = np.repeat(np.arange(counts.size, dtype=np.int64), counts)
    z_cluster = rows["redshift"][row]
    scale = transverse_mpc_h_per_radian(z_cluster, metadata.cosmology)
    x, y = sky_offsets(ra[order], dec[order], rows["ra"][row], rows["dec"][row]) * scale
    v_los = rest_frame_velocity(z[order], z_cluster)
    declared = _unit_declared(table, others)
    plausibility.check_positions_meet(np.hypot(x, y), ra, dec, table.name, others.name, declared)
    _compare(table, at[order], np.hypot(x, y), v_los, z[order], z_cluster, metadata.cosmology)
    flats: Rows = {"x": x, "y": y, "v_los": v_los}
    flats |= {"gal_ra": ra[order], "gal_dec": dec[order], "gal_z": z[order]}
    if "z_err" in table and "v_err" not in table:
        errors = measured_column(table, "z_err", "gal_z_err")[at[order]]
        flats["gal_v_err"] = SPEED_OF_LIGHT * errors / (1.0 + z_cluster)
    flats.update(carried_galaxies(table, at[order], flats, rows))
    if "v_err" in table:
        # Beside cz or z on the sky, an error in km/s is that of cz.
        flats["gal_v_err"] = flats["gal_v_err"] / (1.0 + z_cluster)
    extra = {"repeated_positions": _repeats(table, np.column_stack([ra[order], dec[order], row]))}
    if at.size < table.n_rows:
        extra["galaxies_left_out"] = table.n_rows - at.size
    places = np.column_stack([ra[order], dec[order], z[order]])
    _, galaxy = np.unique(places, axis=0, return_inverse=True)
    rows = {**rows, "n_shared": shared_counts(galaxy.ravel(), row, counts.size)}
    return ClusterCatalog.from_arrays(rows, flats, counts, metadata.replace(extra=extra))


def _unit_declared(*tables: FlatTable) -> bool:
    """Whether one of the tables says in what its coordinates are."""
    return any(table.units["ra"] is not None for table in tables)


def _say_found(table: FlatTable, rows: Rows) -> None:
    """What was found of the clusters without a table, and how well."""
    there = np.isfinite(rows["redshift"])
    if not there.any():
        raise CatalogError(
            f"{table.name}: nowhere do three galaxies of a cluster make a peak; give a table of clusters."
        )
    error = f"{np.median(rows['centre_err'][there]):.2f} Mpc/h"
    if "redshift_err" in rows:
        velocity = SPEED_OF_LIGHT * rows["redshift_err"] / (1.0 + rows["redshift"])
        error += f" and {np.median(velocity[there]):.0f} km/s"
    nowhere = f"; without a peak, and so without a mass: {np.sum(~there)}" if not there.all() else ""
    found = "the cluster has" if there.size == 1 else f"{int(there.sum())} of {there.size} clusters have"
    table.notes.append(
        f"{table.name}: there is no table of clusters, so {found} the "
        f"{'centre' if 'redshift_err' not in rows else 'centre and redshift'} of the densest peak of galaxies, "
        f"good to {error} typically (flag centre_found){nowhere}; give --clusters where they are known."
    )


def _cut(
    table: FlatTable,
    others: FlatTable,
    sky: Mapping[str, FloatArray],
    rows: Rows,
    usable: NDArray[np.bool_],
    r_max: float | None,
    v_max: float | None,
    cosmology: Cosmology,
) -> tuple[IntArray, IntArray]:
    """Galaxies in the cylinder around each cluster that has a position and a redshift, and their numbers."""
    if r_max is None or v_max is None:
        raise CatalogError(
            f"{table.name}: the galaxies have no cluster_id, so they are cut around the clusters, "
            "which needs r_max and v_max."
        )
    ra, dec, z = sky["ra"], sky["dec"], sky["z"]
    if not _unit_declared(table, others):
        plausibility.check_not_radians(
            np.append(ra, rows["ra"][usable]), np.append(dec, rows["dec"][usable]), table.name
        )
    group_galaxies(rows["cluster_id"], rows["cluster_id"])
    centres = (rows["ra"][usable], rows["dec"][usable], rows["redshift"][usable])
    order, found = galaxies_around(ra, dec, z, *centres, r_max, v_max, cosmology)
    counts = np.zeros(usable.size, dtype=np.int64)
    counts[usable] = found
    return order, counts


def _from_frame(
    table: FlatTable,
    rows: Rows,
    ids: NDArray[Any] | None,
    metadata: CatalogMetadata,
    table_cosmology: Cosmology | None,
) -> ClusterCatalog:
    table.require("v_los")
    ids = table.ids("cluster_id") if ids is None else ids
    everyone, counts = _grouped(table, ids, rows["cluster_id"], np.arange(table.n_rows))
    z_cluster = np.empty(table.n_rows)
    z_cluster[everyone] = np.repeat(rows["redshift"], counts)
    flats, at = galaxies_in_frame(table, z_cluster, metadata.cosmology, table_cosmology)
    order, counts = _grouped(table, ids[at], rows["cluster_id"], at)
    order, counts = _of_usable(table, order, counts, np.isfinite(rows["redshift"]))
    flats = {name: values[order] for name, values in flats.items()}
    plausibility.check_radius(np.hypot(flats["x"], flats["y"]), table.name)
    plausibility.check_velocities(flats["v_los"], rows["cluster_id"], counts, column_place(table, "v_los"))
    columns: Rows = {**flats, **carried_galaxies(table, at[order], flats, rows)}
    extra = {"galaxies_left_out": table.n_rows - at.size} if at.size < table.n_rows else {}
    if not table.has("x", "y"):
        metadata = metadata.with_selection(positions="radial")
    return ClusterCatalog.from_arrays(rows, columns, counts, metadata.replace(extra=extra))


def _grouped(
    table: FlatTable, ids: NDArray[Any], known: NDArray[Any], at: IntArray
) -> tuple[IntArray, IntArray]:
    """Order that brings the galaxies of each cluster together, and their numbers; ids of two sorts as text."""
    if (ids.dtype.kind in "iu") != (known.dtype.kind in "iu"):
        ids, known = ids.astype(str), known.astype(str)
    try:
        return group_galaxies(ids, known, at)
    except CatalogError as error:
        raise CatalogError(f"{table.name}: {error}") from error


def _of_usable(
    table: FlatTable, order: IntArray, counts: IntArray, usable: NDArray[np.bool_]
) -> tuple[IntArray, IntArray]:
    """Order and numbers without the galaxies of clusters that have no redshift or position."""
    if lost := int(counts[~usable].sum()):
        table.notes.append(
            f"{table.name}: {lost} galaxies belong to clusters without a redshift or position and are left out."
        )
    return order[np.repeat(usable, counts)], np.where(usable, counts, 0)


def _compare(
    table: FlatTable,
    at: IntArray,
    radius: FloatArray,
    v_los: FloatArray,
    z: FloatArray,
    z_cluster: FloatArray,
    cosmology: Cosmology,
) -> None:
    """Compare radii and velocities that the table has beside ra, dec and z with those made of these."""
    names = ["r_proj"] if "r_proj" in table else ["x", "y"] if table.has("x", "y") else []
    if names:
        given = np.linalg.norm([table.measured(name)[at] for name in names], axis=0)
        columns = f"{table.name}: {' and '.join(table.theirs[name] for name in names)}"
        found = plausibility.radius_reading(given, radius, z_cluster, cosmology, columns)
        if found is not None:
            table.notes.append(
                f"{columns} {'are' if len(names) > 1 else 'is'} {found}, as ra, dec and z tell, and not used: radii "
                "are computed from these."
            )
    if "v_los" in table:
        where = column_place(table, "v_los")
        velocity = convert.velocity_to_km_s(table.measured("v_los"), table.units["v_los"], where)[at]
        if plausibility.velocity_reading(velocity, v_los, z, table.name) is not None:
            table.notes.append(f"{where} is cz and not used: velocities are computed from the redshifts.")


def _repeats(table: FlatTable, places: FloatArray) -> int:
    """Rows at the very position of another in the same cluster, said and kept."""
    # A galaxy measured twice counts twice; which measurement is right is for the user to say.
    repeated = len(places) - len(np.unique(places, axis=0))
    if repeated:
        table.notes.append(
            f"{table.name}: {repeated} rows are at the very position of another in the same cluster, as repeated "
            "measurements are; all of them are counted: leave one of each if they are one galaxy."
        )
    return repeated


def _check_map(column_map: Mapping[str, str], table: FlatTable, others: FlatTable | None) -> None:
    tables = [one for one in (table, others) if one is not None]
    for key, theirs in column_map.items():
        where = key.rpartition(".")[0]
        of = [one for one in tables if where in ("", one.what)]
        if where and where not in ("galaxies", "clusters"):
            raise CatalogError(
                f"--column {key}={theirs}: expected OURS=THEIRS, galaxies.OURS= or clusters.OURS=."
            )
        if not any(one.has_in_file(theirs) for one in of):
            listed = "; ".join(f"{one.name}: {', '.join(one.theirs.values())}" for one in of)
            raise CatalogError(f"--column {key}={theirs}: there is no column {theirs} ({listed}).")


def _take_units(units_given: Mapping[str, str], table: FlatTable, others: FlatTable | None) -> None:
    """Put the units that a user gives in place of those that the tables declare."""
    for one in (table, others):
        if one is not None:
            one.units.update({name: unit for name, unit in units_given.items() if name in one})
    for name in units_given:
        if name not in table and (others is None or name not in others):
            raise CatalogError(
                f"a unit is given for {name}, which is no column of the tables; use our names."
            )
