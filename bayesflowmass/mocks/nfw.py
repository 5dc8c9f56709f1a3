"""A halo of Navarro, Frenk & White (arXiv:astro-ph/9611107), s = r / r200c, c = c200c."""

from __future__ import annotations

import numpy as np

from bayesflowmass.common.arrays import FloatArray


def nfw_mass(y: FloatArray) -> FloatArray:
    """ln(1 + y) - y / (1 + y), the mass inside y scale radii over 4 pi rho_s r_s^3."""
    return np.log1p(y) - y / (1.0 + y)


def enclosed_mass(s: FloatArray, c: FloatArray) -> FloatArray:
    """Dark-matter mass inside s r200c, over M200c."""
    return nfw_mass(c * s) / nfw_mass(c)


def escape_speed(s: FloatArray, c: FloatArray) -> FloatArray:
    """Escape speed at s r200c [V200c]: v^2 = 2 ln(1 + c s) / (s m(c)), the NFW potential to infinity."""
    return np.sqrt(2.0 * np.log1p(c * s) / (s * nfw_mass(c)))
