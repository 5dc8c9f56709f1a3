"""Sums over groups of clusters, under many weightings of one sample at once."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from bayesflowmass.common.arrays import FloatArray, IntArray


class GroupSums:
    """Weighted sums of columns in each group; what does not depend on the weights is prepared once.

    Clusters are sorted by group, so that the sums of a group are one matrix product.

    Args:
        group: of each cluster (n,), from 0 to k - 1.
        n_groups: k.
        columns: c numbers of each cluster, each (n,).
    """

    def __init__(self, group: IntArray, n_groups: int, columns: Sequence[FloatArray]) -> None:
        self._order = np.argsort(group, kind="stable")
        self._ends = np.searchsorted(group[self._order], np.arange(n_groups + 1))
        self._columns = np.empty((group.size, len(columns)))
        for i, column in enumerate(columns):
            self._columns[:, i] = column[self._order]

    def __call__(self, counts: FloatArray) -> FloatArray:
        """Sums (c, b, k) under each row of ``counts`` (b, n)."""
        weights = counts[:, self._order]
        sums = [weights[:, i:j] @ self._columns[i:j] for i, j in pairwise(self._ends)]
        return np.stack(sums, axis=-1).transpose(1, 0, 2)
