"""Velocities of galaxies in equilibrium in a halo, and of matter falling toward it."""

from __future__ import annotations

import numpy as np

from bayesflowmass.common.arrays import FloatArray, IntArray
from bayesflowmass.cosmology import Cosmology, efunc, radius_delta
from bayesflowmass.mocks.background import Background
from bayesflowmass.mocks.halos import Halos
from bayesflowmass.mocks.parameters import MockParameters
from bayesflowmass.mocks.profile import RadialTables, escape_speed

__all__ = ["equilibrium_velocities", "infall_speed", "radius_200m", "typical_dispersion"]


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


def radius_200m(halos: Halos, cosmology: Cosmology) -> FloatArray:
    """R200m of the haloes [comoving Mpc/h], with M200m taken as 1.3 M200c: exact to 3 % for clusters."""
    return radius_delta(halos.log10_mass + np.log10(1.3), halos.redshift, "200m", cosmology=cosmology)


def infall_speed(
    r: FloatArray,
    halo: IntArray,
    halos: Halos,
    r200m: FloatArray,
    parameters: MockParameters,
    background: Background,
) -> FloatArray:
    """Mean infall speed [km/s] toward a halo at distance r [comoving Mpc/h], positive inward.

    v = (1/3) a H r f d (1 + d)^(-1/4) with d = 200 (r/R200m)^-2.1 and f = Om(z)^0.55 (Yahil 1985 as in
    arXiv:1403.2087), joined to v_cap = 0.9 V200c (r/R200m)^(-1/2) as (v^-2 + v_cap^-2)^(-1/2).
    """
    cosmology = background.cosmology
    z = halos.redshift
    growth = (cosmology.Om0 * (1.0 + z) ** 3 / efunc(z, cosmology) ** 2) ** 0.55
    x = r / r200m[halo]
    excess = 200.0 * x**-2.1
    linear = (background.hubble(z) * growth / 3.0)[halo] * r * excess * (1.0 + excess) ** -0.25
    cap = parameters.infall_cap * halos.v200c[halo] / np.sqrt(x)
    return halos.parameter("infall_amplitude", parameters)[halo] / np.sqrt(linear**-2 + cap**-2)
