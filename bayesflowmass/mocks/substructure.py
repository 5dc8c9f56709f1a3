"""Infalling clumps inside a cluster: groups of members that move together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bayesflowmass.common.arrays import FloatArray, IntArray
from bayesflowmass.mocks.galaxies import Component, Galaxies, accretion_mass
from bayesflowmass.mocks.halos import Halos
from bayesflowmass.mocks.kinematics import place_inside, typical_dispersion
from bayesflowmass.mocks.parameters import MockParameters
from bayesflowmass.mocks.profile import RadialTables


@dataclass(frozen=True)
class Clumps:
    """Clumps of each halo, padded to the largest number k (fraction 0).

    Attributes:
        fraction: (n, k) share of the members.
        position: (3, n, k) of the centres [comoving Mpc/h], in the frame of the halo's axes.
        velocity: (3, n, k) [km/s].
        radius: (n, k) root-mean-square radius [comoving Mpc/h].
        dispersion: (n, k) 1-D dispersion of the galaxies of a clump [km/s].
        orbit: (n, k) `Orbit` codes.
    """

    fraction: FloatArray
    position: FloatArray
    velocity: FloatArray
    radius: FloatArray
    dispersion: FloatArray
    orbit: NDArray[np.int8]


def draw_clumps(
    halos: Halos,
    axes: FloatArray,
    velocity_axes: FloatArray,
    tables: RadialTables,
    parameters: MockParameters,
    rng: np.random.Generator,
) -> Clumps:
    """Poisson numbers of clumps, fractions f from a power law, radii and dispersions proportional to f^(1/3).

    Centres follow the galaxies inside R_vir and move like them. Fractions are accepted in order as long as
    their sum stays below `substructure_total_max`.
    """
    n = len(halos)
    number = rng.poisson(parameters.substructure_mean_number, n)
    k = max(1, int(number.max(initial=0)))
    power = parameters.substructure_slope + 1.0
    low, high = parameters.substructure_min**power, parameters.substructure_max**power
    fraction = (low + (high - low) * rng.random((n, k))) ** (1.0 / power)
    fraction[np.arange(k) >= number[:, None]] = 0.0
    fraction[np.cumsum(fraction, axis=1) > parameters.substructure_total_max] = 0.0

    placed = place_inside(halos, np.repeat(np.arange(n), k), tables, parameters, rng)
    position = (placed.direction * placed.s).reshape(3, n, k) * halos.r200c[:, None] * axes.T[:, :, None]
    speed = halos.v200c * halos.speed
    velocity = placed.velocity.reshape(3, n, k) * speed[:, None] * velocity_axes.T[:, :, None]
    size = np.cbrt(fraction)
    typical = typical_dispersion(halos, tables)
    return Clumps(
        fraction,
        position,
        velocity,
        parameters.substructure_radius * size * halos.r_vir[:, None],
        size * typical[:, None],
        placed.orbit.reshape(n, k),
    )


def assign_clumps(clumps: Clumps, halo: IntArray, rng: np.random.Generator) -> IntArray:
    """Clump (0..k-1) of each galaxy inside R_vir, or -1: each clump gets its fraction on average."""
    uniform = rng.random(halo.size)
    clump = np.full(halo.size, -1, dtype=np.int64)
    below = np.zeros(halo.size)
    for k in range(clumps.fraction.shape[1]):
        fraction = clumps.fraction[halo, k]
        clump[(uniform >= below) & (uniform < below + fraction)] = k
        below += fraction
    return clump


def clump_galaxies(
    clumps: Clumps,
    halo: IntArray,
    clump: IntArray,
    halos: Halos,
    parameters: MockParameters,
    rng: np.random.Generator,
) -> Galaxies:
    """Galaxies of clumps: Gaussian in position and velocity about the centre."""
    n = halo.size
    width = clumps.radius[halo, clump] / np.sqrt(3.0)
    position = clumps.position[:, halo, clump] + width * rng.standard_normal((3, n))
    velocity = clumps.velocity[:, halo, clump]
    velocity = velocity + clumps.dispersion[halo, clump] * rng.standard_normal((3, n))
    member = (position**2).sum(axis=0) < halos.r_vir[halo] ** 2
    component = np.full(n, Component.SUBSTRUCTURE, dtype=np.int8)
    mass = accretion_mass(halos.log10_mass[halo], parameters, rng)
    return Galaxies(
        halo, position, velocity, component, member, np.zeros(n, dtype=bool), mass, clumps.orbit[halo, clump]
    )
