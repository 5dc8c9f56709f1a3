"""Dropout as a distribution over weights (MC dropout)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from functools import partial
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from bayesflowmass.bayes.layout import WeightLayout
from bayesflowmass.bayes.point import maximise_weights
from bayesflowmass.bayes.priors import WeightPrior
from bayesflowmass.bayes.protocol import Data, Maximise, WeightPosterior
from bayesflowmass.bayes.substitution import call_with, other_places

__all__ = ["DropoutPosterior", "mask_consumers"]


class DropoutPosterior(WeightPosterior):
    """The dropout of training, kept: each draw silences a random set of hidden units, the same for all clusters.

    A dropped unit is a dropped column of the weight matrices that read it, so that a draw is a set of
    weights: w times its mask over 1 - p. All layers that read one dropout layer share its mask.

    References:
        Gal & Ghahramani 2016, arXiv:1506.02142; one mask for all inputs makes draws consistent functions.

    Args:
        module: whose weights they are.
        masks: dropout layer -> (p, names of the weight matrices that read it).
        weights: (P,), the matrices of all masks, in the order of ``module.named_parameters()``.
    """

    method: ClassVar[str] = "dropout"
    weights: Tensor

    def __init__(
        self, module: nn.Module, masks: Mapping[str, tuple[float, Sequence[str]]], weights: Tensor
    ) -> None:
        super().__init__()
        self.masks = {layer: (float(rate), tuple(names)) for layer, (rate, names) in masks.items()}
        self.layout = _layout(module, self.masks)
        self.names = self.layout.names
        self.register_buffer("weights", weights)

    @classmethod
    def fit(
        cls,
        module: nn.Module,
        data: Data,
        *,
        maximise: Maximise,
        seed: int = 0,
        progress: bool = False,
        train_prior: WeightPrior | None = None,
        trained: bool = False,
    ) -> Self:
        """Train the module with its dropout.

        Raises:
            ValueError: the module has no dropout layer, or dropout acts otherwise than on what linear layers read.
        """
        masks = mask_consumers(module, (data[0][:2], data[1][:2]))
        if not trained:
            maximise_weights(module, train_prior, len(data[1]), maximise, seed=seed, name="point")
        weights = _layout(module, masks).flatten(dict(module.named_parameters())).detach()
        return cls(module, masks, weights)

    @classmethod
    def check(cls, module: nn.Module, data: Data, options: Mapping[str, Any]) -> None:
        mask_consumers(module, data)

    def draw(self, n_draws: int, seed: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        weights = self.layout.split(self.weights)
        draws: dict[str, Tensor] = {}
        for rate, names in self.masks.values():
            units = self.layout.shapes[names[0]][1]
            kept = torch.rand(n_draws, units, generator=generator, dtype=torch.float64) >= rate
            mask = kept.to(self.weights) / (1 - rate)
            draws |= {name: weights[name] * mask.unsqueeze(1) for name in names}
        return {name: draws[name] for name in self.names}

    def describe(self) -> dict[str, Any]:
        return {"method": self.method, "masks": {k: [p, list(names)] for k, (p, names) in self.masks.items()}}

    @classmethod
    def _restore(cls, module: nn.Module, description: Mapping[str, Any]) -> Self:
        masks = {layer: (rate, tuple(names)) for layer, (rate, names) in description["masks"].items()}
        return cls(module, masks, next(module.parameters()).new_zeros(_layout(module, masks).n_weights))


def mask_consumers(module: nn.Module, data: Data) -> dict[str, tuple[float, tuple[str, ...]]]:
    """Each dropout layer that acts on ``data``, its rate, and the weight matrices that read it.

    Args:
        module: with ``log_prob(log10_mass (B,), context (B, C)) -> (B,)``; it runs once.
        data: context (B, C) and log10 M200c [Msun/h] (B,), a few clusters.

    Raises:
        ValueError: there is no dropout, or masks of weights do not do what it does: something else than a linear
            layer reads it, or the module drops units without a layer (`torch.nn.functional.dropout`).
    """
    outputs: dict[str, Tensor] = {}
    readers: dict[str, list[str]] = {}
    layers = {name: layer for name, layer in module.named_modules() if not list(layer.children())}

    def note(name: str) -> Any:
        def hook(layer: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
            source = next((key for key, value in outputs.items() if inputs and value is inputs[0]), None)
            # A layer of no outputs (a block without parameters) reads nothing.
            if source is not None and output.numel() > 0:
                if not isinstance(layer, nn.Linear):
                    raise ValueError(
                        f"The dropout '{source}' is read by '{name}', a {type(layer).__name__}; masks of "
                        "weights need linear layers after dropout."
                    )
                readers[source].append(f"{name}.weight")
            if isinstance(layer, nn.Dropout) and layer.p > 0:
                outputs[name], readers[name] = output, []

        return hook

    handles = [layer.register_forward_hook(note(name)) for name, layer in layers.items()]
    training = module.training
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            # Out of training, dropout may hand its input on as it is, which others may read too.
            module.train()
            call_with(module, _buffers(module), (data[1], data[0]))
    finally:
        module.train(training)
        for handle in handles:
            handle.remove()
    first = {other: name for name, others in other_places(module).items() for other in others}
    masks: dict[str, tuple[float, tuple[str, ...]]] = {
        layer: (layers[layer].p, tuple(dict.fromkeys(first.get(name, name) for name in names)))
        for layer, names in readers.items()
        if names
    }
    if not masks:
        raise ValueError(
            "The network has no dropout before a linear layer; build it with dropout, such as 0.1, to use its masks."
        )
    for layer, (rate, _) in masks.items():
        if rate >= 1:
            raise ValueError(f"The dropout '{layer}' drops every unit (p = {rate}); choose a rate below 1.")
    _compare(module, masks, data)
    return masks


def _compare(module: nn.Module, masks: Mapping[str, tuple[float, Sequence[str]]], data: Data) -> None:
    """Refuse a module that, with factors in the place of its dropout layers, is not the one of masked weights."""
    copy = deepcopy(module)
    layout, generator = _layout(copy, masks), torch.Generator().manual_seed(0)
    weights = {name: copy.get_parameter(name).detach() for name in layout.names}
    for layer, (_, names) in masks.items():
        units = layout.shapes[names[0]][1]
        factors = (0.5 + torch.rand(units, generator=generator, dtype=torch.float64)).to(weights[names[0]])
        weights |= {name: weights[name] * factors for name in names}
        copy.get_submodule(layer).forward = partial(torch.mul, factors)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        expected = call_with(deepcopy(module).eval(), weights, (data[1], data[0]))
        copy.train()
        for part in copy.modules():
            # Their statistics are no matter of dropout.
            if isinstance(part, nn.modules.batchnorm._NormBase):
                part.eval()
        found = copy(data[1], data[0])
    size = float(expected.abs().max()) + 1.0
    if not torch.allclose(found, expected, rtol=0.0, atol=size * torch.finfo(expected.dtype).eps ** 0.5):
        raise ValueError(
            "Dropout acts in this network otherwise than on what linear layers read, so that masks of weights are not"
            f" what it does in training: beside {', '.join(masks)}, look for torch.nn.functional.dropout, another kind"
            " of dropout, or something between a dropout layer and the linear layer after it."
        )


def _buffers(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.named_buffers()}


def _layout(module: nn.Module, masks: Mapping[str, tuple[float, Sequence[str]]]) -> WeightLayout:
    chosen = {name for _, names in masks.values() for name in names}
    return WeightLayout(module, [name for name, _ in module.named_parameters() if name in chosen])
