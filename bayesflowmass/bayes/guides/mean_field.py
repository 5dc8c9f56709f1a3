"""Independent normal weights."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from bayesflowmass.bayes.guides.base import LOG_SQRT_TWO_PI, WeightGuide
from bayesflowmass.bayes.guides.fused import DrawWithKL, LocalLinear, draw_normals
from bayesflowmass.bayes.guides.noise import standard_normal
from bayesflowmass.bayes.priors import NormalPrior
from bayesflowmass.bayes.substitution import is_traced


class MeanField(WeightGuide):
    """q(w) = prod_i N(w_i; m_i, s_i^2), with parameters m and log s (Graves 2011, Blundell et al. 2015).

    The arguments are those of :class:`~bayesflowmass.bayes.guides.base.WeightGuide`.
    """

    kind = "mean_field"

    def _start(self, weights: Mapping[str, Tensor]) -> None:
        # One parameter per tensor: the gradient of a slice of one long vector would be a copy of all of it.
        self.locs = nn.ParameterList([weights[name].reshape(-1).clone() for name in self.names])
        starts = [math.log(self.init_scale * scale) for scale in self.prior_scales]
        self.log_scales = nn.ParameterList(
            [torch.full_like(loc, start) for loc, start in zip(self.locs, starts, strict=True)]
        )

    @property
    def loc(self) -> Tensor:  # type: ignore[override]
        """m, (P,), a copy; the parameters are ``locs``, one per tensor of weights."""
        return torch.cat(list(self.locs))

    @property
    def log_scale(self) -> Tensor:
        """log s, (P,), a copy; the parameters are ``log_scales``."""
        return torch.cat(list(self.log_scales))

    def transform(self, noise: Tensor) -> Tensor:
        return torch.addcmul(self.loc, self.log_scale.exp(), noise)

    def flat_log_prob(self, flat: Tensor) -> Tensor:
        log_scale = self.log_scale
        z = (flat - self.loc) * (-log_scale).exp()
        return -(0.5 * z**2 + log_scale + LOG_SQRT_TWO_PI).sum(-1)

    def flat_variance(self) -> Tensor:
        return (2.0 * self.log_scale).exp()

    def relative_entropy(self) -> Tensor:
        return (self.log_scale - self.prior_scale().log()).sum()

    def _sample_sites(self) -> dict[str, Tensor]:
        # One normal distribution for each tensor: Pyro knows its divergence from a normal prior.
        sites = {}
        for name, shape in self.layout.shapes.items():
            loc, log_scale, _ = self.factor(name)
            normal = dist.Normal(loc.view(shape), log_scale.exp().view(shape), validate_args=False)
            sites[self.site(name)] = pyro.sample(self.site(name), normal.to_event(len(shape)))
        return sites

    def factor(self, name: str) -> tuple[Tensor, Tensor, float]:
        """Means and log standard deviations of one tensor of weights, flat, and the scale of its prior."""
        i = self.names.index(name)
        return self.locs[i], self.log_scales[i], self.prior_scales[i]

    def local_linear(self, layer: str, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        prefix = f"{layer}." if layer else ""
        bias: tuple[Tensor | None, Tensor | None, float] = (None, None, math.nan)
        if f"{prefix}bias" in self.layout.shapes:
            bias = self.factor(f"{prefix}bias")
        mean, variance, kl = LocalLinear.apply(inputs, *self.factor(f"{prefix}weight"), *bias)
        return mean, variance, kl if isinstance(self.prior, NormalPrior) else None

    def sample_with_kl(
        self, names: Collection[str] | None = None, noise: Tensor | None = None, sign: float = 1.0
    ) -> tuple[dict[str, Tensor], Tensor]:
        if not isinstance(self.prior, NormalPrior) or is_traced():
            # Gradients that are written out are not traced.
            return super().sample_with_kl(names, noise, sign)
        drawn = [name for name in self.layout.shapes if names is None or name in names]
        factors = [self.factor(name) for name in drawn]
        locs, log_scales, _ = zip(*factors, strict=True)
        if noise is None:
            noise = standard_normal((sum(loc.numel() for loc in locs),), locs[0])
        weights, divergences = {}, []
        draws = draw_normals(locs, log_scales, noise, sign)
        for name, factor, draw in zip(drawn, factors, draws, strict=True):
            value, kl = DrawWithKL.apply(*factor, *draw)
            weights[name] = value.view(self.layout.shapes[name])
            divergences.append(kl)
        return weights, torch.stack(divergences).sum()
