"""A posterior whose cdf goes through a monotone map: what a recalibration makes of it."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from bayesflowmass.posterior.density import Density

__all__ = ["CdfMap", "RecalibratedDensity"]


class CdfMap(Protocol):
    """Increasing maps R of [0, 1] onto itself, one for each of n clusters."""

    @property
    def label(self) -> str:
        """What was recalibrated on what, for headers of tables."""
        ...

    def __call__(self, u: Tensor) -> Tensor:
        """R(u), (k, n) -> (k, n)."""
        ...

    def log_slope(self, u: Tensor) -> Tensor:
        """ln dR/du, (k, n) -> (k, n)."""
        ...

    def inverse(self, p: Tensor) -> Tensor:
        """u with R(u) = p, (k, n) -> (k, n)."""
        ...

    def conformal_level(self, level: float) -> Tensor:
        """Level (n,) of the central interval that holds the truth with probability ``level`` in finite samples."""
        ...


class RecalibratedDensity:
    """p(m) = p_raw(m) R'(F_raw(m)), F(m) = R(F_raw(m)).

    Args:
        raw: density before.
        cdf_map: R.
    """

    def __init__(self, raw: Density, cdf_map: CdfMap) -> None:
        self.raw = raw
        self.cdf_map = cdf_map

    @property
    def n_clusters(self) -> int:
        return self.raw.n_clusters

    def log_pdf(self, x: Tensor) -> Tensor:
        """ln of the density per dex, (k, n) -> (k, n)."""
        raw = self.raw.log_pdf(x)
        value = raw + self.cdf_map.log_slope(self._raw_cdf(x))
        # Outside the range of a prior the slope of the map has no meaning.
        return torch.where(raw == -torch.inf, raw, value)

    def cdf(self, x: Tensor) -> Tensor:
        """P(log10 mass < x), (k, n) -> (k, n)."""
        return self.cdf_map(self._raw_cdf(x))

    def window(self) -> tuple[Tensor, Tensor]:
        """Limits (n,) that hold all but a negligible probability."""
        return self.raw.window()

    def _raw_cdf(self, x: Tensor) -> Tensor:
        # Sums over draws may exceed 1 by rounding.
        return self.raw.cdf(x).clamp(0.0, 1.0)
