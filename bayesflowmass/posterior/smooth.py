"""Smooth functions of log10 mass and redshift as polynomials: computed at few nodes, cheap for many clusters."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from bayesflowmass.common.arrays import FloatArray


def polynomials(
    function: Callable[[FloatArray, float], FloatArray],
    limits: tuple[float, float],
    redshift: FloatArray,
    n_masses: int,
    n_redshifts: int,
) -> Tensor:
    """Coefficients (n_masses, n) of powers of log10 mass, scaled to [-1, 1], at `redshift` (n,), float64.

    Args:
        function: of log10 masses (m,) and one redshift: (m,).
        limits: of log10 mass.
        redshift: of the clusters (n,).
        n_masses, n_redshifts: Chebyshev nodes; one redshift where the clusters have no other.
    """
    unit = np.polynomial.chebyshev.chebpts1(n_masses)
    masses = np.mean(limits) + 0.5 * np.ptp(limits) * unit
    middle, half = 0.5 * (redshift.min() + redshift.max()), 0.5 * np.ptp(redshift)
    unit_z = np.polynomial.chebyshev.chebpts1(n_redshifts) if half else np.zeros(1)
    values = np.stack([function(masses, float(z)) for z in middle + half * unit_z], axis=1)
    in_mass = np.polynomial.polynomial.polyfit(unit, values, n_masses - 1)
    if not half:
        return torch.from_numpy(np.repeat(in_mass, len(redshift), axis=1))
    in_both = np.polynomial.chebyshev.chebfit(unit_z, in_mass.T, n_redshifts - 1)
    return torch.from_numpy(
        np.ascontiguousarray(np.polynomial.chebyshev.chebval((redshift - middle) / half, in_both))
    )


def value_and_slope(
    coefficients: Tensor, limits: tuple[float, float], log10_mass: Tensor
) -> tuple[Tensor, Tensor]:
    """Polynomials (k, n) and their derivatives with respect to log10 mass (..., n)."""
    low, high = limits
    scale = 2.0 / (high - low)
    t = (log10_mass - low) * scale - 1.0
    value, slope = torch.zeros_like(t), torch.zeros_like(t)
    for c in coefficients.flip(0):
        slope = torch.addcmul(value, t, slope)
        value = torch.addcmul(c, t, value)
    return value, slope * scale
