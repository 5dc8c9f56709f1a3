"""Modules whose weights begin anew."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import torch
from torch import Tensor, nn

_AWAY = 0.5772156649


def fresh_copy(module: nn.Module, seed: int) -> nn.Module:
    """An untrained module of the same architecture, with initial weights of another seed; frozen weights stay.

    Raises:
        ValueError: see `draw_anew`.
    """
    # A copy, since a module may have been told what its description does not say, such as a population.
    fresh = deepcopy(module).train()
    frozen = {
        name: value.detach().clone() for name, value in fresh.named_parameters() if not value.requires_grad
    }
    draw_anew(fresh, seed)
    with torch.no_grad():
        for name, value in frozen.items():
            fresh.get_parameter(name).copy_(value)
    return fresh


def draw_anew(module: nn.Module, seed: int) -> None:
    """Give a module the initial weights of a seed, in place.

    They are those of the module that ``from_description`` makes of ``describe()``, where it has these; else its parts
    draw their weights by their method ``reset_parameters``, as those of torch do.

    Raises:
        ValueError: a weight that is not frozen stays as it is.
    """
    make, describe = getattr(module, "from_description", None), getattr(module, "describe", None)
    if make is not None and describe is not None:
        module.load_state_dict(make({**describe(), "seed": seed}).state_dict())
        return
    named = getattr(module, "network_parameters", None)
    weights: dict[str, nn.Parameter] = dict(module.named_parameters()) if named is None else named()
    before: dict[str, Tensor] = {}
    with torch.random.fork_rng(), torch.no_grad():
        for name, value in weights.items():
            if value.requires_grad:
                # Elsewhere than any initial value, so that who stays there was not drawn.
                before[name] = value.add_(_AWAY).clone()
        torch.manual_seed(seed)
        for part in [module] if _reset_of(module) else module.modules():
            reset = _reset_of(part)
            if reset is not None:
                reset()
    for name, elsewhere in before.items():
        if torch.equal(module.get_parameter(name), elsewhere):
            owner = name.rpartition(".")[0]
            raise ValueError(
                f"The part '{owner}' of the module, a {type(module.get_submodule(owner)).__name__}, cannot draw its"
                f" initial weights anew ('{name}' stays as it is); give it a method reset_parameters(), as the layers"
                " of torch have."
            )


def _reset_of(part: nn.Module) -> Callable[[], object] | None:
    """What draws the weights of a part anew; torch's attention has it under a private name."""
    for name in ("reset_parameters", "_reset_parameters"):
        if callable(getattr(part, name, None)):
            reset: Callable[[], object] = getattr(part, name)
            return reset
    return None
