"""Velocity dispersions of ragged clusters: standard deviation, gapper, biweight scale, 3 sigma clipping.

Velocities ``v_los`` (n_gal,) [km/s] of all clusters lie one after another, ``n_galaxies`` (n,) says how many belong to
each; the result is (n,) [km/s]. ValueError: lengths disagree, a cluster has fewer than two galaxies, or a velocity is
not finite.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from bayesflowmass.catalog.arrays import offsets_from_counts, rows_of_galaxies, segment_median, segment_sum
from bayesflowmass.common.arrays import FloatArray, IntArray

DispersionKind = Literal["std", "gapper", "biweight", "clipped"]

_MAX_ROUNDS = 50
_TO_SIGMA = 1.4826
"""Standard deviation of a Gaussian over its median absolute deviation."""


def standard_deviation(v_los: ArrayLike, n_galaxies: ArrayLike) -> FloatArray:
    """Standard deviation (ddof = 1) of the velocities of each cluster about their own mean."""
    v, counts, offsets = _checked(v_los, n_galaxies)
    mean = segment_sum(v, offsets) / counts
    square = segment_sum((v - np.repeat(mean, counts)) ** 2, offsets)
    return np.asarray(np.sqrt(square / (counts - 1)))


def gapper(v_los: ArrayLike, n_galaxies: ArrayLike) -> FloatArray:
    """Gapper: sqrt(pi) / (n (n - 1)) sum_i i (n - i) (v_(i+1) - v_(i)) of the sorted velocities.

    Wainer and Thissen 1976; Beers, Flynn and Gebhardt 1990, AJ 100, 32, equations 8 to 10. Less sensitive
    to tails than the standard deviation, equal to it for a Gaussian.
    """
    v, counts, offsets = _checked(v_los, n_galaxies)
    v = v[np.lexsort((v, rows_of_galaxies(offsets)))]
    n = np.repeat(counts, counts).astype(np.float64)
    rank = np.arange(v.size) - np.repeat(offsets[:-1], counts) + 1.0
    # sum_i i (n - i) (v_(i+1) - v_(i)) = sum_j v_(j) (2 j - n - 1), by summation by parts.
    total = segment_sum((2.0 * rank - n - 1.0) * v, offsets)
    return np.asarray(np.sqrt(np.pi) * total / (counts * (counts - 1.0)))


def biweight(v_los: ArrayLike, n_galaxies: ArrayLike) -> FloatArray:
    """Biweight scale: sqrt(n sum (v - M)^2 (1 - u^2)^4) / |sum (1 - u^2) (1 - 5 u^2)|, u = (v - M) / (9 MAD).

    Sums over |u| < 1, M the median (Beers, Flynn and Gebhardt 1990, AJ 100, 32, equation 9). Where more than half
    of the velocities are equal, or the denominator vanishes, it is the standard deviation.
    """
    v, counts, offsets = _checked(v_los, n_galaxies)
    about, deviation = _about_median(v, offsets)
    usable = deviation > 0.0
    u2 = (about / np.repeat(np.where(usable, 9.0 * deviation, 1.0), counts)) ** 2
    inside = u2 < 1.0
    above = segment_sum(np.where(inside, about**2 * (1.0 - u2) ** 4, 0.0), offsets)
    below = np.abs(segment_sum(np.where(inside, (1.0 - u2) * (1.0 - 5.0 * u2), 0.0), offsets))
    usable &= below > 0.0
    scale = np.sqrt(counts * above) / np.where(usable, below, 1.0)
    return np.asarray(np.where(usable, scale, standard_deviation(v, counts)))


def clipped_deviation(v_los: ArrayLike, n_galaxies: ArrayLike) -> FloatArray:
    """Standard deviation of the velocities within three of it about their mean, iterated.

    The clipping of Yahil and Vidal 1977, ApJ 214, 347. It starts from the median and the median absolute deviation,
    since the standard deviation of a contaminated cylinder clips nothing. A galaxy may come back. It ends when the
    same galaxies stay, and never leaves fewer than two.
    """
    v, counts, offsets = _checked(v_los, n_galaxies)
    about, deviation = _about_median(v, offsets)
    centre, scale = np.zeros(counts.size), _TO_SIGMA * deviation
    kept = np.ones(v.size, dtype=bool)
    for _ in range(_MAX_ROUNDS):
        now = np.abs(about - np.repeat(centre, counts)) <= 3.0 * np.repeat(scale, counts)
        enough = segment_sum(now.astype(np.float64), offsets) >= 2.0
        now = np.where(np.repeat(enough, counts), now, kept)
        if np.array_equal(now, kept):
            break
        kept = now
        number = segment_sum(kept.astype(np.float64), offsets)
        centre = segment_sum(np.where(kept, about, 0.0), offsets) / number
        square = segment_sum(np.where(kept, (about - np.repeat(centre, counts)) ** 2, 0.0), offsets)
        scale = np.sqrt(square / (number - 1.0))
    return standard_deviation(v[kept], segment_sum(kept.astype(np.float64), offsets).astype(np.int64))


def velocity_dispersion(v_los: ArrayLike, n_galaxies: ArrayLike, kind: DispersionKind = "std") -> FloatArray:
    """One of the dispersions of this module by name: "std", "gapper", "biweight" or "clipped"."""
    if kind not in get_args(DispersionKind):
        raise ValueError(
            f"The dispersion '{kind}' is unknown; it is one of {', '.join(get_args(DispersionKind))}."
        )
    named = {"std": standard_deviation, "gapper": gapper, "biweight": biweight, "clipped": clipped_deviation}
    return named[kind](v_los, n_galaxies)


def _about_median(v: FloatArray, offsets: IntArray) -> tuple[FloatArray, FloatArray]:
    """Velocities about the median of their cluster (n_gal,), and the median of their absolute values (n,)."""
    about = v - segment_median(v, offsets)[rows_of_galaxies(offsets)]
    return about, np.asarray(segment_median(np.abs(about), offsets))


def _checked(v_los: ArrayLike, n_galaxies: ArrayLike) -> tuple[FloatArray, IntArray, IntArray]:
    """Velocities, counts, and where each cluster begins and ends, of the right types."""
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
    return v, counts, offsets_from_counts(counts)
