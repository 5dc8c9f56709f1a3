"""Summaries of each cluster that the flags look at: centre offsets, dispersion, outer counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from bayesflowmass.catalog import ClusterCatalog
from bayesflowmass.catalog.arrays import segment_max, segment_median
from bayesflowmass.common.arrays import FloatArray, IntArray

# A cluster needs three galaxies before its covariance, and so its kernel density, can exist.
MINIMUM_GALAXIES = 3


@dataclass(frozen=True)
class ClusterStatistics:
    """One entry per cluster; NaN where fewer than three galaxies, or no spread, leave nothing to measure.

    Attributes:
        n_galaxies: number of galaxies (n,).
        dispersion: 1.4826 x median absolute deviation of v_los [km/s] (n,).
        velocity_offset: larger of |mean v| and |median v|, in units of the standard deviation of v (n,).
        position_offset: larger of the offsets of the mean and the median position, in units of the
            one-dimensional root mean square of x and y (n,).
        outermost: distance of the outermost galaxy [comoving Mpc/h] (n,).
        outer_counts: galaxies at R > r_max / 2 and |v| > f v_max, for each f asked for (len(f), n).
    """

    n_galaxies: IntArray
    dispersion: FloatArray
    velocity_offset: FloatArray
    position_offset: FloatArray
    outermost: FloatArray
    outer_counts: FloatArray

    def part(self, first: int, last: int) -> ClusterStatistics:
        """Those of the clusters from row `first` up to row `last`."""
        return ClusterStatistics(*(getattr(self, f.name)[..., first:last] for f in fields(self)))

    @classmethod
    def concatenate(cls, parts: Sequence[ClusterStatistics]) -> ClusterStatistics:
        """Those of consecutive clusters as one."""
        return cls(*(np.concatenate([getattr(p, f.name) for p in parts], axis=-1) for f in fields(cls)))


def cluster_statistics(
    catalog: ClusterCatalog, *, r_max: float, v_max: float, outer_fractions: Sequence[float]
) -> ClusterStatistics:
    """Measure `ClusterStatistics`.

    Args:
        catalog: clusters with x, y [comoving Mpc/h] and v_los [km/s].
        r_max: radius of the cylinder [comoving Mpc/h].
        v_max: half length of the cylinder [km/s].
        outer_fractions: velocities, in units of v_max, above which outer galaxies are counted.
    """
    n = np.asarray(catalog.n_galaxies, dtype=np.int64)
    owner = np.repeat(np.arange(len(n)), n)
    x, y, v = (np.asarray(catalog.galaxies(name), dtype=np.float64) for name in ("x", "y", "v_los"))
    radius = np.hypot(x, y)
    enough = n >= MINIMUM_GALAXIES

    def mean(values: FloatArray) -> FloatArray:
        total = np.bincount(owner, weights=values, minlength=len(n))
        return np.where(enough, total / np.maximum(n, 1), np.nan)

    def medians(values: FloatArray) -> FloatArray:
        return np.where(enough, segment_median(values, catalog.offsets), np.nan)

    mean_v = mean(v)
    median_v = medians(v)
    spread_v = np.sqrt(mean((v - mean_v[owner]) ** 2))
    spread_r = np.sqrt(mean(radius**2) / 2.0)
    offset_mean = np.hypot(mean(x), mean(y))
    offset_median = np.hypot(medians(x), medians(y))
    outside = radius > 0.5 * r_max
    counts = [
        np.bincount(owner[outside & (np.abs(v) > f * v_max)], minlength=len(n)).astype(np.float64)
        for f in outer_fractions
    ]
    # A cluster without a median must not reach the sort of all of them as NaN; `medians` leaves it out.
    deviation = 1.4826 * medians(np.abs(v - np.nan_to_num(median_v)[owner]))
    return ClusterStatistics(
        n_galaxies=n,
        dispersion=_positive(deviation),
        velocity_offset=np.fmax(np.abs(mean_v), np.abs(median_v)) / _positive(spread_v),
        position_offset=np.fmax(offset_mean, offset_median) / _positive(spread_r),
        outermost=segment_max(radius, catalog.offsets),
        outer_counts=np.array(counts).reshape(len(counts), len(n)),
    )


def _positive(values: FloatArray) -> FloatArray:
    return np.where(values > 0.0, values, np.nan)
