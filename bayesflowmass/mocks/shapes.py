"""Triaxial shapes, and the directions from which a halo is seen."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from bayesflowmass.common.arrays import FloatArray
from bayesflowmass.mocks.halos import parameter_of
from bayesflowmass.mocks.parameters import MockParameters


def draw_axes(
    n: int,
    parameters: MockParameters,
    rng: np.random.Generator,
    drawn: Mapping[str, FloatArray] | None = None,
) -> FloatArray:
    """Axis lengths (n, 3), major first, divided by their geometric mean.

    The ratios b/a and c/a are Gaussian about `axis_ratio_q` and `axis_ratio_s` (of each halo, where they are
    ``drawn``), kept in [0.2, 1], ordered.
    """
    mean = np.stack(
        [parameter_of(name, parameters, drawn, n) for name in ("axis_ratio_q", "axis_ratio_s")], axis=1
    )
    ratios = mean + parameters.axis_ratio_scatter * rng.standard_normal((n, 2))
    # Reflection keeps the density finite at the limits, where clipping would pile haloes up.
    ratios = np.where(ratios > 1.0, 2.0 - ratios, ratios)
    ratios = np.clip(np.where(ratios < 0.2, 0.4 - ratios, ratios), 0.2, 1.0)
    ratios = -np.sort(-ratios, axis=1)
    axes = np.concatenate([np.ones((n, 1)), ratios], axis=1)
    return np.asarray(axes / np.cbrt(axes.prod(axis=1))[:, None])


def velocity_axes(
    axes: FloatArray,
    parameters: MockParameters,
    rng: np.random.Generator,
    drawn: Mapping[str, FloatArray] | None = None,
) -> FloatArray:
    """Factors (n, 3) of the velocity components along the axes; their mean square is 1.

    Proportional to (axis)^exponent times a lognormal scatter.
    """
    scatter = parameters.velocity_axis_scatter * rng.standard_normal(axes.shape)
    exponent = parameter_of("velocity_shape_exponent", parameters, drawn, len(axes))[:, None]
    factors = axes**exponent * np.exp(scatter)
    return np.asarray(factors / np.sqrt((factors**2).mean(axis=1))[:, None])


def random_rotations(n: int, rng: np.random.Generator) -> FloatArray:
    """Rotation matrices (n, 3, 3), uniform over SO(3), from random unit quaternions."""
    q = rng.standard_normal((n, 4))
    q /= np.sqrt((q**2).sum(axis=1))[:, None]
    w, x, y, z = q.T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=1)


def lines_of_sight(n_halos: int, n_projections: int, rng: np.random.Generator) -> FloatArray:
    """Directions (n_halos, n_projections, 3): orthogonal up to three, evenly spread on a hemisphere beyond.

    A common random rotation per halo makes each direction uniform on the sphere. Opposite directions would
    show the mirror image of the same cluster, hence the hemisphere (Fibonacci points).
    """
    if n_projections <= 3:
        base = np.eye(3)[:n_projections]
    else:
        k = np.arange(n_projections)
        height = (k + 0.5) / n_projections
        angle = k * math.pi * (3.0 - math.sqrt(5.0))
        radius = np.sqrt(1.0 - height**2)
        base = np.stack([radius * np.cos(angle), radius * np.sin(angle), height], axis=1)
    return np.asarray(base @ random_rotations(n_halos, rng))


def sky_axes(direction: FloatArray, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """Two unit vectors (..., 3) orthogonal to each direction and each other, at a random position angle."""
    helper = np.zeros_like(direction)
    smallest = np.argmin(np.abs(direction), axis=-1)
    np.put_along_axis(helper, smallest[..., None], 1.0, axis=-1)
    first = np.cross(direction, helper)
    first /= np.sqrt((first**2).sum(axis=-1, keepdims=True))
    second = np.cross(direction, first)
    angle = rng.uniform(0.0, 2.0 * math.pi, direction.shape[:-1])[..., None]
    e1 = np.cos(angle) * first + np.sin(angle) * second
    return e1, np.cross(direction, e1)
