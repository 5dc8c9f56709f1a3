"""What a perfect posterior shows in bins of true mass, simulated from the model itself.

At fixed true mass even a perfect posterior is biased, towards the masses that its prior holds common, and
its coverage is not nominal (docs/calibration.md). What to expect there follows from the model: draw a
"true" mass of each cluster from its posterior under the prior that the test masses follow, and measure
these as the real ones are measured. Many such draws give the expectation in each bin and its scatter.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtri

from bayesflowmass.common.arrays import FloatArray, IntArray
from bayesflowmass.diagnostics.bootstrap import as_json
from bayesflowmass.diagnostics.dependence import correlated_uniforms, halo_correlation
from bayesflowmass.diagnostics.multiplicity import holm
from bayesflowmass.diagnostics.posterior_summary import SCORE_GRID, PosteriorSummary

STATISTICS = ("mean_residual", "scatter", "coverage_68", "coverage_95")
"""Statistics compared with their expectation in bins of true mass."""


def draw_truths(
    summary: PosteriorSummary, halo_id: ArrayLike, correlation: float, n_sets: int, rng: np.random.Generator
) -> FloatArray:
    """Masses that the model holds possible, shape (n_sets, n), alike within a halo as ``correlation`` says.

    Quantiles are interpolated in normal scores: exact for a Gaussian, cut at 4 sigma.

    Raises:
        ValueError: the summary has no ``population_quantiles``.
    """
    table = summary.population_quantiles
    if table is None:
        raise ValueError(
            "Truths are drawn from posteriors under the prior of the test set; these are of another."
        )
    u = correlated_uniforms(halo_id, correlation, n_sets, rng).astype(np.float64)
    step = SCORE_GRID[1] - SCORE_GRID[0]
    position = np.clip((ndtri(u) - SCORE_GRID[0]) / step, 0.0, SCORE_GRID.size - 1.0 - 1e-9)
    cell = position.astype(np.int64)
    share = position - cell
    cluster = np.arange(u.shape[1])
    return np.asarray(table[cluster, cell] * (1.0 - share) + table[cluster, cell + 1] * share)


def compare_by_true_mass(
    summary: PosteriorSummary,
    halo_id: ArrayLike,
    edges: ArrayLike,
    *,
    probability: float = 0.95,
    min_count: int = 30,
    n_sets: int = 300,
    seed: int = 0,
) -> dict[str, Any]:
    """The sample in bins of true mass beside what the model expects there, with simultaneous bands.

    The band of a statistic is its expectation plus or minus c standard deviations of simulated sets, c
    such that the stated share of the sets stays inside in all bins; Holm's correction over the statistics.

    Args:
        summary: of n clusters.
        halo_id: shape (n,).
        edges: of the bins of log10 true mass, increasing, shape (k + 1,).
        probability: of each band.
        min_count: bins that hold or expect fewer clusters are not compared.
        n_sets: simulated sets.
        seed: of the simulation.

    Returns:
        JSON-able; for each of ``STATISTICS`` lists of length k: the value, ``expected_``, ``band_low_``,
        ``band_high_``, and numbers ``p_value_`` and ``p_holm_``.
    """
    limits = np.asarray(edges, dtype=np.float64)
    correlation = halo_correlation(summary.pit, halo_id)
    rng = np.random.default_rng(seed)
    observed, count = _by_bin(summary, summary.log10_true[None], limits)
    chunk = max(1, 1_000_000 // len(summary))
    sets = [
        _by_bin(summary, draw_truths(summary, halo_id, correlation, min(chunk, n_sets - i), rng), limits)
        for i in range(0, n_sets, chunk)
    ]
    expected_count = np.concatenate([c for _, c in sets]).mean(axis=0)
    used = (count[0] >= min_count) & (expected_count >= min_count)
    result: dict[str, Any] = {"correlation": correlation, "compared": used.tolist()}
    p_values = []
    for i, name in enumerate(STATISTICS):
        simulated = np.concatenate([values[i] for values, _ in sets])
        centre, spread = np.full(used.size, np.nan), np.full(used.size, np.nan)
        centre[used] = np.nanmean(simulated[:, used], axis=0)
        spread[used] = np.maximum(np.nanstd(simulated[:, used], axis=0, ddof=1), 1e-12)
        farthest = np.nanmax(np.abs(simulated - centre)[:, used] / spread[used], axis=1, initial=0.0)
        mine = float(np.nanmax(np.abs(observed[i][0] - centre)[used] / spread[used], initial=0.0))
        limit = float(np.quantile(farthest, probability, method="higher"))
        p_values.append((1 + int((farthest >= mine).sum())) / (n_sets + 1) if used.any() else np.nan)
        result[name] = as_json(observed[i][0])
        result[f"expected_{name}"] = as_json(centre)
        result[f"band_low_{name}"] = as_json(centre - limit * spread)
        result[f"band_high_{name}"] = as_json(centre + limit * spread)
    for name, p, adjusted in zip(STATISTICS, p_values, holm(p_values), strict=True):
        result[f"p_value_{name}"] = as_json(np.array(p))[0]
        result[f"p_holm_{name}"] = as_json(adjusted)[0]
    return result


def _by_bin(
    summary: PosteriorSummary, true: FloatArray, edges: FloatArray
) -> tuple[list[FloatArray], IntArray]:
    """Each of ``STATISTICS`` in bins of ``true`` (b, n), as arrays (b, k), and the counts (b, k)."""
    sets, k = len(true), edges.size - 1
    index = np.searchsorted(edges, true, side="right") - 1
    index[true == edges[-1]] = k - 1
    inside = (index >= 0) & (index < k)
    # What falls outside the bins goes to a last cell that is dropped.
    cell = (np.where(inside, index, k) + (k + 1) * np.arange(sets)[:, None]).ravel()
    epsilon = true - summary.median
    columns = (
        epsilon,
        epsilon**2,
        (true >= summary.q16) & (true <= summary.q84),
        (true >= summary.q025) & (true <= summary.q975),
    )
    count = np.bincount(cell, minlength=sets * (k + 1)).reshape(sets, -1)[:, :k]
    safe = np.where(count > 0, count, 1)
    means = [
        np.where(
            count > 0,
            np.bincount(cell, c.ravel(), minlength=sets * (k + 1)).reshape(sets, -1)[:, :k] / safe,
            np.nan,
        )
        for c in columns
    ]
    variance = np.maximum(means[1] - means[0] ** 2, 0.0) * count / np.maximum(count - 1, 1)
    scatter = np.where(count > 2, np.sqrt(variance), np.nan)
    return [means[0], scatter, means[2], means[3]], count
