"""The conditional affine transform, which Pyro lacks for events of one dimension."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from pyro.distributions.conditional import ConditionalTransformModule
from torch import Tensor, nn
from torch.distributions import Transform, constraints

from bayesflowmass.networks.dense import DenseNetwork


class ConditionedAffine(Transform):
    r"""
    The affine bijection of each element,

        :math:`y = \mu + \sigma x, \qquad x = (y - \mu)/\sigma, \qquad \log|dy/dx| = \log\sigma.`

    It is what :class:`ConditionalAffine` becomes once its context is given. The scale enters as its
    logarithm, so that the Jacobian is exact and nothing is clamped: :math:`\sigma` overflows only where
    :math:`\exp(\log\sigma)` does (:math:`|\log\sigma| > 88` in single, 709 in double precision).

    Args:
        loc: :math:`\mu`, shape (*B,), or (*B, D) with ``event_dim=1``.
        log_scale: :math:`\log\sigma`, a shape that broadcasts with that of ``loc``.
        event_dim: 0 (elements are events of their own) or 1 (vectors of D elements).
        cache_size: As in :class:`torch.distributions.Transform`; 0, since the inverse costs one
            product.
    """

    bijective = True
    sign = +1

    def __init__(self, loc: Tensor, log_scale: Tensor, *, event_dim: int = 0, cache_size: int = 0) -> None:
        super().__init__(cache_size=cache_size)
        self.loc = loc
        self.log_scale = log_scale
        self._event_dim = event_dim

    @constraints.dependent_property(is_discrete=False)
    def domain(self) -> Any:
        return constraints.independent(constraints.real, self._event_dim)

    @constraints.dependent_property(is_discrete=False)
    def codomain(self) -> Any:
        return constraints.independent(constraints.real, self._event_dim)

    def with_cache(self, cache_size: int = 1) -> ConditionedAffine:
        if cache_size == self._cache_size:
            return self
        return ConditionedAffine(self.loc, self.log_scale, event_dim=self._event_dim, cache_size=cache_size)

    def _call(self, x: Tensor) -> Tensor:
        return self.loc + self.log_scale.exp() * x

    def _inverse(self, y: Tensor) -> Tensor:
        return (y - self.loc) * (-self.log_scale).exp()

    def inverse_and_log_det(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """``x`` and log|dx/dy| of ``y``, of the shape that ``y`` and the parameters broadcast to."""
        x = self._inverse(y)
        return x, -self._log_slope(x)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return self._log_slope(x)

    def _log_slope(self, x: Tensor) -> Tensor:
        """log|dy/dx| of each event: one term for each element, also of those that share a scale."""
        shape = torch.broadcast_shapes(x.shape, self.loc.shape, self.log_scale.shape)
        log_scale = self.log_scale.expand(shape)
        return log_scale.sum(-1) if self._event_dim else log_scale

    def forward_shape(self, shape: Sequence[int]) -> torch.Size:
        return torch.Size(torch.broadcast_shapes(shape, self.loc.shape, self.log_scale.shape))

    def inverse_shape(self, shape: Sequence[int]) -> torch.Size:
        return self.forward_shape(shape)


class ConditionalAffine(ConditionalTransformModule):
    r"""
    The affine bijection whose shift and scale are functions of a context :math:`d`,

        :math:`y = \mu(d) + \sigma(d)\,x,`

    so that the density direction is the block :math:`u_k = (u_{k-1} - \mu_k(d)) / \sigma_k(d)` of Kodi
    Ramanah et al. (2020). Unlike :class:`~pyro.distributions.transforms.ConditionalAffineCoupling` and
    :class:`~pyro.distributions.transforms.ConditionalAffineAutoregressive` it is defined for events of one
    dimension, looks at nothing but the context, and does not clamp :math:`\log\sigma`.

    Together with :class:`~pyro.distributions.ConditionalTransformedDistribution` over a normal base it is a
    heteroscedastic Gaussian regression; a stack of them is still exactly one Gaussian.

    Example usage:

    >>> import pyro.distributions as dist
    >>> transform = conditional_affine(context_dim=4, hidden_dims=[32])
    >>> flow = dist.ConditionalTransformedDistribution(dist.Normal(0.0, 1.0), [transform])
    >>> flow.condition(torch.rand(10, 4)).sample((3,)).shape
    torch.Size([3, 10])

    Args:
        nn: A network from the context (*B, C) to the shifts, then the logarithms of the scales, (*B, 2),
            or (*B, 2 D) with ``event_dim=1``.
        event_dim: 0 for scalar events, 1 for vectors whose elements are transformed one by one.

    References:

    Doogesh Kodi Ramanah, Radoslaw Wojtak, Zoe Ansari, Christa Gall, Jens Hjorth. Dynamical mass inference of
    galaxy clusters with neural flows. MNRAS 2020. arXiv:2003.05951
    """

    domain = constraints.real
    codomain = constraints.real
    bijective = True

    def __init__(self, nn: nn.Module, *, event_dim: int = 0) -> None:
        super().__init__()
        self.nn = nn
        self.event_dim = event_dim

    def condition(self, context: Tensor) -> ConditionedAffine:
        return self.conditioned(self.nn(context))

    def conditioned(self, raw: Tensor) -> ConditionedAffine:
        """The transform of given network outputs ``raw`` (*B, 2) or (*B, 2 D)."""
        loc, log_scale = raw.chunk(2, -1) if self.event_dim else raw.unbind(-1)
        return ConditionedAffine(loc, log_scale, event_dim=self.event_dim)


def conditional_affine(
    context_dim: int, hidden_dims: Sequence[int] | None = None, *, input_dim: int | None = None
) -> ConditionalAffine:
    """
    A helper that creates a :class:`ConditionalAffine` together with its dense network.

    Args:
        context_dim: Dimension of the context.
        hidden_dims: Hidden dimensions of the network; defaults to ``[10 * (input_dim or 1)]``.
        input_dim: Dimension of the event; None (the default) for scalar events.
    """
    size = input_dim or 1
    network = DenseNetwork(context_dim, hidden_dims or [10 * size], 2 * size)
    return ConditionalAffine(network, event_dim=0 if input_dim is None else 1)
