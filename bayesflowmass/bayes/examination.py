"""How a module uses its random weights, found by running it once: which linear layers act row by row.

A row of a layer's inputs may stand for an example of its own, with weights of its own, only if the layer acts once
on each example and no example sees another's row. Shapes alone do not tell; one run with gradients does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, ClassVar

import pyro.poutine as poutine
import torch
import torch.nn.functional as F
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.utils._pytree import tree_leaves, tree_map

from bayesflowmass.bayes.module import BayesianModule, parameter_name
from bayesflowmass.bayes.substitution import call_with, untraced

_ON_OTHERS = "what the module returns for one row depends on other rows"


class WatchedWeight(Tensor):
    """A weight that calls ``read`` when something else than its shape is asked for, and is then what ``read`` gives."""

    read: Callable[[], Tensor]
    _SHAPE: ClassVar[frozenset[Any]] = frozenset(
        [
            *(
                getattr(Tensor, name).__get__
                for name in ("shape", "dtype", "device", "ndim", "requires_grad")
            ),
            *(getattr(Tensor, name).__get__ for name in ("is_cuda", "layout", "is_leaf", "grad_fn")),
            *(
                Tensor.size,
                Tensor.dim,
                Tensor.numel,
                Tensor.__len__,
                Tensor.__hash__,
                Tensor.is_floating_point,
            ),
        ]
    )

    @classmethod
    def of(cls, weight: Tensor, read: Callable[[], Tensor]) -> WatchedWeight:
        """A stand-in for ``weight``, whose ``read()`` gives the tensor that takes its place."""
        watched: WatchedWeight = Tensor._make_subclass(cls, weight.detach())
        watched.read = read
        return watched

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func in cls._SHAPE:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **(kwargs or {}))
        args, kwargs = tree_map(lambda x: x.read() if isinstance(x, cls) else x, (args, dict(kwargs or {})))
        return func(*args, **kwargs)


def examine(
    network: BayesianModule, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[dict[str, str], int | None]:
    """Run a network once, on weights near its own, and look at what its random linear layers do.

    Nothing changes: buffers are copies, random numbers are put back, no outer handler of Pyro hears of it.

    Args:
        network: whose layers are examined.
        args, kwargs: of the call.

    Returns:
        Layer -> why its rows are not examples with weights of their own, for those of which it is so ("it is
        called 2 times in one pass"); and the number of examples, the length of the outputs, None if they have
        no common length.

    Raises:
        ValueError: a random weight is read past :func:`torch.func.functional_call`, so that no draw reaches it.
    """
    watch = _Watch(network)

    def run(watch: _Watch) -> list[Tensor]:
        # From the same state of the generators each time, so that dropout is the same.
        with _same_numbers(network.module), poutine.block(), watch:
            return tensors_of(network.run(*args, **kwargs))

    with _watched_gradients(network.module, network.layout.names) as originals:
        outputs = run(watch)
        _refuse_stale(outputs, originals)
        lengths = {value.shape[0] if value.dim() else None for value in outputs}
        n_examples = lengths.pop() if len(lengths) == 1 else None
        reasons = {name: watch.reason(name, outputs, n_examples) for name in network.layers}
        rows = [name for name, reason in reasons.items() if reason is None and watch.calls[name]]
        # Gradients do not see what a module detaches: the values of some rows are moved, first in all layers at once.
        if rows and n_examples != 1 and _moves_others(network, watch, rows, outputs, run):
            for name in rows:
                if _moves_others(network, watch, [name], outputs, run):
                    reasons[name] = _ON_OTHERS
    return {name: reason for name, reason in reasons.items() if reason}, n_examples


def _moves_others(
    network: BayesianModule,
    watch: _Watch,
    layers: Sequence[str],
    outputs: list[Tensor],
    run: Callable[[_Watch], list[Tensor]],
) -> bool:
    """Whether other outputs of these layers for half of the rows change what the module returns for the other half."""
    moved, half = {}, _random_half(outputs[0])
    for name in layers:
        _, shift = watch.calls[name][0]
        noise = _noise(torch.ones_like(shift), torch.Generator().manual_seed(1)).abs()
        moved[name] = noise * half.unsqueeze(-1)
    with torch.no_grad():
        found = run(_Watch(network, moved))
        pairs = [(a.detach()[~half], b[~half]) for a, b in zip(outputs, found, strict=True)]
        return not all(
            torch.allclose(a, b, rtol=1e-5, atol=1e-6 * float(a.abs().max()), equal_nan=True)
            for a, b in pairs
        )


def _random_half(rows: Tensor) -> Tensor:
    """True for a random half of the rows, (B,)."""
    half = torch.zeros(len(rows), dtype=torch.bool)
    half[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[: len(rows) // 2]] = True
    return half.to(rows.device)


def refuse_unreached(module: nn.Module, names: Sequence[str], *args: Any) -> None:
    """Refuse a module some of whose weights no draw reaches: what it returns depends on its own all the same.

    Args:
        module: to be called with draws of its weights (`call_with`).
        names: of these weights.
        args: of a call.

    Raises:
        ValueError: naming the weight.
    """
    with _watched_gradients(module, names) as originals:
        given = {
            name: value.detach().clone() for name, value in [*originals.items(), *module.named_buffers()]
        }
        _refuse_stale(tensors_of(call_with(module, given, args)), originals)


@contextmanager
def _watched_gradients(module: nn.Module, names: Sequence[str]) -> Iterator[dict[str, nn.Parameter]]:
    """The parameters of these names, which require a gradient within the block; random numbers are put back."""
    originals = {name: module.get_parameter(name) for name in names}
    required = {name: value.requires_grad for name, value in originals.items()}
    with untraced(), _same_numbers(module), torch.enable_grad():
        try:
            for value in originals.values():
                value.requires_grad_(True)
            yield originals
        finally:
            for name, value in originals.items():
                value.requires_grad_(required[name])


def _same_numbers(module: nn.Module) -> AbstractContextManager[None]:
    """After the block the global generators are as they were before."""
    device = next(module.parameters()).device
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])


def mixes_rows(rows: Tensor, results: Iterable[Tensor]) -> bool:
    """Whether a result of one example depends on the row of another: rows (B, ...) with a graph to results (B, ...).

    The gradient of a random half of the results must vanish on the rows of the other half.
    """
    generator, half = torch.Generator().manual_seed(0), _random_half(rows)
    for chosen in (half, ~half):
        total = rows.new_zeros(())
        for result in results:
            # Weighted at random: the derivative of a plain sum may vanish, as that of a softmax does.
            weights = torch.randn(result.shape, generator=generator, dtype=torch.float64).to(result)
            total = total + (result * weights)[chosen].sum().to(total)
        if not total.requires_grad:
            continue
        (gradient,) = torch.autograd.grad(total, rows, retain_graph=True, allow_unused=True)
        if gradient is not None and bool((gradient[~chosen] != 0).any()):
            return True
    return False


def tensors_of(output: Any) -> list[Tensor]:
    """The tensors of real numbers in what a module returned: nested containers, parameters of distributions."""
    found = []
    for leaf in tree_leaves(output):
        if isinstance(leaf, Distribution):
            found += tensors_of([vars(leaf)[name] for name in sorted(vars(leaf))])
        elif isinstance(leaf, Tensor) and leaf.is_floating_point():
            found.append(leaf)
    return found


def _refuse_stale(outputs: list[Tensor], originals: Mapping[str, Tensor]) -> None:
    total = sum((value.sum() for value in outputs if value.requires_grad), torch.zeros(()))
    if not total.requires_grad:
        return
    gradients = torch.autograd.grad(total, list(originals.values()), retain_graph=True, allow_unused=True)
    for name, gradient in zip(originals, gradients, strict=True):
        if gradient is not None:
            raise ValueError(
                f"The module keeps a reference of its own to the random weight '{name}', which no draw reaches; read"
                " it as an attribute of the layer that holds it, or choose other weights ('which')."
            )


class _Watch(Messenger):
    """Gives a network weights near its own, and notes calls of its layers and other uses of their weights."""

    def __init__(self, network: BayesianModule, moved: Mapping[str, Tensor] | None = None) -> None:
        super().__init__()
        self.network, self.moved = network, moved or {}
        generator = torch.Generator().manual_seed(0)
        module = network.module
        # Near and not at them: a head that begins at zero would hide what happens below it.
        self.values = {
            name: value.detach() + 0.1 * _noise(value, generator)
            if value.is_floating_point()
            else value.detach()
            for name, value in module.named_parameters()
        }
        self.owners = {
            parameter_name(layer, part): layer
            for layer in network.layers
            for part in ("weight", "bias")
            if parameter_name(layer, part) in network.layout.shapes
        }
        self.calls: dict[str, list[tuple[torch.Size, Tensor]]] = {name: [] for name in network.layers}
        self.read: set[str] = set()

    def _pyro_weights(self, message: Any) -> None:
        watched = {name: WatchedWeight.of(self.values[name], self._reader(name)) for name in self.owners}
        buffers = {name: value.clone() for name, value in self.network.module.named_buffers()}
        message["value"] = buffers | self.values | watched
        message["done"] = message["stop"] = True

    def _reader(self, name: str) -> Callable[[], Tensor]:
        def read() -> Tensor:
            self.read.add(self.owners[name])
            return self.values[name]

        return read

    def _pyro_linear(self, message: Any) -> None:
        inputs, weight, bias, _ = message["args"]
        layer, read = message["name"], set(self.read)
        output = F.linear(inputs, weight, bias)
        # That was the call itself.
        self.read = read
        shift = self.moved[layer] if layer in self.moved else torch.zeros_like(output, requires_grad=True)
        self.calls[layer].append((inputs.shape, shift))
        message["value"] = output + shift
        message["done"] = message["stop"] = True

    def reason(self, layer: str, outputs: list[Tensor], n_examples: int | None) -> str | None:
        """Why the rows of a layer are not examples with weights of their own; None: they are."""
        calls = self.calls[layer]
        for part in ("weight", "bias"):
            others = self.network.places.get(parameter_name(layer, part))
            if others:
                return f"its {part} is also '{others[0]}'"
        if layer in self.read:
            return "its weights are read otherwise than by calling it"
        if not calls:
            return None
        if len(calls) > 1:
            return f"it is called {len(calls)} times in one pass"
        shape, shift = calls[0]
        if len(shape) != 2:
            return f"its inputs have the shape {tuple(shape)}, several rows for each example"
        if n_examples is None:
            return "the outputs of the module have no common length, so that its examples are unknown"
        if shape[0] != n_examples:
            return f"it is given {shape[0]} rows where the module returns {n_examples}"
        if mixes_rows(shift, outputs):
            return _ON_OTHERS
        return None


def _noise(value: Tensor, generator: torch.Generator) -> Tensor:
    scale = value.detach().square().mean().sqrt() if value.numel() else value.detach().sum()
    noise = torch.randn(value.shape, generator=generator, dtype=torch.float64).to(value)
    return noise * (scale if float(scale) > 0 else 1.0)
