"""Galaxies of the haloes around a cluster."""

from __future__ import annotations

import numpy as np

from bayesflowmass.common.arrays import FloatArray, IntArray
from bayesflowmass.mocks.background import Background
from bayesflowmass.mocks.galaxies import Component, Galaxies, accretion_mass, mass_dependent_speed
from bayesflowmass.mocks.halos import Halos, draw_halos, drawn_for
from bayesflowmass.mocks.kinematics import place_inside
from bayesflowmass.mocks.neighbours import Neighbours
from bayesflowmass.mocks.orbits import Orbit
from bayesflowmass.mocks.parameters import MockParameters
from bayesflowmass.mocks.profile import RadialTables


def satellite_galaxies(
    neighbours: Neighbours,
    halos: Halos,
    tables: RadialTables,
    parameters: MockParameters,
    background: Background,
    rng: np.random.Generator,
) -> Galaxies:
    """Satellites inside R_vir of each neighbour, which move with their halo."""
    z = halos.redshift[neighbours.halo]
    drawn = drawn_for(halos.drawn, neighbours.halo)
    hosts = draw_halos(neighbours.log10_mass, z, parameters, background, background.cosmology, rng, drawn)
    host = np.repeat(np.arange(len(hosts)), rng.poisson(hosts.richness))
    placed = place_inside(hosts, host, tables, parameters, rng)
    position = neighbours.position[:, host] + placed.direction * (placed.s * hosts.r200c[host])
    mass = accretion_mass(neighbours.log10_mass[host], parameters, rng)
    slope = hosts.parameter("velocity_bias_slope", parameters)[host]
    speed = (hosts.v200c * hosts.speed)[host] * mass_dependent_speed(mass, slope, parameters)
    velocity = neighbours.velocity[:, host] + placed.velocity * speed
    return _interlopers(neighbours.halo[host], position, velocity, mass, Component.NEIGHBOUR_SATELLITE)


def central_galaxies(neighbours: Neighbours, halos: Halos, parameters: MockParameters) -> Galaxies:
    """One galaxy at rest at the centre of each neighbour.

    Within the outskirts radius of the cluster, haloes below `outskirts_group_mass` have none: there the
    component `OUTSKIRTS` already counts the galaxies that live alone.
    """
    distance = np.sqrt((neighbours.position**2).sum(axis=0))
    counted = distance < parameters.outskirts_radius * halos.r200c[neighbours.halo]
    counted &= neighbours.log10_mass < np.log10(parameters.outskirts_group_mass)
    neighbours = neighbours.take(~counted)
    return _interlopers(
        neighbours.halo,
        neighbours.position,
        neighbours.velocity,
        neighbours.log10_mass,
        Component.NEIGHBOUR_CENTRAL,
    )


def _interlopers(
    halo: IntArray, position: FloatArray, velocity: FloatArray, log10_mass: FloatArray, component: Component
) -> Galaxies:
    n = halo.size
    return Galaxies(
        halo,
        position,
        velocity,
        np.full(n, component, dtype=np.int8),
        np.zeros(n, dtype=bool),
        np.ones(n, dtype=bool),
        log10_mass,
        np.full(n, Orbit.INTERLOPER, dtype=np.int8),
    )
