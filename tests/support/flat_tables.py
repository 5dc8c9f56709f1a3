"""Flat tables of galaxies and clusters, in the frame of the clusters and on the sky."""

from __future__ import annotations

import numpy as np
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.table import Table

from bayesflowmass.cosmology import SPEED_OF_LIGHT, transverse_mpc_h_per_radian

EACH = 12


def frame_tables(n=3, seed=0):
    """Galaxies with x, y, v_los, shuffled, and their clusters."""
    rng = np.random.default_rng(seed)
    total = n * EACH
    galaxies = Table(
        {
            "cluster_id": np.repeat(np.arange(n) + 10, EACH),
            "x": rng.uniform(-1, 1, total),
            "y": rng.uniform(-1, 1, total),
            "v_los": rng.normal(0, 700, total),
            "colour": rng.random(total),
        }
    )[rng.permutation(total)]
    clusters = Table(
        {
            "cluster_id": np.arange(n) + 10,
            "redshift": rng.uniform(0.05, 0.2, n),
            "log10_mass": rng.uniform(14, 15, n),
        }
    )
    return galaxies, clusters


def sky_tables(n=3, seed=0):
    """Galaxies with ra, dec, z around clusters far from each other."""
    rng = np.random.default_rng(seed)
    clusters = Table(
        {
            "cluster_id": [f"A{i}" for i in range(n)],
            "ra": np.linspace(100, 250, n),
            "dec": np.linspace(-50, 60, n),
            "z": rng.uniform(0.05, 0.2, n),
        }
    )
    row = np.repeat(np.arange(n), EACH)
    centre = SkyCoord(clusters["ra"][row] * u.deg, clusters["dec"][row] * u.deg)
    radius = rng.uniform(0.05, 1.5, row.size)
    angle = rng.uniform(0, 360, row.size) * u.deg
    separation = radius / transverse_mpc_h_per_radian(clusters["z"][row]) * u.rad
    position = centre.directional_offset_by(angle, separation)
    v = rng.normal(0, 700, row.size)
    z_cl = np.asarray(clusters["z"][row])
    galaxies = Table(
        {
            "cluster_id": clusters["cluster_id"][row],
            "ra": position.ra.deg,
            "dec": position.dec.deg,
            "z": z_cl + v / SPEED_OF_LIGHT * (1 + z_cl),
        }
    )
    truth = {"r": radius, "east": radius * np.sin(angle), "north": radius * np.cos(angle), "v": v}
    return galaxies, clusters, {name: np.asarray(value) for name, value in truth.items()}


def notes(catalog):
    return " ".join(catalog.metadata.extra.get("notes", []))


def same(catalog, expected, *columns):
    np.testing.assert_array_equal(catalog.n_galaxies, expected.n_galaxies)
    for name in columns or ("x", "y", "v_los"):
        np.testing.assert_allclose(catalog.galaxies(name), expected.galaxies(name), rtol=1e-9, atol=1e-9)
