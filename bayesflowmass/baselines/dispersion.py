"""Velocity dispersions of ragged clusters: standard deviation and gapper.

Velocities of all clusters lie one after another in one array, ``n_galaxies`` says how many belong to each.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["gapper", "standard_deviation", "velocity_dispersion"]

FloatArray = NDArray[np.float64]
DispersionKind = Literal["std", "gapper"]


def standard_deviation(v_los: ArrayLike, n_galaxies: ArrayLike) -> FloatArray:
    """Standard deviation (ddof = 1) of the velocities of each cluster about their own mean.

    Args:
        v_los: line-of-sight velocities [km/s], shape (n_gal,).
        n_galaxies: galaxies of each cluster, shape (n,), adding up to n_gal.

    Returns:
        [km/s], shape (n,).

    Raises:
        ValueError: lengths disagree, a cluster has fewer than two galaxies, or a velocity is not finite.
    """
    v, counts = _checked(v_los, n_galaxies)
    if counts.size == 0:
        return np.zeros(0)
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    mean = np.add.reduceat(v, starts) / counts
    square = np.add.reduceat((v - np.repeat(mean, counts)) ** 2, starts)
    return np.asarray(np.sqrt(square / (counts - 1)))


def gapper(v_los: ArrayLike, n_galaxies: ArrayLike) -> FloatArray:
    """Gapper: sqrt(pi) / (n (n - 1)) sum_i i (n - i) (v_(i+1) - v_(i)) of the sorted velocities.

    Wainer and Thissen 1976; Beers, Flynn and Gebhardt 1990, AJ 100, 32, equations 8 to 10. Less sensitive
    to tails than the standard deviation, equal to it for a Gaussian.

    Args:
        v_los: line-of-sight velocities [km/s], shape (n_gal,).
        n_galaxies: galaxies of each cluster, shape (n,), adding up to n_gal.

    Returns:
        [km/s], shape (n,).

    Raises:
        ValueError: as :func:`standard_deviation`.
    """
    v, counts = _checked(v_los, n_galaxies)
    if counts.size == 0:
        return np.zeros(0)
    cluster = np.repeat(np.arange(counts.size), counts)
    v = v[np.lexsort((v, cluster))]
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    n = np.repeat(counts, counts).astype(np.float64)
    rank = np.arange(v.size) - np.repeat(starts, counts) + 1.0
    # sum_i i (n - i) (v_(i+1) - v_(i)) = sum_j v_(j) (2 j - n - 1), by summation by parts.
    total = np.add.reduceat((2.0 * rank - n - 1.0) * v, starts)
    return np.asarray(np.sqrt(np.pi) * total / (counts * (counts - 1.0)))


def velocity_dispersion(v_los: ArrayLike, n_galaxies: ArrayLike, kind: DispersionKind = "std") -> FloatArray:
    """:func:`standard_deviation` or :func:`gapper` by name."""
    if kind not in get_args(DispersionKind):
        raise ValueError(
            f"The dispersion '{kind}' is unknown; it is one of {', '.join(get_args(DispersionKind))}."
        )
    return standard_deviation(v_los, n_galaxies) if kind == "std" else gapper(v_los, n_galaxies)


def _checked(v_los: ArrayLike, n_galaxies: ArrayLike) -> tuple[FloatArray, NDArray[np.int64]]:
    v = np.asarray(v_los, dtype=np.float64)
    counts = np.asarray(n_galaxies, dtype=np.int64)
    if counts.sum() != v.size:
        raise ValueError(f"n_galaxies add up to {counts.sum()}, but there are {v.size} velocities.")
    few = np.flatnonzero(counts < 2)
    if few.size:
        raise ValueError(
            f"A velocity dispersion needs at least two galaxies; cluster {few[0]} has {counts[few[0]]} "
            f"({few.size} such clusters in all); remove them."
        )
    bad = np.flatnonzero(~np.isfinite(v))
    if bad.size:
        raise ValueError(f"{bad.size} velocities are not finite, the first is galaxy {bad[0]}.")
    return v, counts
