"""A posterior whose cdf goes through a monotone map: what a recalibration makes of it."""

from __future__ import annotations

from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from bayesflowmass.common.arrays import FloatArray
from bayesflowmass.posterior.density import Density
from bayesflowmass.posterior.draws import Disagreement, DrawPosteriors

# Quantiles are asked for inside these limits: those of 0 and 1 are infinite.
_SMALLEST, _LAST_DIGIT = 1e-300, 2.0**-53


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

    def part(self, rows: Tensor) -> CdfMap:
        """The maps in rows (m,)."""
        ...

    def conformal_level(self, level: float) -> Tensor:
        """Level (n,) of the central interval that holds the truth with probability ``level`` in finite samples."""
        ...


class RecalibratedDensity(Density):
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

    @property
    def n_draws(self) -> int | None:
        return self.raw.n_draws

    def part(self, rows: Tensor) -> RecalibratedDensity:
        return RecalibratedDensity(self.raw.part(rows), self.cdf_map.part(rows))

    def log_pdf(self, x: Tensor) -> Tensor:
        return self._map(*self.raw.log_pdf_and_cdf(x))[0]

    def cdf(self, x: Tensor) -> Tensor:
        # Sums over draws may exceed 1 by rounding.
        return self.cdf_map(self.raw.cdf(x).clamp(0.0, 1.0))

    def log_pdf_and_cdf(self, x: Tensor) -> tuple[Tensor, Tensor]:
        log_pdf, u = self._map(*self.raw.log_pdf_and_cdf(x))
        return log_pdf, self.cdf_map(u)

    def window(self) -> tuple[Tensor, Tensor]:
        return self.raw.window()

    def quantile(self, p: Tensor) -> Tensor:
        """Through the exact inverse of the map, so as exact as those of the raw density."""
        return self.raw.quantile(self.cdf_map.inverse(p).clamp(_SMALLEST, 1.0 - _LAST_DIGIT))

    @cached_property
    def disagreement(self) -> Disagreement | None:
        """A map of the cdf does not know which part was wrong: both change in proportion."""
        before = self.raw.disagreement
        factor = (self.moments[1] / self.raw.moments[1]).sqrt().numpy()
        return before and before._replace(
            sigma_aleatoric=factor * before.sigma_aleatoric, sigma_epistemic=factor * before.sigma_epistemic
        )

    @property
    def mutual_information(self) -> FloatArray | None:
        return self.raw.mutual_information

    def of_draws(self, at: Tensor | None = None) -> DrawPosteriors:
        raise ValueError("A recalibration has no draws of the weights; take those of `posterior.raw`.")

    def _map(self, log_pdf: Tensor, cdf: Tensor) -> tuple[Tensor, Tensor]:
        """ln of the density, and the raw cdf inside [0, 1]."""
        u = cdf.clamp(0.0, 1.0)
        # Outside the range of a prior the slope of the map has no meaning.
        value = torch.where(log_pdf == -torch.inf, log_pdf, log_pdf + self.cdf_map.log_slope(u))
        return value, u
