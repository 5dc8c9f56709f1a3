"""Simulation-based calibration: the rank of the truth among draws of its posterior.

For posteriors of which only draws are at hand (MCMC, another code). Where the density is known the PIT is
the limit of infinitely many draws, and sharper.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from bayesflowmass.common.arrays import FloatArray, IntArray

__all__ = ["ranks_to_unit_interval", "sbc_ranks"]


def sbc_ranks(draws: ArrayLike, log10_true: ArrayLike) -> IntArray:
    """Number of draws below the truth, shape (n,): uniform on 0 ... L where calibrated.

    Talts et al. 2018 (arXiv:1804.06788). The draws of a cluster must be independent of each other: thin a
    Markov chain first.

    Args:
        draws: log10 M200c [Msun/h], shape (L, n).
        log10_true: shape (n,).

    Raises:
        ValueError: shapes differ, or there are no draws.
    """
    sample = np.asarray(draws, dtype=np.float64)
    true = np.asarray(log10_true, dtype=np.float64)
    if sample.ndim != 2 or sample.shape[0] == 0 or sample.shape[1:] != true.shape:
        raise ValueError(
            f"draws must have shape (draws, clusters) = (L, {true.size}) with L > 0; found {sample.shape}."
        )
    return np.asarray((sample < true).sum(axis=0), dtype=np.int64)


def ranks_to_unit_interval(ranks: ArrayLike, n_draws: int, seed: int = 0) -> FloatArray:
    """(rank + U) / (L + 1), U uniform: exactly uniform on [0, 1] where the ranks are uniform on 0 ... L.

    The result goes wherever a PIT goes (:func:`bayesflowmass.diagnostics.uniformity`).

    Args:
        ranks: of :func:`sbc_ranks`, shape (n,).
        n_draws: L.
        seed: of U.

    Raises:
        ValueError: a rank lies outside 0 ... L.
    """
    rank = np.asarray(ranks, dtype=np.int64)
    if rank.size and (rank.min() < 0 or rank.max() > n_draws):
        raise ValueError(
            f"Ranks among {n_draws} draws lie in 0 ... {n_draws}; found {rank.min()}-{rank.max()}."
        )
    return np.asarray((rank + np.random.default_rng(seed).random(rank.shape)) / (n_draws + 1.0))
