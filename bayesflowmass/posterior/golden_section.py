"""Highest points of functions with one peak, many at once."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["golden_section"]

_GOLDEN = 0.5 * (5.0**0.5 - 1.0)


def golden_section(
    function: Callable[[Tensor], Tensor], lower: Tensor, upper: Tensor, steps: int = 36
) -> Tensor:
    """Where an elementwise function is highest between `lower` and `upper` (any shape), by golden sections.

    The bracket shrinks by 0.618 at each step: by 3e-8 in 36. Rounding of the function near its peak
    limits the result to about the root of the precision.
    """
    left, right = upper - _GOLDEN * (upper - lower), lower + _GOLDEN * (upper - lower)
    f_left, f_right = function(left), function(right)
    for _ in range(steps):
        down = f_left > f_right
        lower, upper = torch.where(down, lower, left), torch.where(down, right, upper)
        new = torch.where(down, upper - _GOLDEN * (upper - lower), lower + _GOLDEN * (upper - lower))
        f_new = function(new)
        left, right = torch.where(down, new, right), torch.where(down, left, new)
        f_left, f_right = torch.where(down, f_new, f_right), torch.where(down, f_left, f_new)
    return 0.5 * (lower + upper)
