"""What a virial sum over part of a halo owes to the rest of it: the surface terms of an isotropic NFW halo.

A sphere of radius b inside a larger halo is confined by the galaxies outside. Its virial theorem is
2 K + W = 4 pi b^3 rho(b) sigma_r^2(b) (The & White 1986, AJ 92, 1248), and the moment that the projected mass
estimator takes, of sigma_r^2 r, has a term pi b^4 rho(b) sigma_r^2(b) by the same integration of the Jeans
equation. Estimators for isolated systems that leave it out are too large, by the shares given here.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike
from scipy.integrate import cumulative_simpson

from bayesflowmass.common.arrays import FloatArray

# s = r / r_s; beyond the table, which ends where galaxies are never looked for, its last value stays.
_SMALLEST, _LARGEST, _OUTSIDE, _POINTS = 1e-4, 1e3, 1e6, 6000


def surface_share(kind: str, scaled_radius: ArrayLike) -> FloatArray:
    """Share of a mass inside b = s r_s that is the surface term.

    "virial": 4 pi b^3 rho(b) sigma_r^2(b) / [M(b) sigma_3D^2(<b)], 0.22 at s = 4, 1/3 for a singular isothermal
    sphere. "projected": pi b^4 rho(b) sigma_r^2(b) / int_0^b 4 pi r^3 rho sigma_r^2 dr, 0.35 at s = 4, 1/2 for that
    sphere.

    Args:
        kind: "virial" or "projected".
        scaled_radius: s = b / r_s of an isotropic NFW halo, any shape.
    """
    log_s, shares = _table()
    return np.asarray(np.interp(np.log(np.asarray(scaled_radius, dtype=np.float64)), log_s, shares[kind]))


@lru_cache(maxsize=1)
def _table() -> tuple[FloatArray, dict[str, FloatArray]]:
    """ln s and the shares by kind, in units of r_s, of the density at r_s and of G times their product."""
    # Reaches far beyond the table: pressure is an integral from outside.
    log_s = np.linspace(np.log(_SMALLEST), np.log(_OUTSIDE), _POINTS)
    s = np.exp(log_s)
    density = 1.0 / (s * (1.0 + s) ** 2)
    enclosed = np.log1p(s) - s / (1.0 + s)
    weight = density * enclosed / s
    from_inside = cumulative_simpson(weight, x=log_s, initial=0.0)
    pressure = from_inside[-1] - from_inside
    thermal = 3.0 * cumulative_simpson(pressure * s**3, x=log_s, initial=0.0)
    moment = 4.0 * cumulative_simpson(pressure * s**4, x=log_s, initial=0.0)
    kept = slice(1, int(np.searchsorted(s, _LARGEST)))
    log_s, s, pressure, thermal, moment = (values[kept] for values in (log_s, s, pressure, thermal, moment))
    return log_s, {"virial": pressure * s**3 / thermal, "projected": pressure * s**4 / moment}
