"""Normal weights with a covariance of low rank beside a diagonal."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from bayesflowmass.bayes.choice import Choice
from bayesflowmass.bayes.guides.base import WeightGuide
from bayesflowmass.bayes.guides.noise import standard_normal
from bayesflowmass.bayes.priors import Prior

__all__ = ["LowRank"]

_LOG_TWO_PI = math.log(2 * math.pi)


class LowRank(WeightGuide):
    """q(w) = N(w; m, D^2 + F^T F), D diagonal and F (K, P): the K directions in which weights move together.

    Draws are m + D e + F^T z with e (P,) and z (K,) standard normal. Entropy and density need no matrix larger
    than K x K, C = I + F D^-2 F^T (determinant lemma and Woodbury's identity): a step costs 2 + K passes over
    the weights and one product of K x P with P x K. Compare Ong, Nott & Smith 2018, arXiv:1701.03208.

    Args:
        module, prior, which, init_scale, name: see :class:`~bayesflowmass.bayes.guides.base.WeightGuide`.
        rank: K.

    Raises:
        ValueError: if the rank is not positive.
    """

    kind = "low_rank"

    def __init__(
        self,
        module: nn.Module,
        prior: Prior | None = None,
        which: Choice | None = None,
        *,
        rank: int = 5,
        init_scale: float = 0.1,
        name: str | None = None,
    ) -> None:
        super().__init__(module, prior, which, init_scale=init_scale, name=name)
        if rank < 1:
            raise ValueError(f"The rank is {rank}; expected at least 1 (the mean-field guide has none).")
        self.rank = rank
        start = self.init_scale * self.prior_scale()
        self.log_diagonal = nn.Parameter(start.log())
        # Not zero, where the gradient vanishes, and the same for every run.
        generator = torch.Generator(start.device).manual_seed(0)
        noise = standard_normal((rank, len(start)), start, generator)
        self.factor = nn.Parameter(noise * (0.3 / math.sqrt(rank)) * start)

    def options(self) -> dict[str, Any]:
        return {"rank": self.rank}

    @property
    def n_noise(self) -> int:
        return self.rank + self.layout.n_weights

    def transform(self, noise: Tensor) -> Tensor:
        along, each = noise.split([self.rank, self.layout.n_weights], -1)
        flat: Tensor = torch.addcmul(self.loc, self.log_diagonal.exp(), each) + along @ self.factor
        return flat

    def flat_log_prob(self, flat: Tensor) -> Tensor:
        z = (flat - self.loc) * (-self.log_diagonal).exp()
        scaled = self._scaled_factor()
        root = torch.linalg.cholesky(self._capacitance(scaled))
        solved = torch.linalg.solve_triangular(root, (z @ scaled.mT).unsqueeze(-1), upper=False).squeeze(-1)
        square = z.square().sum(-1) - solved.square().sum(-1)
        log_det = 2.0 * (self.log_diagonal.sum() + root.diagonal().log().sum())
        log_prob: Tensor = -0.5 * (square + log_det + flat.shape[-1] * _LOG_TWO_PI)
        return log_prob

    def flat_variance(self) -> Tensor:
        return (2.0 * self.log_diagonal).exp() + self.factor.square().sum(0)

    def relative_entropy(self) -> Tensor:
        entropy: Tensor = (self.log_diagonal - self.prior_scale().log()).sum()
        return entropy + 0.5 * torch.logdet(self._capacitance(self._scaled_factor()))

    def _scaled_factor(self) -> Tensor:
        return self.factor * (-self.log_diagonal).exp()

    def _capacitance(self, scaled: Tensor) -> Tensor:
        return torch.eye(self.rank, dtype=scaled.dtype, device=scaled.device) + scaled @ scaled.mT
