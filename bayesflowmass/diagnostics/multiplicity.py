"""Many tests, one error rate."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from bayesflowmass.common.arrays import FloatArray


def holm(p_values: ArrayLike) -> FloatArray:
    """Adjusted p-values, shape of the input: below alpha for a true hypothesis with probability at most alpha.

    p_(i) -> max_{j <= i} min(1, (m - j + 1) p_(j)) (Holm 1979), whatever the dependence between the tests. NaN
    stands for a test that was not made: it stays NaN and does not count.
    """
    p = np.asarray(p_values, dtype=np.float64)
    flat = p.ravel()
    made = np.flatnonzero(np.isfinite(flat))
    order = made[np.argsort(flat[made], kind="stable")]
    adjusted = np.full(flat.size, np.nan)
    factors = np.arange(made.size, 0, -1)
    adjusted[order] = np.maximum.accumulate(np.minimum(1.0, factors * flat[order])) if made.size else []
    return adjusted.reshape(p.shape)
