"""Haloes within a few Mpc/h of a cluster: the infall region, with filaments."""

from __future__ import annotations

import numpy as np

from bayesflowmass.common.arrays import FloatArray, IntArray
from bayesflowmass.mocks.background import Abundance, Background, draw_mass
from bayesflowmass.mocks.galaxies import isotropic
from bayesflowmass.mocks.grids import Table2D
from bayesflowmass.mocks.halos import Halos
from bayesflowmass.mocks.infall import infall_speed
from bayesflowmass.mocks.neighbours import Neighbours, Sightlines, virial_radius
from bayesflowmass.mocks.parameters import MockParameters

_FILAMENTS = 3


class Filaments:
    """A few filaments of each halo: directions (3, n, k) and cumulative shares (n, k) of its neighbours."""

    def __init__(self, direction: FloatArray, cumulative: FloatArray) -> None:
        self.direction = direction
        self.cumulative = cumulative

    def choose(self, halo: IntArray, rng: np.random.Generator) -> FloatArray:
        """Direction (3, n) of a filament of each halo, by its share."""
        index = (rng.random(halo.size)[:, None] > self.cumulative[halo]).sum(axis=1)
        return self.direction[:, halo, index]


def draw_filaments(n: int, parameters: MockParameters, rng: np.random.Generator) -> Filaments:
    """Directions scattered about the major axis (first coordinate), or anywhere; shares as broken sticks."""
    k = _FILAMENTS
    direction = isotropic(n * k, rng)
    aligned = parameters.filament_spread * rng.standard_normal((3, n * k))
    aligned[0] = rng.choice(np.array([-1.0, 1.0]), n * k)
    aligned /= np.sqrt((aligned**2).sum(axis=0))
    along = rng.random(n * k) < parameters.filament_alignment
    direction = np.where(along, aligned, direction).reshape(3, n, k)
    share = rng.standard_exponential((n, k))
    cumulative = np.cumsum(share, axis=1) / share.sum(axis=1, keepdims=True)
    cumulative[:, -1] = 1.0
    return Filaments(direction, cumulative)


def near_neighbours(
    halos: Halos,
    r200m: FloatArray,
    environment: FloatArray,
    filaments: Filaments,
    sightlines: Sightlines,
    r_max: float,
    abundance: Abundance,
    parameters: MockParameters,
    background: Background,
    rng: np.random.Generator,
    *,
    with_satellites: bool,
) -> Neighbours:
    """Haloes between the exclusion radius and `near_radius` that can reach a line of sight.

    The density is n(m) [1 + e (b(m) b_cl xi(r) + A b(m)^p (r/5R200m)^-s exp(-(r/r_c)^2))], with the
    environment e of each cluster (n_halos,), lognormal of mean 1; the share `filament_share` of the excess
    lies in filaments.

    Args:
        r_max: aperture [comoving Mpc/h].
        with_satellites: haloes count as far as their virial radius reaches, not their centre alone.
    """
    z = halos.redshift
    outer = parameters.near_radius
    inner = np.minimum(np.maximum(parameters.exclusion * halos.r_vir, 0.05), outer)
    density, biased = abundance.density(z), abundance.biased_density(z)
    uniform = density * 4.0 / 3.0 * np.pi * (outer**3 - inner**3)

    radii = np.geomspace(0.05, outer, 600)
    linear = _shells(radii, background.correlation_shells(radii))
    steep = radii**-parameters.infall_region_slope
    steep = _shells(radii, steep * np.exp(-((radii / parameters.infall_region_cutoff) ** 2)))
    amplitude_linear = environment * biased * background.bias(halos.log10_mass, z)
    amplitude_linear *= background.growth_squared(z)
    scale = 5.0 * r200m
    amplitude_steep = environment * abundance.infall_density(z)
    amplitude_steep *= halos.parameter("infall_region_amplitude", parameters)
    amplitude_steep *= scale**parameters.infall_region_slope

    parts = [
        _uniform(uniform, inner, outer, abundance.mass, halos, rng),
        _excess(amplitude_linear, radii, linear, inner, abundance.biased_mass, halos, rng),
        _excess(amplitude_steep, radii, steep, inner, abundance.infall_mass, halos, rng),
    ]
    halo = np.concatenate([part[0] for part in parts])
    r = np.concatenate([part[1] for part in parts])
    mass = np.concatenate([part[2] for part in parts])
    n_uniform = parts[0][0].size

    direction = isotropic(halo.size, rng)
    chosen = n_uniform + np.flatnonzero(rng.random(halo.size - n_uniform) < parameters.filament_share)
    threaded = r[chosen] * filaments.choose(halo[chosen], rng)
    threaded += parameters.filament_width * rng.standard_normal((3, chosen.size))
    direction[:, chosen] = threaded / np.sqrt((threaded**2).sum(axis=0))

    position = r * direction
    extent = virial_radius(mass, halo, halos, background.cosmology)
    keep = r > parameters.exclusion * extent
    keep &= sightlines.in_any(halo, position, r_max + extent if with_satellites else np.full(r.size, r_max))
    halo, r, mass = halo[keep], r[keep], mass[keep]
    direction, position = direction[:, keep], position[:, keep]
    velocity = parameters.neighbour_velocity_scatter * rng.standard_normal(position.shape)
    velocity -= infall_speed(r, halo, halos, r200m, parameters, background) * direction
    return Neighbours(halo, position, velocity, mass)


def _shells(radii: FloatArray, density: FloatArray) -> FloatArray:
    """Cumulative integral of 4 pi r^2 density from the first radius."""
    shell = 4.0 * np.pi * radii**2 * density
    return np.concatenate([[0.0], np.cumsum(0.5 * (shell[1:] + shell[:-1]) * np.diff(radii))])


def _uniform(
    expected: FloatArray,
    inner: FloatArray,
    outer: float,
    masses: Table2D,
    halos: Halos,
    rng: np.random.Generator,
) -> tuple[IntArray, FloatArray, FloatArray]:
    halo = np.repeat(np.arange(len(halos)), rng.poisson(expected))
    low = inner[halo] ** 3
    r = np.cbrt(low + (outer**3 - low) * rng.random(halo.size))
    return halo, r, draw_mass(masses, halos.redshift[halo], rng)


def _excess(
    amplitude: FloatArray,
    radii: FloatArray,
    cumulative: FloatArray,
    inner: FloatArray,
    masses: Table2D,
    halos: Halos,
    rng: np.random.Generator,
) -> tuple[IntArray, FloatArray, FloatArray]:
    start = np.interp(inner, radii, cumulative)
    halo = np.repeat(np.arange(len(halos)), rng.poisson(amplitude * (cumulative[-1] - start)))
    low = start[halo]
    r = np.interp(low + (cumulative[-1] - low) * rng.random(halo.size), cumulative, radii)
    return halo, r, draw_mass(masses, halos.redshift[halo], rng)
