"""Proper scores of predictive densities: negative log density per dex, and the CRPS in dex.

Both are averages over clusters of a score that the true predictive density minimises (Gneiting and Raftery
2007); unlike a coverage they also reward a narrow density.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr

from bayesflowmass.common.arrays import FloatArray

_CHUNK = 512


def crps_gaussian(log10_true: ArrayLike, mean: ArrayLike, sigma: ArrayLike) -> FloatArray:
    """CRPS of a Gaussian density: sigma [z (2 Phi(z) - 1) + 2 phi(z) - 1 / sqrt(pi)], z = (true - mean) /
    sigma.

    Gneiting et al. 2005, equation 5. All arguments broadcast, in dex.
    """
    sigma = np.asarray(sigma, dtype=np.float64)
    z = (np.asarray(log10_true, dtype=np.float64) - np.asarray(mean, dtype=np.float64)) / sigma
    density = np.exp(-0.5 * z * z) / np.sqrt(2.0 * np.pi)
    return np.asarray(sigma * (z * (2.0 * ndtr(z) - 1.0) + 2.0 * density - 1.0 / np.sqrt(np.pi)))


def log_density_gaussian(log10_true: ArrayLike, mean: ArrayLike, sigma: ArrayLike) -> FloatArray:
    """Natural logarithm of a Gaussian density per dex; all arguments broadcast."""
    sigma = np.asarray(sigma, dtype=np.float64)
    z = (np.asarray(log10_true, dtype=np.float64) - np.asarray(mean, dtype=np.float64)) / sigma
    return np.asarray(-0.5 * z * z - np.log(sigma) - 0.5 * np.log(2.0 * np.pi))


def interval_score(log10_true: ArrayLike, lower: ArrayLike, upper: ArrayLike, level: float) -> FloatArray:
    """Score of a central interval, dex: its width plus 2 / (1 - level) times what the truth lies outside.

    Gneiting and Raftery 2007, equation 43: the true quantiles minimise its mean. All arguments broadcast.
    """
    y, low, high = (np.asarray(a, dtype=np.float64) for a in (log10_true, lower, upper))
    outside = np.maximum(low - y, 0.0) + np.maximum(y - high, 0.0)
    return np.asarray(high - low + 2.0 / (1.0 - level) * outside)


def crps_from_density(log10_true: ArrayLike, grid: ArrayLike, cdf: ArrayLike, pdf: ArrayLike) -> FloatArray:
    """CRPS = integral of (F(x) - 1[x >= true])^2 dx of densities known on a grid.

    Between grid points F is the cubic that matches cdf and pdf at both ends; the square of it is
    integrated exactly (Gauss-Legendre, four points), the cell that holds the truth in two parts. The error
    is of fourth order in the spacing. Beyond the grid F is taken as 0 and 1: the grid must hold all of the
    density.

    Args:
        log10_true: shape (n,).
        grid: increasing along the last axis, shape (g,), or (n, g) for one grid per cluster, in dex.
        cdf, pdf: on the grid, shape (n, g); pdf per dex.

    Returns:
        CRPS in dex, shape (n,).

    Raises:
        ValueError: shapes do not match, the grid does not increase, or the grid holds less than 99.9 % of
            a density.
    """
    y = np.asarray(log10_true, dtype=np.float64)
    x = np.asarray(grid, dtype=np.float64)
    f = np.asarray(cdf, dtype=np.float64)
    d = np.asarray(pdf, dtype=np.float64)
    expected = (y.size, x.shape[-1])
    if f.shape != expected or d.shape != f.shape or x.shape not in (expected, expected[1:]):
        raise ValueError(
            f"cdf and pdf must have shape (clusters, grid) = {expected}; found {f.shape} and {d.shape}."
        )
    if expected[1] < 2 or np.any(np.diff(x, axis=-1) <= 0):
        raise ValueError("The grid of a density must have at least two points and increase.")
    x = np.broadcast_to(x, expected)
    held = f[:, -1] - f[:, 0]
    if y.size and held.min() < 0.999:
        row = int(held.argmin())
        raise ValueError(
            f"The grid from {x[row, 0]:.2f} to {x[row, -1]:.2f} holds only {held[row]:.4f} of the density of "
            f"cluster {row}; widen it."
        )
    parts = [slice(i, i + _CHUNK) for i in range(0, y.size, _CHUNK)]
    return np.concatenate([np.zeros(0), *(_crps_chunk(y[p], x[p], f[p], d[p]) for p in parts)])


def _hermite(t: FloatArray, f0: FloatArray, f1: FloatArray, s0: FloatArray, s1: FloatArray) -> FloatArray:
    """Cubic through (0, f0) and (1, f1) with end slopes s0 and s1."""
    c2, c3 = 3.0 * (f1 - f0) - 2.0 * s0 - s1, 2.0 * (f0 - f1) + s0 + s1
    return np.asarray(f0 + t * (s0 + t * (c2 + t * c3)))


def _crps_chunk(y: FloatArray, x: FloatArray, f: FloatArray, d: FloatArray) -> FloatArray:
    nodes, node_weights = np.polynomial.legendre.leggauss(4)
    nodes, node_weights = 0.5 * (nodes + 1.0), 0.5 * node_weights
    h = np.diff(x, axis=1)
    f0, f1, s0, s1 = f[:, :-1], f[:, 1:], d[:, :-1] * h, d[:, 1:] * h
    row, index = np.arange(y.size), np.arange(h.shape[1])
    cell = np.clip((x <= y[:, None]).sum(axis=1) - 1, 0, h.shape[1] - 1)
    below, here = index < cell[:, None], index == cell[:, None]
    score = np.zeros(y.size)
    for t, weight in zip(nodes, node_weights, strict=True):
        value = _hermite(np.full(1, t), f0, f1, s0, s1)
        square = np.where(below, value, 1.0 - value) ** 2
        score += weight * (np.where(here, 0.0, square) * h).sum(axis=1)
    ends = tuple(a[row, cell] for a in (f0, f1, s0, s1))
    width = h[row, cell]
    part = np.clip((y - x[row, cell]) / width, 0.0, 1.0)
    for t, weight in zip(nodes, node_weights, strict=True):
        score += weight * width * part * _hermite(part * t, *ends) ** 2
        score += weight * width * (1.0 - part) * (1.0 - _hermite(part + (1.0 - part) * t, *ends)) ** 2
    return np.asarray(score + np.maximum(x[:, 0] - y, 0.0) + np.maximum(y - x[:, -1], 0.0))
