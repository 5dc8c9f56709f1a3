"""Standard errors of a number, or of a difference of two models, over haloes and over training seeds.

Everything rests on influences: an estimate from n clusters departs from its expectation by about
sum_i psi_i, where psi_i is what cluster i contributes (Hampel 1974). The influence of a difference is the
difference of the influences, also where two models put different clusters into a bin, or share only some.

Clusters of one halo are not independent; the haloes are. Models trained with different seeds are independent
but judged on the same haloes. With psi_sh the influence summed over the clusters of halo h, for seed s,

    V_halo = H / (H - 1) sum_h (mean_s psi_sh)^2                              (Liang & Zeger 1986, sandwich)
    V_seed = variance_s(estimate_s) / S
    V_both = sum_sh (psi_sh - mean_s psi_sh)^2 / (S (S - 1))

and the variance of the mean over seeds is V_halo + V_seed - V_both: the last term, noise of one seed on one halo,
is in both of the others (Cameron, Gelbach & Miller 2011, doi:10.1198/jbes.2010.07136, two-way clustering).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import integrate, special

from bayesflowmass.common.arrays import BoolArray, FloatArray, IntArray


@dataclass(frozen=True)
class Influence:
    """An estimate and what each cluster contributes to its error.

    Attributes:
        value: the estimate; NaN where the sample does not define it.
        psi: shape (n,), zero for clusters that do not enter; adds up to zero.
    """

    value: float
    psi: FloatArray

    def __sub__(self, other: Influence) -> Influence:
        return Influence(self.value - other.value, self.psi - other.psi)

    def scaled(self, factor: float, offset: float = 0.0) -> Influence:
        """factor * estimate + offset."""
        return Influence(factor * self.value + offset, factor * self.psi)


@dataclass(frozen=True)
class Estimate:
    """A number with its standard error, error^2 = shared^2 + error_seeds^2.

    Attributes:
        value: mean over seeds; NaN where a seed does not define it.
        error: standard error over haloes and seeds; NaN where it is not defined.
        error_haloes: over haloes alone, as if these seeds were all there are.
        error_seeds: over seeds alone, None with a single seed.
        shared: the part of the error over haloes that all seeds have in common.
        n_haloes, n_seeds: that entered.
    """

    value: float
    error: float
    error_haloes: float
    error_seeds: float | None
    shared: float
    n_haloes: int
    n_seeds: int

    def p_value(self) -> float:
        """Two-sided, of the hypothesis that the expectation is zero."""
        tail = self._tail(abs(self.value))
        return min(1.0, 2.0 * tail) if np.isfinite(tail) else tail

    def p_above(self, bound: float) -> float:
        """One-sided, of the hypothesis that the expectation is at most ``bound``."""
        return self._tail(self.value - bound)

    def _tail(self, distance: float) -> float:
        """P(shared t_H-1 + error_seeds t_S-1 > distance): few seeds, heavy tails (Behrens & Fisher)."""
        if not (np.isfinite(self.error) and np.isfinite(distance)):
            return float("nan")
        if self.error == 0.0:
            return 0.0 if distance > 0.0 else 0.5 if distance == 0.0 else 1.0
        seeds = self.error_seeds or 0.0
        if seeds < 1e-3 * self.error:
            return _survival(distance / self.shared, self.n_haloes - 1)
        if self.shared < 1e-6 * self.error:
            return _survival(distance / seeds, self.n_seeds - 1)
        # The step of the inner tail lies at the middle one of these.
        centre, width = distance / seeds, 12.0 * self.shared / seeds
        edges = [-np.inf, centre - width, centre, centre + width, np.inf]

        dof = self.n_seeds - 1
        peak = math.exp(math.lgamma(0.5 * (dof + 1)) - math.lgamma(0.5 * dof)) / math.sqrt(dof * math.pi)

        def integrand(t: float) -> float:
            density = peak * (1.0 + t * t / dof) ** (-0.5 * (dof + 1))
            return float(density * _survival((distance - seeds * t) / self.shared, self.n_haloes - 1))

        parts = [float(integrate.quad(integrand, a, b)[0]) for a, b in itertools.pairwise(edges)]
        return min(1.0, max(0.0, sum(parts)))


def _survival(t: float, dof: int) -> float:
    """P(Student's t > t)."""
    return float(special.stdtr(dof, -t))


def mean_influence(values: ArrayLike, inside: BoolArray) -> Influence:
    """Mean of ``values`` (n,) over the clusters ``inside`` (n,): psi_i = (x_i - mean) / n."""
    x = np.asarray(values, dtype=np.float64)
    n = int(inside.sum())
    if n == 0:
        return Influence(float("nan"), np.zeros(x.size))
    mean = float(x[inside].mean())
    return Influence(mean, np.where(inside, x - mean, 0.0) / n)


def scatter_influence(values: ArrayLike, inside: BoolArray) -> Influence:
    """Standard deviation (ddof = 1) of ``values`` (n,) over ``inside``: psi_i = ((x_i - mean)^2 - s^2) / (2 s n)."""
    x = np.asarray(values, dtype=np.float64)
    n = int(inside.sum())
    if n < 2:
        return Influence(float("nan"), np.zeros(x.size))
    square = np.where(inside, (x - x[inside].mean()) ** 2, 0.0)
    scatter = float(np.sqrt(square.sum() / (n - 1)))
    if scatter == 0.0:
        return Influence(0.0, np.zeros(x.size))
    return Influence(scatter, np.where(inside, square - square.sum() / n, 0.0) / (2.0 * scatter * n))


def crossed_estimate(seeds: Sequence[Influence], halo: IntArray, entering: BoolArray) -> Estimate:
    """Mean over seeds of an estimate, with its error over haloes and seeds.

    Args:
        seeds: the estimate of each training seed, all with influences on the same n clusters.
        halo: index of each cluster's halo, shape (n,), from zero.
        entering: clusters that any seed uses, shape (n,).
    """
    values = np.array([seed.value for seed in seeds])
    n_haloes, n_seeds = int(np.unique(halo[entering]).size), len(seeds)
    by_halo = np.stack([np.bincount(halo, weights=seed.psi) for seed in seeds])
    shared = by_halo.mean(axis=0)
    if n_haloes < 2 or not np.isfinite(values).all():
        nan = float("nan")
        return Estimate(float(values.mean()), nan, nan, None, nan, n_haloes, n_seeds)
    v_halo = n_haloes / (n_haloes - 1) * float((shared**2).sum())
    if n_seeds == 1:
        error = float(np.sqrt(v_halo))
        return Estimate(float(values[0]), error, error, None, error, n_haloes, 1)
    v_seed = float(values.var(ddof=1)) / n_seeds
    v_both = float(((by_halo - shared) ** 2).sum()) / (n_seeds * (n_seeds - 1))
    v_shared = max(0.0, v_halo - v_both)
    return Estimate(
        float(values.mean()),
        float(np.sqrt(v_shared + v_seed)),
        float(np.sqrt(v_halo)),
        float(np.sqrt(v_seed)),
        float(np.sqrt(v_shared)),
        n_haloes,
        n_seeds,
    )
