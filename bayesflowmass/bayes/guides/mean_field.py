"""Independent normal weights."""

from __future__ import annotations

import math
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from bayesflowmass.bayes.guides.base import WeightGuide

__all__ = ["MeanField"]

_LOG_SQRT_TWO_PI = 0.5 * math.log(2 * math.pi)


class MeanField(WeightGuide):
    """q(w) = prod_i N(w_i; m_i, s_i^2), with parameters m and log s (Graves 2011, Blundell et al. 2015).

    The arguments are those of :class:`~bayesflowmass.bayes.guides.base.WeightGuide`.
    """

    kind = "mean_field"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.log_scale = nn.Parameter((self.init_scale * self.prior_scale()).log())

    def rsample(self, n_draws: int, generator: torch.Generator | None = None) -> Tensor:
        noise = torch.empty(n_draws, *self.loc.shape, dtype=self.loc.dtype, device=self.loc.device)
        return torch.addcmul(self.loc, self.log_scale.exp(), noise.normal_(generator=generator))

    def flat_log_prob(self, flat: Tensor) -> Tensor:
        z = (flat - self.loc) * (-self.log_scale).exp()
        return -(0.5 * z**2 + self.log_scale + _LOG_SQRT_TWO_PI).sum(-1)

    def flat_variance(self) -> Tensor:
        return (2.0 * self.log_scale).exp()

    def relative_entropy(self) -> Tensor:
        return (self.log_scale - self.prior_scale().log()).sum()

    def distribution(self) -> dist.TorchDistribution:
        return dist.Normal(self.loc, self.log_scale.exp(), validate_args=False).to_event(1)
