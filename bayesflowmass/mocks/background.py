"""Redshift-dependent tables of haloes and of the matter around them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from bayesflowmass.common.arrays import FloatArray
from bayesflowmass.cosmology import (
    Cosmology,
    concentration_median,
    efunc,
    halo_bias,
    linear_correlation,
    mass_function,
    overdensity,
)
from bayesflowmass.mocks.grids import Axis, Table1D, Table2D
from bayesflowmass.mocks.nfw import nfw_mass
from bayesflowmass.mocks.parameters import MockParameters
from bayesflowmass.mocks.profile import CONCENTRATION_AXIS

_MASS_STEP = 0.02
_REDSHIFT_STEP = 0.01
_QUANTILES = Axis(0.0, 1.0, 2001)
_WEIGHTS = ("mass", "biased", "infall", "clustered", "smooth")


@dataclass(frozen=True)
class Abundance:
    """Haloes of a range of masses, some of them in superclusters, with a weight for each use.

    A halo of bias b is in a supercluster with probability 1 - (1 - share)^(b / mean b): massive ones more
    often.

    Attributes:
        density: z -> number density [(Mpc/h)^-3]; biased_density: the same times the bias;
            infall_density: times its power `infall_region_bias_power`.
        clustered_density, smooth_density: of haloes inside and outside superclusters; they sum to density.
        mass, biased_mass, infall_mass, clustered_mass, smooth_mass: (quantile, z) -> log10 mass, by the
            mass function times 1, the bias, its power, and the two probabilities.
    """

    density: Table1D
    biased_density: Table1D
    infall_density: Table1D
    clustered_density: Table1D
    smooth_density: Table1D
    mass: Table2D
    biased_mass: Table2D
    infall_mass: Table2D
    clustered_mass: Table2D
    smooth_mass: Table2D


class Background:
    """Tables over one redshift or a range, for one cosmology and set of parameters.

    Args:
        redshift_range: (lowest, highest); equal for one redshift.
        mass_range: log10 M200c [Msun/h] of the clusters.
    """

    def __init__(
        self,
        parameters: MockParameters,
        cosmology: Cosmology,
        redshift_range: tuple[float, float],
        mass_range: tuple[float, float],
    ) -> None:
        self.cosmology = cosmology
        low, high = redshift_range
        n_z = max(2, math.ceil((high - low) / _REDSHIFT_STEP) + 1)
        axis = Axis(low, high if high > low else low + 1e-3, n_z)
        hosts = (math.log10(parameters.neighbour_min_mass), math.log10(parameters.neighbour_max_mass))
        centrals = (math.log10(parameters.central_min_mass), hosts[0])
        lowest = min(centrals[0], mass_range[0]) - 0.01
        highest = max(hosts[1], mass_range[1]) + 0.01
        masses = Axis(lowest, highest, math.ceil((highest - lowest) / _MASS_STEP) + 1)

        nodes, grid = axis.points, masses.points
        bias = np.stack([halo_bias(grid, z, cosmology) for z in nodes], axis=1)
        concentration = np.stack([concentration_median(grid, float(z), cosmology) for z in nodes], axis=1)
        self._log_concentration = Table2D(masses, axis, np.log(concentration))
        self._bias = Table2D(masses, axis, bias)
        self._virial = Table2D(CONCENTRATION_AXIS, axis, _virial_over_r200c(nodes, cosmology))
        self.hosts = _abundance(hosts, axis, parameters, cosmology)
        self.centrals = None
        if centrals[1] > centrals[0]:
            self.centrals = _abundance(centrals, axis, parameters, cosmology)

        # The linear correlation function keeps its shape and grows by D^2.
        radii = np.geomspace(0.1, 1.2 * parameters.line_of_sight_depth, 400)
        shape = linear_correlation(radii, float(nodes[0]), cosmology)
        growth = [float(linear_correlation(np.array([8.0]), z, cosmology)[0]) for z in nodes]
        self._growth = Table1D(axis, np.asarray(growth) / growth[0])
        self._radii, self._correlation = radii, shape

    def log_concentration(self, log10_mass: FloatArray, z: FloatArray) -> FloatArray:
        """ln of the median c200c."""
        return self._log_concentration(log10_mass, z)

    def bias(self, log10_mass: FloatArray, z: FloatArray) -> FloatArray:
        """Linear halo bias."""
        return self._bias(log10_mass, z)

    def virial_over_r200c(self, log_c: FloatArray, z: FloatArray) -> FloatArray:
        """R_vir / r200c (Bryan & Norman) of an NFW halo."""
        return self._virial(log_c, z)

    def correlation(self, r: FloatArray, z: FloatArray) -> FloatArray:
        """Linear matter correlation function at r [Mpc/h]; 0.1 Mpc/h and the depth are its limits."""
        return np.interp(r, self._radii, self._correlation) * self._growth(z)

    def growth_squared(self, z: FloatArray) -> FloatArray:
        """Growth of the correlation function since the lowest redshift of the tables."""
        return self._growth(z)

    def correlation_shells(self, radii: FloatArray) -> FloatArray:
        """xi(r) at the lowest redshift, for radial integrals."""
        return np.interp(radii, self._radii, self._correlation)

    def hubble(self, z: FloatArray) -> FloatArray:
        """Hubble flow a H [km/s per comoving Mpc/h]."""
        return 100.0 * efunc(z, self.cosmology) / (1.0 + z)


def _virial_over_r200c(z: FloatArray, cosmology: Cosmology) -> FloatArray:
    """(n_c, n_z): solve m(c s)/m(c) = s^3 Delta_vir/200 for s by bisection in ln s."""
    c = np.exp(CONCENTRATION_AXIS.points)[:, None]
    target = overdensity("vir", z, cosmology)[None, :] / 200.0
    low = np.full((c.shape[0], z.size), math.log(0.5))
    high = np.full_like(low, math.log(3.0))
    for _ in range(45):
        middle = 0.5 * (low + high)
        s = np.exp(middle)
        denser = nfw_mass(c * s) / nfw_mass(c) / s**3 > target
        low, high = np.where(denser, middle, low), np.where(denser, high, middle)
    return np.exp(0.5 * (low + high))


def _abundance(
    limits: tuple[float, float], redshifts: Axis, parameters: MockParameters, cosmology: Cosmology
) -> Abundance:
    grid = np.linspace(*limits, max(50, math.ceil((limits[1] - limits[0]) / 0.01) + 1))
    columns: dict[str, list[FloatArray]] = {name: [] for name in _WEIGHTS}
    totals: dict[str, list[float]] = {name: [] for name in columns}
    for z in redshifts.points:
        density = mass_function(grid, float(z), cosmology)
        bias = halo_bias(grid, float(z), cosmology)
        mean_bias = np.trapezoid(density * bias, grid) / np.trapezoid(density, grid)
        in_supercluster = 1.0 - (1.0 - parameters.supercluster_share) ** (bias / mean_bias)
        weights = {
            "mass": density,
            "biased": density * bias,
            "infall": density * bias**parameters.infall_region_bias_power,
            "clustered": density * in_supercluster,
            "smooth": density * (1.0 - in_supercluster),
        }
        for name, weight in weights.items():
            cumulative = np.concatenate([[0.0], np.cumsum(0.5 * (weight[1:] + weight[:-1]) * np.diff(grid))])
            totals[name].append(float(cumulative[-1]))
            # sin^2 spacing resolves both rare ends of a steep distribution.
            quantile = np.sin(0.5 * np.pi * _QUANTILES.points) ** 2
            norm = cumulative / cumulative[-1] if cumulative[-1] > 0.0 else np.linspace(0.0, 1.0, grid.size)
            columns[name].append(np.interp(quantile, norm, grid))
    density_of = {name: Table1D(redshifts, np.asarray(values)) for name, values in totals.items()}
    mass_of = {
        name: Table2D(_QUANTILES, redshifts, np.stack(values, axis=1)) for name, values in columns.items()
    }
    return Abundance(
        density_of["mass"],
        density_of["biased"],
        density_of["infall"],
        density_of["clustered"],
        density_of["smooth"],
        mass_of["mass"],
        mass_of["biased"],
        mass_of["infall"],
        mass_of["clustered"],
        mass_of["smooth"],
    )


def draw_mass(table: Table2D, z: FloatArray, rng: np.random.Generator) -> FloatArray:
    """log10 masses from one of the mass tables of a `Abundance`, one for each redshift."""
    # The tables are spaced in sin^2(pi t / 2), whose inverse cdf is the arcsine.
    t = np.arcsin(np.sqrt(rng.random(z.size))) * (2.0 / np.pi)
    return table(t, z)
