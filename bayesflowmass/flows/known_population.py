"""The likelihood of masses that were drawn from a known population."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["TrainingPopulation"]


class TrainingPopulation(NamedTuple):
    r"""Density q(m) of log10 mass, constant in cells, that the clusters of a training set were drawn from.

    A network is meant to give p(m | d) under a flat prior. Of a cluster that was drawn from q the data make the mass m
    as probable as

        :math:`p_q(m | d) = p(m | d)\, q(m) \Big/ \int p(m' | d)\, q(m')\, dm',`

    so that the mean of its logarithm is the likelihood to maximise: every cluster counts once, and the network never
    has to learn the shape of q (for samples chosen by their outcome: Manski & Lerman 1977; Prentice & Pyke 1979).
    Beyond its ends q goes on as it ended, so that the network learns where the masses end; where q is flat, p_q is p.

    Attributes:
        low: where the first cell begins, log10 M200c [Msun/h].
        width: of a cell, dex.
        log_density: (n,), ln q up to a constant; -inf where there are no clusters.
        points: centres of the cells, then both ends, (n + 2,), log10 M200c [Msun/h].
    """

    low: float
    width: float
    log_density: Tensor
    points: Tensor

    @classmethod
    def of(cls, low: float, high: float, log_density: Tensor) -> TrainingPopulation:
        """With cells of equal width from ``low`` to ``high`` [log10 Msun/h]."""
        n = len(log_density)
        width = (high - low) / n
        centres = low + width * (torch.arange(n, dtype=torch.float64) + 0.5)
        points = torch.cat([centres, torch.tensor([low, high], dtype=torch.float64)])
        return cls(low, width, log_density, points.to(log_density.device))

    def to(self, device: torch.device) -> TrainingPopulation:
        """On a device: while a CUDA graph is captured nothing can be copied there."""
        return self._replace(log_density=self.log_density.to(device), points=self.points.to(device))

    def log_likelihood(
        self, log10_mass: Tensor, log_prob: Tensor, at_centres: Tensor, below: Tensor, above: Tensor
    ) -> Tensor:
        """ln p_q, (*B,).

        Args:
            log10_mass: (*B,).
            log_prob: ln p there, (*B,).
            at_centres: ln p at the centres of the cells, (n, *B).
            below, above: ln of the probability that p gives to masses below the first and above the last cell, (*B,).
        """
        density = self.log_density.to(log_prob)
        cell = ((log10_mass - self.low) / self.width).long().clamp(0, len(density) - 1)
        inside = at_centres + (density + math.log(self.width)).view(-1, *[1] * log_prob.ndim)
        ends = torch.stack([below + density[0], above + density[-1]])
        return log_prob + density[cell] - torch.logsumexp(torch.cat([inside, ends]), 0)
