"""Diagnostics in bins of mass: by true mass, what an estimator does to a cluster; by predicted mass, what
an estimate means.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from bayesflowmass.common.arrays import FloatArray
from bayesflowmass.diagnostics.bootstrap import as_json, with_errors
from bayesflowmass.diagnostics.grouping import GroupSums
from bayesflowmass.diagnostics.residuals import residual

QUANTILES = {"q025": 0.025, "q16": 0.16, "median": 0.5, "q84": 0.84, "q975": 0.975}


def mass_edges(log10_mass: ArrayLike, width: float = 0.1) -> FloatArray:
    """Edges at multiples of ``width`` [dex] that hold every mass of the sample."""
    mass = np.asarray(log10_mass, dtype=np.float64)
    low = int(np.floor(mass.min() / width + 1e-9))
    high = max(low + 1, int(np.ceil(mass.max() / width - 1e-9)))
    return np.asarray(np.arange(low, high + 1) * width, dtype=np.float64)


def merged_edges(log10_mass: ArrayLike, width: float, min_count: int) -> FloatArray:
    """Edges at multiples of ``width`` [dex], neighbours merged until each bin holds ``min_count`` masses."""
    mass = np.asarray(log10_mass, dtype=np.float64)
    edges = mass_edges(mass, width)
    count = np.histogram(mass, edges)[0]
    kept, held = [float(edges[0])], 0
    for edge, n in zip(edges[1:], count, strict=True):
        held += int(n)
        if held >= min_count:
            kept.append(float(edge))
            held = 0
    # What is left at the top joins the last bin.
    return np.array([*kept[:-1], float(edges[-1])] if len(kept) > 1 else [kept[0], float(edges[-1])])


def quantile_edges(values: ArrayLike, n_bins: int, min_count: int) -> FloatArray:
    """Edges of at most ``n_bins`` bins of about equal numbers, none expected below ``min_count``.

    Ties (integer counts) may join bins; where all values are equal the two edges are, too.
    """
    v = np.asarray(values, dtype=np.float64)
    k = max(1, min(n_bins, v.size // max(1, min_count)))
    edges = np.unique(np.quantile(v, np.linspace(0.0, 1.0, k + 1), method="nearest"))
    return edges if edges.size > 1 else np.repeat(edges, 2)


def binned_statistics(
    log10_true: ArrayLike,
    log10_predicted: ArrayLike,
    *,
    by: ArrayLike,
    edges: ArrayLike,
    halo_id: ArrayLike,
    averages: Mapping[str, ArrayLike] | None = None,
    n_resamples: int = 200,
    seed: int = 0,
) -> dict[str, list[float | None]]:
    """Residual statistics in bins of ``by``, with bootstrap errors over haloes.

    Args:
        log10_true, log10_predicted: log10 M200c [Msun/h], shape (n,).
        by: the quantity that is binned (true or predicted mass), shape (n,); every value lies inside the
            edges.
        edges: increasing, shape (k + 1,); bins hold their lower edge, the last one both.
        halo_id: shape (n,).
        averages: further per-cluster numbers, shape (n,), whose means are wanted (scores, coverage
            indicators).
        n_resamples, seed: of the bootstrap.

    Returns:
        Lists, JSON-able: ``edges`` (k + 1) and, of length k, ``n``, ``mean_mass`` (of ``by``),
        ``mean_residual``, ``scatter``, ``mean_abs_residual``, the averages, each with ``_se``;
        ``residual_q025`` ... ``residual_q975``. None where a bin holds too few clusters.

    Raises:
        ValueError: a value of ``by`` lies outside the edges.
    """
    values = np.asarray(by, dtype=np.float64)
    limits = np.asarray(edges, dtype=np.float64)
    epsilon = residual(log10_true, log10_predicted)
    outside = (values < limits[0] - 1e-9) | (values > limits[-1] + 1e-9)
    if outside.any():
        raise ValueError(
            f"{int(outside.sum())} values lie outside the bins {limits[0]:.2f} to {limits[-1]:.2f}; widen "
            "the edges."
        )
    k = limits.size - 1
    index = np.clip(np.searchsorted(limits, values, side="right") - 1, 0, k - 1)
    columns: dict[str, FloatArray] = {"mean_residual": epsilon, "mean_abs_residual": np.abs(epsilon)}
    for name, column in (averages or {}).items():
        columns[name] = np.asarray(column, dtype=np.float64)

    sums = GroupSums(index, k, [np.ones_like(epsilon), epsilon**2, *columns.values()])

    def statistics(counts: FloatArray) -> dict[str, FloatArray]:
        total, *others = sums(counts)
        square, *means = (
            np.where(total > 0, one / np.where(total > 0, total, 1.0), np.nan) for one in others
        )
        result = dict(zip(columns, means, strict=True))
        square = square - result["mean_residual"] ** 2
        unbiased = np.maximum(square, 0.0) * total / np.where(total > 1, total - 1.0, 1.0)
        result["scatter"] = np.where(total > 2, np.sqrt(unbiased), np.nan)
        return result

    count = np.bincount(index, minlength=k)
    output: dict[str, list[float | None]] = {
        "edges": as_json(limits),
        "n": [int(c) for c in count],
        "mean_mass": as_json(
            np.where(count > 0, np.bincount(index, values, minlength=k) / np.maximum(count, 1), np.nan)
        ),
    }
    output |= with_errors(statistics, halo_id, n_resamples, seed)
    for name, probability in QUANTILES.items():
        output[f"residual_{name}"] = as_json(
            np.array(
                [np.quantile(epsilon[index == i], probability) if count[i] >= 3 else np.nan for i in range(k)]
            )
        )
    return output
