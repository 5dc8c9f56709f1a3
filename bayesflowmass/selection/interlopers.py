"""Cleaning of interlopers by a velocity envelope that narrows with radius."""

from __future__ import annotations

from functools import cache

import numpy as np

from bayesflowmass.catalog import ClusterCatalog
from bayesflowmass.catalog.arrays import segment_median, segment_sum
from bayesflowmass.common.arrays import FloatArray
from bayesflowmass.cosmology import radius_at_circular_velocity
from bayesflowmass.selection.record import at_least, check_positive, record

_MIN_MEMBERS = 5
_MAX_ITERATIONS = 20
_CONCENTRATION = 4.0
_START_RADIUS = 0.5
"""Comoving Mpc/h: where interlopers are fewest."""


def remove_interlopers(catalog: ClusterCatalog, n_sigma: float = 2.7) -> ClusterCatalog:
    """Remove galaxies with |v_los| > n_sigma sigma_los(R), where sigma_los follows from those that remain.

    The iteration of Mamon, Biviano & Boue (2013, arXiv:1212.1455), simplified: the dispersion of the
    galaxies inside R200c gives V200c, V200c gives R200c = V200c / (10 H(z)) and, for an isotropic NFW halo,
    the profile

    sigma_los^2(R) = (2 G / Sigma(R)) int_R^inf sqrt(1 - R^2/r^2) rho(r) M(r) dr / r

    (Mamon & Lokas 2005, arXiv:astro-ph/0405491). It starts from the median absolute deviation within 0.5
    Mpc/h, removes and never puts back, and ends when nothing more is removed. Beyond 3 R200c the envelope
    stays as wide as there. A cluster is never cleaned to fewer than five galaxies. Velocities must be
    centred (`recentre_velocity`). Records ``cleaned`` (models trained without cleaning refuse or flag such a
    catalogue).

    Args:
        n_sigma: half width of the envelope; 2.7 keeps a Gaussian halo's members best (Mamon et al. 2010).

    Raises:
        CatalogError: if it is not positive.
    """
    check_positive("n_sigma", n_sigma)
    counts = catalog.n_galaxies
    velocity = np.abs(catalog.galaxies("v_los").astype(np.float64))
    squared = velocity**2
    radius = catalog.r_proj.astype(np.float64)
    redshift = catalog.column("redshift")
    # R200c is proportional to V200c.
    radius_per_velocity = radius_at_circular_velocity(1.0, redshift, cosmology=catalog.metadata.cosmology)
    scaled, profile, aperture = _profile()
    inner = at_least(radius < _START_RADIUS, catalog, _MIN_MEMBERS)
    dispersion = 1.4826 * np.nan_to_num(segment_median(velocity, catalog.offsets, inner))
    kept = np.ones(velocity.size, dtype=bool)
    for _ in range(_MAX_ITERATIONS):
        v200 = np.maximum(dispersion / aperture, 1.0)
        fraction = radius / np.repeat(v200 * radius_per_velocity, counts)
        envelope = n_sigma * np.interp(fraction, scaled, profile) * np.repeat(v200, counts)
        remaining = kept & (velocity < envelope)
        number = segment_sum(remaining.astype(np.float64), catalog.offsets)
        remaining = np.where(np.repeat(number < _MIN_MEMBERS, counts), kept, remaining)
        if np.array_equal(remaining, kept):
            break
        kept = remaining
        inside = kept & (fraction < 1.0)
        number = segment_sum(inside.astype(np.float64), catalog.offsets)
        measured = np.sqrt(segment_sum(inside * squared, catalog.offsets) / np.maximum(number, 1.0))
        dispersion = np.where(number >= _MIN_MEMBERS, measured, dispersion)
    return record(catalog.filter_galaxies(kept), cleaned=float(n_sigma))


@cache
def _profile() -> tuple[FloatArray, FloatArray, float]:
    """R / R200c, sigma_los / V200c there, and the dispersion of all galaxies inside R200c over V200c."""
    from scipy.integrate import cumulative_trapezoid, quad

    scaled = np.geomspace(0.01, 3.0, 60)

    def density(r: float) -> float:
        return 1.0 / (r * (1.0 + r) ** 2)

    def enclosed(r: float) -> float:
        return float(np.log1p(r) - r / (1.0 + r))

    def integrals(projected: float) -> tuple[float, float]:
        # r = R cosh t takes the square-root singularities of both integrands away.
        def at(t: float) -> float:
            return projected * float(np.cosh(t))

        surface = quad(lambda t: density(at(t)) * at(t), 0.0, 30.0)[0]
        pressure = quad(lambda t: np.tanh(t) ** 2 * density(at(t)) * enclosed(at(t)), 0.0, 30.0)[0]
        return 2.0 * surface, 2.0 * pressure

    surface, pressure = np.array([integrals(_CONCENTRATION * s) for s in scaled]).T
    # G M(r) = V200^2 R200 m(r) / m(c), with r in units of r_s.
    squared = _CONCENTRATION / enclosed(_CONCENTRATION) * pressure / surface
    weight = surface * scaled
    inside = scaled <= 1.0
    mass = cumulative_trapezoid(weight[inside], scaled[inside])[-1]
    second_moment = cumulative_trapezoid((weight * squared)[inside], scaled[inside])[-1]
    return scaled, np.sqrt(squared), float(np.sqrt(second_moment / mass))
