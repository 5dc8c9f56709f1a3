"""Virial and projected masses: from velocities and projected distances alone, without a simulation.

* Virial: M = (3 pi / 2) sigma_v^2 R_PV / G with R_PV = N (N - 1) / sum_(i<j) 1 / R_ij (Limber & Mathews 1960;
  Heisler, Tremaine & Bahcall 1985, ApJ 298, 8, equation 4). The separations are averaged over the unknown or
  unused angles of both galaxies: 1 / R_ij becomes (2 / pi) K(t^2) / R_> with t = R_< / R_> (the ring estimator of
  Carlberg et al. 1996, ApJ 462, 32, by Landen's transformation). It needs no position angles, and close pairs,
  which fibres lose, weigh no more than others.
* Projected: M = f / (G (N - 3/2)) sum_i v_i^2 R_i, f = 32 / pi for isotropic orbits of galaxies that are
  distributed as the mass is (Bahcall & Tremaine 1981, ApJ 244, 805; Heisler et al. 1985, equation 11).

Both are of isolated systems; what an aperture inside a larger halo changes is in
`bayesflowmass.baselines.surface_pressure`.
"""

from __future__ import annotations

import numpy as np
from scipy.special import ellipkm1

from bayesflowmass.common.arrays import FloatArray
from bayesflowmass.cosmology import GRAVITATIONAL_CONSTANT

ISOTROPIC = 32.0 / np.pi
_ALPHA = 1.5
# Two galaxies at one radius would be infinitely close after averaging over a grid of one angle.
_CLOSEST = 1e-6
_ROWS = 64


def virial_mass_profile(r_proj: FloatArray, v_los: FloatArray) -> FloatArray:
    """Virial mass [Msun/h] of the innermost 1, 2, ..., n galaxies (n,), taken as all of an isolated system.

    The first is NaN.

    Args:
        r_proj: **proper** Mpc/h, ascending (n,).
        v_los: km/s (n,).
    """
    n = np.arange(1, r_proj.size + 1, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        radius = n * (n - 1.0) / np.cumsum(_inverse_separations(r_proj))
        return np.asarray(1.5 * np.pi / GRAVITATIONAL_CONSTANT * _variance(v_los, n) * radius)


def projected_mass_profile(r_proj: FloatArray, v_los: FloatArray) -> FloatArray:
    """Projected mass [Msun/h] of the innermost 1, 2, ..., n galaxies (n,), their orbits isotropic; the first is NaN.

    Args:
        r_proj: **proper** Mpc/h, ascending (n,).
        v_los: km/s (n,).
    """
    n = np.arange(1, r_proj.size + 1, dtype=np.float64)
    mean = np.cumsum(v_los) / n
    square, cross, radius = (np.cumsum(r_proj * v_los**power) for power in (2, 1, 0))
    moment = square - 2.0 * mean * cross + mean**2 * radius
    with np.errstate(divide="ignore", invalid="ignore"):
        mass = ISOTROPIC / GRAVITATIONAL_CONSTANT * np.maximum(moment, 0.0) / (n - _ALPHA)
    mass[0] = np.nan
    return np.asarray(mass)


def _variance(v_los: FloatArray, n: FloatArray) -> FloatArray:
    """Variance (ddof = 1) of the first 1, 2, ..., n velocities, from those about the mean of all."""
    about = v_los - v_los.mean()
    mean = np.cumsum(about) / n
    return np.asarray(np.maximum(np.cumsum(about**2) - n * mean**2, 0.0) / (n - 1.0))


def _inverse_separations(r_proj: FloatArray) -> FloatArray:
    """Sum over the galaxies inside each of them of its mean 1 / R_ij (n,); radii ascending."""
    n = r_proj.size
    scaled = np.maximum(r_proj, _CLOSEST * r_proj[-1])
    result = np.zeros(n)
    # Small blocks: little is computed above the diagonal, and memory stays bounded.
    for start in range(0, n, _ROWS):
        outer = scaled[start : start + _ROWS, None]
        ratio = np.minimum(scaled[None, : start + _ROWS] / outer, 1.0 - _CLOSEST)
        inside = np.arange(ratio.shape[1])[None, :] < np.arange(start, start + len(outer))[:, None]
        # K diverges as a logarithm: what is set at ratios next to 1 moves the sum by less than it has digits.
        mean = ellipkm1(np.where(inside, (1.0 - ratio) * (1.0 + ratio), 1.0)) * (2.0 / np.pi)
        result[start : start + _ROWS] = np.sum(np.where(inside, mean, 0.0), axis=1) / outer[:, 0]
    return result
