"""Which galaxies may lie in the cylinder of which line of sight, and which belong to which halo."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.spatial import cKDTree

from bayesflowmass.common.arrays import FloatArray, IntArray
from bayesflowmass.mocks.nbody.directions import LinesOfSight
from bayesflowmass.mocks.nbody.galaxies import Region
from bayesflowmass.mocks.nbody.hosts import Hosts

Pairs = tuple[IntArray, IntArray]
"""Row of the line of sight (or of the host), and row of the galaxy in the region."""

# Candidates are found a little too far out and then cut exactly, whatever the rounding.
_MARGIN = 1.0 + 1e-9
_MATRIX_SIZE = 2_000_000


def axis_pairs(
    lines: LinesOfSight, hosts: Hosts, region: Region, axis: int, r_max: float, depth: float
) -> Pairs:
    """Galaxies within r_max and +-depth of the lines along one axis of the box, by kd-trees on the plane."""
    rows = np.flatnonzero(lines.axis == axis)
    centre = hosts.position[lines.host[rows]]
    reach = np.full(3, r_max * _MARGIN)
    reach[axis] = depth
    low, high = centre.min(axis=0) - reach, centre.max(axis=0) + reach
    near = _inside(region.position, low, high)
    if near.size == 0:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    plane = [(axis + 1) % 3, (axis + 2) % 3]
    trees = [
        cKDTree(points[:, plane], balanced_tree=False, compact_nodes=False)
        for points in (centre, region.position[near])
    ]
    found = trees[0].sparse_distance_matrix(trees[1], r_max * _MARGIN, output_type="ndarray")
    line, galaxy = rows[found["i"]], near[found["j"]]
    inside = np.abs(region.position[galaxy, axis] - hosts.position[lines.host[line], axis]) <= depth
    return line[inside], galaxy[inside]


def tilted_pairs(
    lines: LinesOfSight, hosts: Hosts, region: Region, r_max: float, depth: float
) -> Iterator[Pairs]:
    """The same for the lines along no axis, for some lines of one host at a time.

    Each direction has a plane of its own, so that a tree would serve once: the galaxies around a host are
    projected on all of its directions in one matrix product instead.
    """
    rows = np.flatnonzero(lines.axis < 0)
    if rows.size == 0:
        return
    along_x = np.argsort(region.position[:, 0], kind="stable")
    sorted_x = region.position[along_x, 0]
    reach = np.hypot(r_max, depth) * _MARGIN
    for host in np.unique(lines.host[rows]):
        centre = hosts.position[host]
        first, last = np.searchsorted(sorted_x, [centre[0] - reach, centre[0] + reach])
        near = along_x[first:last]
        offset = region.position[near] - centre
        square = (offset**2).sum(axis=1)
        ball = square <= reach**2
        near, offset, square = near[ball], offset[ball], square[ball]
        mine = rows[lines.host[rows] == host]
        step = max(1, _MATRIX_SIZE // max(1, near.size))
        for begin in range(0, mine.size, step):
            some = mine[begin : begin + step]
            along = offset @ lines.direction[some].T
            across = square[:, None] - along**2
            # The difference of two squares loses digits; the exact cut comes later.
            candidate = (across <= r_max**2 * _MARGIN + 1e-9 * reach**2) & (np.abs(along) <= depth)
            galaxy, line = np.nonzero(candidate)
            yield some[line], near[galaxy]


def members_by_id(block: IntArray, hosts: Hosts, region: Region, box_size: float) -> Pairs:
    """Satellites (and the central) of the hosts ``block``, the periodic image that is next to the host."""
    wanted = np.zeros(len(hosts), dtype=bool)
    wanted[block] = True
    galaxy = np.flatnonzero((region.host >= 0) & wanted[region.host])
    host = region.host[galaxy].astype(np.int64)
    offset = region.position[galaxy] - hosts.position[host]
    nearest = ((offset >= -0.5 * box_size) & (offset < 0.5 * box_size)).all(axis=1)
    return host[nearest], galaxy[nearest]


def members_by_radius(block: IntArray, hosts: Hosts, region: Region) -> Pairs:
    """Galaxies within R_vir of the hosts ``block``; a galaxy may belong to two hosts."""
    reach = float(hosts.r_vir[block].max()) * _MARGIN
    centre = hosts.position[block]
    low, high = centre.min(axis=0) - reach, centre.max(axis=0) + reach
    near = _inside(region.position, low, high)
    if near.size == 0:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    trees = [
        cKDTree(points, balanced_tree=False, compact_nodes=False)
        for points in (centre, region.position[near])
    ]
    found = trees[0].sparse_distance_matrix(trees[1], reach, output_type="ndarray")
    host, galaxy = block[found["i"]], near[found["j"]]
    inside = found["v"] < hosts.r_vir[host]
    return host[inside], galaxy[inside]


def _inside(position: FloatArray, low: FloatArray, high: FloatArray) -> IntArray:
    """Rows of the positions within a cuboid; one axis after the other, since most fail the first."""
    rows = np.flatnonzero((position[:, 0] >= low[0]) & (position[:, 0] <= high[0]))
    for axis in (1, 2):
        along = position[rows, axis]
        rows = rows[(along >= low[axis]) & (along <= high[axis])]
    return rows
