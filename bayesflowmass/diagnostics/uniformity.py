"""Are values in [0, 1] uniform? The ECDF minus the diagonal with a simultaneous band, by simulation.

At each point z of a grid the ECDF of a calibrated sample is binomial; its two-sided tail probability is the
local p-value. The smallest local p-value of a sample is compared with those of simulated calibrated samples
(Saeilynoja, Buerkner and Vehtari 2022, arXiv:2103.10522, algorithm 2): the band holds the **whole** ECDF of
a calibrated sample at the stated probability. Clusters that share a halo are simulated with their measured
correlation (:mod:`bayesflowmass.diagnostics.dependence`), and the binomial has at each z the effective
number of clusters n z (1 - z) / (z (1 - z) + c(z) sum_h m_h (m_h - 1) / n), c the covariance of a pair.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import betainc

from bayesflowmass.common.arrays import FloatArray, IntArray
from bayesflowmass.diagnostics.dependence import (
    correlated_uniforms,
    effective_number,
    halo_correlation,
    halo_sizes,
    pair_covariance,
)

_CHUNK_ELEMENTS = 1_000_000
_TINY = 1e-12


@dataclass(frozen=True)
class Uniformity:
    """ECDF minus the uniform one, with the band of a calibrated sample.

    Attributes:
        grid: points z, shape (k,), inside (0, 1).
        difference: ECDF(z) - z, shape (k,).
        lower, upper: the band, shape (k,): a calibrated sample stays inside everywhere at ``probability``.
        p_value: probability of so extreme a smallest local p-value in a calibrated sample.
        probability: of the band.
        n: number of values.
        n_haloes: number of haloes.
        correlation: of normal scores within a halo.
        n_effective: independent clusters that are worth as much.
    """

    grid: FloatArray
    difference: FloatArray
    lower: FloatArray
    upper: FloatArray
    p_value: float
    probability: float
    n: int
    n_haloes: int
    correlation: float
    n_effective: float

    @property
    def inside(self) -> bool:
        """Whether the whole ECDF lies inside the band."""
        return self.p_value > 1.0 - self.probability


def uniformity(
    u: ArrayLike,
    halo_id: ArrayLike | None = None,
    *,
    probability: float = 0.95,
    n_grid: int = 100,
    n_simulations: int = 999,
    seed: int = 0,
) -> Uniformity:
    """Test of uniformity with a simultaneous band.

    Args:
        u: values in [0, 1], shape (n,): PIT values, levels of highest-density regions, scaled ranks.
        halo_id: halo of each cluster, shape (n,); default: all differ.
        probability: of the band.
        n_grid: the grid divides [0, 1] into this many cells, or into n where the sample is smaller.
        n_simulations: of the null; the smallest p-value is 1 / (n_simulations + 1).
        seed: of the simulation.

    Raises:
        ValueError: no values, or one outside [0, 1].
    """
    values = checked_unit_interval(u)
    n = values.size
    halo = np.arange(n) if halo_id is None else np.asarray(halo_id)
    correlation = halo_correlation(values, halo)
    cells = max(2, min(n_grid, n))
    grid = np.arange(1, cells) / cells
    _, size = halo_sizes(halo)
    variance = grid * (1.0 - grid)
    pairs = float((size * (size - 1.0)).sum()) / n
    trials = n * variance / (variance + pairs * pair_covariance(grid, correlation))
    if correlation > 0:
        null = _null(_simulated_ecdf(halo, correlation, cells, n_simulations, seed), trials, grid)
    else:
        null = _independent_null(n, cells, n_simulations, seed)
    ecdf = np.searchsorted(np.sort(values), grid, side="right") / n
    observed = float(_local_p(ecdf, trials, grid).min())
    rank = max(0, int((1.0 - probability) * (n_simulations + 1)) - 1)
    lower, upper = _band(float(null[min(rank, null.size - 1)]), trials, grid)
    return Uniformity(
        grid=grid,
        difference=ecdf - grid,
        lower=lower - grid,
        upper=upper - grid,
        p_value=float((1 + np.searchsorted(null, observed, side="right")) / (n_simulations + 1)),
        probability=probability,
        n=n,
        n_haloes=int(size.size),
        correlation=correlation,
        n_effective=effective_number(halo, correlation),
    )


def checked_unit_interval(u: ArrayLike) -> FloatArray:
    """Values as a float64 array.

    Raises:
        ValueError: there are none, or one lies outside [0, 1].
    """
    values = np.asarray(u, dtype=np.float64)
    if values.size == 0:
        raise ValueError("No PIT values were given.")
    bad = np.flatnonzero(~((values >= 0) & (values <= 1)))
    if bad.size:
        raise ValueError(
            f"PIT values must lie in [0, 1]; {bad.size} do not, the first in row {bad[0]}: "
            f"{values.flat[bad[0]]}."
        )
    return values


def simulate_counts(
    halo_id: ArrayLike, correlation: float, cells: int, n_simulations: int, seed: int
) -> IntArray:
    """How many of n uniform values fall into each of ``cells`` equal cells, shape (n_simulations, cells)."""
    rng = np.random.default_rng(seed)
    halo = np.asarray(halo_id)
    index, size = halo_sizes(halo)
    together = size[index] > 1 if correlation > 0 else np.zeros(index.size, dtype=bool)
    counts = rng.multinomial(int((~together).sum()), np.full(cells, 1.0 / cells), size=n_simulations)
    halo = halo[together]
    step = max(1, _CHUNK_ELEMENTS // max(1, halo.size))
    for start in range(0, n_simulations if halo.size else 0, step):
        sets = min(step, n_simulations - start)
        u = correlated_uniforms(halo, correlation, sets, rng)
        cell = np.multiply(u, cells, out=u).astype(np.int64)
        np.minimum(cell, cells - 1, out=cell)
        cell += cells * np.arange(sets)[:, None]
        counts[start : start + sets] += np.bincount(cell.ravel(), minlength=sets * cells).reshape(sets, cells)
    return np.asarray(counts, dtype=np.int64)


def _simulated_ecdf(halo: ArrayLike, correlation: float, cells: int, n: int, seed: int) -> FloatArray:
    counts = simulate_counts(halo, correlation, cells, n, seed).cumsum(axis=1)
    return np.asarray(counts[:, :-1] / counts[:, -1:])


def _null(ecdf: FloatArray, trials: FloatArray, grid: FloatArray) -> FloatArray:
    """Sorted smallest local p-values of simulated samples."""
    return np.sort(_local_p(ecdf, trials, grid).min(axis=1))


@lru_cache(maxsize=64)
def _independent_null(n: int, cells: int, n_simulations: int, seed: int) -> FloatArray:
    grid = np.arange(1, cells) / cells
    ecdf = _simulated_ecdf(np.arange(n), 0.0, cells, n_simulations, seed)
    null = _null(ecdf, np.full(grid.size, float(n)), grid)
    null.flags.writeable = False
    return null


def _below(ecdf: FloatArray, trials: FloatArray, grid: FloatArray) -> FloatArray:
    """P(ECDF <= its value) of binomials that may have a fractional number of trials (incomplete beta)."""
    k = np.clip(ecdf, 0.0, 1.0) * trials
    return np.where(k >= trials, 1.0, betainc(np.maximum(trials - k, _TINY), k + 1.0, 1.0 - grid))


def _above(ecdf: FloatArray, trials: FloatArray, grid: FloatArray) -> FloatArray:
    """P(ECDF >= its value)."""
    return _below(1.0 - ecdf, trials, 1.0 - grid)


def _local_p(ecdf: FloatArray, trials: FloatArray, grid: FloatArray) -> FloatArray:
    tail = np.minimum(_below(ecdf, trials, grid), _above(ecdf, trials, grid))
    return np.minimum(1.0, 2.0 * tail)


def _band(local_p: float, trials: FloatArray, grid: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Lowest and highest ECDF whose local p-value is not below ``local_p``, by bisection."""
    ends = []
    for end, tail in ((0.0, _below), (1.0, _above)):
        inside, outside = grid.copy(), np.full(grid.size, end)
        for _ in range(30):
            middle = 0.5 * (inside + outside)
            kept = tail(middle, trials, grid) >= 0.5 * local_p
            inside, outside = np.where(kept, middle, inside), np.where(kept, outside, middle)
        ends.append(inside)
    return ends[0], ends[1]
