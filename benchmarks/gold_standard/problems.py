"""The problems of the gold standard, in numpy: five data sets with a gap, two networks each, and their prior.

log10 mass is normal with the mean and the log standard deviation that a network of tanh layers gives, in units of
``loc`` and ``scale``: an affine flow of one block. Its weights are one vector, layer by layer, matrix (row by row) and
then bias, as `ConditionalFlow.named_parameters()` has them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
Draw = Callable[[np.random.Generator, int, str], tuple[FloatArray, FloatArray]]

OUT = Path(__file__).resolve().parents[2] / "docs/results/gold_standard"
NETWORKS: dict[str, tuple[int, ...]] = {"one layer": (30,), "two layers": (20, 20)}
GAIN = 1.5
REGIONS = ("inside", "gap")
N_CONTEXTS, N_TEST = 80, 1000


@dataclass(frozen=True)
class Problem:
    """A data set.

    Args:
        name: of the problem.
        n_train: clusters.
        dims: of the context.
        scale: unit of log10 mass [dex] about ``loc``.
        draw: generator, number, region -> contexts (n, dims) and log10 masses (n,).
    """

    name: str
    n_train: int
    dims: int
    scale: float
    draw: Draw
    loc: float = 14.3

    def clusters(self, n: int, seed: int, region: str = "inside") -> tuple[FloatArray, FloatArray]:
        """Contexts (n, dims) and log10 masses (n,) of a region."""
        return self.draw(np.random.default_rng([seed, REGIONS.index(region)]), n, region)

    def masses(self) -> FloatArray:
        """Where cdfs are compared, (M,)."""
        return self.loc + self.scale * np.linspace(-8.0, 8.0, 161)


def on_a_line(
    mean: Callable[[FloatArray], FloatArray],
    sd: Callable[[FloatArray], FloatArray],
    **intervals: Sequence[tuple[float, float]],
) -> Draw:
    """Contexts of one number, uniform in the intervals of a region."""

    def draw(rng: np.random.Generator, n: int, region: str) -> tuple[FloatArray, FloatArray]:
        ends = np.array(intervals[region])
        low, high = ends[rng.integers(len(ends), size=n)].T
        x = rng.uniform(low, high)
        return x[:, None], rng.normal(mean(x), sd(x))

    return draw


def ring(rng: np.random.Generator, n: int, region: str) -> tuple[FloatArray, FloatArray]:
    """Contexts of two numbers: on a ring, with nothing in its hole."""
    low, high = {"inside": (1.2, 2.0), "gap": (0.0, 0.6)}[region]
    radius, angle = np.sqrt(rng.uniform(low**2, high**2, n)), rng.uniform(0, 2 * np.pi, n)
    x = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], -1)
    return x, rng.normal(14.3 + 0.15 * x[:, 0] + 0.1 * np.sin(1.5 * x[:, 1]), 0.12)


def haloes(rng: np.random.Generator, n: int, region: str) -> tuple[FloatArray, FloatArray]:
    """Four noisy measurements of a mass: many light haloes, a tenth of heavy ones, none between."""
    light = np.minimum(13.9 + rng.exponential(0.25, n), 14.6)
    heavy = rng.uniform(15.1, 15.4, n)
    mass = np.where(rng.random(n) < 0.1, heavy, light) if region == "inside" else rng.uniform(14.75, 14.95, n)
    x = (mass[:, None] - 14.4) / 0.4 + rng.normal(0.0, [0.3, 0.5, 0.7, 0.9], (n, 4))
    x[:, 1] = 2 * np.tanh(x[:, 1] / 2)
    return x, mass


PROBLEMS = {
    problem.name: problem
    for problem in (
        Problem("sine", 60, 1, 0.27, on_a_line(
            lambda x: 14.3 + 0.3 * np.sin(1.5 * x), lambda x: 0.15 * (1 + 0.3 * np.tanh(x)),
            inside=((-2.0, -0.8), (0.8, 2.0)), gap=((-0.55, 0.55),))),
        Problem("scatter", 200, 1, 0.25, on_a_line(
            lambda x: 14.3 + 0.15 * x, lambda x: 0.06 * np.exp(0.5 * x),
            inside=((-2.0, -1.0), (0.5, 2.0)), gap=((-0.75, 0.25),))),
        Problem("step", 100, 1, 0.25, on_a_line(
            lambda x: 14.3 + 0.25 * np.tanh(4 * (x - 1)), lambda x: np.full_like(x, 0.1),
            inside=((-2.0, -0.5), (0.6, 2.0)), gap=((-0.25, 0.35),))),
        Problem("ring", 150, 2, 0.25, ring),
        Problem("haloes", 200, 4, 0.35, haloes),
    )
}  # fmt: skip


def layers(problem: Problem, network: str) -> list[tuple[int, int]]:
    """Numbers of inputs and outputs of each layer."""
    return list(pairwise((problem.dims, *NETWORKS[network], 2)))


def prior_scales(problem: Problem, network: str) -> FloatArray:
    """Standard deviations (P,) of the normal prior: gain / sqrt(fan-in) of weights, 1 of biases."""
    parts = [np.repeat([GAIN / np.sqrt(n), 1.0], [n * m, m]) for n, m in layers(problem, network)]
    return np.concatenate(parts)


def outputs(weights: Any, x: Any, sizes: Sequence[tuple[int, int]], tanh: Any) -> tuple[Any, Any]:
    """Standardised mean and log standard deviation, each (n,), of weights (P,) at contexts (n, dims)."""
    start = 0
    for k, (n, m) in enumerate(sizes):
        matrix, start = weights[start : start + n * m].reshape(m, n), start + n * m
        x = (tanh(x) if k else x) @ matrix.T + weights[start : start + m]
        start += m
    return x[:, 0], x[:, 1]
