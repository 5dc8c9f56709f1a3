"""p-values by the ranks of clusters that were held out: exact in finite samples, whatever the score is.

If a new cluster and the m held-out clusters are exchangeable, the rank of its score among the m + 1 is uniform, and

    p = (1 + #{held-out scores >= score}) / (m + 1)

obeys P(p <= alpha) <= alpha, with equality where alpha (m + 1) is an integer and no scores are equal. With classes that
are known beforehand (here bins of the number of galaxies) this holds in each class (Mondrian conformal prediction).

References:
    Vovk, Gammerman & Shafer 2005, Algorithmic Learning in a Random World, ch. 2 and 4;
    Bates et al. 2023, arXiv:2104.08279.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bayesflowmass.common.arrays import FloatArray, IntArray


def conformal_p_values(
    score: FloatArray, kind: IntArray, held_out_score: FloatArray, held_out_kind: IntArray
) -> FloatArray:
    """p-value of each score (n,) among the held-out scores (m,) of its class; NaN scores give NaN.

    Args:
        score, held_out_score: larger is stranger.
        kind, held_out_kind: classes, 0 ... k - 1; a class without held-out clusters gives p = 1.
    """
    result = np.ones(score.shape)
    for one in np.unique(kind):
        here = kind == one
        known = np.sort(held_out_score[held_out_kind == one])
        at_least = known.size - np.searchsorted(known, score[here], side="left")
        result[here] = (1.0 + at_least) / (known.size + 1.0)
    return np.where(np.isnan(score), np.nan, result)


def classes_of(values: FloatArray, edges: FloatArray) -> IntArray:
    """Index of the bin of each value (n,) between inner edges (k - 1,): 0 ... k - 1, ends open."""
    return np.searchsorted(edges, values, side="right").astype(np.int64)


def one_per_halo(halo_id: npt.ArrayLike, seed: int) -> IntArray:
    """Rows, in order, of one cluster of each halo, drawn at random: clusters that share a halo are not exchangeable
    with clusters of others.
    """
    halo = np.asarray(halo_id)
    order = np.random.default_rng(seed).permutation(halo.size)
    _, first = np.unique(halo[order], return_index=True)
    return np.sort(order[first]).astype(np.int64)
