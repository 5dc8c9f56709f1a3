"""Absolute magnitudes by abundance matching of accretion masses."""

from __future__ import annotations

import numpy as np
from scipy.special import gamma, gammaincc

from bayesflowmass.common.arrays import FloatArray
from bayesflowmass.cosmology import Cosmology, mass_function
from bayesflowmass.mocks.halos import mean_richness
from bayesflowmass.mocks.parameters import MockParameters

__all__ = ["LuminosityTable", "schechter_density"]


# Schechter function of the SDSS 0.1r band, h = 1 (Blanton et al. 2003, arXiv:astro-ph/0210215).
_PHI_STAR, _M_STAR, _ALPHA = 1.49e-2, -20.44, -1.05


def schechter_density(magnitude: FloatArray) -> FloatArray:
    """Number density of galaxies brighter than M_r - 5 log10 h [(Mpc/h)^-3] (Blanton et al. 2003)."""
    x = 10.0 ** (-0.4 * (magnitude - _M_STAR))
    # The incomplete Gamma(a, x) for -1 < a < 0, by the recurrence from Gamma(a + 1, x).
    a = _ALPHA + 1.0
    return np.asarray(_PHI_STAR * (gammaincc(a + 1.0, x) * gamma(a + 1.0) - x**a * np.exp(-x)) / a)


class LuminosityTable:
    """Magnitude of each accretion mass: n(brighter) of galaxies equals n(heavier) of haloes and satellites.

    The scatter is added to the median relation without deconvolution, which makes the bright end of the
    luminosity function slightly too rich.
    """

    def __init__(self, parameters: MockParameters, cosmology: Cosmology, redshift: float) -> None:
        lowest = np.log10(parameters.central_min_mass)
        grid = np.linspace(lowest, 15.8, 300)
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
        self._grid = grid
        self._magnitude = np.interp(np.log(total), brighter, magnitudes)
        self._scatter = parameters.luminosity_scatter

    def draw(self, log10_mass: FloatArray, rng: np.random.Generator) -> FloatArray:
        """M_r - 5 log10 h of galaxies with these accretion masses, with scatter."""
        median = np.interp(log10_mass, self._grid, self._magnitude)
        return np.asarray(median + self._scatter * rng.standard_normal(log10_mass.size))


def _integral_above(density: FloatArray, grid: FloatArray) -> FloatArray:
    pieces = 0.5 * (density[1:] + density[:-1]) * np.diff(grid)
    return np.concatenate([np.cumsum(pieces[::-1])[::-1], [0.0]])
