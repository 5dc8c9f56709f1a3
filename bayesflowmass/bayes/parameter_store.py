"""Parameters of modules in Pyro's parameter store, which outlives modules."""

from __future__ import annotations

import weakref

import pyro
import torch
from torch import Tensor, nn

_REGISTERED: dict[str, tuple[weakref.ref[nn.Module], weakref.ref[nn.Parameter]]] = {}


def register_parameters(prefix: str, module: nn.Module) -> None:
    """Tell Pyro of the trainable parameters of a module, as ``pyro.module`` does, names after ``prefix``.

    Where the store holds values that were read from a file, the module takes them. A name whose module is gone
    passes to this one.

    Raises:
        ValueError: if the store holds the parameter of another module that is still there, which ``pyro.module``
            would go on fitting in silence; or one of another shape.
    """
    held = pyro.get_param_store()._params
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        full = f"{prefix}.{name}"
        stored = held.get(full)
        if stored is not parameter:
            if stored is not None:
                _take_over(full, stored, module, parameter)
            _REGISTERED[full] = weakref.ref(module), weakref.ref(parameter)
        pyro.param(full, parameter)


def _take_over(name: str, stored: Tensor, module: nn.Module, parameter: nn.Parameter) -> None:
    owner, registered = (each() for each in _REGISTERED.get(name, (_nothing, _nothing)))
    if registered is not stored:
        # Nobody registered this tensor here: it came from a file.
        if stored.shape != parameter.shape:
            raise ValueError(
                f"Pyro's parameter store holds '{name}' of shape {tuple(stored.shape)}, and the module's has"
                f" {tuple(parameter.shape)}; call pyro.clear_param_store() first or give the module another name."
            )
        with torch.no_grad():
            parameter.copy_(stored)
    elif owner is not None and owner is not module:
        raise ValueError(
            f"Pyro's parameter store already holds another '{name}'; call pyro.clear_param_store() first or give the"
            " module another name."
        )
    del pyro.get_param_store()[name]


def _nothing() -> None:
    return None
