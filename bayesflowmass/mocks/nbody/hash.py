"""Random numbers that belong to a halo: functions of its id, whatever other haloes there are.

A catalogue for training and one for testing, cut from one box with other settings and another seed, must agree
on which halo is on which side; and a halo keeps its lines of sight when its neighbours in the file change.
"""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

from bayesflowmass.common.arrays import FloatArray, IntArray

_STEP = np.uint64(0x9E3779B97F4A7C15)
_MULTIPLIERS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


def hashed_uniform(ids: IntArray, purpose: str, seed: int = 0) -> FloatArray:
    """Numbers (n,) in [0, 1) that depend on id, purpose and seed, by SplitMix64 (Steele et al. 2014)."""
    state = np.ascontiguousarray(ids, dtype=np.int64).view(np.uint64)
    for word in (seed, zlib.crc32(purpose.encode())):
        state = _mixed((state ^ _mixed(np.array([word], dtype=np.uint64) + _STEP)) + _STEP)
    # The upper 53 bits, which a double holds.
    return np.asarray((state >> np.uint64(11)) * 2.0**-53, dtype=np.float64)


def fold_of(halo_id: IntArray, n_folds: int) -> IntArray:
    """Fold (n,), 0 to n_folds - 1, of each halo: of its id alone, so that no seed puts it on two sides.

    Raises:
        ValueError: if there is less than one fold.
    """
    if n_folds < 1:
        raise ValueError(f"n_folds is {n_folds}; expected at least 1.")
    return (hashed_uniform(halo_id, "fold") * n_folds).astype(np.int64)


def _mixed(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    for shift, multiplier in zip((30, 27), _MULTIPLIERS, strict=True):
        state = (state ^ (state >> np.uint64(shift))) * multiplier
    return state ^ (state >> np.uint64(31))
