"""From summaries to features that are standard normal over training clusters of the same richness."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from bayesflowmass.common.arrays import FloatArray

_LEVELS = np.concatenate(
    [[0.0005, 0.002, 0.005, 0.01], np.linspace(0.02, 0.98, 25), [0.99, 0.995, 0.998, 0.9995]]
)
_CLUSTERS_PER_BIN = 250
_MOST_BINS = 10
_LIMIT = 12.0
# Scale below which a summary counts as constant.
_TINY = 1e-9


@dataclass(frozen=True)
class ConditionalNormal:
    """Summaries f (n, K) -> features g (n, K): z = (f - median(N)) / scale(N), then g = ndtri(rank of z).

    Medians and scales (half the distance between the quantiles 0.16 and 0.84) are interpolated in ln N between bins of
    richness. Beyond the ranks of the training set g goes on in proportion to z, up to +-12, so that what is far
    outside stays far outside.

    Attributes:
        log_n: ln of the number of galaxies at the centres of the bins (b,), increasing.
        median, scale: (b, K).
        nodes: z at fixed ranks (q, K), increasing along the first axis.
    """

    log_n: FloatArray
    median: FloatArray
    scale: FloatArray
    nodes: FloatArray

    @classmethod
    def fit(cls, summaries: FloatArray, log_n: FloatArray) -> ConditionalNormal:
        """Measure training clusters: summaries (n, K), ln N (n,)."""
        n_bins = int(np.clip(len(log_n) // _CLUSTERS_PER_BIN, 1, _MOST_BINS))
        order = np.array_split(np.argsort(log_n, kind="stable"), n_bins)
        quantiles = np.stack([np.quantile(summaries[rows], [0.16, 0.5, 0.84], axis=0) for rows in order])
        scale = 0.5 * (quantiles[:, 2] - quantiles[:, 0])
        spread = np.maximum(summaries.std(axis=0), _TINY)
        scale = np.where(scale > 1e-3 * spread, scale, spread)
        centres = np.array([log_n[rows].mean() for rows in order])
        first = cls(centres, quantiles[:, 1], scale, np.zeros((len(_LEVELS), summaries.shape[1])))
        nodes = np.quantile(first.standardise(summaries, log_n), _LEVELS, axis=0)
        # Equal nodes (many clusters with the same count) are set apart, for the interpolation.
        nodes = nodes + 1e-9 * np.arange(len(_LEVELS))[:, None]
        return cls(centres, quantiles[:, 1], scale, nodes)

    def standardise(self, summaries: FloatArray, log_n: FloatArray) -> FloatArray:
        """z (n, K)."""
        columns = [
            (summaries[:, k] - np.interp(log_n, self.log_n, self.median[:, k]))
            / np.interp(log_n, self.log_n, self.scale[:, k])
            for k in range(summaries.shape[1])
        ]
        return np.stack(columns, axis=1)

    def __call__(self, summaries: FloatArray, log_n: FloatArray) -> FloatArray:
        """g (n, K); NaN where a summary is NaN."""
        z = self.standardise(summaries, log_n)
        scores = ndtri(_LEVELS)
        result = np.empty_like(z)
        for k in range(z.shape[1]):
            nodes = self.nodes[:, k]
            inside = np.interp(z[:, k], nodes, scores)
            middle = np.interp(0.0, scores, nodes)
            below = scores[0] - (nodes[0] - z[:, k]) * scores[-1] / max(middle - nodes[0], 0.1)
            above = scores[-1] + (z[:, k] - nodes[-1]) * scores[-1] / max(nodes[-1] - middle, 0.1)
            value = np.where(z[:, k] < nodes[0], below, np.where(z[:, k] > nodes[-1], above, inside))
            result[:, k] = np.where(np.isnan(z[:, k]), np.nan, value)
        return np.clip(result, -_LIMIT, _LIMIT)
