"""The cluster itself: smooth members, substructure, outskirts and the central galaxy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bayesflowmass.common.arrays import FloatArray, IntArray
from bayesflowmass.mocks.background import Background
from bayesflowmass.mocks.galaxies import Component, Galaxies, accretion_mass, mass_dependent_speed
from bayesflowmass.mocks.halos import Halos
from bayesflowmass.mocks.infall import infall_speed
from bayesflowmass.mocks.kinematics import (
    in_equilibrium,
    log10_loss_rate,
    share_inside_virial,
    typical_dispersion,
)
from bayesflowmass.mocks.orbits import Placed
from bayesflowmass.mocks.parameters import MockParameters
from bayesflowmass.mocks.profile import RadialTables
from bayesflowmass.mocks.substructure import assign_clumps, clump_galaxies, draw_clumps


@dataclass(frozen=True)
class Shapes:
    """Axis lengths and velocity factors of haloes, both (n, 3), major axis first."""

    axes: FloatArray
    velocity_axes: FloatArray


def cluster_galaxies(
    halos: Halos,
    shapes: Shapes,
    r200m: FloatArray,
    tables: RadialTables,
    parameters: MockParameters,
    background: Background,
    rng: np.random.Generator,
    *,
    outskirts: bool,
    central: bool,
) -> tuple[Galaxies, FloatArray]:
    """Galaxies of the clusters, and the share of members in substructure of each.

    Args:
        outskirts: also beyond R_vir, out to the outskirts radius.
        central: also the central galaxy.
    """
    n_halos = len(halos)
    expected = halos.richness * (1.0 / share_inside_virial(halos, tables, parameters))
    halo = np.repeat(np.arange(n_halos), rng.poisson(expected))
    log_c, orbits = halos.log_c[halo], tables.orbits
    if orbits is None:
        s = tables.draw_radius(rng.random(halo.size), log_c)
    else:
        mass = accretion_mass(halos.log10_mass[halo], parameters, rng)
        rows = orbits.draw(log_c, log10_loss_rate(halos, halo, parameters, mass), rng)
        s = orbits.particles[rows, 0]

    clumps = draw_clumps(halos, shapes.axes, shapes.velocity_axes, tables, parameters, rng)
    inside = s < (halos.r_vir / halos.r200c)[halo]
    clump = np.full(halo.size, -1)
    clump[inside] = assign_clumps(clumps, halo[inside], rng)
    in_clump = clump >= 0
    parts = [clump_galaxies(clumps, halo[in_clump], clump[in_clump], halos, parameters, rng)]

    smooth = ~in_clump
    if not outskirts:
        # A stretched position may end inside R_vir only if it starts within the longest axis.
        smooth &= s < (halos.r_vir / halos.r200c / shapes.axes.min(axis=1))[halo]
    halo = halo[smooth]
    if orbits is None:
        placed = in_equilibrium(s[smooth], log_c[smooth], tables, parameters, rng)
        mass = accretion_mass(halos.log10_mass[halo], parameters, rng)
    else:
        placed, mass = orbits.place(rows[smooth], rng), mass[smooth]
    parts.append(_smooth(halo, placed, mass, halos, shapes, r200m, parameters, background))
    if central:
        parts.append(_central(halos, tables, parameters, rng))
    galaxies = Galaxies.join(parts)
    if not outskirts:
        galaxies = galaxies.take(galaxies.member)
    return galaxies, clumps.fraction.sum(axis=1)


def _smooth(
    halo: IntArray,
    placed: Placed,
    mass: FloatArray,
    halos: Halos,
    shapes: Shapes,
    r200m: FloatArray,
    parameters: MockParameters,
    background: Background,
) -> Galaxies:
    position = placed.direction * (placed.s * halos.r200c[halo])
    position *= shapes.axes.T[:, halo]
    r = np.sqrt((position**2).sum(axis=0))
    member = r < halos.r_vir[halo]
    slope = halos.parameter("velocity_bias_slope", parameters)[halo]
    speed = (halos.v200c * halos.speed)[halo] * mass_dependent_speed(mass, slope, parameters)
    velocity = placed.velocity * speed * shapes.velocity_axes.T[:, halo]
    flows = ~member
    if parameters.orbit_growth > 0.0:
        flows[:] = False
    else:
        outside = np.flatnonzero(~member)
        infall = infall_speed(r[outside], halo[outside], halos, r200m, parameters, background)
        velocity[:, outside] *= parameters.outskirts_dispersion
        velocity[:, outside] -= infall * position[:, outside] / r[outside]
    component = np.where(member, np.int8(Component.SMOOTH), np.int8(Component.OUTSKIRTS))
    return Galaxies(halo, position, velocity, component, member, flows, mass, placed.orbit)


def _central(
    halos: Halos, tables: RadialTables, parameters: MockParameters, rng: np.random.Generator
) -> Galaxies:
    n = len(halos)
    sigma = typical_dispersion(halos, tables) * parameters.central_velocity_offset
    return Galaxies(
        np.arange(n),
        np.zeros((3, n)),
        sigma * rng.standard_normal((3, n)),
        np.full(n, Component.CENTRAL, dtype=np.int8),
        np.ones(n, dtype=bool),
        np.zeros(n, dtype=bool),
        halos.log10_mass,
        np.zeros(n, dtype=np.int8),
    )
