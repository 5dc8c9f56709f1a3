"""From the sky to the cluster's frame: comoving offsets, rest-frame velocities, galaxies around clusters."""

from __future__ import annotations

import numpy as np

from bayesflowmass.catalog.arrays import offsets_from_counts
from bayesflowmass.common.arrays import FloatArray, IntArray
from bayesflowmass.cosmology import SPEED_OF_LIGHT, Cosmology, transverse_mpc_h_per_radian


def sky_offsets(ra: FloatArray, dec: FloatArray, ra_centre: FloatArray, dec_centre: FloatArray) -> FloatArray:
    """Offsets east and north of a centre [radians], (2, n): separation times sine and cosine of its angle.

    The separation is exact on the sphere (Vincenty's form, good at all angles). All arguments in degrees,
    (n,).
    """
    dec_1, dec_0 = np.radians(dec), np.radians(dec_centre)
    d_ra = np.radians(ra - ra_centre)
    east = np.cos(dec_1) * np.sin(d_ra)
    north = np.cos(dec_0) * np.sin(dec_1) - np.sin(dec_0) * np.cos(dec_1) * np.cos(d_ra)
    along = np.sin(dec_0) * np.sin(dec_1) + np.cos(dec_0) * np.cos(dec_1) * np.cos(d_ra)
    chord = np.hypot(east, north)
    scale = np.divide(np.arctan2(chord, along), chord, out=np.zeros_like(chord), where=chord > 0.0)
    return np.stack([east * scale, north * scale])


def sky_position(
    ra_centre: FloatArray, dec_centre: FloatArray, east: FloatArray, north: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Inverse of `sky_offsets`: ra in [0, 360) and dec [deg] of points offset east and north [radians], (n,)."""
    separation = np.hypot(east, north)
    # sin(s)/s, without a division by zero.
    scale = np.sinc(separation / np.pi)
    dec_0 = np.radians(dec_centre)
    towards = np.cos(dec_0) * np.cos(separation) - np.sin(dec_0) * north * scale
    sideways = east * scale
    up = np.sin(dec_0) * np.cos(separation) + np.cos(dec_0) * north * scale
    ra = ra_centre + np.degrees(np.arctan2(sideways, towards))
    return ra % 360.0, np.degrees(np.arctan2(up, np.hypot(towards, sideways)))


def rest_frame_velocity(z: FloatArray, z_cluster: FloatArray) -> FloatArray:
    """v_los = c (z - z_cl) / (1 + z_cl) [km/s] (Danese, De Zotti & di Tullio 1980, A&A 82, 322)."""
    return SPEED_OF_LIGHT * (z - z_cluster) / (1.0 + z_cluster)


def galaxies_around(
    ra: FloatArray,
    dec: FloatArray,
    z: FloatArray,
    ra_clusters: FloatArray,
    dec_clusters: FloatArray,
    z_clusters: FloatArray,
    r_max: float,
    v_max: float,
    cosmology: Cosmology,
) -> tuple[IntArray, IntArray]:
    """Galaxies in the cylinder around each cluster, cluster after cluster; one galaxy may be in several.

    Args:
        ra, dec, z: of the galaxies, degrees.
        r_max: comoving Mpc/h.
        v_max: km/s.

    Returns:
        Index of each galaxy found, and how many there are for each cluster (n_clusters,).
    """
    from scipy.spatial import cKDTree

    angle = np.minimum(r_max / transverse_mpc_h_per_radian(z_clusters, cosmology), np.pi)
    # A tree of many galaxies is asked about few clusters: what matters is to build it fast.
    tree = cKDTree(unit_vectors(ra, dec), balanced_tree=False, compact_nodes=False)
    # An arc is a little longer than its chord; the offsets then make the exact cut.
    found = tree.query_ball_point(unit_vectors(ra_clusters, dec_clusters), angle)
    counts = np.array([len(indices) for indices in found], dtype=np.int64)
    flat = np.concatenate([np.zeros(0, dtype=np.int64), *found]).astype(np.int64)
    row = np.repeat(np.arange(counts.size), counts)
    inside = np.abs(rest_frame_velocity(z[flat], z_clusters[row])) < v_max
    offsets = sky_offsets(ra[flat], dec[flat], ra_clusters[row], dec_clusters[row])
    inside &= np.hypot(*offsets) < angle[row]
    kept_before = offsets_from_counts(inside.astype(np.int64))
    return flat[inside], np.diff(kept_before[offsets_from_counts(counts)])


def unit_vectors(ra: FloatArray, dec: FloatArray) -> FloatArray:
    """Points of the unit sphere (n, 3) from ra and dec in degrees (n,)."""
    longitude, latitude = np.radians(ra), np.radians(dec)
    return np.column_stack(
        [np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude), np.sin(latitude)]
    )
