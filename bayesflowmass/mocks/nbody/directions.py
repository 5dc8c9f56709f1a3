"""Where the haloes of an N-body box are seen from: the axes of the box, or points spread over the sphere."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from bayesflowmass.common.arrays import BoolArray, FloatArray, IntArray
from bayesflowmass.mocks.nbody.hash import hashed_uniform

MAX_ORTHOGONAL = 3
"""Up to so many lines of sight are axes of the box; more are Fibonacci points."""
_GOLDEN_ANGLE = math.pi * (3.0 - math.sqrt(5.0))


@dataclass(frozen=True)
class LinesOfSight:
    """Lines of sight, each of which makes one cluster.

    Attributes:
        host: (n,) row of the host.
        projection: (n,) number of the line among those of its host, from 0.
        axis: (n,) 0, 1 or 2 where the line is that axis of the box, else -1.
        direction: (n, 3) unit vectors that point away from the observer.
    """

    host: IntArray
    projection: IntArray
    axis: IntArray
    direction: FloatArray

    def __len__(self) -> int:
        return self.host.size

    def take(self, rows: BoolArray | IntArray) -> LinesOfSight:
        """Some of the lines."""
        return LinesOfSight(self.host[rows], self.projection[rows], self.axis[rows], self.direction[rows])


def lines_of_sight(host_id: IntArray, n_lines: IntArray, seed: int) -> LinesOfSight:
    """Lines of sight of hosts, in the order of the hosts.

    Up to three are different axes of the box, in an order drawn for each host; more are Fibonacci points with
    a phase drawn for each host.

    Args:
        host_id: (n,) ids, from which the draws are made.
        n_lines: (n,) lines of each host, 0 or more.
        seed: of the draws.
    """
    host = np.repeat(np.arange(host_id.size), n_lines)
    first = np.cumsum(n_lines) - n_lines
    projection = np.arange(host.size) - first[host]
    start = (3.0 * hashed_uniform(host_id, "axis", seed)).astype(np.int64)
    axis = (start[host] + projection) % 3
    direction = np.eye(3)[axis]
    many = np.flatnonzero(n_lines[host] > MAX_ORTHOGONAL)
    phase = 2.0 * np.pi * hashed_uniform(host_id, "phase", seed)
    rows = host[many]
    direction[many] = fibonacci_directions(projection[many], n_lines[rows], phase[rows])
    axis[many] = -1
    return LinesOfSight(host, projection, axis, direction)


def fibonacci_directions(k: IntArray, n: IntArray, phase: FloatArray) -> FloatArray:
    """Point k of n (both (m,)) evenly spread on the sphere, (m, 3) unit vectors.

    cos(theta) = 1 - (2 k + 1)/n, phi = k pi (3 - sqrt 5) + phase (Gonzalez 2010, arXiv:0912.4540).
    """
    height = 1.0 - (2.0 * k + 1.0) / n
    angle = k * _GOLDEN_ANGLE + phase
    radius = np.sqrt(np.maximum(1.0 - height**2, 0.0))
    points = np.stack([radius * np.cos(angle), radius * np.sin(angle), height], axis=-1)
    return np.asarray(points / np.linalg.norm(points, axis=-1, keepdims=True))


def sky_axes(direction: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Unit vectors x and y (n, 3) of the sky, so that (x, y, direction) is right-handed.

    Exact for the axes of the box, without a special case anywhere on the sphere (Duff et al. 2017, JCGT 6, 1).
    """
    nx, ny, nz = np.moveaxis(direction, -1, 0)
    sign = np.copysign(1.0, nz)
    a = -1.0 / (sign + nz)
    b = nx * ny * a
    x = np.stack([1.0 + sign * nx * nx * a, sign * b, -sign * nx], axis=-1)
    return x, np.stack([b, sign + ny * ny * a, -ny], axis=-1)
