"""How strange a cluster is: its features against their joint distribution in the training set."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.special import ndtri

from bayesflowmass.common.arrays import BoolArray, FloatArray

# Directions in which training clusters vary less than this (variance, features have 1) are not trusted beyond it.
_SMALLEST_VARIANCE = 0.02
_LEVELS = np.concatenate([np.linspace(0.005, 0.995, 100), [0.998, 0.999, 0.9995]])


@dataclass(frozen=True)
class StrangenessScore:
    """The larger of two normal scores: of the Mahalanobis distance of all features, and of the largest |feature|.

    The first sees a combination that does not occur, the second a single summary far outside. Beyond the training set
    both go on in proportion.

    Attributes:
        whitening: W (K, K): rows of g W have unit covariance over training clusters.
        nodes: quantiles of the two statistics over training clusters at fixed levels (q, 2).
    """

    whitening: FloatArray
    nodes: FloatArray

    @classmethod
    def fit(cls, features: FloatArray) -> StrangenessScore:
        """Measure features (n, K) of training clusters."""
        variance, directions = np.linalg.eigh(np.cov(features.T))
        whitening = directions / np.sqrt(np.maximum(variance, _SMALLEST_VARIANCE))
        first = cls(whitening, np.zeros((len(_LEVELS), 2)))
        return cls(whitening, np.quantile(first._statistics(features), _LEVELS, axis=0))

    def restricted(self, known: BoolArray, features: FloatArray) -> StrangenessScore:
        """The score of some of the features, with the covariance that these have here.

        Args:
            known: which features (K,) are left.
            features: of clusters like the training set (m, K), whose quantiles the statistics are read on.
        """
        covariance = np.linalg.inv(self.whitening @ self.whitening.T)[np.ix_(known, known)]
        variance, directions = np.linalg.eigh(covariance)
        first = StrangenessScore(directions / np.sqrt(variance), self.nodes)
        return replace(first, nodes=np.quantile(first._statistics(features[:, known]), _LEVELS, axis=0))

    def whiten(self, features: FloatArray) -> FloatArray:
        """Uncorrelated features (n, K)."""
        return features @ self.whitening

    def __call__(self, features: FloatArray) -> FloatArray:
        """Score (n,), larger is stranger; NaN where a feature is."""
        statistics, scores = self._statistics(features), ndtri(_LEVELS)
        result = np.empty_like(statistics)
        for k in range(2):
            nodes = self.nodes[:, k]
            # In units in which the upper half of the training set spans as much as that of a Gaussian.
            unit = (nodes[-1] - np.interp(0.0, scores, nodes)) / scores[-1]
            beyond = scores[-1] + (statistics[:, k] - nodes[-1]) / unit
            below = scores[0] + (statistics[:, k] - nodes[0]) / unit
            inside = np.interp(statistics[:, k], nodes, scores)
            result[:, k] = np.where(statistics[:, k] > nodes[-1], beyond, inside)
            result[:, k] = np.where(statistics[:, k] < nodes[0], below, result[:, k])
        return np.asarray(result.max(axis=1))

    def _statistics(self, features: FloatArray) -> FloatArray:
        distance = np.sqrt((self.whiten(features) ** 2).sum(axis=1))
        return np.stack([distance, np.abs(features).max(axis=1)], axis=1)
