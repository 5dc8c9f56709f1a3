"""Modules whose weights begin anew."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import nn


def fresh_copy(module: nn.Module, seed: int) -> nn.Module:
    """An untrained module of the same architecture, with initial weights of another seed.

    Raises:
        ValueError: see `draw_anew`.
    """
    # A copy, since a module may have been told what its description does not say, such as a population.
    fresh = deepcopy(module).train().requires_grad_(True)
    draw_anew(fresh, seed)
    return fresh


def draw_anew(module: nn.Module, seed: int) -> None:
    """Give a module the initial weights of a seed, in place.

    They are those of the module that ``from_description`` makes of ``describe()``, where it has these; else its parts
    draw their weights by their method ``reset_parameters``, as those of torch do.

    Raises:
        ValueError: a part with parameters has no such method.
    """
    make, describe = getattr(module, "from_description", None), getattr(module, "describe", None)
    if make is not None and describe is not None:
        module.load_state_dict(make({**describe(), "seed": seed}).state_dict())
        return
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if callable(getattr(module, "reset_parameters", None)):
            module.reset_parameters()  # type: ignore[operator]
            return
        for name, part in module.named_modules():
            if callable(getattr(part, "reset_parameters", None)):
                part.reset_parameters()
            elif any(True for _ in part.parameters(recurse=False)):
                raise ValueError(
                    f"The part '{name}' of the module, a {type(part).__name__}, cannot draw its initial weights anew;"
                    " give it a method reset_parameters(), as the layers of torch have."
                )
