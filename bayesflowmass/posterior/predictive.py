"""Masses averaged over draws of the weights, as distributions of Pyro: cluster by cluster, or all together."""

from __future__ import annotations

import math
from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints


class PredictiveMass(TorchDistribution):
    """p(log10 M200c | cluster) = 1/D sum_d p(log10 M200c | cluster, w_d) of n clusters, densities per dex.

    One distribution for each cluster, batch shape (n,): samples take a draw of the weights for each of them by itself,
    as the densities do. What the clusters have in common, the weights, is in `joint`. Its ratio to the training prior
    is a likelihood factor.

    Args:
        draws: distribution of batch shape (D, n), a draw of the weights in each row, or (n,) for a point model.

    Raises:
        ValueError: the batch shape is neither.
    """

    support = constraints.real
    arg_constraints: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self, draws: Any) -> None:
        self.draws = draws
        self.n_draws = _count(draws)
        super().__init__(torch.Size(draws.batch_shape[-1:]), torch.Size())

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
        """log10 masses (*sample_shape, n), each under a draw of the weights of its own."""
        return _sample(self.draws, torch.Size(sample_shape), together=False)

    def joint(self) -> JointPredictiveMass:
        """The masses of all clusters as one event, with the correlations that shared weights give them."""
        return JointPredictiveMass(self.draws)

    def _of_draws(self, method: str, value: Tensor) -> Tensor:
        function = getattr(self.draws, method)
        result: Tensor = function(value if self.n_draws is None else value.unsqueeze(-2))
        return result


class JointPredictiveMass(TorchDistribution):
    """p(log10 masses of n clusters) = 1/D sum_d prod_i p(log10 M200c_i | cluster i, w_d), density per dex^n.

    One event of shape (n,), all of it under the same draw of the weights, in densities and samples alike: an error of
    the network that all clusters share does not average out over them. Its margins are `PredictiveMass`.

    Args:
        draws: distribution of batch shape (D, n), a draw of the weights in each row, or (n,) for a point model.

    Raises:
        ValueError: the batch shape is neither.
    """

    support = constraints.real_vector
    arg_constraints: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self, draws: Any) -> None:
        self.draws = draws
        self.n_draws = _count(draws)
        super().__init__(torch.Size(), torch.Size(draws.batch_shape[-1:]))

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density per dex^n, (*S,), at log10 masses (*S, n) [Msun/h]."""
        if self.n_draws is None:
            total: Tensor = self.draws.log_prob(value).sum(-1)
            return total
        of_draws: Tensor = self.draws.log_prob(value.unsqueeze(-2)).sum(-1)
        return of_draws.logsumexp(-1) - math.log(self.n_draws)

    @property
    def mean(self) -> Tensor:
        """Mean log10 masses, (n,)."""
        return PredictiveMass(self.draws).mean

    @property
    def variance(self) -> Tensor:
        """Variances of log10 mass, (n,), dex^2: the diagonal of the covariance."""
        return PredictiveMass(self.draws).variance

    @property
    def covariance_matrix(self) -> Tensor:
        """Covariance of log10 masses, (n, n), dex^2: off the diagonal it is that of the means over the draws."""
        variance: Tensor = self.draws.variance
        if self.n_draws is None:
            return variance.diag()
        means = self.draws.mean
        centred = means - means.mean(0)
        between: Tensor = centred.mT @ centred / self.n_draws
        return between + variance.mean(0).diag()

    def sample(self, sample_shape: torch.Size | tuple[int, ...] = ()) -> Tensor:
        """log10 masses (*sample_shape, n), each sample under one draw of the weights."""
        return _sample(self.draws, torch.Size(sample_shape), together=True)


def _count(draws: Any) -> int | None:
    """D of a batch shape (D, n); None for (n,)."""
    if len(draws.batch_shape) not in (1, 2):
        raise ValueError(
            f"A prediction needs distributions of batch shape (draws, clusters); found {tuple(draws.batch_shape)}."
        )
    return draws.batch_shape[0] if len(draws.batch_shape) == 2 else None


@torch.no_grad()
def _sample(draws: Any, shape: torch.Size, *, together: bool) -> Tensor:
    """Samples (*shape, n), of one draw of the weights for all clusters together or for each by itself."""
    samples: Tensor = draws.sample(shape)
    if len(draws.batch_shape) == 1:
        return samples
    n_draws, n = draws.batch_shape
    chosen = torch.randint(n_draws, (*shape, 1, 1 if together else n), device=samples.device)
    return samples.gather(-2, chosen.expand(*shape, 1, n)).squeeze(-2)
