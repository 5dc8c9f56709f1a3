"""True masses of mock clusters: draws from the halo mass function."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from bayesflowmass.common.arrays import FloatArray
from bayesflowmass.cosmology import MDPL2, Cosmology, mass_function, redshift_nodes


def sample_mass_function(
    n: int,
    log10_min: float,
    log10_max: float,
    z: ArrayLike,
    rng: np.random.Generator,
    cosmology: Cosmology = MDPL2,
) -> FloatArray:
    """Draw n values of log10 M200c from the mass function between two limits, by its inverse cdf.

    Args:
        n: number of draws.
        log10_min, log10_max: limits [log10 Msun/h].
        z: one redshift, or n of them; each draw is from the mass function at its own redshift.
        rng: numpy generator.

    Raises:
        ValueError: if the limits are not increasing, or z has neither 1 nor n values.
    """
    if not log10_min < log10_max:
        raise ValueError(
            f"sample_mass_function: log10_min = {log10_min} must be below log10_max = {log10_max}."
        )
    redshift = np.atleast_1d(np.asarray(z, dtype=np.float64))
    if redshift.size not in (1, n):
        raise ValueError(f"sample_mass_function: z has {redshift.size} values; expected 1 or n = {n}.")
    uniform = rng.random(n)
    nodes = redshift_nodes(redshift)
    grid = np.linspace(log10_min, log10_max, max(2, math.ceil((log10_max - log10_min) / 0.002)) + 1)
    draws = np.stack([_inverse_cdf(uniform, grid, float(node), cosmology) for node in nodes])
    if nodes.size == 1:
        return np.asarray(draws[0])
    # The quantile function is smooth in redshift: interpolate it between neighbouring nodes.
    upper = np.clip(np.searchsorted(nodes, redshift), 1, nodes.size - 1)
    weight = (redshift - nodes[upper - 1]) / (nodes[upper] - nodes[upper - 1])
    each = np.arange(n)
    return np.asarray((1.0 - weight) * draws[upper - 1, each] + weight * draws[upper, each])


def _inverse_cdf(uniform: FloatArray, grid: FloatArray, z: float, cosmology: Cosmology) -> FloatArray:
    density = mass_function(grid, z, cosmology)
    # Between grid points the mass function is close to exponential: integrate it so.
    log_step = np.diff(np.log(density))
    mean = np.where(
        np.abs(log_step) > 1e-8, np.diff(density) / np.where(log_step == 0.0, 1.0, log_step), density[1:]
    )
    cdf = np.concatenate([[0.0], np.cumsum(mean)])
    return np.interp(uniform, cdf / cdf[-1], grid)
