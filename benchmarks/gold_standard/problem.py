"""The problem of the gold standard, in numpy: clusters on a line with a gap, a network of 34 weights, its prior.

log10 mass is normal with the mean and the log standard deviation that a network 1 - 8 tanh - 2 gives, in units of
LOC and SCALE: an affine flow of one block. The weights are one vector: hidden weights (8), hidden biases (8), output
weights (2 x 8, row by row), output biases (2), as `ConditionalFlow.named_parameters()` has them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

OUT = Path(__file__).resolve().parents[2] / "docs/results/gold_standard"
HIDDEN, N_TRAIN = 8, 60
LOC, SCALE = 14.3, 0.27
GAP, EDGE = 0.8, 2.0
GAIN = 1.5
SIZES = (HIDDEN, HIDDEN, 2 * HIDDEN, 2)
GRID = np.linspace(-3.0, 3.0, 61)


def prior_scales() -> FloatArray:
    """Standard deviations (34,) of the normal prior: gain / sqrt(fan-in) of weights, 1 of biases."""
    return np.repeat([GAIN, 1.0, GAIN / np.sqrt(HIDDEN), 1.0], SIZES)


def truth(x: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Mean and standard deviation of log10 mass [dex] at contexts x."""
    return 14.3 + 0.3 * np.sin(1.5 * x), 0.15 * (1 + 0.3 * np.tanh(x))


def clusters(n: int, seed: int, region: tuple[float, float] = (GAP, EDGE)) -> tuple[FloatArray, FloatArray]:
    """Contexts (n,), |x| uniform in a region, and log10 masses (n,)."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(*region, n) * rng.choice([-1.0, 1.0], n)
    mean, sd = truth(x)
    return x, rng.normal(mean, sd)


def outputs(weights: Any, x: Any, tanh: Any) -> tuple[Any, Any]:
    """Standardised mean and log standard deviation, each (n,), of weights (34,) at contexts (n,)."""
    a, b, c, d = (weights[start : start + n] for start, n in zip(np.cumsum((0, *SIZES)), SIZES, strict=False))
    hidden = tanh(x[:, None] * a + b)
    return hidden @ c[:HIDDEN] + d[0], hidden @ c[HIDDEN:] + d[1]
