"""Conditional densities of several numbers at once, from Pyro's own transforms."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions.conditional import ConditionalTransformedDistribution
from torch import Tensor, nn
from torch.distributions import AffineTransform


class JointFlow(nn.Module):
    """p(y | context) of a vector y of D numbers, such as log10 mass and concentration: it trains in `bayes.fit`.

    >>> flow = JointFlow([conditional_spline_autoregressive(2, context_dim)], y.mean(0), y.std(0))
    >>> posterior = bayes.fit(flow, (context, y), method="point")

    Args:
        transforms: transforms of Pyro over vectors of D numbers, conditional or not, from the base N(0, 1) to the
            standardised target; autoregressive and coupling ones have correlations.
        loc, scale: of the target, (D,): means and standard deviations of the training set.
    """

    loc: Tensor
    scale: Tensor

    def __init__(
        self, transforms: Iterable[Any], loc: Sequence[float] | Tensor, scale: Sequence[float] | Tensor
    ) -> None:
        super().__init__()
        self.transforms = list(transforms)
        self.networks = nn.ModuleList(part for part in self.transforms if isinstance(part, nn.Module))
        self.register_buffer("loc", torch.as_tensor(loc))
        self.register_buffer("scale", torch.as_tensor(scale))

    def condition(self, context: Tensor) -> dist.TransformedDistribution:
        """The distribution of y, batch shape (B,), event shape (D,), given the context (B, C)."""
        base = dist.Normal(torch.zeros_like(self.loc), torch.ones_like(self.scale)).to_event(1)
        standardised = AffineTransform(self.loc, self.scale, event_dim=1)
        flow = ConditionalTransformedDistribution(
            base.expand([len(context)]), [*self.transforms, standardised]
        )
        found: dist.TransformedDistribution = flow.condition(context)
        return found

    def log_prob(self, y: Tensor, context: Tensor) -> Tensor:
        """Log density (B,) of y (B, D), per unit of each of its numbers."""
        log_prob: Tensor = self.condition(context).log_prob(y)
        return log_prob

    def forward(self, y: Tensor, context: Tensor) -> Tensor:
        return self.log_prob(y, context)
