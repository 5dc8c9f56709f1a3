"""The random weights of a module as one flat vector, and back."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn


class WeightLayout:
    """Names and shapes of P random weights, in the order in which a flat vector (*D, P) holds them.

    Args:
        module: the module that they belong to.
        names: of its parameters (or buffers), as :func:`~bayesflowmass.bayes.choice.choose` gives them.

    Raises:
        ValueError: if the module has no such parameter, or they differ in type or device.
    """

    def __init__(self, module: nn.Module, names: Sequence[str]) -> None:
        parameters = dict([*module.named_buffers(), *module.named_parameters()])
        missing = [name for name in names if name not in parameters]
        if missing or not names:
            raise ValueError(
                f"{type(module).__name__} has no parameter {missing[0]!r}; build the module that the weights"
                " belong to."
                if missing
                else "No random weights were given; choose some, such as 'last'."
            )
        kinds = {(parameters[name].dtype, parameters[name].device) for name in names}
        if len(kinds) > 1:
            raise ValueError(f"The random weights differ in type or device: {kinds}; make them alike first.")
        self.names = tuple(names)
        self.shapes = {name: parameters[name].shape for name in names}
        self.sizes = [math.prod(self.shapes[name]) for name in names]

    @property
    def n_weights(self) -> int:
        """P."""
        return sum(self.sizes)

    def flatten(self, weights: Mapping[str, Tensor]) -> Tensor:
        """(*D, P) from ``weights``, name -> (*D, *shape)."""
        lead = weights[self.names[0]].dim() - len(self.shapes[self.names[0]])
        return torch.cat([weights[name].reshape(*weights[name].shape[:lead], -1) for name in self.names], -1)

    def split(self, flat: Tensor) -> dict[str, Tensor]:
        """Name -> (*D, *shape), views of ``flat`` (*D, P)."""
        parts = flat.split(self.sizes, -1)
        return {
            name: part.reshape(*flat.shape[:-1], *self.shapes[name])
            for name, part in zip(self.names, parts, strict=True)
        }
