"""Mixtures of Gaussians, as conditional bases of a flow."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from pyro.distributions.conditional import ConditionalDistribution
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor, nn
from torch.distributions import constraints

from bayesflowmass.flows.base import normal_cdf, normal_probabilities
from bayesflowmass.flows.root_finding import bracketed_root

_LOG_SQRT_TWO_PI = 0.5 * math.log(2 * math.pi)


class GaussianMixture(TorchDistribution):
    r"""
    The mixture :math:`\sum_k w_k N(\mu_k, \sigma_k^2)` of scalars, with what
    :class:`torch.distributions.MixtureSameFamily` lacks: quantiles, tails in log space, reparameterised
    samples.

    Quantiles come from bracketed root finding: the p-quantile of a mixture lies between the smallest and the
    largest p-quantile of its components. Reparameterised samples and quantiles carry the implicit gradient
    :math:`dx = -(\partial_\theta F(x;\theta)/p(x))\,d\theta` (Figurnov et al. 2018, arXiv:1805.08498), exact
    in one dimension.

    Args:
        logits: Unnormalised log weights, (*B, K).
        locs: :math:`\mu_k`, (*B, K).
        log_scales: :math:`\log\sigma_k`, (*B, K); not clamped.
    """

    arg_constraints = {  # noqa: RUF012
        "logits": constraints.real_vector,
        "locs": constraints.real_vector,
        "log_scales": constraints.real_vector,
    }
    support = constraints.real
    has_rsample = True
    logits: Tensor
    locs: Tensor
    log_scales: Tensor
    log_weights: Tensor

    def __init__(
        self, logits: Tensor, locs: Tensor, log_scales: Tensor, validate_args: bool | None = None
    ) -> None:
        self.logits, self.locs, self.log_scales = torch.broadcast_tensors(logits, locs, log_scales)
        self.log_weights = self.logits.log_softmax(-1)
        super().__init__(self.logits.shape[:-1], validate_args=validate_args)

    def expand(self, batch_shape: torch.Size, _instance: GaussianMixture | None = None) -> GaussianMixture:
        shape = (*batch_shape, self.logits.shape[-1])
        return GaussianMixture(
            self.logits.expand(shape),
            self.locs.expand(shape),
            self.log_scales.expand(shape),
            validate_args=self._validate_args,
        )

    @property
    def components(self) -> tuple[Tensor, Tensor, Tensor]:
        """Log weights, means and standard deviations, each (*B, K)."""
        return self.log_weights, self.locs, self.log_scales.exp()

    @property
    def mean(self) -> Tensor:
        return (self.log_weights.exp() * self.locs).sum(-1)

    @property
    def variance(self) -> Tensor:
        centred = self.locs - self.mean.unsqueeze(-1)
        return (self.log_weights.exp() * ((2 * self.log_scales).exp() + centred**2)).sum(-1)

    def _z(self, value: Tensor) -> Tensor:
        return (value.unsqueeze(-1) - self.locs) * (-self.log_scales).exp()

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        z = self._z(value)
        return (self.log_weights - self.log_scales - 0.5 * z * z).logsumexp(-1) - _LOG_SQRT_TWO_PI

    def cdf(self, value: Tensor) -> Tensor:
        return (self.log_weights.exp() * normal_cdf(self._z(value))).sum(-1)

    def log_cdf(self, value: Tensor) -> Tensor:
        tails: Tensor = torch.special.log_ndtr(self._z(value))
        return (self.log_weights + tails).logsumexp(-1)

    def log_sf(self, value: Tensor) -> Tensor:
        """log(1 - cdf)."""
        tails: Tensor = torch.special.log_ndtr(-self._z(value))
        return (self.log_weights + tails).logsumexp(-1)

    def probabilities(self, values: Tensor) -> Tensor:
        """Probabilities below, between and above increasing ``values``: (K, *B) -> (K + 1, *B)."""
        return (self.log_weights.exp() * normal_probabilities(self._z(values))).sum(-1)

    def icdf(self, value: Tensor) -> Tensor:
        value = value.expand(torch.broadcast_shapes(value.shape, self.batch_shape))
        inside = (value > 0) & (value < 1)
        p = torch.where(inside, value, torch.full_like(value, 0.5))
        root = self._find_quantile(p)
        ends = torch.where(value == 0, -torch.inf, torch.where(value == 1, torch.inf, torch.nan)).to(
            root.dtype
        )
        return torch.where(inside, self._implicit(root, p), ends.to(root.dtype))

    @torch.no_grad()
    def _find_quantile(self, p: Tensor) -> Tensor:
        # The smaller tail in log space: Newton's steps then are right however far out the quantile lies.
        low = p <= 0.5
        target = torch.where(low, p.log(), (-p).log1p())

        def function(x: Tensor) -> tuple[Tensor, Tensor]:
            log_tail = torch.where(low, self.log_cdf(x), self.log_sf(x))
            sign = torch.where(low, 1.0, -1.0).to(x.dtype)
            value = torch.where(lost, 0.0, sign * (log_tail - target))
            return value, (self.log_prob(x) - log_tail).exp()

        quantiles = self.locs + self.log_scales.exp() * torch.special.ndtri(p).unsqueeze(-1)
        # What is not finite has no quantile, and must not keep the others from theirs.
        lost = ~(quantiles.isfinite().all(-1) & self.log_weights.isfinite().all(-1))
        quantiles = torch.where(lost.unsqueeze(-1), 0.0, quantiles)
        # One part in 10^6 of slack for the rounding of ndtri.
        slack = 1e-6 * (quantiles.abs() + self.log_scales.exp().nan_to_num()).amax(-1)
        rounding = 2 * torch.finfo(target.dtype).eps * (1 + target.abs())
        root = bracketed_root(
            function, quantiles.amin(-1) - slack, quantiles.amax(-1) + slack, precision=rounding
        )
        return torch.where(lost, torch.nan, root)

    def _implicit(self, x: Tensor, p: Tensor) -> Tensor:
        """``x`` (*S, *B), no graph, with the gradient of the p-quantile by the implicit function theorem."""
        if not any(t.requires_grad for t in (p, self.log_weights, self.locs, self.log_scales)):
            return x
        density = self.log_prob(x).exp().detach()
        residual = p - self.cdf(x)
        return x + (residual - residual.detach()) / density

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        shape = self._extended_shape(torch.Size(sample_shape))
        with torch.no_grad():
            weights = self.log_weights.exp().expand(*shape, -1)
            flat = weights.reshape(-1, weights.shape[-1])
            component = torch.multinomial(flat, 1).reshape(*shape, 1)
            loc = self.locs.expand(*shape, -1).gather(-1, component).squeeze(-1)
            scale = self.log_scales.exp().expand(*shape, -1).gather(-1, component).squeeze(-1)
            x = loc + scale * torch.randn_like(loc)
        return self._implicit(x, x.new_zeros(()))


class ConditionalGaussianMixture(ConditionalDistribution, nn.Module):
    """
    A :class:`GaussianMixture` whose weights, means and scales a network makes of the context.

    Zero network outputs give components of unit width with means spread evenly over [-1, 1]: components that
    start equal would stay equal.

    Args:
        nn: A network from the context (*B, C) to (*B, 3 K): logits, means, logarithms of the scales.
        components: K.
    """

    def __init__(self, nn: nn.Module, *, components: int) -> None:
        super().__init__()
        if components < 1:
            raise ValueError(f"components is {components}; a mixture needs at least one component")
        self.nn = nn
        self.components = components

    def condition(self, context: Tensor) -> GaussianMixture:
        return self.conditioned(self.nn(context))

    def conditioned(self, raw: Tensor) -> GaussianMixture:
        """The mixture of given network outputs ``raw`` (*B, 3 K)."""
        logits, locs, log_scales = raw.chunk(3, -1)
        if self.components > 1:
            locs = locs + torch.linspace(-1, 1, self.components, dtype=raw.dtype, device=raw.device)
        return GaussianMixture(logits, locs, log_scales, validate_args=False)
