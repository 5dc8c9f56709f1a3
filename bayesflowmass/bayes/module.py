"""Any torch module as a Pyro model whose weights are random."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import pyro
import torch
import torch.nn.functional as F
from pyro.poutine.indep_messenger import IndepMessenger
from pyro.poutine.runtime import _PYRO_STACK, am_i_wrapped, effectful
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from bayesflowmass.bayes.choice import Choice, choose
from bayesflowmass.bayes.layout import WeightLayout
from bayesflowmass.bayes.parameter_store import register_parameters
from bayesflowmass.bayes.priors import Prior, as_prior
from bayesflowmass.bayes.substitution import call_with, other_places


class BayesianModule(nn.Module):
    """A module whose weights are sample sites of Pyro, one site per tensor, named as the parameter.

    Two networks of one model need names: ``BayesianModule(..., name="encoder")`` has sites such as
    ``encoder.0.weight``, as in a `pyro.nn.PyroModule` of that name.

    Calling it draws the random weights from the prior, or takes what an effect handler gives: the trace of a
    guide, as in any Pyro model, or an estimator of :mod:`bayesflowmass.bayes.handlers`. Three messages reach the
    handlers: ``weights``, once, for the random weights together, ``linear`` for each call of a linear
    layer with random weights, and ``outputs`` for what the module returned.

    Args:
        module: any torch module; its random parameters no longer require gradients.
        prior: p(w), see :func:`~bayesflowmass.bayes.priors.as_prior`.
        which: the random parameters, see :func:`~bayesflowmass.bayes.choice.choose`.
        name: before the names of the sites, and of the other parameters in Pyro's store; None: sites are named as the
            parameters alone, and ``network`` stands before those in the store.
    """

    def __init__(
        self, module: nn.Module, prior: Prior | None = None, which: Choice = "all", *, name: str | None = None
    ) -> None:
        super().__init__()
        self.module = module
        self.prior = as_prior(prior)
        self.layout = WeightLayout(module, choose(module, which))
        self.name = name
        for prefix, part in module.named_modules():
            inner = (
                [f"{prefix}.module.{weight}" for weight in part.layout.names]
                if isinstance(part, BayesianModule)
                else []
            )
            twice = next((weight for weight in inner if weight in self.layout.shapes), None)
            if twice is not None:
                raise ValueError(
                    f"The weight '{twice}' is random in the BayesianModule '{prefix}' already, which draws it itself;"
                    " leave it out of the choice ('which'), or take the BayesianModule away from around the part."
                )
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
            register_parameters(self.name or "network", self.module)
        return self.run(*args, **kwargs)

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """What the module returns for these arguments with the random weights that the handlers give."""
        weights = draw_weights(self, args, kwargs)
        size = max(
            _copies(weights[name], self.layout.shapes[name]) for name in self.layout.names if name in weights
        )
        if size > 1:
            return self._run_copies(weights, size, args, kwargs)
        with _effectful_layers(self.layers, self.name):
            result = call_with(self.module, weights, args, kwargs, places=self.places)
        return outputs(self, result)

    def site(self, name: str) -> str:
        """The name of the site of a parameter."""
        return site_name(self.name, name)

    def _run_copies(
        self, weights: Mapping[str, Tensor], size: int, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Any:
        """Outputs for several sets of weights at once, where the plate of Pyro that vectorises them wants them."""
        dim = _particle_dim(size)

        def one(index: int) -> Any:
            return call_with(
                self.module,
                {
                    name: value.reshape(-1, *self.layout.shapes[name])[
                        min(index, _copies(value, self.layout.shapes[name]) - 1)
                    ]
                    for name, value in weights.items()
                },
                args,
                kwargs,
                places=self.places,
            )

        def stack(*parts: Any) -> Any:
            if not isinstance(parts[0], Tensor):
                raise ValueError(
                    f"The network returns a {type(parts[0]).__name__}, which has no place for the particles that Pyro"
                    " vectorises; return tensors, or run the particles one by one."
                )
            # The first dimension of the outputs, the examples, stands in a plate.
            between = [1] * (-dim - 1 - min(1, parts[0].dim()))
            return torch.stack(parts).reshape(size, *between, *parts[0].shape)

        return tree_map(stack, *(one(index) for index in range(size)))

    def sample_prior(self) -> dict[str, Tensor]:
        """One draw of the sites, name -> (*shape,)."""
        like = next(self.module.parameters())
        weights = {}
        for name, shape in self.layout.shapes.items():
            weights[name] = pyro.sample(self.site(name), self.prior.distribution(name, shape, like))
        return weights


def parameter_name(layer: str, part: str) -> str:
    """Name of ``weight`` or ``bias`` of a layer; the layer may be the module itself, without a name."""
    return f"{layer}.{part}" if layer else part


def site_name(network: str | None, parameter: str) -> str:
    """The site of a parameter of the network of this name."""
    return f"{network}.{parameter}" if network else parameter


PREDICTIVE = "_num_predictive_samples"
VECTORISED = ("num_particles_vectorized", PREDICTIVE)


def particle_plate() -> IndepMessenger | None:
    """The plate in which Pyro vectorises particles or predictions, if it does."""
    frames = [frame for frame in _PYRO_STACK if isinstance(frame, IndepMessenger) and frame.dim is not None]
    return next((frame for frame in frames if frame.name in VECTORISED), None)


def for_particles(sets: Tensor, plate: IndepMessenger | None) -> Tensor:
    """Sets of weights (n, *shape) where a plate of n members has its dimension; without a plate the only one."""
    if plate is None:
        return sets[0]
    return sets.reshape(len(sets), *[1] * (-plate.dim - 1), *sets.shape[1:])


def times(frame: Any) -> float:
    """By how much a plate multiplies the log densities of its members: those that it leaves out count through them."""
    return float((frame.full_size or frame.size) / frame.size)


def scale_of(message: Any) -> float | Tensor:
    """By which ``poutine.scale`` multiplies, without the plates of subsamples."""
    scale: float | Tensor = message["scale"]
    if isinstance(scale, Tensor) and scale.numel() != 1:
        raise ValueError(
            f"The network runs under a scale of shape {tuple(scale.shape)}, one number for each example, and its"
            " weights have one divergence; put poutine.scale around the observations alone."
        )
    return scale / math.prod(times(frame) for frame in message["cond_indep_stack"])


def _particle_dim(size: int) -> int:
    """Where Pyro vectorises so many particles.

    Raises:
        ValueError: the network ran inside a plate of data.
    """
    plates = [frame for frame in _PYRO_STACK if isinstance(frame, IndepMessenger) and frame.dim is not None]
    for plate in plates:
        if plate.name not in VECTORISED:
            raise ValueError(
                f"The network ran inside the plate '{plate.name}', where each of its {plate.size} members would have"
                " weights of its own; call it before the plate."
            )
    if not plates:
        raise ValueError(
            f"The weights of the network are {size} sets, and no plate of Pyro says where they go; give one set."
        )
    return int(plates[0].dim)


def _copies(value: Tensor, shape: torch.Size) -> int:
    """How many sets of weights (*D, *shape) holds."""
    return math.prod(value.shape[: value.dim() - len(shape)])


def _draw_weights(
    network: BayesianModule, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Mapping[str, Tensor]:
    for frame in _PYRO_STACK:
        guide = getattr(frame, "guide", None) if hasattr(frame, "_pyro_weights") else None
        if guide is not None and guide.name == network.name:
            raise ValueError(
                f"A poutine.block hides the network from {type(frame).__name__}, which would give it its weights: they"
                " would be drawn from the prior. Put the block around less."
            )
    return network.sample_prior()


def _outputs(network: BayesianModule, result: Any) -> Any:
    return result


def _linear(inputs: Tensor, weight: Tensor, bias: Tensor | None, network: str | None) -> Tensor:
    return F.linear(inputs, weight, bias)


draw_weights = effectful(_draw_weights, type="weights")
linear = effectful(_linear, type="linear")
outputs = effectful(_outputs, type="outputs")


@contextmanager
def _effectful_layers(layers: Mapping[str, nn.Linear], network: str | None) -> Iterator[None]:
    """Within the block, calls of these layers are messages to Pyro's handlers."""

    def forward(inputs: Tensor, *, name: str, layer: nn.Linear) -> Tensor:
        output: Tensor = linear(inputs, layer.weight, layer.bias, network, name=name)
        return output

    for name, layer in layers.items():
        # On the instance: it hides the method of the class for as long as the block lasts.
        layer.__dict__["forward"] = partial(forward, name=name, layer=layer)
    try:
        yield
    finally:
        for layer in layers.values():
            layer.__dict__.pop("forward", None)
