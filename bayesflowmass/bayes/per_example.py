"""Handlers that give each example weights of its own: less variance of the gradient, in the layers where it is right.

That is right for gradients of a sum over examples and wrong for predictions of several examples at once: those need a
shared draw. It is also wrong where a layer acts several times on one example, or where an example sees rows of others;
such layers get a shared draw (`examine`).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from bayesflowmass.bayes.examination import WatchedWeight, mixes_rows, tensors_of
from bayesflowmass.bayes.guides.base import WeightGuide
from bayesflowmass.bayes.guides.fused import NormalDraw
from bayesflowmass.bayes.handlers import MirroredDraw, SharedDraw
from bayesflowmass.bayes.module import PREDICTIVE, BayesianModule, parameter_name, particle_plate
from bayesflowmass.bayes.substitution import is_traced


class PerExampleDraw(SharedDraw):
    """What estimators share that give each example weights of its own, in the linear layers where that is right."""

    def __enter__(self) -> SharedDraw:
        self._called: dict[str, int] = {}
        return super().__enter__()

    def own_layers(self, network: BayesianModule) -> list[str]:
        """The linear layers whose rows are the examples, each with weights of its own."""
        return [layer for layer in network.layers if layer not in self.shared_layers]

    def _prepare(self, network: BayesianModule, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        again, plate = self._weights is not None, particle_plate()
        if is_traced():
            raise ValueError(
                f"torch.jit does not trace the gradients of {type(self).__name__}; use SharedDraw, or a bound of Pyro"
                " that is not compiled."
            )
        if plate is not None and plate.name == PREDICTIVE:
            raise ValueError(
                f"{type(self).__name__} gives each example weights of its own, which predictions do not have;"
                " predict with SharedDraw."
            )
        super()._prepare(network, args, kwargs)
        if again and self.own_layers(network):
            raise ValueError(
                f"The network ran twice within one block of {type(self).__name__}, which gives each run other"
                " weights; use a block for each run, or the estimator 'shared'."
            )

    def _given(self, network: BayesianModule, weights: dict[str, Tensor]) -> Mapping[str, Tensor]:
        guards: dict[str, Tensor] = {}
        for layer in self.own_layers(network):
            for part in ("weight", "bias"):
                name = parameter_name(layer, part)
                if name in network.layout.shapes:
                    frozen = network.module.get_parameter(name)
                    guards[name] = WatchedWeight.of(
                        frozen, partial(self._refuse, layer, "is read past its call")
                    )
        return weights | guards

    def _is_own(self, layer: str, inputs: Tensor) -> bool:
        """Whether this call draws for each example; refuses what the first run of the network did not do."""
        if layer in self.shared_layers:
            return False
        if layer in self._called:
            self._refuse(layer, "is called twice")
        if inputs.dim() != 2:
            self._refuse(layer, f"is given inputs of shape {tuple(inputs.shape)}")
        self._called[layer] = len(inputs)
        return True

    def _pyro_outputs(self, message: Any) -> None:
        super()._pyro_outputs(message)
        if not self._called or message["args"][0].name != self.guide.name:
            return
        self._outputs = tensors_of(message["args"][1])
        lengths = {value.shape[0] if value.dim() else 0 for value in self._outputs}
        for layer, n_rows in self._called.items():
            if lengths != {n_rows}:
                self._refuse(layer, f"has {n_rows} rows where the module returns {sorted(lengths)}")

    def check_likelihood(self, name: str, log_prob: Tensor) -> None:
        """Whether each example's likelihood depends on its own row of the outputs alone.

        Args:
            name: of the observed site.
            log_prob: its log density, in the shape of its batch (B, ...).

        Raises:
            ValueError: it has another length, or depends on other rows.
        """
        if not self._called or not log_prob.requires_grad:
            return
        length = log_prob.shape[0] if log_prob.dim() else 1
        found = None
        if any(len(rows) != length for rows in self._outputs):
            found = f"has {length} examples where the network returns {len(self._outputs[0])} rows"
        elif any(mixes_rows(rows, [log_prob]) for rows in self._outputs if rows.requires_grad):
            found = "depends in one example on rows of others"
        if found is not None:
            raise ValueError(
                f"The site '{name}' {found}, and {type(self).__name__} gives each row weights of its own; use the"
                " estimator 'shared'."
            )

    def _refuse(self, layer: str, found: str) -> Any:
        raise ValueError(
            f"The layer '{layer}' {found}, which it did not when {type(self).__name__} first saw the network, so"
            " that weights for each example would be wrong; use the estimator 'shared'."
        )


class LocalReparameterisation(PerExampleDraw):
    """Draws the outputs of linear layers, not their weights: less variance, and no noise per weight.

    With independent normal weights an output is N(m.x, s^2.x^2), independent between examples and outputs
    (Kingma, Salimans & Welling 2015, arXiv:1506.02557). Random weights elsewhere (convolutions, layers of
    ``shared_layers``) are one shared draw, and so are random biases of layers whose weights are not random.

    Args:
        guide: a guide with ``local_linear``, such as the mean-field one.

    Raises:
        ValueError: if the guide has no local form.
    """

    def __init__(self, guide: WeightGuide) -> None:
        if type(guide).local_linear is WeightGuide.local_linear:
            guide.local_linear("", torch.empty(0))
        super().__init__(guide)

    def _draw(self, network: BayesianModule) -> dict[str, Tensor]:
        self._seen: dict[str, Tensor | None] = {}
        self._layers = set(self.own_layers(network))
        self._local = {
            name
            for layer in self._layers
            for part in ("weight", "bias")
            if (name := parameter_name(layer, part)) in network.layout.shapes
        }
        others = [name for name in self.guide.names if name not in self._local]
        if not others:
            return {}
        weights, kl = self.guide.sample_with_kl(others)
        self._kl.append(kl)
        return weights

    def _divergence(self) -> Tensor:
        divergences = list(self._seen.values())
        if self._layers - set(self._seen) or any(kl is None for kl in divergences):
            # A layer that was not called, or a guide that knows only the divergence of all weights.
            return self.guide.kl()
        return torch.stack([*self._kl, *(kl for kl in divergences if kl is not None)]).sum()

    def _pyro_linear(self, message: Any) -> None:
        layer = message["name"]
        inputs, _, bias, network = message["args"]
        if network != self.guide.name or not self._is_own(layer, inputs):
            return
        mean, variance, self._seen[layer] = self.guide.local_linear(layer, inputs)
        if bias is not None and parameter_name(layer, "bias") not in self._local:
            mean = mean + bias
        message["value"] = NormalDraw.apply(mean, variance)
        message["done"] = message["stop"] = True


ESTIMATORS: dict[str, type[SharedDraw]] = {
    "shared": SharedDraw,
    "mirrored": MirroredDraw,
    "local": LocalReparameterisation,
}
