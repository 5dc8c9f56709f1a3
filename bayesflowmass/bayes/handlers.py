"""Effect handlers that give a network its random weights, each with its own estimator of the gradient.

All of them estimate the same E_q[log p(data | w)] without bias; they differ in the variance of its gradient:

=================================  ==========================================================================
:class:`SharedDraw`                one draw of the weights for the whole batch
:class:`MirroredDraw`              the same, every other draw the mirror image about the mean of the one before
:class:`LocalReparameterisation`   each example's pre-activations from their own normal distribution
:class:`Flipout`                   one draw, its deviation from the mean with random signs per example
=================================  ==========================================================================

The last two use different weights for different examples, which is right for gradients of a sum over examples
and wrong for predictions of several examples at once: those need a shared draw.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any

import torch
import torch.nn.functional as F
from pyro.poutine.messenger import Messenger
from torch import Tensor

from bayesflowmass.bayes.guides.base import WeightGuide
from bayesflowmass.bayes.guides.fused import NormalDraw
from bayesflowmass.bayes.guides.mean_field import MeanField
from bayesflowmass.bayes.guides.noise import standard_normal
from bayesflowmass.bayes.module import BayesianModule, parameter_name

__all__ = ["ESTIMATORS", "Flipout", "LocalReparameterisation", "MirroredDraw", "SharedDraw"]


class SharedDraw(Messenger):
    """Gives a :class:`~bayesflowmass.bayes.module.BayesianModule` one draw of its weights from a guide.

    Within one ``with`` block all calls see the same draw. Noise comes from the global generator.

    >>> with SharedDraw(guide) as estimator:
    ...     output = network(x)
    >>> loss = -log_likelihood(output) + estimator.kl()

    Args:
        guide: q over the random weights of the module.
    """

    def __init__(self, guide: WeightGuide) -> None:
        super().__init__()
        self.guide = guide
        self._weights: dict[str, Tensor] | None = None
        self._kl: list[Tensor] = []

    def __enter__(self) -> SharedDraw:
        self._weights = None
        self._kl = []
        super().__enter__()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        super().__exit__(exc_type, exc_value, traceback)

    def kl(self) -> Tensor:
        """KL(q || p) [nats], summed over all weights; its gradient shares the passes of the draw."""
        if self._weights is None:
            raise ValueError("No network with random weights ran within this handler, so none was drawn.")
        return torch.stack(self._kl).sum()

    def _pyro_weights(self, message: Any) -> None:
        (network,) = message["args"]
        if tuple(network.layout.names) != self.guide.names:
            raise ValueError(
                f"The guide is over {', '.join(self.guide.names[:3])}, ... and the network's random weights are"
                f" {', '.join(network.layout.names[:3])}, ...; build both with the same choice."
            )
        if self._weights is None:
            self._weights = self._draw(network)
        message["value"] = self._weights
        message["done"] = message["stop"] = True

    def _draw(self, network: BayesianModule) -> dict[str, Tensor]:
        weights, kl = self.guide.sample_with_kl()
        self._kl.append(kl)
        return weights


class MirroredDraw(SharedDraw):
    """Draws in pairs: w = m + L eps in one ``with`` block, m - L eps in the next, L the root of q's covariance.

    Each is a draw from q by itself, so that every gradient is unbiased. Between the two, what is odd in eps
    cancels (antithetic variates, Hammersley & Morton 1956), which is most of the gradient's noise while q is
    narrow; and half of the normal numbers are never made. On a GPU, where they are cheap and a captured graph
    cannot take turns, every draw is a new one.

    Args:
        guide: q over the random weights of the module.
        seed: of the noise of the last draw, if its mirror image is due; an interrupted pair goes on with it.
    """

    def __init__(self, guide: WeightGuide, seed: int | None = None) -> None:
        super().__init__(guide)
        self.seed = seed
        self._kept: tuple[int, Tensor] | None = None

    def _draw(self, network: BayesianModule) -> dict[str, Tensor]:
        like = next(self.guide.parameters())
        if like.is_cuda:
            return super()._draw(network)
        if self.seed is None:
            seed, sign = int(torch.randint(1 << 62, ())), 1.0
        else:
            seed, sign = self.seed, -1.0
        if self._kept is not None and self._kept[0] == seed:
            noise = self._kept[1]
        else:
            noise = standard_normal((self.guide.n_noise,), like, torch.Generator().manual_seed(seed))
        self.seed, self._kept = (seed, (seed, noise)) if self.seed is None else (None, None)
        weights, kl = self.guide.sample_with_kl(noise=noise, sign=sign)
        self._kl.append(kl)
        return weights


class LocalReparameterisation(SharedDraw):
    """Draws the outputs of linear layers, not their weights: less variance, and no noise per weight.

    With independent normal weights an output is N(m.x, s^2.x^2), independent between examples and outputs
    (Kingma, Salimans & Welling 2015, arXiv:1506.02557). Random weights elsewhere (convolutions) are one
    shared draw, and so are random biases of layers whose weights are not random.

    Args:
        guide: a guide with ``local_linear``, such as the mean-field one.

    Raises:
        ValueError: when the network runs, if the guide has no local form.
    """

    def _draw(self, network: BayesianModule) -> dict[str, Tensor]:
        self._seen: dict[str, Tensor | None] = {}
        self._local = {
            parameter_name(layer, part)
            for layer in network.layers
            for part in ("weight", "bias")
            if parameter_name(layer, part) in network.layout.shapes
        }
        self._layers = set(network.layers)
        others = [name for name in self.guide.names if name not in self._local]
        if not others:
            return {}
        weights, kl = self.guide.sample_with_kl(others)
        self._kl.append(kl)
        return weights

    def kl(self) -> Tensor:
        if self._weights is None:
            return super().kl()
        divergences = list(self._seen.values())
        if self._layers - set(self._seen) or any(kl is None for kl in divergences):
            # A layer that was not called, or a guide that knows only the divergence of all weights.
            return self.guide.kl()
        return torch.stack([*self._kl, *(kl for kl in divergences if kl is not None)]).sum()

    def _pyro_linear(self, message: Any) -> None:
        layer = message["name"]
        inputs, _, bias = message["args"]
        flat = inputs.reshape(-1, inputs.shape[-1])
        mean, variance, kl = self.guide.local_linear(layer, flat)
        # A layer that is called twice has one divergence.
        self._seen.setdefault(layer, kl)
        if bias is not None and parameter_name(layer, "bias") not in self._local:
            mean = mean + bias
        message["value"] = NormalDraw.apply(mean, variance).reshape(*inputs.shape[:-1], -1)
        message["done"] = message["stop"] = True


class Flipout(SharedDraw):
    """One draw W = M + D of each linear layer's weights, and x M^T + ((x * r) D^T) * t with random signs.

    The signs r (B, I) and t (B, O) decorrelate the examples at the price of a second matrix product
    (Wen et al. 2018, arXiv:1803.04386). Biases, and random weights elsewhere, are one shared draw.

    Args:
        guide: the mean-field guide: signs leave q unchanged only if weights are independent.

    Raises:
        ValueError: for another guide.
    """

    def __init__(self, guide: WeightGuide) -> None:
        if not isinstance(guide, MeanField):
            raise ValueError(
                f"Flipout needs independent weights, and the guide {guide.kind!r} correlates them; use a shared"
                " draw or the mean-field guide."
            )
        super().__init__(guide)
        self._means = guide

    def _pyro_linear(self, message: Any) -> None:
        layer = message["name"]
        inputs, weight, bias = message["args"]
        mean = self._means.factor(parameter_name(layer, "weight"))[0].view(weight.shape)
        shape = (*inputs.shape[:-1], len(weight))
        signs_in = _signs(inputs.shape, inputs)
        signs_out = _signs(shape, inputs)
        deviation = F.linear(inputs * signs_in, weight - mean) * signs_out
        message["value"] = F.linear(inputs, mean, bias) + deviation
        message["done"] = message["stop"] = True


def _signs(shape: tuple[int, ...] | torch.Size, like: Tensor) -> Tensor:
    return torch.randint(0, 2, shape, device=like.device).to(like.dtype).mul_(2.0).sub_(1.0)


ESTIMATORS: dict[str, type[SharedDraw]] = {
    "shared": SharedDraw,
    "mirrored": MirroredDraw,
    "local": LocalReparameterisation,
    "flipout": Flipout,
}
