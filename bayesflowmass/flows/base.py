"""The standard normal base of a flow, with tails in log space."""

from __future__ import annotations

import math

import torch
from pyro.distributions.conditional import ConditionalDistribution
from pyro.distributions.torch import Normal
from torch import Tensor, nn

from bayesflowmass.networks.dense import NoParameters

_LOG_SQRT_TWO_PI = 0.5 * math.log(2 * math.pi)


def normal_cdf(z: Tensor) -> Tensor:
    """
    The cdf of N(0, 1), of any shape, to full relative precision below zero.

    :func:`torch.special.ndtr` and torch's Normal take it from 1 + erf: 2 % off at z = -8, zero at z = -9.
    """
    cdf: Tensor = 0.5 * torch.special.erfc(z * -math.sqrt(0.5))
    return cdf


def normal_probabilities(z: Tensor) -> Tensor:
    """
    Probabilities that N(0, 1) gives to the pieces below, between and above increasing numbers: (K, *B) -> (K + 1, *B).

    Each piece is a difference of the smaller tails at its ends, so that both tails keep their relative precision.
    """
    above = (z >= 0).to(z.dtype)
    # The cdf is tail + above.
    tail = 0.5 * torch.special.erfc(z.abs() * math.sqrt(0.5)) * (1 - 2 * above)
    nothing = torch.zeros_like(z[:1])
    pieces: Tensor = torch.cat([nothing, tail, nothing]).diff(dim=0) + torch.cat(
        [nothing, above, nothing + 1]
    ).diff(dim=0)
    return pieces


class StandardNormal(Normal):
    """
    N(0, 1) of a given batch shape, with cdf, quantiles and tails accurate to the precision of the type.

    Args:
        zero: A tensor of zeros (*B,) that carries shape, type and device.
    """

    loc: Tensor
    scale: Tensor

    def __init__(self, zero: Tensor, validate_args: bool | None = None) -> None:
        super().__init__(zero, torch.ones_like(zero), validate_args=validate_args)

    def expand(self, batch_shape: torch.Size, _instance: StandardNormal | None = None) -> StandardNormal:
        return StandardNormal(self.loc.expand(batch_shape), validate_args=self._validate_args)

    @property
    def components(self) -> tuple[Tensor, Tensor, Tensor]:
        """Log weights, means and standard deviations, each (*B, 1): the mixture that this is."""
        loc = self.loc.unsqueeze(-1)
        return loc, loc, self.scale.unsqueeze(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        shape = torch.broadcast_shapes(value.shape, self.loc.shape)
        return (-0.5 * value * value - _LOG_SQRT_TWO_PI).expand(shape)

    def cdf(self, value: Tensor) -> Tensor:
        return normal_cdf(value + self.loc)

    def log_cdf(self, value: Tensor) -> Tensor:
        log_cdf: Tensor = torch.special.log_ndtr(value + self.loc)
        return log_cdf

    def log_sf(self, value: Tensor) -> Tensor:
        """log(1 - cdf)."""
        log_sf: Tensor = torch.special.log_ndtr(self.loc - value)
        return log_sf

    def probabilities(self, values: Tensor) -> Tensor:
        """Probabilities below, between and above increasing ``values``: (K, *B) -> (K + 1, *B)."""
        return normal_probabilities(values + self.loc)

    def icdf(self, value: Tensor) -> Tensor:
        icdf: Tensor = torch.special.ndtri(value + self.loc)
        return icdf


class ConditionalStandardNormal(ConditionalDistribution, nn.Module):
    """The base N(0, 1) whatever the context (*B, C): it takes from it the batch shape, type and device."""

    def __init__(self) -> None:
        super().__init__()
        self.nn = NoParameters()

    def condition(self, context: Tensor) -> StandardNormal:
        return self.conditioned(self.nn(context))

    def conditioned(self, raw: Tensor) -> StandardNormal:
        return StandardNormal(raw.new_zeros(()).expand(raw.shape[:-1]), validate_args=False)
