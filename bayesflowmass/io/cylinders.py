"""Cluster centres and a galaxy redshift survey become a catalogue of cylinders."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayesflowmass.catalog import CatalogError, CatalogMetadata, ClusterCatalog
from bayesflowmass.catalog.errors import refuse_where
from bayesflowmass.common.arrays import FloatArray, IntArray
from bayesflowmass.cosmology import MDPL2, SPEED_OF_LIGHT, Cosmology, transverse_mpc_h_per_radian
from bayesflowmass.io.flat.clusters import clusters_from_table, require_places
from bayesflowmass.io.flat.galaxies import PREFIXED
from bayesflowmass.io.footprint import GalaxyFootprint, RectangleFootprint
from bayesflowmass.io.frames import FRAMES, to_cmb
from bayesflowmass.io.shared_galaxies import clusters_of_galaxies, shared_columns
from bayesflowmass.io.sky import galaxies_around, rest_frame_velocity, sky_offsets, sky_position, unit_vectors
from bayesflowmass.io.sources import open_tables
from bayesflowmass.io.survey import Survey, concatenated, survey_part
from bayesflowmass.selection import recentre
from bayesflowmass.selection.cuts import R_MAX, V_MAX
from bayesflowmass.selection.record import record

Rows = dict[str, NDArray[Any]]

_WHOLE = 0.95
"""Share of a disc inside the survey from which on the cluster counts as whole."""


@dataclass(frozen=True)
class Recentring:
    """How centres and redshifts are found again; the inner arguments are those of `selection.recentre`.

    Args:
        position, velocity: which of them to find.
        r_inner, v_inner: comoving Mpc/h, km/s.
        max_shift_r, max_shift_v: a centre that would move further in all keeps the place it was given, since it
            has run to a neighbour [comoving Mpc/h, km/s].
        rounds: cuts around moved centres, at most.
    """

    position: bool = True
    velocity: bool = True
    r_inner: float = 0.5
    v_inner: float = 1000.0
    max_shift_r: float = 0.8
    max_shift_v: float = 1500.0
    rounds: int = 5


def cut_cylinders(
    galaxies: Any,
    clusters: Any,
    column_map: Mapping[str, str] | None = None,
    *,
    r_max: float = R_MAX,
    v_max: float = V_MAX,
    cosmology: Cosmology = MDPL2,
    frame: str = "heliocentric",
    galaxy_frame: str = "heliocentric",
    cluster_frame: str = "heliocentric",
    recentring: Recentring | None = None,
    footprint: Sequence[tuple[float, float, float, float]] | None = None,
    targets: Any = None,
    mode: str | None = "survey",
) -> ClusterCatalog:
    """The galaxies of a redshift survey in the cylinder around each cluster.

    Galaxy columns beside those of a catalogue: ``gal_v_err`` (c z_err / (1 + z_cl)), ``gal_n_clusters`` (in how
    many of the cylinders a galaxy is). Cluster columns: ``n_shared``, ``shares_with`` (the cluster that most of
    them are shared with), ``footprint_fraction`` (share of the disc inside the survey), ``completeness`` (that
    times the spectroscopic completeness, where targets are given), ``redshift_edge`` (the cylinder reaches
    beyond the redshifts of the survey), ``redshift_err`` and, with recentring, ``offset_x, offset_y, offset_v``,
    ``recentred``, and the given ``ra_given, dec_given, redshift_given``. ``metadata.selection`` describes it all.

    Args:
        galaxies: table with ``ra, dec, z`` (or ``cz``) and perhaps ``z_err``, in any format that is known, or a
            list (or generator) of such parts, of which only what lies near a cluster is kept in memory.
        clusters: table with ``cluster_id, ra, dec, redshift`` and perhaps ``redshift_err``.
        column_map: ``{our name: their name}``.
        r_max, v_max: cylinder [comoving Mpc/h, km/s].
        frame: that redshifts are brought to, ``"heliocentric"`` or ``"cmb"``.
        galaxy_frame, cluster_frame: of the redshifts given.
        recentring: find centres and redshifts again; None keeps those given.
        footprint: rectangles (ra_min, ra_max, dec_min, dec_max) [deg] of the survey; None takes it to be where
            galaxies are.
        targets: table with ``ra, dec`` of all galaxies that should have been observed.
        mode: interlopers of the data; a survey sees central galaxies.

    Raises:
        CatalogError: one sentence with the table, column or row.
    """
    for name in (frame, galaxy_frame, cluster_frame):
        if name not in FRAMES:
            raise CatalogError(f"the frame of redshifts is {name!r}; expected one of {', '.join(FRAMES)}.")
    frames = {"galaxies": galaxy_frame, "clusters": cluster_frame}
    if frame == "heliocentric" and "cmb" in frames.values():
        raise CatalogError(
            f"redshifts of {' and '.join(n for n, f in frames.items() if f == 'cmb')} are in the cmb frame; bring "
            "all to it with frame='cmb'."
        )
    parts: list[Survey] = []
    for part in galaxies if isinstance(galaxies, list | tuple | Iterator) else [galaxies]:
        opened = open_tables(part, clusters, column_map)
        if not parts:
            rows = _centres(opened.clusters, cosmology, cluster_frame, frame)
            reach = _reach(rows, r_max, v_max, recentring, cosmology)
        parts.append(survey_part(opened, galaxy_frame, frame).near(*reach))
    if not parts:
        raise CatalogError("there is no table of galaxies to cut clusters from.")
    survey = reduce(concatenated, parts)
    moved = rows if recentring is None else _recentred(survey, rows, recentring, (r_max, v_max), cosmology)
    selection: dict[str, Any] = {"r_max": float(r_max), "v_max": float(v_max), "frame": frame}
    selection["redshift_limits"] = list(survey.limits)
    if recentring is not None:
        selection["recentred"] = {**vars(recentring), "kept_given": int(np.sum(~moved["recentred"]))}
    metadata = CatalogMetadata(mode=mode, cosmology=cosmology, selection=selection, extra=dict(survey.report))
    catalog, found = _cut(survey, moved, (r_max, v_max), metadata)
    angle = r_max / transverse_mpc_h_per_radian(moved["redshift"], cosmology)
    catalog = _with_edges(catalog, survey, angle, footprint)
    if targets is not None:
        catalog = _with_completeness(catalog, open_tables(targets, None, column_map).galaxies, angle, survey)
    catalog = catalog.with_galaxies(gal_n_clusters=clusters_of_galaxies(found))
    shared = shared_columns(found, catalog.offsets, catalog.column("cluster_id"))
    return catalog.with_columns(**shared).validate(0)


def _centres(table: Any, cosmology: Cosmology, cluster_frame: str, frame: str) -> Rows:
    if table is None:
        raise CatalogError(
            "cylinders are cut around clusters: give a table with cluster_id, ra, dec, redshift."
        )
    rows = clusters_from_table(table, cosmology)
    require_places(table, rows)
    refuse_where(
        np.isnan(rows["ra"] + rows["dec"] + rows["redshift"]),
        lambda row: (
            f"{table.name}: row {row + 1} has no ra, dec or redshift, so there is no cylinder to cut."
        ),
    )
    if frame == "cmb":
        rows["redshift"] = to_cmb(rows["redshift"], rows["ra"], rows["dec"], cluster_frame)
        require_places(table, rows)
    return rows


def _reach(
    rows: Rows, r_max: float, v_max: float, recentring: Recentring | None, cosmology: Cosmology
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray, FloatArray]:
    """Centres, angles and velocities within which galaxies can matter."""
    more_r, more_v = (0.0, 0.0) if recentring is None else (recentring.max_shift_r, recentring.max_shift_v)
    # Moved to a smaller redshift a cluster has a larger angle.
    nearest = np.maximum(rows["redshift"] - more_v / SPEED_OF_LIGHT * (1.0 + rows["redshift"]), 1e-4)
    angle = (r_max + more_r) / transverse_mpc_h_per_radian(nearest, cosmology)
    velocity = np.full(angle.size, (v_max + more_v) * 1.01)
    return rows["ra"], rows["dec"], rows["redshift"], np.minimum(angle, np.pi), velocity


def _cut(
    survey: Survey, rows: Rows, limits: tuple[float, float], metadata: CatalogMetadata
) -> tuple[ClusterCatalog, IntArray]:
    centres = rows["ra"], rows["dec"], rows["redshift"]
    ra, dec, z = survey.ra, survey.dec, survey.z
    found, counts = galaxies_around(ra, dec, z, *centres, *limits, metadata.cosmology)
    row = np.repeat(np.arange(counts.size), counts)
    scale = transverse_mpc_h_per_radian(rows["redshift"], metadata.cosmology)[row]
    x, y = sky_offsets(ra[found], dec[found], rows["ra"][row], rows["dec"][row]) * scale
    z_cluster = rows["redshift"][row]
    flats = {"x": x, "y": y, "v_los": rest_frame_velocity(z[found], z_cluster)}
    flats |= {"gal_ra": ra[found], "gal_dec": dec[found], "gal_z": z[found]}
    for name, values in survey.others.items():
        if name == "z_err":
            flats["gal_v_err"] = SPEED_OF_LIGHT * values[found] / (1.0 + z_cluster)
        else:
            flats[f"gal_{name}" if name in rows or name in PREFIXED else name] = values[found]
    return ClusterCatalog.from_arrays(rows, flats, counts, metadata), found


def _recentred(
    survey: Survey, rows: Rows, how: Recentring, limits: tuple[float, float], cosmology: Cosmology
) -> Rows:
    """Cut, find the centre again, and cut around it, until centres rest."""
    given = {name: rows[name] for name in ("ra", "dec", "redshift")}
    now = dict(rows)
    total = np.zeros((3, rows["redshift"].size))
    wandered = np.zeros(rows["redshift"].size, dtype=bool)
    error = np.zeros(rows["redshift"].size)
    for _ in range(how.rounds):
        catalog, _ = _cut(survey, now, limits, CatalogMetadata(cosmology=cosmology))
        found = recentre(
            catalog, position=how.position, velocity=how.velocity, r_inner=how.r_inner, v_inner=how.v_inner
        )
        step = np.stack([found.column(f"offset_{axis}") for axis in "xyv"])
        step[:, wandered] = 0.0
        total += step
        wandered |= (np.hypot(total[0], total[1]) > how.max_shift_r) | (np.abs(total[2]) > how.max_shift_v)
        scale = transverse_mpc_h_per_radian(now["redshift"], cosmology)
        ra, dec = sky_position(now["ra"], now["dec"], step[0] / scale, step[1] / scale)
        redshift = now["redshift"] + (1.0 + now["redshift"]) * step[2] / SPEED_OF_LIGHT
        for name, values in (("ra", ra), ("dec", dec), ("redshift", redshift)):
            now[name] = np.where(wandered, given[name], values)
        error = _centre_error(found)
        if np.all((np.hypot(step[0], step[1]) < 0.01) & (np.abs(step[2]) < 5.0) | wandered):
            break
    total[:, wandered] = 0.0
    now |= {f"{name}_given": values for name, values in given.items()}
    now |= {f"offset_{axis}": values for axis, values in zip("xyv", total, strict=True)}
    now["recentred"] = ~wandered
    if how.velocity:
        before = rows.get("redshift_err", np.zeros(error.size))
        measured = ~wandered & np.isfinite(error)
        now["redshift_err"] = np.where(
            measured, np.nan_to_num(error) * (1.0 + now["redshift"]) / SPEED_OF_LIGHT, before
        )
    return now


def _centre_error(catalog: ClusterCatalog) -> FloatArray:
    """sigma / sqrt(N) of the velocities [km/s] (n,), NaN where there are too few."""
    owner, v = catalog.galaxy_rows, catalog.galaxies("v_los").astype(np.float64)
    slow = np.abs(v) < 2000.0
    number = np.bincount(owner[slow], minlength=len(catalog)).astype(np.float64)
    square = np.bincount(owner[slow], weights=v[slow] ** 2, minlength=len(catalog))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(number >= 5, np.sqrt(square) / number, np.nan)


def _with_edges(
    catalog: ClusterCatalog,
    survey: Survey,
    angle: FloatArray,
    rectangles: Sequence[tuple[float, float, float, float]] | None,
) -> ClusterCatalog:
    footprint: GalaxyFootprint | RectangleFootprint = (
        GalaxyFootprint(survey.all_ra, survey.all_dec)
        if rectangles is None
        else RectangleFootprint(rectangles)
    )
    share = footprint.fraction(catalog.column("ra"), catalog.column("dec"), angle)
    z = catalog.column("redshift")
    depth = catalog.metadata.selection["v_max"] / SPEED_OF_LIGHT * (1.0 + z)
    low, high = survey.limits
    beyond = (z - depth < low) | (z + depth > high)
    cut = share < _WHOLE
    counts = {"clusters_cut": int(cut.sum()), "unknown": int(np.isnan(share).sum())}
    catalog = catalog.with_columns(
        footprint_fraction=share, completeness=np.where(cut, share, 1.0), redshift_edge=beyond
    )
    return record(catalog, edges={"method": footprint.method, **counts})


def _with_completeness(
    catalog: ClusterCatalog, targets: Any, angle: FloatArray, survey: Survey
) -> ClusterCatalog:
    """Multiply by the share of the targets in each disc that have a redshift."""
    from scipy.spatial import cKDTree

    centres = unit_vectors(catalog.column("ra"), catalog.column("dec"))
    chord = 2.0 * np.sin(0.5 * angle)

    def count(ra: FloatArray, dec: FloatArray) -> FloatArray:
        tree = cKDTree(unit_vectors(ra, dec))
        return np.asarray(tree.query_ball_point(centres, chord, return_length=True), dtype=np.float64)

    wanted = count(targets.numbers("ra"), targets.numbers("dec"))
    observed = count(survey.all_ra, survey.all_dec)
    share = np.divide(observed, wanted, out=np.ones_like(wanted), where=wanted > 0.0)
    share = np.minimum(share, 1.0)
    catalog = catalog.with_columns(
        completeness=catalog.column("completeness") * share, spectroscopic_completeness=share
    )
    return record(catalog, spectroscopic_completeness=float(np.median(share)))
