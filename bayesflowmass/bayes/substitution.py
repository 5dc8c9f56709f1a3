"""A module with other weights for the length of one call."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils.stateless import _reparametrize_module


def call_with(
    module: nn.Module,
    weights: Mapping[str, Tensor],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any] | None = None,
    *,
    places: Mapping[str, tuple[str, ...]] | None = None,
) -> Any:
    """What the module returns with these parameters and buffers in place of its own.

    As :func:`torch.func.functional_call`, which, however, leaves the given weights in a module that holds one of its
    layers under two names.

    Args:
        module: it has its own weights again afterwards.
        weights: by their names in ``module.named_parameters()`` and ``named_buffers()``.
        args, kwargs: of the call.
        places: `other_places` of the module, for who calls it often.
    """
    places = other_places(module) if places is None else places
    given = dict(weights)
    for name, others in places.items():
        if name in weights:
            given |= dict.fromkeys(others, weights[name])
    if is_traced():
        # What functional_call does, which refuses to while a function is traced.
        with _reparametrize_module(module, given, tie_weights=False):
            return module(*args, **(kwargs or {}))
    return functional_call(module, given, args, dict(kwargs or {}), tie_weights=False)


def other_places(module: nn.Module) -> dict[str, tuple[str, ...]]:
    """Name of each tied parameter or buffer -> where else in the module it is held.

    The name is that of ``named_parameters()``; another name of the same layer is not another place.
    """
    first: dict[int, str] = {}
    found: dict[str, tuple[str, ...]] = {}
    for prefix, part in module.named_modules():
        for name, value in [*part._parameters.items(), *part._buffers.items()]:
            if value is None:
                continue
            full = f"{prefix}.{name}" if prefix else name
            known = first.setdefault(id(value), full)
            if known != full:
                found[known] = (*found.get(known, ()), full)
    return found


def is_traced() -> bool:
    """Whether ``torch.jit`` makes a graph of what runs, in which the numbers of Python are constants."""
    return bool(torch.jit.is_tracing())  # type: ignore[attr-defined]


@contextmanager
def untraced() -> Iterator[None]:
    """Within the block nothing goes into the graph that ``torch.jit`` makes."""
    state = torch._C._get_tracing_state()
    torch._C._set_tracing_state(None)  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch._C._set_tracing_state(state)  # type: ignore[attr-defined]
