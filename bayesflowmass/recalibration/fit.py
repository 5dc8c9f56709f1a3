"""Fit a monotone map to PIT values, or leave them alone where they do not ask for one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import betaln, log_ndtr, ndtri

from bayesflowmass.common.arrays import FloatArray
from bayesflowmass.recalibration.maps import DEGREE, TAIL, StagedMap, elevate

_SCALE_LIMITS = (0.2, 5.0)
_DEGREES = (2, 4, 8, 16)
# Clusters' worth of the identity mixed into a polynomial: no density may vanish.
_PRIOR_COUNT = 2.0
_EM_STEPS = 300
# Gain of one step [nats, all clusters together] below which no criterion would notice.
_CONVERGED = 1e-3


@dataclass(frozen=True)
class FittedStage:
    """One map R = B o A.

    Attributes:
        shift, log_scale: a, ln b.
        coefficients: W (K + 1,), K = 16.
        choice: ``"none"``, ``"shift and scale"`` or ``"shape of degree k"``.
        gain: mean improvement of the log score of the PITs that it was fitted to [nats].
    """

    shift: float
    log_scale: float
    coefficients: FloatArray
    choice: str
    gain: float


def identity_stage() -> FittedStage:
    """The map that changes nothing."""
    return FittedStage(0.0, 0.0, np.linspace(0.0, 1.0, DEGREE + 1), "none", 0.0)


def halo_weights(halo_id: npt.ArrayLike) -> FloatArray:
    """1 / (clusters of the halo) for each cluster (n,): projections of one halo count as one cluster together."""
    _, index, size = np.unique(np.asarray(halo_id), return_inverse=True, return_counts=True)
    return np.asarray(1.0 / size[index.reshape(-1)])


def fit_stage(pit: FloatArray, weight: FloatArray) -> FittedStage:
    """The map that makes PIT values uniform, of the complexity that they support.

    Candidates are the identity, shift and scale (maximum likelihood in normal scores), and on top of these a
    Bernstein polynomial of degree 2, 4, 8 or 16 (expectation maximisation over its Beta components). The smallest
    Bayesian information criterion with the number of haloes as sample size is taken, so that a calibrated posterior is
    left exactly as it is but for a few times in a thousand.

    Args:
        pit: raw cdf at the truth (n,).
        weight: `halo_weights` (n,).
    """
    n = float(weight.sum())
    identity = identity_stage()
    if n < 30:
        return identity
    # What lies beyond is counted as lying there: a handful of outliers must not set the width of all.
    z = ndtri(np.clip(pit, TAIL, 1.0 - TAIL))
    mean = float(weight @ z / n)
    scale = float(np.clip(np.sqrt(weight @ (z - mean) ** 2 / n), *_SCALE_LIMITS))
    moved = (z - mean) / scale
    affine = float(weight @ (0.5 * (z * z - moved * moved) - np.log(scale)))
    candidates = [(0.0, identity)]
    even = identity.coefficients
    candidates.append(
        (
            2.0 * affine - 2.0 * np.log(n),
            FittedStage(mean, float(np.log(scale)), even, "shift and scale", affine / n),
        )
    )
    log_u, log_v = log_ndtr(moved), log_ndtr(-moved)
    for degree in _DEGREES:
        weights, gain = _fit_bernstein(log_u, log_v, weight, degree)
        total = affine + gain
        coefficients = np.concatenate([[0.0], np.cumsum(weights)])
        wide = elevate(torch.from_numpy(coefficients), DEGREE).numpy()
        wide[0], wide[-1] = 0.0, 1.0
        stage = FittedStage(mean, float(np.log(scale)), wide, f"shape of degree {degree}", total / n)
        candidates.append((2.0 * total - (degree + 1.0) * np.log(n), stage))
    return max(candidates, key=lambda candidate: candidate[0])[1]


def _fit_bernstein(
    log_u: FloatArray, log_v: FloatArray, weight: FloatArray, degree: int
) -> tuple[FloatArray, float]:
    """Mixture weights (K,) of Beta(k, K - k + 1) and the gain in log score over the uniform density."""
    k = np.arange(1, degree + 1)
    log_density = (k - 1) * log_u[:, None] + (degree - k) * log_v[:, None] - betaln(k, degree - k + 1)
    density = np.exp(np.maximum(log_density, -700.0))
    total = weight.sum()
    mixture, gain = np.full(degree, 1.0 / degree), -np.inf
    for _ in range(_EM_STEPS):
        height = density @ mixture
        before, gain = gain, float(weight @ np.log(height))
        if gain - before < _CONVERGED:
            break
        expected = mixture * ((weight / height) @ density)
        mixture = (expected + _PRIOR_COUNT / degree) / (total + _PRIOR_COUNT)
    return mixture, gain


def stage_map(stages: list[FittedStage]) -> StagedMap:
    """The composition of stages as a map of a single column."""
    return StagedMap(
        torch.tensor([[s.shift] for s in stages], dtype=torch.float64),
        torch.tensor([[s.log_scale] for s in stages], dtype=torch.float64),
        torch.from_numpy(np.stack([s.coefficients[None] for s in stages])),
        torch.zeros(1, 0, dtype=torch.float64),
        torch.zeros(1, dtype=torch.int64),
    )
