"""Second derivatives of the log likelihood by some of the weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import hessian
from torch.nn.attention import SDPBackend, sdpa_kernel

from bayesflowmass.bayes.choice import exactly
from bayesflowmass.bayes.examination import examine
from bayesflowmass.bayes.layout import WeightLayout
from bayesflowmass.bayes.module import BayesianModule
from bayesflowmass.bayes.protocol import Data
from bayesflowmass.bayes.substitution import call_with


def summed_hessian(module: nn.Module, names: Sequence[str], data: Data, *, chunk: int = 1000) -> Tensor:
    r"""
    The exact Hessian (P, P), float64, of the summed negative log likelihood -sum_i log p(m_i | d_i, w).

    For linear layers z = W h + b that act once on each cluster and whose inputs h no chosen weight changes, the
    chain rule ends after one step,

        :math:`H = \sum_i (\partial_w z_i)^T\, [-\partial_z^2 \log p(m_i | z_i)]\, \partial_w z_i,`

    so that second derivatives are needed by the few outputs only, and the generalised Gauss-Newton matrix is
    the Hessian. Any other choice is differentiated twice by :func:`torch.func.hessian`.

    Args:
        module: with ``log_prob(log10_mass (B,), context (B, C)) -> (B,)``; a copy in double precision works.
        names: the weights, in the order of the rows of H.
        data: context (N, C) and log10 M200c [Msun/h] (N,).
        chunk: clusters at once.
    """
    module = deepcopy(module).double().eval().requires_grad_(False)
    layout = WeightLayout(module, names)
    outputs = LinearOutputs(module, layout)
    total = torch.zeros(layout.n_weights, layout.n_weights, dtype=torch.float64, device=data[0].device)
    if not outputs.are_last(*_doubled(data, slice(0, 8))):
        total += sum(_by_autograd(module, layout, *part) for part in _chunks(data, chunk))
        return 0.5 * (total + total.T)
    for part in _chunks(data, chunk):
        inputs, curvature = outputs.curvature(*part)
        for a, (first, rows) in enumerate(outputs.places):
            for b, (second, columns) in enumerate(outputs.places[: a + 1]):
                product = (inputs[first] * curvature[:, a, b, None]).T @ inputs[second]
                total[rows[:, None], columns] += product if a != b else 0.5 * product
    return total + total.T


class LinearOutputs:
    """The outputs z of linear layers as variables of the likelihood.

    Args:
        module: the network, whose parameters require no gradient.
        layout: the chosen weights.
    """

    def __init__(self, module: nn.Module, layout: WeightLayout) -> None:
        self.module = module
        self.names = layout.names
        owners = dict.fromkeys(name.rpartition(".")[0] for name in layout.names)
        self.layers = {name: module.get_submodule(name) for name in owners}
        index = layout.split(torch.arange(layout.n_weights))
        self.parts = {
            name: [part for part in ("weight", "bias") if f"{name}.{part}" in index] for name in owners
        }
        self.places: list[tuple[str, Tensor]] = []
        """For each output its layer and the places of its weights, then its bias, in the flat vector."""
        for name, layer in self.layers.items():
            if type(layer) is nn.Linear:
                columns = [
                    index[f"{name}.{part}"].reshape(layer.out_features, -1) for part in self.parts[name]
                ]
                self.places += [(name, row) for row in torch.cat(columns, -1)]

    def are_last(self, context: Tensor, log10_mass: Tensor) -> bool:
        """Whether all are linear layers, each used once and row by row, and none feeds another."""
        network = BayesianModule(self.module, which=exactly(self.names))
        several, n_examples = examine(network, (log10_mass, context), {})
        if set(network.layers) != set(self.layers) or several or n_examples in (None, 1):
            return False
        with self._watched() as seen:
            self.module.log_prob(log10_mass, context)  # type: ignore[operator]
        return all(calls and not calls[0][0].requires_grad for calls in seen.values())

    def curvature(self, context: Tensor, log10_mass: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Inputs (B, F) of each layer, a one appended for its bias, and -d2 log p / dz dz (B, O, O) of all outputs."""
        with self._watched() as seen, sdpa_kernel(SDPBackend.MATH):
            log_prob: Tensor = self.module.log_prob(log10_mass, context)  # type: ignore[operator]
        shifts = [calls[0][1] for calls in seen.values()]
        slope = torch.cat(torch.autograd.grad(-log_prob.sum(), shifts, create_graph=True), -1)
        # Clusters are independent: the gradient of a sum over them is that of each.
        rows = [
            torch.cat(
                torch.autograd.grad(
                    column.sum(), shifts, retain_graph=True, allow_unused=True, materialize_grads=True
                ),
                -1,
            )
            for column in slope.unbind(-1)
        ]
        inputs = {name: self._augmented(name, calls[0][0]) for name, calls in seen.items()}
        return inputs, torch.stack(rows, -2).detach()

    def _augmented(self, name: str, h: Tensor) -> Tensor:
        kinds = {"weight": h.detach(), "bias": torch.ones_like(h[:, :1])}
        return torch.cat([kinds[part] for part in self.parts[name]], -1)

    @contextmanager
    def _watched(self) -> Iterator[dict[str, list[tuple[Tensor, Tensor]]]]:
        """Within the block each layer notes its input and adds zeros, which require a gradient, to its output."""
        seen: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in self.layers}

        def note(name: str, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            shift = torch.zeros_like(output, requires_grad=True)
            seen[name].append((inputs[0], shift))
            return output + shift

        with ExitStack() as stack:
            for name, layer in self.layers.items():
                handle = layer.register_forward_hook(partial(note, name))
                stack.callback(handle.remove)
            yield seen


def _by_autograd(module: nn.Module, layout: WeightLayout, context: Tensor, log10_mass: Tensor) -> Any:
    def loss(flat: Tensor) -> Tensor:
        log_prob: Tensor = call_with(module, layout.split(flat), (log10_mass, context))
        return -log_prob.sum()

    # Fused attention has no second derivatives.
    with sdpa_kernel(SDPBackend.MATH):
        return hessian(loss)(layout.flatten(dict(module.named_parameters())))


def _doubled(data: Data, rows: slice) -> Data:
    """Rows in double precision; whole numbers, such as classes and words, stay what they are."""
    context, target = (part[rows].double() if part.is_floating_point() else part[rows] for part in data)
    return context, target


def _chunks(data: Data, chunk: int) -> Iterator[Data]:
    for start in range(0, len(data[1]), chunk):
        yield _doubled(data, slice(start, start + chunk))
