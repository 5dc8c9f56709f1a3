"""Regular grids of bins over phase space."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor


@cache
def _gauss_legendre(
    order: int,
) -> tuple[np.ndarray[Any, np.dtype[np.float64]], np.ndarray[Any, np.dtype[np.float64]]]:
    nodes, weights = np.polynomial.legendre.leggauss(order)
    return nodes, weights


@dataclass(frozen=True)
class Grid:
    """A regular grid of bins in any number of dimensions.

    Args:
        shape: bins along each axis.
        lower: lower edge of each axis, in the units of that axis.
        upper: upper edge of each axis.

    Raises:
        ValueError: if the lengths differ, a shape is not positive or an upper edge is not above its lower
            edge.
    """

    shape: tuple[int, ...]
    lower: tuple[float, ...]
    upper: tuple[float, ...]

    def __init__(self, shape: Sequence[int], lower: Sequence[float], upper: Sequence[float]) -> None:
        object.__setattr__(self, "shape", tuple(int(n) for n in shape))
        object.__setattr__(self, "lower", tuple(float(x) for x in lower))
        object.__setattr__(self, "upper", tuple(float(x) for x in upper))
        if not self.shape or not len(self.shape) == len(self.lower) == len(self.upper):
            raise ValueError(
                f"grid shape, lower and upper edges must have one entry per axis, "
                f"but have {len(self.shape)}, {len(self.lower)} and {len(self.upper)}"
            )
        for axis, (n, low, high) in enumerate(zip(self.shape, self.lower, self.upper, strict=True)):
            if n < 1:
                raise ValueError(f"axis {axis} of the grid has {n} bins; at least one is needed")
            if not (math.isfinite(low) and math.isfinite(high) and low < high):
                raise ValueError(
                    f"axis {axis} of the grid runs from {low} to {high}; the upper edge must be the "
                    f"larger one"
                )

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of bins."""
        return math.prod(self.shape)

    @property
    def spacing(self) -> tuple[float, ...]:
        """Width of a bin along each axis."""
        return tuple((b - a) / n for a, b, n in zip(self.lower, self.upper, self.shape, strict=True))

    @property
    def middle(self) -> tuple[float, ...]:
        """Centre of the whole grid."""
        return tuple(0.5 * (a + b) for a, b in zip(self.lower, self.upper, strict=True))

    def nodes(self, axis: int, order: int = 1) -> Tensor:
        """Gauss-Legendre nodes of every bin of one axis; for order 1 the bin centres.

        Args:
            axis: which axis.
            order: nodes per bin.

        Returns:
            (shape[axis] * order,) float64, increasing, on the CPU.
        """
        inside = _gauss_legendre(order)[0]
        bins = np.arange(self.shape[axis])[:, None] + 0.5 * (1.0 + inside)
        return torch.from_numpy(self.lower[axis] + self.spacing[axis] * bins.reshape(-1))

    @staticmethod
    def node_weights(order: int) -> Tensor:
        """Gauss-Legendre weights (order,) of the mean over a bin; they sum to one."""
        return torch.from_numpy(0.5 * _gauss_legendre(order)[1])

    def contains(self, points: Tensor) -> Tensor:
        """Whether each point, shape (..., ndim), lies inside the grid, edges included."""
        lower = torch.tensor(self.lower, dtype=torch.float64, device=points.device)
        upper = torch.tensor(self.upper, dtype=torch.float64, device=points.device)
        return ((points >= lower) & (points <= upper)).all(-1)
