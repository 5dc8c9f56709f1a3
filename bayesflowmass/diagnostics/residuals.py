"""Residuals of point estimates: mean, scatter, slope, and what a slope does to a scatter.

The residual is epsilon = log10(M_true / M_pred) (Kodi Ramanah et al. 2020, arXiv:2003.05951, section 5):
positive where the mass is underestimated. An estimator that shrinks its answers towards the mean of the
training set has a slope of predicted on true below one and, for that alone, a smaller scatter; the scatter
divided by the slope undoes it. The two therefore always stand side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import ArrayLike

from bayesflowmass.common.arrays import FloatArray

SCATTER_RANGE = (14.0, 15.0)
"""Range of log10 true mass [Msun/h], both ends included, of ``scatter_14_15`` (Ho et al. 2019,
arXiv:1902.05950).
"""
ABSOLUTE_RANGE = (14.8, 15.2)
"""Range of log10 true mass [Msun/h], upper end excluded, of ``mean_abs_residual_14p8_15p2``."""


def residual(log10_true: ArrayLike, log10_predicted: ArrayLike) -> FloatArray:
    """epsilon = log10(M_true / M_pred) in dex, element by element.

    Raises:
        ValueError: shapes differ, or a value is not finite.
    """
    true = np.asarray(log10_true, dtype=np.float64)
    predicted = np.asarray(log10_predicted, dtype=np.float64)
    if true.shape != predicted.shape:
        raise ValueError(
            f"True and predicted masses must have one shape; found {true.shape} and {predicted.shape}."
        )
    for name, values in (("true", true), ("predicted", predicted)):
        bad = np.flatnonzero(~np.isfinite(values))
        if bad.size:
            raise ValueError(
                f"{bad.size} {name} log10 masses are not finite, the first in row {bad[0]} "
                f"({values.flat[bad[0]]}); "
                "remove these clusters before measuring residuals."
            )
    return true - predicted


def residual_statistics(
    log10_true: ArrayLike, log10_predicted: ArrayLike
) -> Callable[[FloatArray], Mapping[str, FloatArray]]:
    """Residual statistics of many weightings (bootstrap resamples) of one sample at once.

    Args:
        log10_true: log10 M200c [Msun/h], shape (n,).
        log10_predicted: the same of the estimates, shape (n,).

    Returns:
        A function of non-negative multiplicities, shape (b, n); ones give the plain statistics. It gives arrays of
        shape (b,), NaN where too few clusters are in range: ``mean_residual``; ``scatter``, the
        standard deviation (ddof = 1) of the residual; ``robust_scatter``, half of its central 68.27 %;
        ``slope`` of the least-squares line of predicted on true; ``scatter_over_slope``, their ratio;
        ``scatter_14_15``, ``slope_14_15`` and ``scatter_over_slope_14_15`` of clusters with
        14 <= log10 M_true <= 15; ``mean_abs_residual_14p8_15p2``, mean |epsilon| for
        14.8 <= log10 M_true < 15.2.
    """
    true = np.asarray(log10_true, dtype=np.float64)
    predicted = np.asarray(log10_predicted, dtype=np.float64)
    epsilon = residual(true, predicted)
    inside = (true >= SCATTER_RANGE[0]) & (true <= SCATTER_RANGE[1])
    massive = (true >= ABSOLUTE_RANGE[0]) & (true < ABSOLUTE_RANGE[1])
    moments, moments_inside = _moments(true, predicted), _moments(true[inside], predicted[inside])
    robust_scatter, absolute = _robust_scatter(epsilon), np.abs(epsilon[massive])

    def statistics(counts: FloatArray) -> dict[str, FloatArray]:
        mean, scatter, slope = moments(counts)
        _, scatter_in, slope_in = moments_inside(counts[:, inside])
        return {
            "mean_residual": mean,
            "scatter": scatter,
            "robust_scatter": robust_scatter(counts),
            "slope": slope,
            "scatter_over_slope": _ratio(scatter, slope),
            "scatter_14_15": scatter_in,
            "slope_14_15": slope_in,
            "scatter_over_slope_14_15": _ratio(scatter_in, slope_in),
            "mean_abs_residual_14p8_15p2": weighted_mean(absolute, counts[:, massive]),
        }

    return statistics


def weighted_mean(values: FloatArray, counts: FloatArray) -> FloatArray:
    """Mean of ``values`` (n,) under each row of ``counts`` (b, n); NaN where the counts add up to zero."""
    total = counts.sum(axis=1)
    return np.where(total > 0, counts @ values, np.nan) / np.where(total > 0, total, 1.0)


def _ratio(scatter: FloatArray, slope: FloatArray) -> FloatArray:
    """NaN for an estimator without any slope, one that ignores the data."""
    return np.where(slope == 0.0, np.nan, scatter / np.where(slope == 0.0, 1.0, slope))


def _robust_scatter(epsilon: FloatArray) -> Callable[[FloatArray], FloatArray]:
    """Half the distance between the 15.87 and 84.13 % points of each weighting (inverted cdf); (b,)."""
    order = np.argsort(epsilon)
    rising = epsilon[order]
    tail = 0.158655254

    def statistic(counts: FloatArray) -> FloatArray:
        if epsilon.size < 3:
            return np.full(len(counts), np.nan)
        total = np.cumsum(counts[:, order], axis=1)
        ends = [rising[np.argmax(total >= p * total[:, -1:] - 1e-9, axis=1)] for p in (tail, 1.0 - tail)]
        return np.where(total[:, -1] > 2, 0.5 * (ends[1] - ends[0]), np.nan)

    return statistic


def _moments(
    true: FloatArray, predicted: FloatArray
) -> Callable[[FloatArray], tuple[FloatArray, FloatArray, FloatArray]]:
    """Mean and standard deviation of true - predicted, and the slope of predicted on true; each (b,)."""
    if true.size < 3:
        return lambda counts: (np.full(len(counts), np.nan),) * 3
    # Centring on the sample mean keeps the sums of squares accurate; it cancels from every result.
    x = true - true.mean()
    shift = (true - predicted).mean()
    e = true - predicted - shift
    columns = np.stack([np.ones_like(x), x, e, x * x, x * e, e * e], axis=1)

    def statistics(counts: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        total, sx, se, sxx, sxe, see = (counts @ columns).T
        usable = total > 2
        total = np.where(usable, total, 1.0)
        variance = np.maximum(see - se**2 / total, 0.0) / np.maximum(total - 1.0, 1.0)
        x_square = sxx - sx**2 / total
        usable_slope = usable & (x_square > 0)
        slope = 1.0 - (sxe - sx * se / total) / np.where(usable_slope, x_square, 1.0)
        return (
            np.where(usable, se / total + shift, np.nan),
            np.where(usable, np.sqrt(variance), np.nan),
            np.where(usable_slope, slope, np.nan),
        )

    return statistics
