r"""Normal weights of linear layers, independent along the principal axes of what the layers are given."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from bayesflowmass.bayes.guides.base import AT_PRIOR_MEAN, AT_PRIOR_SCALE, LOG_SQRT_TWO_PI, WeightGuide
from bayesflowmass.bayes.module import BayesianModule

WIDEST = 2048
# Means move by a few units of the prior's scale, log scales by several units and should arrive first: while q is
# wider than the posterior, the means are kicked about. The parameter is the log scale over this factor, so that one
# learning rate, such as 2e-3, suits both.
SCALE_RATE = 30.0


class Eigenbasis(WeightGuide):
    r"""q(w_o) = N(m_o, S V diag(s_o^2) V^T S) for the row w_o = (weights, bias) of each output o of a layer.

    S = diag(scales of the prior) and V holds the eigenvectors of S E[h h^T] S, where h = (inputs of the
    layer, 1): in that basis the prior is still isotropic and the likelihood's curvature, sum_i c_i h_i h_i^T,
    nearly diagonal, so that independent scales s come close to the full covariance of each row at the price
    of the mean field. Rows are independent of each other. V is fixed: `align` finds it from data; before that it is
    the identity, which is the mean field. Random parameters that are not of a linear layer stay mean field, and so do
    those of layers that are never called, such as the one whose weights torch's attention reads.
    The means are m_o = w_o + S V c_o, w the module's weights and c the parameters, so that each parameter of q
    belongs to one axis: steps that are scaled parameter by parameter, as Adam's, suit such a basis.

    References:
        George et al. 2018, arXiv:1806.03884 (curvature in the eigenbasis of a layer's inputs).

    Args:
        module, prior, which, init_scale, name: see :class:`~bayesflowmass.bayes.guides.base.WeightGuide`.

    Raises:
        ValueError: if a random linear layer has more than 2048 inputs.
    """

    kind = "eigenbasis"
    start: Tensor

    def __init__(self, module: nn.Module, *args: Any, **kwargs: Any) -> None:
        super().__init__(module, *args, **kwargs)
        module = module.module if isinstance(module, BayesianModule) else module
        start = math.log(self.init_scale) / SCALE_RATE
        self.slow_log_scale = nn.Parameter(torch.full_like(self.shift.detach(), start))
        self.layers = [
            name for name, part in module.named_modules()
            if isinstance(part, nn.Linear) and self._parts(name)[0] in self.layout.shapes
        ]  # fmt: skip
        for index, layer in enumerate(self.layers):
            weight, bias = self._parts(layer)
            inputs = self.layout.shapes[weight][1] + (bias in self.layout.shapes)
            if inputs > WIDEST + 1:
                raise ValueError(
                    f"The layer '{layer}' has {inputs - 1} inputs and the eigenbasis guide takes at most {WIDEST};"
                    " choose later layers or the mean-field guide."
                )
            self.register_buffer(f"basis{index}", torch.eye(inputs, dtype=self.start.dtype))

    def _start(self, weights: Mapping[str, Tensor]) -> None:
        self.register_buffer("start", self.layout.flatten(weights))
        self.shift = nn.Parameter(torch.zeros_like(self.start))

    @property
    def loc(self) -> Tensor:  # type: ignore[override]
        """m, (P,); the parameters are ``shift``."""
        return torch.addcmul(self.start, self.prior_scale(), self._turn(self.shift))

    @property
    def log_scale(self) -> Tensor:
        """ln s along each axis, in units of the prior, (P,): each row's axes in the order of their eigenvalues."""
        return SCALE_RATE * self.slow_log_scale

    @staticmethod
    def _parts(layer: str) -> tuple[str, str]:
        prefix = f"{layer}." if layer else ""
        return f"{prefix}weight", f"{prefix}bias"

    @torch.no_grad()
    def align(self, module: nn.Module, run: Callable[[], object]) -> None:
        """Find the axes from data.

        Args:
            module: whose weights these are.
            run: applies it to the training data, in as many calls as it likes; with the weights that it has.
        """
        with _second_moments(module, self.layers) as moments:
            run()
        scales = self.layout.split(self.prior_scale())
        for index, layer in enumerate(self.layers):
            if layer not in moments:
                continue
            weight, bias = self._parts(layer)
            with_bias = bias in scales
            size = self.layout.shapes[weight][1] + with_bias
            row = scales[weight][0]
            if with_bias:
                row = torch.cat([row, scales[bias][:1]])
            outer = row.double().unsqueeze(-1) * row.double()
            vectors: Tensor = torch.linalg.eigh(moments[layer][:size, :size] * outer)[1]
            # Signs are free; without a rule they would differ between machines.
            signs = vectors.gather(0, vectors.abs().argmax(0, keepdim=True)).sign()
            getattr(self, f"basis{index}").copy_(vectors * signs)

    def transform(self, noise: Tensor) -> Tensor:
        return torch.addcmul(self.loc, self.prior_scale(), self._turn(noise * self.log_scale.exp()))

    def local_linear(self, layer: str, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        weight, bias = self._parts(layer)
        means = self.layout.split(self.loc)
        variances = self.layout.split((2.0 * self.log_scale).exp())
        scales = self.layout.split(self.prior_scale())
        mean, rows = inputs @ means[weight].mT, variances[weight]
        relative = inputs * scales[weight][0]
        if bias in means:
            mean = mean + means[bias]
            rows = torch.cat([rows, variances[bias].unsqueeze(-1)], -1)
            relative = torch.cat([relative, scales[bias][0].expand(len(inputs), 1)], -1)
        basis: Tensor = getattr(self, f"basis{self.layers.index(layer)}")
        return mean, (relative @ basis).square() @ rows.mT, None

    def flat_log_prob(self, flat: Tensor) -> Tensor:
        z = self._turn((flat - self.loc) / self.prior_scale(), back=True) * (-self.log_scale).exp()
        return -(0.5 * z**2 + self.log_scale + self.prior_scale().log() + LOG_SQRT_TWO_PI).sum(-1)

    def flat_variance(self) -> Tensor:
        variance = self._turn((2.0 * self.log_scale).exp(), squared=True)
        return variance * self.prior_scale().square()

    def relative_entropy(self) -> Tensor:
        return self.log_scale.sum()

    @torch.no_grad()
    def share_at_prior(self) -> float:
        """Share of the axes along which the standard deviation and the mean are those of the prior."""
        centre = self._turn(self.loc / self.prior_scale(), back=True)
        wide = (self.log_scale.exp() - 1.0).abs() < AT_PRIOR_SCALE
        return float((wide & (centre.abs() < AT_PRIOR_MEAN)).double().mean())

    def _turn(self, flat: Tensor, back: bool = False, squared: bool = False) -> Tensor:
        """V applied to each row of each layer of (*D, P), in units of the prior; V^T where ``back``."""
        parts = self.layout.split(flat)
        for index, layer in enumerate(self.layers):
            weight, bias = self._parts(layer)
            basis: Tensor = getattr(self, f"basis{index}")
            basis = basis.square() if squared else basis
            rows = parts[weight]
            with_bias = bias in parts
            if with_bias:
                rows = torch.cat([rows, parts[bias].unsqueeze(-1)], -1)
            rows = rows @ (basis if back else basis.mT)
            parts[weight] = rows[..., :-1] if with_bias else rows
            if with_bias:
                parts[bias] = rows[..., -1]
        return self.layout.flatten(parts)


@contextmanager
def _second_moments(module: nn.Module, layers: list[str]) -> Iterator[dict[str, Tensor]]:
    """Collects the sum of h h^T, h = (inputs, 1), in double precision, over what the layers are given."""
    moments: dict[str, Tensor] = {}

    def collect(layer: str) -> Callable[..., None]:
        def hook(part: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> None:
            inputs = arguments[0].detach().reshape(-1, arguments[0].shape[-1]).double()
            inputs = torch.cat([inputs, inputs.new_ones(len(inputs), 1)], -1)
            moments[layer] = moments.get(layer, 0.0) + inputs.mT @ inputs

        return hook

    handles = [module.get_submodule(layer).register_forward_hook(collect(layer)) for layer in layers]
    try:
        yield moments
    finally:
        for handle in handles:
            handle.remove()
