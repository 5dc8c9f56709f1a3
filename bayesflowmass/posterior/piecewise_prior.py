"""A prior of constant density between edges: the population of a training set of known, uneven composition."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bayesflowmass.common.arrays import FloatArray

__all__ = ["PiecewisePrior"]


@dataclass(frozen=True)
class PiecewisePrior:
    """Density per dex of log10 M200c [Msun/h] that is constant between consecutive edges.

    A network trained on a sample that was thinned above some mass learns p(m | d) proportional to
    L(d | m) q(m), with the thinned q. Told q, `MassPosterior.with_prior` divides by it.

    Args:
        edges: k + 1 increasing values of log10 M200c [Msun/h].
        densities: k relative densities per dex, positive; only their ratios matter.
        name: what tables call this prior.

    Raises:
        ValueError: the edges do not increase, a density is not positive, or the numbers do not fit.
    """

    edges: tuple[float, ...]
    densities: tuple[float, ...]
    name: str = "piecewise"

    def __post_init__(self) -> None:
        edges, densities = np.asarray(self.edges, np.float64), np.asarray(self.densities, np.float64)
        if len(edges) < 2 or not np.all(np.isfinite(edges)) or not np.all(np.diff(edges) > 0):
            raise ValueError(
                f"The edges of a piecewise prior are {self.edges}; at least two finite, increasing values of"
                " log10 mass [Msun/h] are expected."
            )
        if len(densities) != len(edges) - 1 or not np.all(np.isfinite(densities) & (densities > 0)):
            raise ValueError(
                f"The densities of a piecewise prior are {self.densities}; {len(edges) - 1} positive values"
                f" are expected, one for each interval between {len(edges)} edges."
            )

    @property
    def log10_mass_range(self) -> tuple[float, float]:
        """First and last edge, log10 M200c [Msun/h]."""
        return float(self.edges[0]), float(self.edges[-1])

    def log_density(self, redshift: FloatArray) -> Callable[[Tensor], Tensor]:
        """ln of the density, up to a constant, as a function of log10 mass (*, n); constant beyond the
        edges."""
        inner = torch.tensor(self.edges[1:-1], dtype=torch.float64)
        values = torch.tensor(self.densities, dtype=torch.float64).log()

        def evaluate(log10_mass: Tensor) -> Tensor:
            return values[torch.bucketize(log10_mass.contiguous(), inner, right=True)]

        return evaluate
