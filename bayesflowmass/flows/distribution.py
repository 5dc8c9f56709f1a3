"""The distribution of log10 mass that a flow gives for known contexts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from pyro.distributions.torch import TransformedDistribution
from torch import Tensor
from torch.distributions import AffineTransform, Transform

from bayesflowmass.flows.base import StandardNormal
from bayesflowmass.flows.conditional_affine import ConditionedAffine
from bayesflowmass.flows.spline import ConditionedMonotoneSpline

# Gauss-Legendre nodes per panel; range and least number of panels, in standard deviations of each component
# of the base.
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(16)
_RANGE = 10.0
_PANELS = 8
# Where nobody says at which masses a transform bends.
_FINE_PANELS = 256
_STRAIGHT = (AffineTransform, ConditionedAffine)
# Transforms whose bends are known.
_KNOWN = (*_STRAIGHT, ConditionedMonotoneSpline)


def pull_back(transforms: Sequence[Transform], value: Tensor) -> tuple[Tensor, Tensor]:
    """T^-1(value) and log|dT^-1/dvalue|, each (*S, *B), of the composition T of ``transforms``."""
    log_det = value.new_zeros(())
    for transform in reversed(transforms):
        if hasattr(transform, "inverse_and_log_det"):
            value, step = transform.inverse_and_log_det(value)
            log_det = log_det + step
        else:
            x = transform.inv(value)
            log_det = log_det - transform.log_abs_det_jacobian(x, value)
            value = x
    return value, log_det


def direction(transforms: Sequence[Transform]) -> int | Tensor:
    """1 where the composition of ``transforms`` rises, -1 where it falls: a number, or one for each cluster (*B,).

    Raises:
        ValueError: a transform does not say which, and a cdf needs to know.
    """
    result: int | Tensor = 1
    for transform in transforms:
        try:
            result = result * transform.sign
        except NotImplementedError:
            raise ValueError(
                f"{type(transform).__name__} declares no `sign`: whether a cdf rises or falls through it is not known; "
                "give it one, or wrap it in ScalarTransform, which looks."
            ) from None
    return result


def choose(sign: int | Tensor, rising: Callable[[], Tensor], falling: Callable[[], Tensor]) -> Tensor:
    """``rising()`` where the `direction` is 1, ``falling()`` where it is -1."""
    if isinstance(sign, Tensor):
        return torch.where(sign > 0, rising(), falling())
    return rising() if sign > 0 else falling()


class MassDistribution(TransformedDistribution):
    r"""
    p(log10_mass) of a batch of clusters: a Pyro distribution with exact cdf, quantiles and tails.

    With base distribution q and rising transforms :math:`m = T(u)`,

        :math:`p(m) = q(T^{-1}(m))\,|dT^{-1}/dm|, \qquad P(<m) = Q(T^{-1}(m)), \qquad m_p = T(Q^{-1}(p));`

    where T falls, :math:`P(<m) = 1 - Q(T^{-1}(m))` and :math:`m_p = T(Q^{-1}(1 - p))`.

    Shapes: ``batch_shape`` (*B,), ``event_shape`` (); values broadcast against the batch, so a grid (G, 1)
    over a batch (B,) gives (G, B), and ``sample((n,))`` gives (n, *B). Densities are per dex. Results are as
    precise as the
    parameters: make the distribution with ``flow.condition(context)``, which makes them double by default.

    Args:
        base_dist: :class:`StandardNormal` or :class:`GaussianMixture`, of batch shape (*B,).
        transforms: Bijections of the line, from the base to the data, which declare their ``sign``.

    Raises:
        ValueError: a transform is of vectors, or does not say whether it rises.
    """

    def __init__(
        self, base_dist: Any, transforms: Sequence[Transform], validate_args: bool | None = None
    ) -> None:
        super().__init__(base_dist, transforms, validate_args=validate_args)
        if self.event_shape:
            raise ValueError(
                "A distribution of log10 mass is of single numbers; these transforms make events of shape "
                f"{tuple(self.event_shape)} of them: use transforms of elements, or ScalarTransform."
            )
        direction(self.transforms)

    def expand(
        self, batch_shape: torch.Size | Sequence[int], _instance: MassDistribution | None = None
    ) -> MassDistribution:
        new = self._get_checked_instance(MassDistribution, _instance)
        expanded: MassDistribution = super().expand(batch_shape, _instance=new)
        return expanded

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the parameters."""
        dtype: torch.dtype = self.base_dist.components[1].dtype
        return dtype

    def _to_base(self, value: Tensor) -> tuple[Tensor, Tensor]:
        return pull_back(self.transforms, value)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density per dex, (*S, *B), at log10 masses ``value`` (*S, *B)."""
        if self._validate_args:
            self._validate_sample(value)
        base, log_det = self._to_base(value)
        log_prob: Tensor = self.base_dist.log_prob(base) + log_det
        return log_prob

    def cdf(self, value: Tensor) -> Tensor:
        """P(< value), (*S, *B). Its relative precision is full below the median; above it use ``log_sf``."""
        return self._cdf(self._to_base(value)[0])

    def log_prob_and_cdf(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """``log_prob`` and ``cdf`` at the same log10 masses (*S, *B), from one pass through the transforms."""
        base, log_det = self._to_base(value)
        return self.base_dist.log_prob(base) + log_det, self._cdf(base)

    def log_cdf(self, value: Tensor) -> Tensor:
        """log P(< value), (*S, *B), finite far into the lower tail."""
        base = self._to_base(value)[0]
        return self._where_it_rises(lambda: self.base_dist.log_cdf(base), lambda: self.base_dist.log_sf(base))

    def log_sf(self, value: Tensor) -> Tensor:
        """log P(> value), (*S, *B), finite far into the upper tail."""
        base = self._to_base(value)[0]
        return self._where_it_rises(lambda: self.base_dist.log_sf(base), lambda: self.base_dist.log_cdf(base))

    def icdf(self, value: Tensor) -> Tensor:
        """
        Quantiles, (*S, *B), at probabilities ``value`` (*S, *B): infinite at 0 and 1, NaN outside [0, 1].

        Closed form over a normal base; bracketed root finding, then the closed form, over a mixture. In
        double precision |cdf(icdf(p)) - p| < 1e-10 for p in [1e-8, 1 - 1e-8].
        """
        return self._from_base(self.base_dist.icdf(self._where_it_rises(lambda: value, lambda: 1 - value)))

    def _cdf(self, base: Tensor) -> Tensor:
        return self._where_it_rises(
            lambda: self.base_dist.cdf(base), lambda: self.base_dist.log_sf(base).exp()
        )

    def _where_it_rises(self, rising: Callable[[], Tensor], falling: Callable[[], Tensor]) -> Tensor:
        return choose(direction(self.transforms), rising, falling)

    @property
    def mean(self) -> Tensor:
        """Mean log10 mass, (*B,)."""
        return self._moments()[0]

    @property
    def variance(self) -> Tensor:
        """Variance of log10 mass, (*B,), dex^2."""
        return self._moments()[1]

    def common_shape(self) -> tuple[MassDistribution, Tensor, Tensor] | None:
        """q of batch shape (n,), and loc and scale (D, n), of p(m) = q((m - loc) / scale) / scale.

        None where a batch of shape (D, n) is not of that kind: where a transform that bends differs along D, or the
        base is not the standard normal.
        """
        inner, zero = list(self.transforms), self.base_dist.mean
        while inner and isinstance(inner[-1], _STRAIGHT):
            inner.pop()
        alike = zero.shape[1:]
        if zero.dim() != 2 or not isinstance(self.base_dist, StandardNormal):
            return None
        if any(transform.forward_shape(alike) != alike for transform in inner):
            return None
        loc, one = zero, zero + 1
        for transform in self.transforms[len(inner) :]:
            loc, one = transform(loc), transform(one)
        return MassDistribution(StandardNormal(zero[0]), inner, validate_args=False), loc, one - loc

    def _breaks(self) -> Tensor | None:
        """Base coordinates (K, *B) at which the composed transform is known to bend; None if nowhere."""
        breaks: Tensor | None = None
        for transform in reversed(self.transforms):
            if breaks is not None:
                breaks = transform.inv(breaks)
            knots = getattr(transform, "base_knots", None)
            if knots is not None:
                knots = knots.expand(*self.batch_shape, -1).movedim(-1, 0)
                breaks = knots if breaks is None else torch.cat([breaks, knots])
        return breaks

    def _from_base(self, value: Tensor) -> Tensor:
        for transform in self.transforms:
            value = transform(value)
        return value

    def bends(self) -> Tensor | None:
        """log10 masses (K, *B) where the slope of the density jumps, to split integrals; None if nowhere."""
        breaks = self._breaks()
        return None if breaks is None else self._from_base(breaks)

    def _moments(self) -> tuple[Tensor, Tensor]:
        log_weights, locs, scales = self.base_dist.components
        weights = log_weights.exp()
        base_mean = (weights * locs).sum(-1)
        centre = self._from_base(base_mean)
        breaks = self._breaks()
        if all(isinstance(one, _STRAIGHT) for one in self.transforms):
            base_variance = (weights * (scales**2 + (locs - base_mean.unsqueeze(-1)) ** 2)).sum(-1)
            return centre, base_variance * (-2 * self._to_base(centre)[1]).exp()
        # Between its breaks the transform is smooth: Gauss-Legendre there, one component after the other.
        first, second = torch.zeros_like(centre), torch.zeros_like(centre)
        if breaks is None:
            breaks = centre.new_zeros((0, *centre.shape))
        known = all(isinstance(one, _KNOWN) for one in self.transforms)
        panels = _PANELS if known else _FINE_PANELS
        grid = torch.linspace(-_RANGE, _RANGE, panels + 1, dtype=centre.dtype, device=centre.device)
        grid = grid.reshape(-1, *(1,) * centre.dim()).expand(-1, *centre.shape)
        for weight, loc, scale in zip(weights.unbind(-1), locs.unbind(-1), scales.unbind(-1), strict=True):
            inner = ((breaks - loc) / scale).clamp(-_RANGE, _RANGE)
            edges = torch.cat([inner, grid]).sort(0).values
            half, middle = 0.5 * edges.diff(dim=0), 0.5 * (edges[1:] + edges[:-1])
            for node, node_weight in zip(_NODES.tolist(), _WEIGHTS.tolist(), strict=True):
                z = middle + node * half
                density = weight * node_weight * half * (-0.5 * z * z).exp() / (2 * torch.pi) ** 0.5
                offset = self._from_base(loc + scale * z) - centre
                first = first + (density * offset).sum(0)
                second = second + (density * offset**2).sum(0)
        return centre + first, second - first**2
