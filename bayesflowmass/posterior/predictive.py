"""The predictive distribution of masses, averaged over weights, as a distribution of Pyro."""

from __future__ import annotations

import math
from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints

__all__ = ["PredictiveMass"]


class PredictiveMass(TorchDistribution):
    """p(log10 M200c | cluster) = 1/D sum_d p(log10 M200c | cluster, w_d) of n clusters, densities per dex.

    ``log_prob`` and ``cdf`` are those of each cluster, batch shape (n,). A sample takes one draw of the weights for
    all clusters, so that sums over clusters have the correlations that shared weights give them. Its ratio to
    the training prior is a likelihood factor.

    Args:
        draws: distribution of batch shape (D, n), a draw of the weights in each row, or (n,) for a point model.

    Raises:
        ValueError: the batch shape is neither.
    """

    support = constraints.real
    arg_constraints: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self, draws: Any) -> None:
        if len(draws.batch_shape) not in (1, 2):
            raise ValueError(
                f"A prediction needs distributions of batch shape (draws, clusters); found {tuple(draws.batch_shape)}."
            )
        self.draws = draws
        self.n_draws: int | None = draws.batch_shape[0] if len(draws.batch_shape) == 2 else None
        super().__init__(torch.Size(draws.batch_shape[-1:]), torch.Size(), validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density per dex, (*S, n), at log10 masses (*S, n) [Msun/h]."""
        if self.n_draws is None:
            return self._of_draws("log_prob", value)
        return self._of_draws("log_prob", value).logsumexp(-2) - math.log(self.n_draws)

    def cdf(self, value: Tensor) -> Tensor:
        """P(< value), (*S, n)."""
        values = self._of_draws("cdf", value)
        return values if self.n_draws is None else values.mean(-2)

    @property
    def mean(self) -> Tensor:
        """Mean log10 mass, (n,)."""
        mean: Tensor = self.draws.mean
        return mean if self.n_draws is None else mean.mean(0)

    @property
    def variance(self) -> Tensor:
        """Variance of log10 mass, (n,), dex^2: aleatoric and epistemic together."""
        variance: Tensor = self.draws.variance
        if self.n_draws is None:
            return variance
        total: Tensor = variance.mean(0) + self.draws.mean.var(0, unbiased=False)
        return total

    def sample(self, sample_shape: torch.Size | tuple[int, ...] = ()) -> Tensor:
        """log10 masses (*sample_shape, n), each sample under one draw of the weights."""
        shape = torch.Size(sample_shape)
        with torch.no_grad():
            samples: Tensor = self.draws.sample(shape)
            if self.n_draws is None:
                return samples
            draw = torch.randint(self.n_draws, (*shape, 1, 1), device=samples.device)
            chosen: Tensor = samples.gather(-2, draw.expand(*shape, 1, samples.shape[-1])).squeeze(-2)
            return chosen

    def _of_draws(self, method: str, value: Tensor) -> Tensor:
        function = getattr(self.draws, method)
        result: Tensor = function(value if self.n_draws is None else value.unsqueeze(-2))
        return result
