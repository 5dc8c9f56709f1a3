"""Velocities of galaxies in equilibrium in a halo."""

from __future__ import annotations

import numpy as np

from bayesflowmass.common.arrays import FloatArray, IntArray
from bayesflowmass.mocks.galaxies import isotropic
from bayesflowmass.mocks.halos import Halos
from bayesflowmass.mocks.nfw import escape_speed
from bayesflowmass.mocks.orbits import Placed
from bayesflowmass.mocks.parameters import MockParameters
from bayesflowmass.mocks.profile import RadialTables

_MASSES = 12
_TYPICAL_RADIUS = 0.5
"""r/r200c where the Jeans dispersion stands for that of the halo."""


def equilibrium_velocities(
    s: FloatArray,
    log_c: FloatArray,
    direction: FloatArray,
    tables: RadialTables,
    parameters: MockParameters,
    rng: np.random.Generator,
) -> FloatArray:
    """Gaussian velocities (3, n) [V200c] with the Jeans dispersions, slower than a share of the escape speed.

    Args:
        s: (n,) radius [r200c].
        log_c: (n,) ln c200c.
        direction: (3, n) unit vectors of the positions: the radial dispersion is sigma_r along them and
            sigma_r sqrt(1 - beta) across.
    """
    c = np.exp(log_c)
    sigma = tables.sigma_r(s, log_c)
    tangential = sigma * np.sqrt(1.0 - tables.beta(s, c))
    limit = parameters.escape_fraction * escape_speed(np.maximum(s, 1e-6), c)
    velocity = _draw(sigma, tangential, direction, rng)
    again = np.flatnonzero((velocity**2).sum(axis=0) > limit**2)
    while again.size:
        fresh = _draw(sigma[again], tangential[again], direction[:, again], rng)
        velocity[:, again] = fresh
        again = again[(fresh**2).sum(axis=0) > limit[again] ** 2]
    return velocity


def place_inside(
    halos: Halos, halo: IntArray, tables: RadialTables, parameters: MockParameters, rng: np.random.Generator
) -> Placed:
    """Mean galaxies inside R_vir of these haloes (n,): in equilibrium, or on orbits."""
    log_c, edge = halos.log_c[halo], halos.r_vir / halos.r200c
    if tables.orbits is not None:
        rows = tables.orbits.draw(log_c, log10_loss_rate(halos, halo, parameters), rng, edge[halo])
        return tables.orbits.place(rows, rng)
    s = tables.draw_radius(tables.share_inside(edge, halos.log_c)[halo] * rng.random(halo.size), log_c)
    return in_equilibrium(s, log_c, tables, parameters, rng)


def in_equilibrium(
    s: FloatArray,
    log_c: FloatArray,
    tables: RadialTables,
    parameters: MockParameters,
    rng: np.random.Generator,
) -> Placed:
    """Galaxies at radii s (n,) [r200c] with `equilibrium_velocities`."""
    direction = isotropic(s.size, rng)
    velocity = equilibrium_velocities(s, log_c, direction, tables, parameters, rng)
    return Placed(s, direction, velocity, np.zeros(s.size, dtype=np.int8))


def log10_loss_rate(
    halos: Halos, halo: IntArray, parameters: MockParameters, log10_mass: FloatArray | None = None
) -> FloatArray:
    """log10 of the rate of loss [1/Gyr] of galaxies (n,) of these haloes; None means the mean galaxy."""
    slope, lowest = parameters.orbit_loss_slope, np.log10(parameters.central_min_mass)
    steep = -parameters.subhalo_mass_slope
    rate = np.log10(np.maximum(halos.parameter("orbit_loss", parameters), 1e-3))[halo]
    return np.asarray(
        rate + (np.log10(steep / (steep + slope)) if log10_mass is None else slope * (lowest - log10_mass))
    )


def share_inside_virial(halos: Halos, tables: RadialTables, parameters: MockParameters) -> FloatArray:
    """Share of the galaxies within the outskirts radius that lie inside R_vir, (n_halos,)."""
    edge = halos.r_vir / halos.r200c
    if tables.orbits is None:
        return tables.share_inside(edge, halos.log_c)
    # Galaxies of all accretion masses: their quantiles, n(> m) ~ m^slope.
    quantile = (np.arange(_MASSES) + 0.5) / _MASSES
    masses = np.log10(parameters.central_min_mass) + np.log10(quantile) / parameters.subhalo_mass_slope
    everyone = np.arange(len(halos))
    shares = [
        tables.orbits.share_inside(
            edge, halos.log_c, log10_loss_rate(halos, everyone, parameters, np.full(everyone.size, mass))
        )
        for mass in masses
    ]
    return np.asarray(np.mean(shares, axis=0))


def _draw(
    radial: FloatArray, tangential: FloatArray, direction: FloatArray, rng: np.random.Generator
) -> FloatArray:
    unit = rng.standard_normal(direction.shape)
    along = (unit * direction).sum(axis=0)
    unit *= tangential
    unit += (radial - tangential) * along * direction
    return unit


def typical_dispersion(halos: Halos, tables: RadialTables) -> FloatArray:
    """Radial Jeans dispersion at half of r200c [km/s], (n_halos,)."""
    s = np.full(len(halos), _TYPICAL_RADIUS)
    return tables.sigma_r(s, halos.log_c) * halos.v200c * halos.speed
