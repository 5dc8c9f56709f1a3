"""q and p of the weights of a module as distributions of Pyro over one flat vector."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints, register_kl

from bayesflowmass.bayes.layout import WeightLayout
from bayesflowmass.bayes.priors import WeightPrior

__all__ = ["NormalFamily", "PriorDistribution", "WeightDistribution"]


class NormalFamily(Protocol):
    """What a distribution of weights needs of a guide."""

    layout: WeightLayout
    prior: WeightPrior
    loc: Tensor

    @property
    def n_noise(self) -> int:
        """K."""
        ...

    def transform(self, noise: Tensor) -> Tensor:
        """Draws (D, P) of noise (D, K)."""
        ...

    def rsample(self, n_draws: int) -> Tensor:
        """Draws (n_draws, P)."""
        ...

    def flat_log_prob(self, flat: Tensor) -> Tensor:
        """log q, (*D,), of (*D, P)."""
        ...

    def flat_variance(self) -> Tensor:
        """(P,)."""
        ...

    def kl(self) -> Tensor:
        """KL(q || p)."""
        ...


class _FlatWeights(dist.TorchDistribution):
    """A distribution over P weights, event shape (P,), whose batch is of independent copies."""

    arg_constraints: ClassVar[dict[str, Any]] = {}
    support = constraints.real_vector
    has_rsample = True

    def __init__(self, n_weights: int, batch_shape: torch.Size) -> None:
        super().__init__(batch_shape, torch.Size([n_weights]), validate_args=False)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Differentiable draws (*sample_shape, *batch_shape, P)."""
        shape = torch.Size(sample_shape) + self.batch_shape
        return self._rows(math.prod(shape)).reshape(*shape, -1)

    def log_prob(self, value: Tensor) -> Tensor:
        """(*D,) of weights (*D, P)."""
        found = self._log_prob(value)
        return found.expand(torch.broadcast_shapes(found.shape, self.batch_shape))

    def _rows(self, n: int) -> Tensor:
        raise NotImplementedError

    def _log_prob(self, value: Tensor) -> Tensor:
        raise NotImplementedError


class WeightDistribution(_FlatWeights):
    """q over the flat weights of a guide.

    Args:
        guide: q; its parameters are those of the distribution.
        batch_shape: of independent copies.
    """

    def __init__(self, guide: NormalFamily, batch_shape: Sequence[int] = ()) -> None:
        self.guide = guide
        super().__init__(guide.layout.n_weights, torch.Size(batch_shape))

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> WeightDistribution:
        """Independent copies."""
        return WeightDistribution(self.guide, batch_shape)

    @property
    def mean(self) -> Tensor:
        """(*batch_shape, P)."""
        return self.guide.loc.expand(*self.batch_shape, -1)

    @property
    def variance(self) -> Tensor:
        """(*batch_shape, P)."""
        return self.guide.flat_variance().expand(*self.batch_shape, -1)

    @property
    def covariance_matrix(self) -> Tensor:
        """(P, P)."""
        like = self.guide.loc
        root = (
            self.guide.transform(torch.eye(self.guide.n_noise, dtype=like.dtype, device=like.device)) - like
        )
        return root.mT @ root

    def _rows(self, n: int) -> Tensor:
        return self.guide.rsample(n)

    def _log_prob(self, value: Tensor) -> Tensor:
        return self.guide.flat_log_prob(value)


class PriorDistribution(_FlatWeights):
    """p over the flat weights of a module.

    Args:
        prior: p.
        layout: names and shapes of the weights.
        like: of their type and device.
        batch_shape: of independent copies.
    """

    def __init__(
        self, prior: WeightPrior, layout: WeightLayout, like: Tensor, batch_shape: Sequence[int] = ()
    ) -> None:
        self.prior, self.layout, self.like = prior, layout, like.detach()
        super().__init__(layout.n_weights, torch.Size(batch_shape))

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> PriorDistribution:
        """Independent copies."""
        return PriorDistribution(self.prior, self.layout, self.like, batch_shape)

    def _rows(self, n: int) -> Tensor:
        drawn = {
            name: self.prior.distribution(name, shape, self.like).rsample(torch.Size([n]))
            for name, shape in self.layout.shapes.items()
        }
        return self.layout.flatten(drawn)

    def _log_prob(self, value: Tensor) -> Tensor:
        return self.prior.log_prob(self.layout.split(value), self.layout.shapes)


@register_kl(WeightDistribution, PriorDistribution)  # type: ignore[untyped-decorator]
def _kl_weights(q: WeightDistribution, p: PriorDistribution) -> Tensor:
    if p.prior is not q.guide.prior and p.prior.describe() != q.guide.prior.describe():
        raise NotImplementedError("A guide knows its divergence from its own prior alone.")
    batch = torch.broadcast_shapes(q.batch_shape, p.batch_shape)
    return q.guide.kl().expand(batch)
