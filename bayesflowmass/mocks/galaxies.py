"""Galaxies in three dimensions, around the haloes of one batch, before they are seen from anywhere."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from bayesflowmass.common.arrays import BoolArray, FloatArray, IntArray
from bayesflowmass.mocks.parameters import MockParameters
from bayesflowmass.mocks.rows import Rows


class Component(IntEnum):
    """Codes of the galaxy column `gal_component`."""

    SMOOTH = 0
    """In equilibrium inside R_vir."""
    SUBSTRUCTURE = 1
    """In an infalling clump of the cluster."""
    OUTSKIRTS = 2
    """On the profile of the cluster beyond R_vir, falling in."""
    NEIGHBOUR_SATELLITE = 3
    """Satellite of another halo."""
    NEIGHBOUR_CENTRAL = 4
    """Central galaxy of another halo (survey mode)."""
    CENTRAL = 5
    """The cluster's own central galaxy (survey mode)."""


@dataclass(frozen=True)
class Galaxies(Rows):
    """Galaxies around many haloes.

    Attributes:
        halo: (n,) index of the halo in the batch.
        position: (3, n) from the halo's centre [comoving Mpc/h], in the frame of its axes (major first).
        velocity: (3, n) [km/s], peculiar (without Hubble flow) where ``flows``, else physical.
        component: (n,) `Component` codes, int8.
        member: (n,) bool, within R_vir in three dimensions.
        flows: (n,) bool, True where the Hubble flow is still to be added.
        log10_mass: (n,) log10 mass of the galaxy's (sub)halo at accretion [Msun/h].
        orbit: (n,) `Orbit` codes, int8; zero where galaxies are in equilibrium.
    """

    halo: IntArray
    position: FloatArray
    velocity: FloatArray
    component: NDArray[np.int8]
    member: BoolArray
    flows: BoolArray
    log10_mass: FloatArray
    orbit: NDArray[np.int8]


def isotropic(n: int, rng: np.random.Generator) -> FloatArray:
    """Unit vectors (3, n), uniform on the sphere."""
    height = rng.uniform(-1.0, 1.0, n)
    angle = rng.uniform(0.0, 2.0 * np.pi, n)
    radius = np.sqrt(1.0 - height**2)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle), height])


def accretion_mass(
    log10_host_mass: FloatArray, parameters: MockParameters, rng: np.random.Generator
) -> FloatArray:
    """log10 masses at accretion of satellites: n(> m) ~ m^slope from the lowest mass to that of the host."""
    power = parameters.subhalo_mass_slope
    lowest = np.log10(parameters.central_min_mass)
    ratio = 10.0 ** (power * np.maximum(log10_host_mass - lowest, 0.01))
    return np.asarray(lowest + np.log10(1.0 - rng.random(log10_host_mass.size) * (1.0 - ratio)) / power)


def mass_dependent_speed(log10_mass: FloatArray, slope: FloatArray, parameters: MockParameters) -> FloatArray:
    """Velocity bias (n,) of galaxies of some accretion mass, over that of the mean galaxy; slope: of ln, per dex."""
    mean = np.log10(parameters.central_min_mass) - 1.0 / (np.log(10.0) * parameters.subhalo_mass_slope)
    return np.asarray(np.exp(slope * (log10_mass - mean)))
