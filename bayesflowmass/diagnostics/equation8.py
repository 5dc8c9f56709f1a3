"""Equation 8 of Kodi Ramanah et al. 2020 (arXiv:2003.05951): the scatter as a function of the number of
members.

sigma^2 = sigma_N^2 (N / 100)^-1 + sigma_0^2, with sigma the scatter of the estimated log10 mass about the
best-fit power law of estimated on true mass, and N the number of cluster **members** (Wojtak et al. 2018,
arXiv:1806.03199). Both numbers depend on the mass range of the sample and on what N counts, so that a fit
carries both with it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from bayesflowmass.common.arrays import FloatArray
from bayesflowmass.diagnostics.grouping import GroupSums

_FLOOR = 1e-12


@dataclass(frozen=True)
class Equation8:
    """The fit, and the sample it holds for.

    Attributes:
        sigma_N: richness-dependent scatter at 100 members [dex].
        sigma_0: richness-independent scatter [dex].
        slope, intercept: of the power law, log10 M_est = intercept + slope (log10 M_true - pivot).
        pivot: mean log10 true mass of the sample [Msun/h].
        log10_mass_range: smallest and largest log10 true mass of the sample [Msun/h].
        n_range, n_median: of the number of members.
        n_clusters: clusters in the fit.
        n_without_members: clusters without a single member, for which equation 8 is infinite; not in the fit.
    """

    sigma_N: float
    sigma_0: float
    slope: float
    intercept: float
    pivot: float
    log10_mass_range: tuple[float, float]
    n_range: tuple[float, float]
    n_median: float
    n_clusters: int
    n_without_members: int


class _Grouped:
    """Moments of a sample summed over clusters of equal N: all that a likelihood whose variance depends on
    N needs.
    """

    def __init__(self, true: FloatArray, predicted: FloatArray, n_members: FloatArray) -> None:
        n, group = np.unique(n_members, return_inverse=True)
        self.pivot = float(true.mean())
        self.inverse_n = 100.0 / n
        x, y = true - self.pivot, predicted - self.pivot
        self.sums = GroupSums(group.reshape(-1), n.size, [np.ones_like(x), x, y, x * x, x * y, y * y])

    def fit(self, counts: FloatArray, max_iterations: int = 100) -> tuple[FloatArray, ...]:
        """Maximum likelihood for each row of counts (b, n): sigma_N, sigma_0, slope, intercept, each (b,).

        Alternates the weighted least-squares line and Fisher scoring of the two variance components, which
        is the regression of the squared residuals on 100 / N with weights 1 / v^2, until neither moves.
        """
        w, wx, wy, wxx, wxy, wyy = self.sums(counts)
        u = self.inverse_n
        variance = np.ones_like(w)
        components = np.zeros((2, len(counts)))
        slope = intercept = np.zeros(len(counts))
        for _ in range(max_iterations):
            p = 1.0 / variance
            total, mean_x, mean_y = (p * w).sum(1), (p * wx).sum(1), (p * wy).sum(1)
            sxx = (p * wxx).sum(1) - mean_x**2 / total
            # A resample of one halo has no slope.
            usable = sxx > 1e-12 * total
            slope = np.where(usable, (p * wxy).sum(1) - mean_x * mean_y / total, np.nan)
            slope /= np.where(usable, sxx, 1.0)
            intercept = (mean_y - slope * mean_x) / total
            a, b = intercept[:, None], slope[:, None]
            squares = wyy - 2 * (a * wy + b * wxy) + a * a * w + 2 * a * b * wx + b * b * wxx
            previous, components = components, _two_variances(squares, w, u, p * p)
            variance = np.maximum(components[0][:, None] * u + components[1][:, None], _FLOOR)
            if np.all(np.abs(components - previous) <= 1e-9 * components.sum(0) + 1e-14):
                break
        return np.sqrt(components[0]), np.sqrt(components[1]), slope, intercept


def _two_variances(squares: FloatArray, w: FloatArray, u: FloatArray, p: FloatArray) -> FloatArray:
    """Non-negative least squares of squares / w on (u, 1) with weights w p, for each row; shape (2, b)."""
    suu, su, s = (p * w * u * u).sum(1), (p * w * u).sum(1), (p * w).sum(1)
    su2, s2 = (p * squares * u).sum(1), (p * squares).sum(1)
    determinant = suu * s - su * su
    # With a single value of N the two terms cannot be told apart; the whole scatter is then given to sigma_N.
    regular = determinant > 1e-10 * suu * s
    scale = np.where(regular, determinant, 1.0)
    slope, constant = (su2 * s - s2 * su) / scale, (suu * s2 - su * su2) / scale
    only_n, only_0 = su2 / suu, s2 / s
    inside = regular & (slope >= 0) & (constant >= 0)
    use_n = ~regular | (constant < 0)
    return np.stack(
        [
            np.where(inside, slope, np.where(use_n, only_n, 0.0)),
            np.where(inside, constant, np.where(use_n, 0.0, only_0)),
        ]
    )


def fit_equation8(log10_true: ArrayLike, log10_predicted: ArrayLike, n_members: ArrayLike) -> Equation8:
    """Fit equation 8 and the power law together, by maximum likelihood with Gaussian scatter.

    Args:
        log10_true: log10 M200c [Msun/h], shape (n,).
        log10_predicted: estimates, shape (n,).
        n_members: number of members of each cluster, shape (n,).

    Raises:
        ValueError: fewer than ten clusters with members, or all of one true mass.
    """
    true, predicted, n = (np.asarray(a, dtype=np.float64) for a in (log10_true, log10_predicted, n_members))
    has = n > 0
    if has.sum() < 10 or np.ptp(true[has]) == 0:
        raise ValueError(
            "Equation 8 needs at least ten clusters with members and different masses; found "
            f"{int(has.sum())}."
        )
    grouped = _Grouped(true[has], predicted[has], n[has])
    sigma_n, sigma_0, slope, intercept = grouped.fit(np.ones((1, int(has.sum()))))
    return Equation8(
        sigma_N=float(sigma_n[0]),
        sigma_0=float(sigma_0[0]),
        slope=float(slope[0]),
        intercept=float(intercept[0]) + grouped.pivot,
        pivot=grouped.pivot,
        log10_mass_range=(float(true[has].min()), float(true[has].max())),
        n_range=(float(n[has].min()), float(n[has].max())),
        n_median=float(np.median(n[has])),
        n_clusters=int(has.sum()),
        n_without_members=int((~has).sum()),
    )


def weighted_equation8(
    log10_true: ArrayLike, log10_predicted: ArrayLike, n_members: ArrayLike
) -> Callable[[FloatArray], dict[str, FloatArray]]:
    """sigma_N and sigma_0, each (b,), for each row of counts (b, n): the bootstrap form of :func:`fit_equation8`."""
    true, predicted, n = (np.asarray(a, dtype=np.float64) for a in (log10_true, log10_predicted, n_members))
    has = n > 0
    grouped = _Grouped(true[has], predicted[has], n[has])

    def statistics(counts: FloatArray) -> dict[str, FloatArray]:
        sigma_n, sigma_0, _, _ = grouped.fit(counts[:, has])
        return {"sigma_N": sigma_n, "sigma_0": sigma_0}

    return statistics


def shot_noise_msigma(n_members: ArrayLike) -> FloatArray:
    """The floor of a mass from a velocity dispersion, 3 / (sqrt(2 N) ln 10) dex: M scales as sigma^3."""
    return np.asarray(3.0 / (np.sqrt(2.0 * np.asarray(n_members, dtype=np.float64)) * np.log(10.0)))
