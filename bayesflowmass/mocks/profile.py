"""Radial structure of a halo in units of r200c and V200c: density, mass, escape speed, Jeans dispersion.

Dark matter follows Navarro, Frenk & White (arXiv:astro-ph/9611107) with concentration c = c200c; galaxies
the same form with c_gal = ratio x c, times the outer truncation [1 + (s/s_t)^4]^-2 of Diemer & Kravtsov
(arXiv:1401.1216), s = r / r200c.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bayesflowmass.common.arrays import FloatArray
from bayesflowmass.mocks.grids import Axis, Table2D
from bayesflowmass.mocks.nfw import enclosed_mass
from bayesflowmass.mocks.orbits import OrbitTables
from bayesflowmass.mocks.parameters import MockParameters

CONCENTRATION_AXIS = Axis(float(np.log(1.0)), float(np.log(40.0)), 75)
"""ln c200c; drawn concentrations are kept inside."""
_RADIUS_AXIS = Axis(float(np.log(1e-4)), float(np.log(8.0)), 220)
_QUANTILE_AXIS = Axis(0.0, 1.0, 513)


def galaxy_density(s: FloatArray, c_gal: FloatArray, truncation: float) -> FloatArray:
    """Number density of galaxies at s r200c, arbitrary normalisation."""
    return (1.0 + (s / truncation) ** 4) ** -2 / (s * (1.0 + c_gal * s) ** 2)


def jeans_dispersion(s: FloatArray, c: float, c_gal: float, anisotropy_outer: float) -> FloatArray:
    r"""Radial dispersion sigma_r [V200c] of galaxies in equilibrium, at increasing radii s [r200c].

    Spherical Jeans equation with beta(r) = b r/(r + a), a = r_-2 = r_s (Mamon & Lokas 2005,
    arXiv:astro-ph/0405491; b = 1/2 there), whose integrating factor is (r + a)^{2b}:
    nu sigma_r^2 (s + a)^{2b} = \int_s^\infty nu (t + a)^{2b} [M(t)/M200c] t^-2 dt, with nu an NFW profile.
    """
    a = 1.0 / c
    # On from the last radius the integrand falls as t^-4 ln t: 60 r200c is enough for 1e-5.
    t = np.concatenate([s, np.geomspace(s[-1], 60.0, 200)[1:]])
    nu = 1.0 / (t * (1.0 + c_gal * t) ** 2)
    weight = (t + a) ** (2.0 * anisotropy_outer)
    integrand = nu * weight * enclosed_mass(t, np.asarray(c)) / t  # times dt = t dln t, over t^2
    log_t = np.log(t)
    # Backwards cumulative integral, exact for integrands that are power laws between points.
    ratio = np.log(integrand[1:] / integrand[:-1])
    safe = np.where(np.abs(ratio) < 1e-9, 1.0, ratio)
    mean = np.where(np.abs(ratio) < 1e-9, integrand[:-1], (integrand[1:] - integrand[:-1]) / safe)
    pieces = mean * np.diff(log_t)
    tail = np.concatenate([np.cumsum(pieces[::-1])[::-1], [0.0]])
    return np.sqrt(tail / (nu * weight))[: s.size]


@dataclass(frozen=True)
class RadialTables:
    """Look-up tables of radial quantities against ln c200c.

    Attributes:
        radius: (sqrt of the quantile of the galaxy profile inside the outskirts radius, ln c) -> r/r200c.
        cumulative: (ln r/r200c, ln c) -> share of those galaxies inside r.
        dispersion: (ln r/r200c, ln c) -> sigma_r / V200c.
        orbits: where galaxies are on orbits instead.
    """

    radius: Table2D
    cumulative: Table2D
    dispersion: Table2D
    outer: float
    anisotropy_outer: float
    orbits: OrbitTables | None = None

    @classmethod
    def build(cls, parameters: MockParameters) -> RadialTables:
        """Tabulate for one set of parameters (about 30 ms, with orbits 300)."""
        log_s = _RADIUS_AXIS.points
        s = np.exp(log_s)
        fine = np.concatenate([[0.0], np.geomspace(1e-5, parameters.outskirts_radius, 3000)])
        radius = np.empty((_QUANTILE_AXIS.n, CONCENTRATION_AXIS.n))
        cumulative = np.empty((s.size, CONCENTRATION_AXIS.n))
        dispersion = np.empty_like(cumulative)
        for k, c in enumerate(np.exp(CONCENTRATION_AXIS.points)):
            c_gal = parameters.galaxy_concentration_ratio * c
            # r^2 nu -> r at the centre: integrate the smooth integrand by the trapezoidal rule.
            shell = np.zeros_like(fine)
            shell[1:] = fine[1:] ** 2 * galaxy_density(fine[1:], c_gal, parameters.outskirts_truncation)
            inside = np.concatenate([[0.0], np.cumsum(0.5 * (shell[1:] + shell[:-1]) * np.diff(fine))])
            inside /= inside[-1]
            radius[:, k] = np.interp(_QUANTILE_AXIS.points, np.sqrt(inside), fine)
            cumulative[:, k] = np.interp(s, fine, inside)
            dispersion[:, k] = jeans_dispersion(s, c, c_gal, parameters.anisotropy_outer)
        return cls(
            Table2D(_QUANTILE_AXIS, CONCENTRATION_AXIS, radius),
            Table2D(_RADIUS_AXIS, CONCENTRATION_AXIS, cumulative),
            Table2D(_RADIUS_AXIS, CONCENTRATION_AXIS, dispersion),
            parameters.outskirts_radius,
            parameters.anisotropy_outer,
            OrbitTables(parameters) if parameters.orbit_growth > 0.0 else None,
        )

    def draw_radius(self, quantile: FloatArray, log_c: FloatArray) -> FloatArray:
        """r/r200c at a quantile in [0, 1] of the galaxy profile out to the outskirts radius."""
        return self.radius(np.sqrt(quantile), log_c)

    def share_inside(self, s: FloatArray, log_c: FloatArray) -> FloatArray:
        """Share of the galaxies within the outskirts radius that lie inside s = r/r200c."""
        return self.cumulative(np.log(s), log_c)

    def sigma_r(self, s: FloatArray, log_c: FloatArray) -> FloatArray:
        """Jeans radial dispersion [V200c] at s = r/r200c; constant inside 1e-4 r200c."""
        return self.dispersion(np.log(np.maximum(s, 1e-4)), log_c)

    def beta(self, s: FloatArray, c: FloatArray) -> FloatArray:
        """Velocity anisotropy 1 - sigma_t^2 / sigma_r^2 at s = r/r200c."""
        return self.anisotropy_outer * s / (s + 1.0 / c)
