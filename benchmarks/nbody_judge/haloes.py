"""Haloes of a particle box: friends of friends, then spheres of a given mean density."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from bayesflowmass.common.arrays import FloatArray, IntArray
from bayesflowmass.cosmology import (
    MDPL2,
    Cosmology,
    critical_density,
    mass_function,
    overdensity,
)

__all__ = ["Haloes", "find_haloes", "friends_of_friends", "matched_masses", "sphere"]

LINKING = 0.2
"""Linking length, in mean distances of particles."""
_SLABS = 24
_GRID = np.linspace(11.0, 16.0, 1001)


@dataclass(frozen=True)
class Haloes:
    """Haloes of a box, the heaviest first.

    Attributes:
        centre: (n, 3) [comoving Mpc/h].
        velocity: (n, 3) mean of the particles inside R200c, or of all friends where that holds fewer than 50 [km/s].
        n_friends: (n,) particles of the group.
        log10_found: (n,) log10 M200c [Msun/h] of the sphere about the centre, nan below 50 particles.
        log10_mass: (n,) log10 M200c [Msun/h] by abundance matching (`matched_masses`).
    """

    centre: FloatArray
    velocity: FloatArray
    n_friends: IntArray
    log10_found: FloatArray
    log10_mass: FloatArray


def friends_of_friends(position: FloatArray, size: float, length: float) -> IntArray:
    """Group number (n,) of each particle: those nearer than ``length`` are friends, and friends of friends.

    The box is periodic. It is linked in slabs, each of which leaves one edge for a particle, so that memory grows
    with the box and not with the number of pairs.
    """
    n = position.shape[0]
    order = np.argsort(position[:, 0], kind="stable")
    edges = np.linspace(0.0, size, max(1, min(_SLABS, int(size / (4.0 * length)))) + 1)
    sorted_x = position[order, 0]
    links = []
    for low, high in pairwise(edges):
        begin, end, beyond = np.searchsorted(sorted_x, (low, high, high + length))
        mine = order[begin:beyond]
        if high + length > size:
            mine = np.concatenate(
                [order[begin:end], order[end:beyond], order[: np.searchsorted(sorted_x, length)]]
            )
        local = position[mine].astype(np.float64)
        local[:, 0] = np.mod(local[:, 0] - low, size)
        tree = cKDTree(np.mod(local, size), boxsize=size, balanced_tree=False, compact_nodes=False)
        pairs = tree.query_pairs(length, output_type="ndarray").astype(np.int32)
        if pairs.size:
            label = _components(pairs, mine.size)
            first = np.full(label.max() + 1, mine.size, dtype=np.int64)
            np.minimum.at(first, label, np.arange(mine.size))
            linked = first[label] != np.arange(mine.size)
            links.append(np.stack([mine[linked], mine[first[label[linked]]]], axis=1))
    joined = np.concatenate(links) if links else np.empty((0, 2), dtype=np.int64)
    return _components(joined, n)


def _components(pairs: IntArray, n: int) -> IntArray:
    graph = coo_array((np.ones(pairs.shape[0], dtype=np.int8), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    return np.asarray(connected_components(graph, directed=False)[1], dtype=np.int64)


def sphere(distance: FloatArray, particle_mass: float, density: float) -> tuple[int, float]:
    """Particles inside, and radius of, the sphere about a centre in which the mean density falls to a value.

    Args:
        distance: (n,) of the particles around the centre, in any order.
        particle_mass: [Msun/h].
        density: [Msun/h / (Mpc/h)^3].

    Returns:
        Number and radius; (0, 0) where fewer than ten particles are inside, (n, nan) where it never falls so low.
    """
    r = np.sort(distance)
    number = np.arange(1, r.size + 1)
    below = number * particle_mass < density * 4.0 / 3.0 * np.pi * r**3
    if not below[10:].any():
        return r.size, float("nan")
    last = 10 + int(np.argmax(below[10:]))
    if last == 10:
        return 0, 0.0
    return last, float(np.cbrt(last * particle_mass / (density * 4.0 / 3.0 * np.pi)))


def matched_masses(
    rank: IntArray, volume: float, redshift: float, cosmology: Cosmology = MDPL2
) -> FloatArray:
    """log10 M200c [Msun/h] of the halo with ``rank`` (0 is the heaviest): as many are heavier as Tinker 2008 has."""
    density = mass_function(_GRID, redshift, cosmology)
    step = _GRID[1] - _GRID[0]
    above = np.append(np.cumsum((0.5 * step * (density[:-1] + density[1:]))[::-1])[::-1], 0.0) * volume
    wanted = np.log(rank + 0.5)
    falling = above > 1e-6
    return np.asarray(np.interp(-wanted, -np.log(above[falling]), _GRID[falling]))


def find_haloes(
    position: FloatArray,
    velocity: FloatArray,
    size: float,
    redshift: float,
    min_particles: int,
    cosmology: Cosmology = MDPL2,
) -> tuple[Haloes, IntArray]:
    """Haloes, and for each particle the row of its halo (-1: none).

    Groups are friends of friends (b = 0.2). The centre is that of a sphere that shrinks onto the most massive part.
    Masses are matched by rank: in M200m where its sphere holds 100 particles (its radius is 1.7 times R200c, which
    a mesh resolves sooner), in friends below. A group whose centre lies inside R200m of a heavier one is no halo:
    its particles are those of the heavier.
    """
    n = position.shape[0]
    particle_mass = cosmology.Om0 * float(critical_density(0.0, cosmology)) * size**3 / n
    label = friends_of_friends(position, size, LINKING * size / np.cbrt(n))
    count = np.bincount(label)
    big = np.flatnonzero(count >= min_particles)
    big = big[np.argsort(-count[big], kind="stable")]
    new = np.full(count.size, -1, dtype=np.int64)
    new[big] = np.arange(big.size)
    group = new[label]
    inside = np.flatnonzero(group >= 0)
    inside = inside[np.argsort(group[inside], kind="stable")]
    bounds = np.concatenate([[0], np.cumsum(count[big])])
    critical = float(critical_density(redshift, cosmology)) / (1.0 + redshift) ** 3
    densities = 200.0 * critical, float(overdensity("200m", redshift, cosmology)) * critical
    tree = cKDTree(np.mod(position.astype(np.float64), size), boxsize=size, balanced_tree=False)
    rows = []
    for begin, end in pairwise(bounds):
        rows.append(_one_halo(position, velocity, inside[begin:end], tree, size, particle_mass, densities))
    centre, bulk, log10_found, weight, r200m = (np.array(column) for column in zip(*rows, strict=True))
    order = np.argsort(-weight, kind="stable")
    kept, owner = _distinct(centre[order], r200m[order], size)
    row_of = np.empty(order.size, dtype=np.int64)
    row_of[order] = owner
    rows_kept = order[kept]
    haloes = Haloes(
        centre[rows_kept],
        bulk[rows_kept],
        np.bincount(row_of, count[big], kept.size).astype(np.int64),
        log10_found[rows_kept],
        matched_masses(np.arange(kept.size), size**3, redshift, cosmology),
    )
    return haloes, np.where(group >= 0, row_of[group], -1)


def _one_halo(
    position: FloatArray,
    velocity: FloatArray,
    friends: IntArray,
    tree: cKDTree,
    size: float,
    particle_mass: float,
    densities: tuple[float, float],
) -> tuple[FloatArray, FloatArray, float, float, float]:
    """Centre, velocity, log10 M200c, the mass by which haloes are ranked [particles] and R200m of a group."""
    offset = position[friends].astype(np.float64) - position[friends[0]]
    offset -= size * np.round(offset / size)
    centre = position[friends[0]] + _shrinking_centre(offset)
    bulk = velocity[friends].mean(axis=0, dtype=np.float64)
    r200m = np.cbrt(friends.size * particle_mass / (densities[1] * 4.0 / 3.0 * np.pi))
    centre = np.mod(centre, size)
    if friends.size < 50:
        return centre, bulk, np.nan, float(friends.size), r200m
    around = np.asarray(tree.query_ball_point(centre, 1.5 * r200m))
    apart = position[around].astype(np.float64) - centre
    distance = np.sqrt(((apart - size * np.round(apart / size)) ** 2).sum(axis=1))
    n200c, r200c = sphere(distance, particle_mass, densities[0])
    n200m, radius = sphere(distance, particle_mass, densities[1])
    if n200m >= 100 and np.isfinite(radius):
        r200m = radius
    else:
        n200m = friends.size
    if n200c >= 50 and np.isfinite(r200c):
        bulk = velocity[around[distance < r200c]].mean(axis=0, dtype=np.float64)
        return centre, bulk, float(np.log10(n200c * particle_mass)), float(n200m), r200m
    return centre, bulk, np.nan, float(n200m), r200m


def _shrinking_centre(offset: FloatArray) -> FloatArray:
    """Mean of the particles in a sphere that shrinks by a tenth until a tenth of them, or 20, are left."""
    centre = offset.mean(axis=0)
    radius = np.sqrt(((offset - centre) ** 2).sum(axis=1)).max()
    while True:
        inside = ((offset - centre) ** 2).sum(axis=1) < radius**2
        if inside.sum() < max(20, offset.shape[0] // 10):
            return np.asarray(centre)
        centre = offset[inside].mean(axis=0)
        radius *= 0.9


def _distinct(centre: FloatArray, r200m: FloatArray, size: float) -> tuple[IntArray, IntArray]:
    """Rows that lie in no heavier halo, and for each row the number of the kept one it belongs to."""
    tree = cKDTree(np.mod(centre, size), boxsize=size)
    owner = np.full(centre.shape[0], -1, dtype=np.int64)
    kept: list[int] = []
    for row in range(centre.shape[0]):
        if owner[row] >= 0:
            continue
        owner[row] = len(kept)
        for other in tree.query_ball_point(np.mod(centre[row], size), r200m[row]):
            if other > row and owner[other] < 0:
                owner[other] = owner[row]
        kept.append(row)
    return np.array(kept), owner
