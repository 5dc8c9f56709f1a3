"""The likelihood of masses that were drawn from a known population."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

# ln densities that differ by less are one.
_SAME = 1e-9
# ln of the density that stands for zero, below the largest: a PDF that lies where there are no clusters then has a
# finite likelihood, and one that tells it to leave.
_NOTHING = -60.0


class TrainingPopulation(NamedTuple):
    r"""Density q(m) of log10 mass, constant in pieces, that the clusters of a training set were drawn from.

    A network is meant to give p(m | d) under a flat prior. For a cluster drawn from q the posterior is

        :math:`p_q(m | d) = p(m | d)\, q(m) \Big/ \int p(m' | d)\, q(m')\, dm',`

    so that the mean of its logarithm is the likelihood to maximise: every cluster counts once, and the network never
    has to learn the shape of q (for samples chosen by their outcome: Manski & Lerman 1977; Prentice & Pyke 1979).
    Beyond its ends q goes on as it ended, so that the network learns where the masses end; where q is flat, p_q is p.

    The integral is a sum over the pieces of q times the probability that p gives to each, from its cdf: it is exact for
    the narrowest p, which gains nothing by hiding between the nodes of a rule.

    Attributes:
        edges: where q changes, increasing, (K,), log10 M200c [Msun/h].
        log_density: ln q in the pieces that they make, (K + 1,), up to a constant.
    """

    edges: Tensor
    log_density: Tensor

    @classmethod
    def of(cls, edges: Tensor, log_density: Tensor) -> TrainingPopulation:
        """With ln q (n,), -inf where there are no clusters, between edges (n + 1,); equal neighbours become one."""
        log_density = log_density.clamp_min(float(log_density.max()) + _NOTHING)
        changes = log_density.diff().abs() > _SAME
        first = torch.cat([changes.new_ones(1), changes])
        return cls(edges[1:-1][changes], log_density[first])

    def to(self, device: torch.device) -> TrainingPopulation:
        """On a device: while a CUDA graph is captured nothing can be copied there."""
        return TrainingPopulation(self.edges.to(device), self.log_density.to(device))

    def log_likelihood(self, log10_mass: Tensor, log_prob: Tensor, probabilities: Tensor) -> Tensor:
        """ln p_q, (*B,).

        Args:
            log10_mass: (*B,).
            log_prob: ln p there, (*B,).
            probabilities: that p gives to each piece, (K + 1, *B).
        """
        density = (self.log_density - self.log_density.max()).to(log_prob)
        here = density[torch.bucketize(log10_mass, self.edges.to(log10_mass), right=True)]
        # Not a matrix product, whose precision autocast and TF32 lower.
        total = (density.exp().view(-1, *[1] * log_prob.ndim) * probabilities).sum(0)
        return log_prob + here - total.log()
