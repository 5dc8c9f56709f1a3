"""A cluster from an archive: galaxies in its cylinder, ready for ``infer --galaxies``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from astropy.table import Table

from bayesflowmass.cosmology import MDPL2, SPEED_OF_LIGHT, Cosmology, transverse_mpc_h_per_radian
from bayesflowmass.io.archives.access import ArchiveError, Caller
from bayesflowmass.io.archives.cache import AnswerCache
from bayesflowmass.io.archives.services import galaxies_from
from bayesflowmass.io.sky import galaxies_around, rest_frame_velocity, sky_offsets

_LARGEST_ANGLE = 15.0
_NEAREST = 0.002


@dataclass(frozen=True)
class ClusterPosition:
    """Where a cluster is.

    Args:
        cluster_id: its name.
        ra, dec: of the centre, J2000 [deg].
        redshift: heliocentric.
    """

    cluster_id: str
    ra: float
    dec: float
    redshift: float


@dataclass(frozen=True)
class FetchedCluster:
    """What an archive has of a cluster.

    Args:
        table: one row per galaxy: ``cluster_id, redshift`` (of the cluster), ``galaxy_id, ra, dec, z``, ``x, y``
            [comoving Mpc/h], ``v_los`` and, where known, ``v_err`` [km/s], and the archive's other columns.
        notes: what was left out, and why.
        counts: numbers behind the notes.
    """

    table: Table
    notes: tuple[str, ...]
    counts: dict[str, int]


def fetch_cluster(
    source: str,
    position: ClusterPosition,
    *,
    radius: float = 2.0,
    v_max: float = 4000.0,
    caller: Caller | None = None,
    cache: AnswerCache | None = None,
    cosmology: Cosmology = MDPL2,
    redshift_column: str | None = None,
    progress: bool = False,
) -> FetchedCluster:
    """Galaxies with redshifts around a cluster.

    Args:
        source: "ned", "sdss" or "vizier:CATALOGUE".
        position: of the cluster.
        radius: of the cylinder [comoving Mpc/h]; a little more than that of the model.
        v_max: its half depth [km/s, rest frame].
        caller: how archives are asked; default: `Caller()`.
        cache: default: nothing is kept.
        cosmology: of the distances.
        redshift_column: of a table of VizieR, where UCDs do not say.
        progress: show a bar where several requests are needed.

    Raises:
        ArchiveError: the archive has nothing there or cannot be reached; unusable arguments.
        CatalogError: no galaxy has a usable redshift.
    """
    scale, angle = _scale_and_angle(position, radius, v_max, cosmology)
    depth = v_max / SPEED_OF_LIGHT * (1.0 + position.redshift)
    z_range = position.redshift - depth, position.redshift + depth
    reading, day = galaxies_from(
        source,
        position.ra,
        position.dec,
        angle,
        z_range,
        caller or Caller(),
        cache or AnswerCache(None),
        redshift_column=redshift_column,
        progress=progress,
    )
    galaxies = reading.galaxies
    ra, dec, z = (np.asarray(galaxies[name], dtype=np.float64) for name in ("ra", "dec", "z"))
    ra_0, dec_0, z_0 = (np.array([value]) for value in (position.ra, position.dec, position.redshift))
    found, _ = galaxies_around(ra, dec, z, ra_0, dec_0, z_0, radius, v_max, cosmology)
    counts = dict(reading.counts) | {"outside_cylinder": ra.size - found.size, "galaxies": found.size}
    if found.size == 0:
        raise ArchiveError(
            f"{source}: none of the {len(galaxies)} galaxies with a redshift is within {radius:g} Mpc/h and {v_max:g} "
            f"km/s of {position.cluster_id} at {position.ra:.4f} {position.dec:+.4f}, z = {position.redshift:g}."
        )
    table = _table(position, galaxies[found], scale)
    _describe(table)
    notes = (*reading.notes, f"{counts['outside_cylinder']} outside {radius:g} Mpc/h and {v_max:g} km/s.")
    table.meta = {
        "source": source,
        "date": day,
        "cluster": position.cluster_id,
        "ra": position.ra,
        "dec": position.dec,
        "redshift": position.redshift,
        "radius": f"{radius:g} comoving Mpc/h",
        "v_max": f"{v_max:g} km/s",
        "frame": "heliocentric",
        "notes": " | ".join(notes),
    }
    return FetchedCluster(table, notes, counts)


def _scale_and_angle(
    position: ClusterPosition, radius: float, v_max: float, cosmology: Cosmology
) -> tuple[float, float]:
    """Comoving Mpc/h per radian at a cluster, and the radius of its cylinder on the sky [deg]."""
    if not 0.0 < radius < np.inf or not 0.0 < v_max < SPEED_OF_LIGHT:
        raise ArchiveError(f"The cylinder is {radius} Mpc/h and {v_max} km/s; both must be positive.")
    if not _NEAREST <= position.redshift < 2.0:
        raise ArchiveError(
            f"The redshift of {position.cluster_id} is {position.redshift}; distances need one between {_NEAREST} "
            "and 2."
        )
    scale = float(transverse_mpc_h_per_radian(position.redshift, cosmology))
    angle = float(np.degrees(radius / scale))
    if angle > _LARGEST_ANGLE:
        raise ArchiveError(
            f"{radius} Mpc/h at redshift {position.redshift} is {angle:.1f} deg; archives are asked for at most "
            f"{_LARGEST_ANGLE:.0f} deg: make --radius smaller."
        )
    return scale, angle


def _table(position: ClusterPosition, galaxies: Table, scale: float) -> Table:
    """Galaxies in the frame of the cluster, with the other columns of the archive."""
    ra, dec, z = (np.asarray(galaxies[name], dtype=np.float64) for name in ("ra", "dec", "z"))
    redshift = np.full(z.size, position.redshift)
    x, y = sky_offsets(ra, dec, np.full(ra.size, position.ra), np.full(dec.size, position.dec)) * scale
    columns: dict[str, Any] = {
        "cluster_id": np.full(len(galaxies), position.cluster_id),
        "redshift": redshift,
        "x": x,
        "y": y,
        "v_los": rest_frame_velocity(z, redshift),
    }
    errors = _velocity_errors(galaxies, position.redshift)
    if errors is not None:
        columns["v_err"] = errors
    table = Table(columns)
    for name in galaxies.colnames:
        if name not in columns and name != "z_err":
            table[name] = galaxies[name]
    return table


def _velocity_errors(galaxies: Table, redshift: float) -> Any:
    """c z_err / (1 + z_cl) [km/s], the median where a galaxy has none; None where no galaxy has one."""
    if "z_err" not in galaxies.colnames:
        return None
    error = np.asarray(np.ma.asarray(galaxies["z_err"], dtype=np.float64).filled(np.nan))
    known = np.isfinite(error)
    if not known.any():
        return None
    return SPEED_OF_LIGHT / (1.0 + redshift) * np.where(known, error, np.median(error[known]))


def _describe(table: Table) -> None:
    words = {
        "redshift": "of the cluster",
        "x": "east of the centre [comoving Mpc/h]",
        "y": "north of the centre [comoving Mpc/h]",
        "v_los": "c (z - z_cl) / (1 + z_cl) [km/s]",
        "v_err": "[km/s]",
        "z": "redshift of the galaxy",
    }
    for name, description in words.items():
        if name in table.colnames:
            table[name].info.description = description
    for name in ("ra", "dec"):
        table[name].unit = "deg"
