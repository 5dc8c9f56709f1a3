"""Standard errors by resampling haloes, not clusters: projections of one halo are not independent."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
from numpy.typing import ArrayLike

from bayesflowmass.common.arrays import FloatArray

WeightedStatistics = Callable[[FloatArray], Mapping[str, FloatArray]]

_CHUNK_ELEMENTS = 4_000_000


def bootstrap_counts(halo_id: ArrayLike, n_resamples: int, seed: int) -> Iterator[FloatArray]:
    """Yield how often each cluster enters each bootstrap resample of haloes.

    A resample draws as many haloes as there are, with replacement; all projections of a halo come
    along together (a cluster, or block, bootstrap).

    Args:
        halo_id: halo of each cluster, shape (n,), integers or strings.
        n_resamples: number of resamples.
        seed: same seed, same resamples, whatever the statistic.

    Yields:
        float64 counts of shape (b, n), the b of all chunks adding up to ``n_resamples``.
    """
    haloes, index = np.unique(np.asarray(halo_id), return_inverse=True)
    index = index.reshape(-1)
    rng = np.random.default_rng(seed)
    per_chunk = max(1, _CHUNK_ELEMENTS // max(1, index.size))
    for start in range(0, n_resamples, per_chunk):
        counts = np.stack(
            [
                np.bincount(rng.integers(0, haloes.size, haloes.size), minlength=haloes.size)
                for _ in range(min(per_chunk, n_resamples - start))
            ]
        )
        yield counts[:, index].astype(np.float64)


def bootstrap_errors(
    statistics: WeightedStatistics, halo_id: ArrayLike, n_resamples: int = 200, seed: int = 0
) -> dict[str, FloatArray]:
    """Bootstrap standard error of weighted statistics, over haloes (Efron and Tibshirani 1993, chapter 6).

    Args:
        statistics: maps counts (b, n) to named arrays (b, ...); unit counts give the plain statistic.
        halo_id: halo of each cluster, shape (n,).
        n_resamples: number of resamples; the error of the error is 1 / sqrt(2 n_resamples).
        seed: seed of the resampling.

    Returns:
        For each name the standard deviation (ddof = 1) over those resamples where it is finite; NaN where
        fewer than two are, or where there is a single halo.
    """
    if n_resamples < 2:
        raise ValueError(f"A bootstrap needs at least 2 resamples, {n_resamples} were asked for.")
    draws: dict[str, list[FloatArray]] = {}
    for counts in bootstrap_counts(halo_id, n_resamples, seed):
        for name, values in statistics(counts).items():
            draws.setdefault(name, []).append(np.asarray(values, dtype=np.float64))
    single = np.unique(np.asarray(halo_id)).size < 2
    return {
        name: _spread(np.concatenate(chunks)) * (np.nan if single else 1.0) for name, chunks in draws.items()
    }


def with_errors(
    statistics: WeightedStatistics, halo_id: ArrayLike, n_resamples: int, seed: int
) -> dict[str, list[float | None]]:
    """Each statistic and, under ``<name>_se``, its bootstrap error, as lists for a JSON file."""
    point = statistics(np.ones((1, np.size(halo_id))))
    errors = bootstrap_errors(statistics, halo_id, n_resamples, seed)
    found: dict[str, list[float | None]] = {}
    for name, value in point.items():
        found[name], found[f"{name}_se"] = as_json(value), as_json(errors[name])
    return found


def as_json(values: FloatArray) -> list[float | None]:
    """Floats for a JSON file, None for what is not finite."""
    return [float(v) if np.isfinite(v) else None for v in np.asarray(values).reshape(-1)]


def _spread(draws: FloatArray) -> FloatArray:
    finite = np.isfinite(draws)
    n = finite.sum(axis=0)
    mean = np.where(finite, draws, 0.0).sum(axis=0) / np.maximum(n, 1)
    square = np.where(finite, draws - mean, 0.0) ** 2
    spread: FloatArray = np.sqrt(square.sum(axis=0) / np.maximum(n - 1, 1))
    return np.where(n >= 2, spread, np.nan)
