"""Velocities of galaxies in equilibrium in a halo."""

from __future__ import annotations

import numpy as np

from bayesflowmass.common.arrays import FloatArray
from bayesflowmass.mocks.halos import Halos
from bayesflowmass.mocks.parameters import MockParameters
from bayesflowmass.mocks.profile import RadialTables, escape_speed

__all__ = ["equilibrium_velocities", "typical_dispersion"]


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
