"""Runs of consecutive clusters that hold few enough galaxies together to be worked on at once."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from bayesflowmass.common.arrays import IntArray


def cluster_slices(offsets: IntArray, most_clusters: int, most_galaxies: int) -> Iterator[tuple[int, int]]:
    """First row and the row after the last of each run; together they are all clusters, in order.

    Args:
        offsets: where the galaxies of each cluster begin, and their number at the end (n + 1,).
        most_clusters: of a run.
        most_galaxies: of a run; a cluster that has more is a run of its own.
    """
    first, n = 0, len(offsets) - 1
    while first < n:
        within = int(np.searchsorted(offsets, offsets[first] + most_galaxies, side="right")) - 1
        last = min(n, first + most_clusters, max(first + 1, within))
        yield first, last
        first = last
