"""Numbers that say what the galaxies of a cluster look like in phase space, without any network.

Robust, and dimensionless but for the dispersion and the radii, which are compared with those of training
clusters of the same richness. All are finite for three galaxies or more that do not coincide.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bayesflowmass.catalog import ClusterCatalog
from bayesflowmass.catalog.arrays import segment_median
from bayesflowmass.common.arrays import BoolArray, FloatArray, IntArray

SUMMARIES = {
    "gapper dispersion": "ln of the gapper estimate of the dispersion [km/s]",
    "core dispersion": "ln of 1.4826 MAD of v_los over the gapper dispersion",
    "velocity kurtosis": "ln of the moment kurtosis about the median",
    "velocity skewness": "moment skewness about the median",
    "velocity offset": "median of v_los in units of its standard error",
    "velocities below 0.2 v_max": "logit of the share of galaxies with |v| < 0.2 v_max",
    "velocities above 0.4 v_max": "logit of the share of galaxies with |v| > 0.4 v_max",
    "velocities above 0.7 v_max": "logit of the share of galaxies with |v| > 0.7 v_max",
    "fast galaxies at large radii": "logit of the share with R > r_max / 2 and |v| > 0.6 v_max",
    "fast galaxies at small radii": "logit of the share with R < r_max / 2 and |v| > 0.6 v_max",
    "mean radius": "ln of the mean R_proj [comoving Mpc/h]",
    "galaxies inside r_max / 8": "logit of the share of galaxies with R < r_max / 8",
    "galaxies inside r_max / 3": "logit of the share of galaxies with R < r_max / 3",
    "galaxies outside 0.8 r_max": "logit of the share of galaxies with R > 0.8 r_max",
    "central gap": "ln of the smallest R_proj times sqrt(N) over r_max",
    "second galaxy": "ln of the second smallest R_proj times sqrt(N) over r_max",
    "position offset": "ln of the distance of the mean position from the centre, in its standard error",
    "elongation": "ln of the axis ratio of the second moments of the positions",
    "dispersion profile": "ln of mean |v| inside the median radius over that outside",
    "slow galaxies at the centre": "ln of the |v| of the innermost galaxy over the gapper dispersion",
}
"""Name of each summary, and what it is."""

_OF_DIRECTIONS = ("position offset", "elongation")
"""Summaries that distances from the centre alone do not give."""

_TINY = 1e-6
# Centres are not known better than this [comoving Mpc/h]: a galaxy nearer is as good as on the centre.
_CENTRE = 0.001


def phase_space_summaries(catalog: ClusterCatalog, *, r_max: float, v_max: float) -> FloatArray:
    """The `SUMMARIES` of each cluster, shape (n, 20), float64; NaN for clusters of fewer than three galaxies, and of
    directions where the catalogue knows distances only (``metadata.radial``).

    Args:
        catalog: clusters with x, y [comoving Mpc/h] and v_los [km/s].
        r_max: radius of the cylinder [comoving Mpc/h].
        v_max: half length of the cylinder [km/s].

    References:
        Beers, Flynn & Gebhardt 1990, AJ 100, 32 (gapper).
    """
    n = np.asarray(catalog.n_galaxies, dtype=np.float64)
    owner = np.asarray(catalog.galaxy_rows)
    x, y, v = (np.asarray(catalog.galaxies(name), dtype=np.float64) for name in ("x", "y", "v_los"))
    radius, speed = np.hypot(x, y), np.abs(v)
    safe = np.maximum(n, 1.0)

    def total(values: npt.NDArray[np.generic]) -> FloatArray:
        return np.asarray(np.bincount(owner, weights=values, minlength=len(n)), dtype=np.float64)

    def mean(values: npt.NDArray[np.generic]) -> FloatArray:
        return total(values) / safe

    def logit_share(chosen: BoolArray) -> FloatArray:
        found = total(chosen)
        return np.log((found + 0.5) / (n - found + 0.5))

    median_v = segment_median(v, catalog.offsets)
    deviation = v - median_v[owner]
    gapper = np.maximum(_gapper(v, owner, n), _TINY)
    core = 1.4826 * segment_median(np.abs(deviation), catalog.offsets)
    second = np.maximum(mean(deviation**2), _TINY)
    inner = radius < segment_median(radius, catalog.offsets)[owner]
    speed_in = total(speed * inner) / np.maximum(total(inner), 1.0)
    speed_out = total(speed * ~inner) / np.maximum(total(~inner), 1.0)
    spread = np.sqrt(np.maximum(mean(radius**2) / 2.0, _TINY**2))
    offset = np.hypot(mean(x), mean(y)) * np.sqrt(n) / spread
    xx, yy, xy = mean(x * x), mean(y * y), mean(x * y)
    difference = np.hypot(xx - yy, 2.0 * xy)
    closest, closest_speed, next_closest = _innermost(radius, speed, owner, catalog.offsets)
    fast = speed > 0.6 * v_max
    columns = [
        np.log(gapper),
        _log(core / gapper),
        _log(mean(deviation**4) / second**2),
        mean(deviation**3) / second**1.5,
        median_v * np.sqrt(n) / gapper,
        logit_share(speed < 0.2 * v_max),
        logit_share(speed > 0.4 * v_max),
        logit_share(speed > 0.7 * v_max),
        logit_share((radius > 0.5 * r_max) & fast),
        logit_share((radius < 0.5 * r_max) & fast),
        _log(mean(radius) / r_max),
        logit_share(radius < r_max / 8.0),
        logit_share(radius < r_max / 3.0),
        logit_share(radius > 0.8 * r_max),
        _log(np.maximum(closest, _CENTRE) * np.sqrt(n) / r_max),
        _log(np.maximum(next_closest, _CENTRE) * np.sqrt(n) / r_max),
        _log(offset),
        0.5 * _log((xx + yy - difference) / np.maximum(xx + yy + difference, _TINY**2)),
        _log(speed_in) - _log(speed_out),
        _log(closest_speed / gapper),
    ]
    result = np.stack(columns, axis=1)
    result[n < 3] = np.nan
    if catalog.metadata.radial:
        result[:, [list(SUMMARIES).index(name) for name in _OF_DIRECTIONS]] = np.nan
    return result


def _log(values: FloatArray) -> FloatArray:
    return np.log(np.maximum(values, _TINY))


def _gapper(v: FloatArray, owner: IntArray, n: FloatArray) -> FloatArray:
    """sqrt(pi) / (N (N - 1)) sum_i i (N - i) (v_(i+1) - v_(i)), by the ranks of the velocities."""
    order = _sorted_within(v, owner)
    first = np.repeat(np.cumsum(n) - n, n.astype(np.int64))
    rank = np.arange(v.size) - first
    weight = 2.0 * rank - (np.repeat(n, n.astype(np.int64)) - 1.0)
    weighted = np.bincount(owner, weights=weight * v[order], minlength=n.size)
    return np.asarray(np.sqrt(np.pi) * weighted / np.maximum(n * (n - 1.0), 1.0))


def _sorted_within(values: FloatArray, owner: IntArray) -> IntArray:
    """Order of galaxies by cluster, then by value."""
    width = np.ptp(values) if values.size else 0.0
    # One float key sorts faster than two; its rounding can only swap values that all but agree.
    return np.argsort(owner * (1.01 * width + 1.0) + values)


def _innermost(
    radius: FloatArray, speed: FloatArray, owner: IntArray, offsets: IntArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Radius and |v| of the innermost galaxy, and radius of the next, (n,) each; NaN where there is none."""
    order = _sorted_within(radius, owner)
    start, count = offsets[:-1], np.diff(offsets)
    result = []
    for place, values in ((0, radius), (0, speed), (1, radius)):
        found = np.full(count.size, np.nan)
        there = count > place
        found[there] = values[order[start[there] + place]]
        result.append(found)
    return result[0], result[1], result[2]
