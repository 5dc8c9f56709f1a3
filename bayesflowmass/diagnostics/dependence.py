"""Dependence between projections of one halo: how strong it is, how many clusters it leaves, and how to
simulate it.

Projections of a halo share its mass, its shape and its history, so that their PIT values are alike. A band
for independent clusters is then too narrow. Here the normal scores of the PIT values of one halo share a
correlation rho (a one-factor Gaussian copula); it is measured on the sample, and the bands are simulated
with it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, ndtri

from bayesflowmass.common.arrays import FloatArray, IntArray

_LARGEST = 0.999
_GAUSS_POINTS = 24


def halo_sizes(halo_id: ArrayLike) -> tuple[IntArray, IntArray]:
    """Index of the halo of each cluster (n,), and clusters of each halo (n_haloes,)."""
    _, index, size = np.unique(np.asarray(halo_id), return_inverse=True, return_counts=True)
    return index.reshape(-1), size


def halo_correlation(u: ArrayLike, halo_id: ArrayLike) -> float:
    """Correlation rho of normal scores between clusters that share a halo, from their mean distance.

    s = 1 - E|u - u'| over pairs of one halo / E|u - u'| over all pairs; in a one-factor Gaussian copula
    s = (3 / pi) asin((1 + rho) / 2) - 1/2, so rho = 2 sin(pi (s / 3 + 1 / 6)) - 1. Since E|u - u'| is the
    integral over z of the variance of 1[u < z] - 1[u' < z], this rho has the right design effect of the
    ECDF on average over z, whatever the copula really is. Cut to [0, 0.999]; 0 where no two clusters share
    a halo. Few pairs make it uncertain, and matter as little.

    Args:
        u: values in [0, 1], shape (n,).
        halo_id: halo of each cluster, shape (n,), integers or strings.
    """
    values = np.asarray(u, dtype=np.float64)
    index, size = halo_sizes(halo_id)
    pairs = float((size * (size - 1.0)).sum()) / 2.0
    if pairs == 0:
        return 0.0
    within = _sum_of_distances(values, index) / pairs
    overall = _sum_of_distances(values, np.zeros_like(index)) / (0.5 * values.size * (values.size - 1.0))
    if overall == 0:
        return _LARGEST
    excess = 1.0 - within / overall
    return float(np.clip(2.0 * np.sin(np.pi * (excess / 3.0 + 1.0 / 6.0)) - 1.0, 0.0, _LARGEST))


def _sum_of_distances(values: FloatArray, group: IntArray) -> float:
    """Sum of |u - u'| over all pairs that share a group: sum_k (2 k - m - 1) u_(k) of sorted values."""
    order = np.lexsort((values, group))
    size = np.bincount(group)
    first = np.repeat(np.cumsum(size) - size, size)
    rank = np.arange(values.size) - first + 1.0
    return float(((2.0 * rank - np.repeat(size, size) - 1.0) * values[order]).sum())


def effective_number(halo_id: ArrayLike, correlation: float) -> float:
    """Independent clusters whose mean score is as uncertain: n / (1 + rho (sum_h m_h^2 / n - 1)).

    m_h is the number of clusters of halo h (Kish 1965, the design effect of cluster sampling).
    """
    _, size = halo_sizes(halo_id)
    n = float(size.sum())
    return n / (1.0 + correlation * (float((size**2).sum()) / n - 1.0))


def pair_covariance(p: ArrayLike, correlation: float) -> FloatArray:
    """cov(1[u < p], 1[u' < p]) of two clusters of one halo, shape of ``p``.

    Phi_2(q, q; rho) - p^2 = 1/(2 pi) int_0^asin(rho) exp(-q^2 / (1 + sin t)) dt with q = Phi^-1(p)
    (Plackett 1954), by Gauss-Legendre quadrature.
    """
    q = ndtri(np.asarray(p, dtype=np.float64))
    nodes, weights = np.polynomial.legendre.leggauss(_GAUSS_POINTS)
    end = np.arcsin(correlation)
    t = 0.5 * end * (nodes + 1.0)
    integrand = np.exp(-(q[..., None] ** 2) / (1.0 + np.sin(t)))
    return np.asarray(0.5 * end * (integrand @ weights) / (2.0 * np.pi))


def correlated_uniforms(
    halo_id: ArrayLike, correlation: float, n_sets: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Uniform values, shape (n_sets, n), whose normal scores share ``correlation`` within a halo."""
    index, size = halo_sizes(halo_id)
    # Single precision: twice as fast, and its 1e-7 is far below the noise of a simulation.
    score = rng.standard_normal((n_sets, index.size), dtype=np.float32)
    if correlation > 0:
        shared = rng.standard_normal((n_sets, size.size), dtype=np.float32)
        score *= np.float32(np.sqrt(1.0 - correlation))
        score += (np.float32(np.sqrt(correlation)) * shared)[:, index]
    return np.asarray(ndtr(score))
