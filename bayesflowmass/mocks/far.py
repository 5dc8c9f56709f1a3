"""Haloes along the line of sight, beyond the infall region: singles and superclusters."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bayesflowmass.common.arrays import FloatArray, IntArray
from bayesflowmass.mocks.background import Abundance, Background, draw_mass
from bayesflowmass.mocks.halos import Halos
from bayesflowmass.mocks.infall import infall_speed
from bayesflowmass.mocks.neighbours import Neighbours, Sightlines
from bayesflowmass.mocks.parameters import MockParameters

_REACH = 3.0
"""Superclusters are followed to this many widths."""


@dataclass(frozen=True)
class Superclusters:
    """Centres (3, n), common velocities (3, n) of superclusters near the lines of sight of ``halo`` (n,)."""

    halo: IntArray
    position: FloatArray
    velocity: FloatArray


def draw_superclusters(
    halos: Halos,
    sightlines: Sightlines,
    radius: float,
    abundance: Abundance,
    parameters: MockParameters,
    background: Background,
    rng: np.random.Generator,
) -> Superclusters:
    """Poisson superclusters around the lines of sight, more of them near the cluster.

    Their density is d [1 + e(r)], where e makes the haloes of ``abundance`` follow n b b_cl xi(r): a
    Neyman-Scott process, so that neighbours are clustered with each other.

    Args:
        radius: of the cylinder in which haloes are wanted [comoving Mpc/h].
    """
    size = parameters.supercluster_size
    reach = radius + _REACH * size
    half = parameters.line_of_sight_depth + 2.0 * size
    z = halos.redshift
    excess = background.bias(halos.log10_mass, z) * abundance.biased_density(z)
    excess = excess / abundance.clustered_density(z)
    highest = 1.0 + excess * background.correlation(np.full(z.size, parameters.near_radius), z)
    volume = np.pi * reach**2 * 2.0 * half
    halo, projection = _repeat(parameters.supercluster_density * volume * highest, sightlines, rng)
    sky = _in_cylinder(halo.size, reach, half, rng)
    r = np.sqrt((sky**2).sum(axis=0))
    xi = background.correlation(np.maximum(r, parameters.near_radius), z[halo])
    keep = rng.random(halo.size) * highest[halo] < 1.0 + excess[halo] * np.maximum(xi, 0.0)
    halo, projection, sky = halo[keep], projection[keep], sky[:, keep]
    position = sightlines.to_frame(halo, projection, sky)
    keep = ~sightlines.seen_before(halo, position, projection, reach)
    halo, position = halo[keep], position[:, keep]
    scatter = parameters.neighbour_velocity_scatter * np.sqrt(parameters.supercluster_velocity_share)
    return Superclusters(halo, position, scatter * rng.standard_normal(position.shape))


def far_neighbours(
    halos: Halos,
    r200m: FloatArray,
    superclusters: Superclusters,
    sightlines: Sightlines,
    radius: float,
    abundance: Abundance,
    parameters: MockParameters,
    background: Background,
    rng: np.random.Generator,
) -> Neighbours:
    """Haloes beyond `near_radius`, within ``radius`` of a line of sight, up to `line_of_sight_depth` deep."""
    single = _singles(halos, sightlines, radius, abundance, parameters, rng)
    halo, position, common = _clustered(halos, superclusters, sightlines, radius, abundance, parameters, rng)
    scatter = parameters.neighbour_velocity_scatter
    own = scatter * np.sqrt(1.0 - parameters.supercluster_velocity_share)
    parts = [
        (*single, scatter * rng.standard_normal(single[1].shape), abundance.smooth_mass),
        (halo, position, common + own * rng.standard_normal(position.shape), abundance.clustered_mass),
    ]
    neighbours = Neighbours.join(
        [Neighbours(h, p, v, draw_mass(table, halos.redshift[h], rng)) for h, p, v, table in parts]
    )
    r = np.sqrt((neighbours.position**2).sum(axis=0))
    infall = infall_speed(r, neighbours.halo, halos, r200m, parameters, background)
    velocity = neighbours.velocity - infall * neighbours.position / r
    return Neighbours(neighbours.halo, neighbours.position, velocity, neighbours.log10_mass)


def _singles(
    halos: Halos,
    sightlines: Sightlines,
    radius: float,
    abundance: Abundance,
    parameters: MockParameters,
    rng: np.random.Generator,
) -> tuple[IntArray, FloatArray]:
    half = parameters.line_of_sight_depth
    volume = np.pi * radius**2 * 2.0 * half
    halo, projection = _repeat(abundance.smooth_density(halos.redshift) * volume, sightlines, rng)
    position = sightlines.to_frame(halo, projection, _in_cylinder(halo.size, radius, half, rng))
    keep = (position**2).sum(axis=0) > parameters.near_radius**2
    keep &= ~sightlines.seen_before(halo, position, projection, radius)
    return halo[keep], position[:, keep]


def _clustered(
    halos: Halos,
    superclusters: Superclusters,
    sightlines: Sightlines,
    radius: float,
    abundance: Abundance,
    parameters: MockParameters,
    rng: np.random.Generator,
) -> tuple[IntArray, FloatArray, FloatArray]:
    """Haloes of superclusters inside the cylinders: index, position, velocity of the supercluster.

    Each supercluster spreads its haloes as a Gaussian. Only those in a cylinder are drawn: uniformly over its
    disc, at the highest density there, then thinned to the Gaussian.
    """
    size = parameters.supercluster_size
    mean = abundance.clustered_density(halos.redshift) / parameters.supercluster_density
    halo, position, velocity = [], [], []
    for j in range(sightlines.n_projections):
        h = superclusters.halo
        axes = [axis[h, j].T for axis in (sightlines.x, sightlines.y, sightlines.z)]
        centre = np.stack([(superclusters.position * axis).sum(axis=0) for axis in axes])
        distance = np.hypot(centre[0], centre[1])
        highest = np.exp(-0.5 * (np.maximum(distance - radius, 0.0) / size) ** 2)
        highest[distance > radius + _REACH * size] = 0.0
        number = rng.poisson(mean[h] * radius**2 / (2.0 * size**2) * highest)
        parent = np.repeat(np.arange(h.size), number)
        sky = _in_cylinder(parent.size, radius, 0.0, rng)
        sky[2] = centre[2, parent] + size * rng.standard_normal(parent.size)
        square = (sky[0] - centre[0, parent]) ** 2 + (sky[1] - centre[1, parent]) ** 2
        keep = rng.random(parent.size) * highest[parent] < np.exp(-0.5 * square / size**2)
        keep &= np.abs(sky[2]) < parameters.line_of_sight_depth
        keep &= (sky**2).sum(axis=0) > parameters.near_radius**2
        parent, sky = parent[keep], sky[:, keep]
        projection = np.full(parent.size, j)
        placed = sightlines.to_frame(h[parent], projection, sky)
        keep = ~sightlines.seen_before(h[parent], placed, projection, radius)
        halo.append(h[parent][keep])
        position.append(placed[:, keep])
        velocity.append(superclusters.velocity[:, parent[keep]])
    return np.concatenate(halo), np.concatenate(position, axis=1), np.concatenate(velocity, axis=1)


def _repeat(
    expected: FloatArray, sightlines: Sightlines, rng: np.random.Generator
) -> tuple[IntArray, IntArray]:
    """Halo and projection of Poisson points, ``expected`` (n_halos,) of them for each line of sight."""
    n = sightlines.n_projections
    pair = np.repeat(np.arange(expected.size * n), rng.poisson(np.repeat(expected, n)))
    return pair // n, pair % n


def _in_cylinder(n: int, radius: float, half: float, rng: np.random.Generator) -> FloatArray:
    """Points (3, n) uniform in a cylinder along the third axis."""
    rho = radius * np.sqrt(rng.random(n))
    angle = rng.uniform(0.0, 2.0 * np.pi, n)
    return np.stack([rho * np.cos(angle), rho * np.sin(angle), rng.uniform(-half, half, n)])
