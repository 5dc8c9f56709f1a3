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
    the_one_cluster,
)
from bayesflowmass.io.sky import galaxies_around, rest_frame_velocity, sky_offsets
from bayesflowmass.io.sources import OpenedTables, open_tables
from bayesflowmass.io.table import FlatTable
from bayesflowmass.selection import cylinder
from bayesflowmass.selection.cuts import R_MAX, V_MAX

__all__ = ["FEW_GALAXIES", "PREFIXED", "drop_or_refuse_poor_clusters", "read_flat"]

FEW_GALAXIES = ("error", "drop", "keep")

PREFIXED = ("v_err", "is_member", "component", "galaxy_id", "ra", "dec", "z", "abs_mag", "weight")
"""Columns of galaxies that a catalogue calls ``gal_<name>``."""
_FRAME = ("x", "y", "r_proj", "v_los", "cz", "cluster_id", "z_err")


def read_flat(
    galaxies: Any,
    clusters: Any = None,
    column_map: Mapping[str, str] | None = None,
    *,
    units: Mapping[str, str] | None = None,
    cluster_id: int | str | None = None,
    redshift: float | None = None,
    cosmology: Cosmology = MDPL2,
    r_max: float | None = R_MAX,
    v_max: float | None = V_MAX,
    min_galaxies: int = 3,
    few_galaxies: str = "error",
    kind: str | None = None,
    mode: str | None = None,
    cleaned: bool = False,
) -> ClusterCatalog:
    """Read flat tables into a catalogue.

    ``metadata.extra`` counts ``galaxies_read``, ``galaxies_outside_cylinder`` and, with sky coordinates,
    ``repeated_positions`` (rows of one cluster at the very same ra and dec: all of them are kept).

    Args:
        galaxies: path (csv, ecsv, fits, votable, parquet or text) or astropy table of galaxies, in any of the
            formats of `bayesflowmass.io.formats`, or with our names, or with names given in ``column_map``.
        clusters: the same of clusters: ``cluster_id, redshift`` (or ``z``), ``ra, dec`` where the galaxies
            have sky coordinates, optional ``log10_mass``. None where the galaxies have ``x, y, v_los`` and
            their cluster's ``redshift``.
        column_map: ``{our name: their name}``, for both tables; ``galaxies.z`` or ``clusters.z`` for one.
        units: ``{our name: unit}`` in place of what a table declares, such as ``{"r_proj": "proper kpc"}``.
            A column without a unit is in ours: degrees, km/s, comoving Mpc/h, log10 of Msun/h.
        cluster_id: the whole table of galaxies is this one cluster.
        redshift: of all clusters, where there is no table of them, or it has none.
        cosmology: turns angles into Mpc/h.
        r_max, v_max: cylinder [comoving Mpc/h, km/s]; None keeps all, and is refused where galaxies are cut
            around clusters.
        min_galaxies, few_galaxies: what to do with clusters with fewer galaxies in the cylinder: "error"
            refuses the tables, "drop" leaves those clusters out and lists them in
            ``metadata.extra["dropped_clusters"]``, "keep" keeps them.
        kind, mode: for the metadata.
        cleaned: someone has removed interlopers from the table already; recorded, so that models can flag it.

    Returns:
        A validated catalogue, with ``gal_ra, gal_dec, gal_z`` where known, the cluster column ``n_shared``
        (galaxies that are in another cluster too) where galaxies have sky coordinates, and all other columns
        as they were.

    Raises:
        CatalogError: one sentence with the table, column, row or cluster, what was found and what to do.
    """
    if few_galaxies not in FEW_GALAXIES:
        raise CatalogError(f"few_galaxies is {few_galaxies!r}; expected one of {', '.join(FEW_GALAXIES)}.")
    opened = open_tables(galaxies, clusters, column_map)
    table, others = opened.galaxies, opened.clusters
    _check_map(column_map or {}, table, others)
    _take_units(units or {}, table, others)
    on_sky = (
        table.first("ra") is not None
        and table.first("dec") is not None
        and table.first("z", "cz") is not None
    )
    rows, ids = _clusters(opened, on_sky, cluster_id, redshift, cosmology)
    selection = {"cleaned": True} if cleaned or opened.cleaned else {}
    metadata = CatalogMetadata(kind=kind, mode=mode, cosmology=cosmology, selection=selection)
    if on_sky and others is not None:
        catalog = _from_sky(table, others, rows, ids, metadata, r_max, v_max)
    else:
        catalog = _from_frame(table, rows, ids, metadata)
    extra: dict[str, Any] = {**opened.report, **catalog.metadata.extra, "galaxies_read": table.n_rows}
    if r_max is not None or v_max is not None:
        before = catalog.n_galaxies_total
        catalog = cylinder(catalog, r_max or np.inf, v_max or np.inf)
        limits = {**catalog.metadata.selection, "r_max": r_max, "v_max": v_max}
        catalog = catalog.with_metadata(selection=limits)
        extra["galaxies_outside_cylinder"] = before - catalog.n_galaxies_total
    catalog = catalog.with_metadata(extra=extra)
    return drop_or_refuse_poor_clusters(catalog, min_galaxies, few_galaxies)


def _clusters(
    opened: OpenedTables,
    on_sky: bool,
    cluster_id: int | str | None,
    redshift: float | None,
    cosmology: Cosmology,
) -> tuple[dict[str, NDArray[Any]], NDArray[Any] | None]:
    """Columns of the clusters, and the cluster_id of each galaxy where the table of galaxies does not say it."""
    table, others = opened.galaxies, opened.clusters
    if others is None:
        if on_sky and "v_los" not in table:
            raise CatalogError(
                f"{table.name}: galaxies with ra, dec and z need a table of clusters (cluster_id, ra, dec, "
                "redshift)."
            )
        if cluster_id is None and "cluster_id" not in table:
            cluster_id = opened.one_cluster
        return clusters_from_galaxies(table, cluster_id, redshift)
    rows = clusters_from_table(others, cosmology, redshift)
    if "cluster_id" not in table and (cluster_id is not None or not on_sky):
        return rows, the_one_cluster(table, others, rows, cluster_id)
    return rows, None


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


def _from_sky(
    table: FlatTable,
    others: FlatTable,
    rows: dict[str, NDArray[Any]],
    ids: NDArray[Any] | None,
    metadata: CatalogMetadata,
    r_max: float | None,
    v_max: float | None,
) -> ClusterCatalog:
    for name in ("ra", "dec"):
        others.require(name)
    where = {name: column_place(table, name) for name in table.columns}
    ra = convert.angle_to_degrees(table.numbers("ra"), table.units["ra"], where["ra"])
    dec = convert.angle_to_degrees(table.numbers("dec"), table.units["dec"], where["dec"])
    z_name = table.require("z", "cz")
    z_given = table.numbers(z_name)
    if z_name == "z":
        z = convert.redshift_from(z_given, table.units["z"], where["z"])
    else:
        z = convert.velocity_to_km_s(z_given, table.units["cz"], where["cz"]) / SPEED_OF_LIGHT
    plausibility.check_redshifts(z, where[z_name], lowest=-0.02)
    if np.any(rows["redshift"] <= 0.0):
        zero = int(np.argmax(rows["redshift"] <= 0.0))
        raise CatalogError(
            f"{others.name}: the redshift in row {zero + 1} is 0; angles need a redshift above 0."
        )
    if ids is None and "cluster_id" in table:
        ids = table.ids("cluster_id")
    if ids is not None:
        order, counts = _grouped(table, ids, rows["cluster_id"])
    else:
        if r_max is None or v_max is None:
            raise CatalogError(
                f"{table.name}: the galaxies have no cluster_id, so they are cut around the clusters, "
                "which needs r_max and v_max."
            )
        if table.units["ra"] is None and others.units["ra"] is None:
            plausibility.check_not_radians(np.append(ra, rows["ra"]), np.append(dec, rows["dec"]), table.name)
        group_galaxies(rows["cluster_id"][:0], rows["cluster_id"])
        centres = (rows["ra"], rows["dec"], rows["redshift"])
        order, counts = galaxies_around(ra, dec, z, *centres, r_max, v_max, metadata.cosmology)
    row = np.repeat(np.arange(counts.size, dtype=np.int64), counts)
    scale = transverse_mpc_h_per_radian(rows["redshift"], metadata.cosmology)[row]
    x, y = sky_offsets(ra[order], dec[order], rows["ra"][row], rows["dec"][row]) * scale
    v_los = rest_frame_velocity(z[order], rows["redshift"][row])
    plausibility.check_positions_meet(np.hypot(x, y), ra, dec, table.name, others.name)
    if "r_proj" in table or ("x" in table and "y" in table):
        given = _given_radius(table, metadata.cosmology.h)[order]
        plausibility.check_same_radius(
            given, np.hypot(x, y), rows["redshift"][row], metadata.cosmology.h, table.name
        )
    if "v_los" in table:
        given = convert.velocity_to_km_s(table.numbers("v_los"), table.units["v_los"], where["v_los"])
        plausibility.check_same_velocity(given[order], v_los, table.name)
    flats = {"x": x, "y": y, "v_los": v_los, "gal_ra": ra[order], "gal_dec": dec[order], "gal_z": z[order]}
    if "z_err" in table and "v_err" not in table:
        flats["gal_v_err"] = _velocity_errors(table.carried("z_err")[order], rows["redshift"][row])
    flats.update(_carried_galaxies(table, order, flats, rows))
    # A galaxy measured twice counts twice; which measurement is right is for the user to say.
    twice = np.stack([ra[order], dec[order], row], axis=-1)
    repeated = {"repeated_positions": len(twice) - len(np.unique(twice, axis=0))}
    metadata = metadata.replace(extra=repeated)
    rows = {**rows, "n_shared": _shared(ra[order], dec[order], z[order], row, counts.size)}
    return ClusterCatalog.from_arrays(rows, flats, counts, metadata)


def _from_frame(
    table: FlatTable, rows: dict[str, NDArray[Any]], ids: NDArray[Any] | None, metadata: CatalogMetadata
) -> ClusterCatalog:
    table.require("v_los")
    ids = table.ids("cluster_id") if ids is None else ids
    order, counts = _grouped(table, ids, rows["cluster_id"])
    row = np.repeat(np.arange(counts.size), counts)
    h = metadata.cosmology.h

    def length(name: str) -> FloatArray:
        unit, where = table.units[name], column_place(table, name)
        return convert.length_to_comoving(
            table.numbers(name)[order], unit, where, h, lambda: rows["redshift"][row]
        )

    if "x" in table and "y" in table:
        x, y = length("x"), length("y")
    else:
        table.require("x" if "y" in table else "y" if "x" in table else "r_proj")
        x = length("r_proj")
        y = np.zeros_like(x)
        metadata = metadata.with_selection(positions="radial")
        if np.any(x < 0.0):
            bad = int(order[np.argmax(x < 0.0)])
            raise CatalogError(
                f"{table.place('r_proj', bad)} is negative; expected a distance from the centre."
            )
    plausibility.check_radius(np.hypot(x, y), table.name)
    where = column_place(table, "v_los")
    v_los = convert.velocity_to_km_s(table.numbers("v_los"), table.units["v_los"], where)[order]
    plausibility.check_velocities(v_los, rows["cluster_id"], counts, where)
    flats = {"x": x, "y": y, "v_los": v_los}
    flats.update(_carried_galaxies(table, order, flats, rows))
    return ClusterCatalog.from_arrays(rows, flats, counts, metadata)


def _carried_galaxies(
    table: FlatTable, order: IntArray, made: Mapping[str, Any], rows: Mapping[str, Any]
) -> dict[str, NDArray[Any]]:
    result: dict[str, NDArray[Any]] = {}
    for name in table.columns:
        ours = f"gal_{name}" if name in PREFIXED else name
        if name in _FRAME or ours in made or (name == "redshift" and "z" not in rows):
            continue
        if name in rows:
            ours = f"gal_{name}"
        if name == "v_err":
            unit, where = table.units[name], column_place(table, name)
            values = convert.velocity_to_km_s(table.numbers(name), unit, where)
        else:
            values = table.ids(name) if name == "galaxy_id" else table.carried(name)
        result[ours] = values[order]
    return result


def _velocity_errors(z_err: NDArray[Any], z_cluster: FloatArray) -> FloatArray:
    """c z_err / (1 + z_cl) [km/s]; where an error is missing, the median of the others."""
    known = np.isfinite(z_err)
    filled = np.where(known, z_err, np.median(z_err[known]) if known.any() else 0.0)
    errors: FloatArray = SPEED_OF_LIGHT * filled / (1.0 + z_cluster)
    return errors


def _given_radius(table: FlatTable, h: float) -> FloatArray:
    names = ["r_proj"] if "r_proj" in table else ["x", "y"]
    # The declared frame does not matter here: the comparison with the sky is what finds it.
    scale = [
        1.0 if table.units[name] is None or "k" not in str(table.units[name]) else 1e-3 for name in names
    ]
    parts = [table.numbers(name) * factor for name, factor in zip(names, scale, strict=True)]
    return np.abs(parts[0]) if len(parts) == 1 else np.hypot(*parts)


def _grouped(table: FlatTable, ids: NDArray[Any], known: NDArray[Any]) -> tuple[IntArray, IntArray]:
    try:
        return group_galaxies(ids, known)
    except CatalogError as error:
        raise CatalogError(f"{table.name}: {error}") from error


def _shared(
    ra: FloatArray,
    dec: FloatArray,
    z: FloatArray,
    row: IntArray,
    n_clusters: int,
) -> IntArray:
    """How many of the galaxies of each cluster are in another one too, by their coordinates."""
    if ra.size == 0:
        return np.zeros(n_clusters, dtype=np.int64)
    _, galaxy = np.unique(np.stack([ra, dec, z], axis=-1), axis=0, return_inverse=True)
    pairs = np.unique(np.stack([galaxy.ravel(), row], axis=-1), axis=0)
    clusters_of = np.bincount(pairs[:, 0])
    return np.bincount(pairs[clusters_of[pairs[:, 0]] > 1, 1], minlength=n_clusters).astype(np.int64)


def _check_map(column_map: Mapping[str, str], table: FlatTable, others: FlatTable | None) -> None:
    tables = [one for one in (table, others) if one is not None]
    for key, theirs in column_map.items():
        where = key.rpartition(".")[0]
        of = [one for one in tables if where in ("", one.what)]
        if not any(theirs in one.theirs.values() for one in of):
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
