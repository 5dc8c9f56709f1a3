"""Any torch module as a Pyro model whose weights are random."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import pyro
import torch.nn.functional as F
from pyro.poutine.runtime import am_i_wrapped, effectful
from torch import Tensor, nn

from bayesflowmass.bayes.choice import Choice, choose
from bayesflowmass.bayes.guides.base import register_parameters
from bayesflowmass.bayes.layout import WeightLayout
from bayesflowmass.bayes.priors import NormalPrior, WeightPrior
from bayesflowmass.bayes.substitution import call_with, other_places

__all__ = ["BayesianModule"]


class BayesianModule(nn.Module):
    """A module whose weights are sample sites of Pyro, one site per tensor, named as the parameter.

    Calling it draws the random weights from the prior, or takes what an effect handler gives: the trace of a
    guide, as in any Pyro model, or an estimator of :mod:`bayesflowmass.bayes.handlers`. Three messages reach the
    handlers: ``weights``, once, for the random weights together, ``linear`` for each call of a linear
    layer with random weights, and ``outputs`` for what the module returned.

    Args:
        module: any torch module; its random parameters no longer require gradients.
        prior: p(w).
        which: the random parameters, see :func:`~bayesflowmass.bayes.choice.choose`.
        name: under which Pyro's parameter store knows the parameters that are not random.
    """

    def __init__(
        self,
        module: nn.Module,
        prior: WeightPrior | None = None,
        which: Choice = "all",
        *,
        name: str = "network",
    ) -> None:
        super().__init__()
        self.module = module
        self.prior = NormalPrior() if prior is None else prior
        self.layout = WeightLayout(module, choose(module, which))
        self.name = name
        # Looking for tied weights in every call costs as much as a small layer.
        self.places = other_places(module)
        parameters = dict(module.named_parameters())
        for random in self.layout.names:
            parameters[random].requires_grad_(False)
        self.layers = {
            prefix: part
            for prefix, part in module.named_modules()
            if type(part) is nn.Linear and parameter_name(prefix, "weight") in self.layout.shapes
        }

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the module returns for these arguments, its parameters known to Pyro."""
        if am_i_wrapped():
            register_parameters(self.name, self.module)
        return self.run(*args, **kwargs)

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """What the module returns for these arguments with the random weights that the handlers give."""
        weights = draw_weights(self, args, kwargs)
        with _effectful_layers(self.layers):
            result = call_with(self.module, weights, args, kwargs, places=self.places)
        return outputs(self, result)

    def sample_prior(self) -> dict[str, Tensor]:
        """One draw of the sites, name -> (*shape,)."""
        like = next(self.module.parameters())
        weights = {}
        for name, shape in self.layout.shapes.items():
            weights[name] = pyro.sample(name, self.prior.distribution(name, shape, like))
        return weights


def parameter_name(layer: str, part: str) -> str:
    """Name of ``weight`` or ``bias`` of a layer; the layer may be the module itself, without a name."""
    return f"{layer}.{part}" if layer else part


def _draw_weights(
    network: BayesianModule, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Mapping[str, Tensor]:
    return network.sample_prior()


def _outputs(network: BayesianModule, result: Any) -> Any:
    return result


def _linear(inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return F.linear(inputs, weight, bias)


draw_weights = effectful(_draw_weights, type="weights")
linear = effectful(_linear, type="linear")
outputs = effectful(_outputs, type="outputs")


@contextmanager
def _effectful_layers(layers: Mapping[str, nn.Linear]) -> Iterator[None]:
    """Within the block, calls of these layers are messages to Pyro's handlers."""

    def forward(inputs: Tensor, *, name: str, layer: nn.Linear) -> Tensor:
        output: Tensor = linear(inputs, layer.weight, layer.bias, name=name)
        return output

    for name, layer in layers.items():
        # On the instance: it hides the method of the class for as long as the block lasts.
        layer.__dict__["forward"] = partial(forward, name=name, layer=layer)
    try:
        yield
    finally:
        for layer in layers.values():
            layer.__dict__.pop("forward", None)
