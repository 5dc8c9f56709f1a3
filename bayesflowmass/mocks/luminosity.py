"""Absolute magnitudes by abundance matching of accretion masses."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import gamma, gammaincc

from bayesflowmass.common.arrays import FloatArray
from bayesflowmass.cosmology import Cosmology, mass_function
from bayesflowmass.mocks.grids import Axis, Table2D
from bayesflowmass.mocks.halos import mean_richness
from bayesflowmass.mocks.parameters import MockParameters

# Schechter function of the SDSS 0.1r band, h = 1 (Blanton et al. 2003, arXiv:astro-ph/0210215).
_PHI_STAR, _M_STAR, _ALPHA = 1.49e-2, -20.44, -1.05
_REDSHIFT_STEP = 0.1


def schechter_density(magnitude: FloatArray) -> FloatArray:
    """Number density of galaxies brighter than M_r - 5 log10 h [(Mpc/h)^-3] (Blanton et al. 2003)."""
    x = 10.0 ** (-0.4 * (magnitude - _M_STAR))
    # The incomplete Gamma(a, x) for -1 < a < 0, by the recurrence from Gamma(a + 1, x).
    a = _ALPHA + 1.0
    return np.asarray(_PHI_STAR * (gammaincc(a + 1.0, x) * gamma(a + 1.0) - x**a * np.exp(-x)) / a)


class LuminosityTable:
    """Magnitude of each accretion mass: n(brighter) of galaxies equals n(heavier) of haloes and satellites.

    The comoving luminosity function is that of z = 0.1 at every redshift: magnitudes are corrected for evolution, and a
    limit stands for the same comoving density of galaxies everywhere. The scatter is added to the median relation
    without deconvolution, which makes the bright end of the luminosity function slightly too rich.

    Args:
        redshift_range: lowest and highest, between which the relation is interpolated.
    """

    def __init__(
        self, parameters: MockParameters, cosmology: Cosmology, redshift_range: tuple[float, float]
    ) -> None:
        low, high = redshift_range
        redshifts = Axis(low, max(high, low + 1e-3), max(2, math.ceil((high - low) / _REDSHIFT_STEP) + 1))
        masses = Axis(math.log10(parameters.central_min_mass), 15.8, 300)
        median = [_median_magnitude(masses.points, parameters, cosmology, z) for z in redshifts.points]
        self._magnitude = Table2D(masses, redshifts, np.stack(median, axis=1))
        self._scatter = parameters.luminosity_scatter

    def draw(self, log10_mass: FloatArray, redshift: FloatArray, rng: np.random.Generator) -> FloatArray:
        """M_r - 5 log10 h of galaxies with these accretion masses at these redshifts (n,), with scatter."""
        axis = self._magnitude.x_axis
        median = self._magnitude(np.clip(log10_mass, axis.low, axis.high), redshift)
        return np.asarray(median + self._scatter * rng.standard_normal(log10_mass.size))


def _median_magnitude(
    grid: FloatArray, parameters: MockParameters, cosmology: Cosmology, redshift: float
) -> FloatArray:
    """Median M_r - 5 log10 h of accretion masses (k,) at one redshift."""
    lowest = grid[0]
    density = mass_function(grid, redshift, cosmology)
    centrals = _integral_above(density, grid)
    power = parameters.subhalo_mass_slope
    above = 10.0 ** (power * (grid[:, None] - lowest)) - 10.0 ** (power * (grid[None, :] - lowest))
    above = np.maximum(above, 0.0) / np.maximum(1.0 - 10.0 ** (power * (grid - lowest)), 1e-12)[None, :]
    weight = density * mean_richness(grid, parameters)
    satellites = np.trapezoid(above * weight[None, :], grid, axis=1)
    total = np.maximum(centrals + satellites, 1e-30)
    magnitudes = np.linspace(-26.0, -10.0, 1601)
    brighter = np.log(np.maximum(schechter_density(magnitudes), 1e-300))
    return np.asarray(np.interp(np.log(total), brighter, magnitudes))


def magnitude_of_density(density: ArrayLike) -> FloatArray:
    """Limit M_r - 5 log10 h below which there are so many galaxies [(Mpc/h)^-3]: inverse of `schechter_density`."""
    magnitudes = np.linspace(-24.0, -10.0, 2801)
    return np.asarray(np.interp(np.log(density), np.log(schechter_density(magnitudes)), magnitudes))


def _integral_above(density: FloatArray, grid: FloatArray) -> FloatArray:
    pieces = 0.5 * (density[1:] + density[:-1]) * np.diff(grid)
    return np.concatenate([np.cumsum(pieces[::-1])[::-1], [0.0]])
