"""Roots of increasing functions, many at once, from brackets."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


@torch.no_grad()
def bracketed_root(
    function: Callable[[Tensor], tuple[Tensor, Tensor]],
    lower: Tensor,
    upper: Tensor,
    *,
    precision: Tensor | float = 0.0,
    max_iterations: int = 400,
) -> Tensor:
    """
    The root of an increasing function in each bracket, by Newton's method safeguarded by bisection.

    A Newton step is taken where it lands inside its bracket and is at most half the step before the last; a
    bisection elsewhere (``rtsafe`` of Press et al., Numerical Recipes). A root is found when its bracket or
    its Newton step is as narrow as the precision of the type, or the function is within ``precision`` of 0.

    Args:
        function: x (*S,) -> (f, df/dx), each (*S,), f increasing in x; infinite or NaN derivatives are
            allowed.
        lower: (*S,), where f <= 0.
        upper: (*S,), where f >= 0.
        precision: Rounding error of f, (*S,) or a number: smaller values count as zero.
        max_iterations: Evaluations after which an unfinished search is an error.

    Returns:
        x (*S,), finite inside finite brackets.

    Raises:
        RuntimeError: when a bracket has not closed, which says that f is NaN or the bracket holds no root.

    Example:
        >>> cube = lambda x: (x**3 - 8, 3 * x**2)
        >>> bracketed_root(cube, torch.zeros(1), torch.full((1,), 5.0))
        tensor([2.])
    """
    lower, upper = (end.clone() for end in torch.broadcast_tensors(lower, upper))
    x = 0.5 * (lower + upper)
    eps = 2 * torch.finfo(x.dtype).eps
    # Relative precision has no end at a root of zero.
    floor = 1e-30 * torch.maximum(lower.abs(), upper.abs())
    last = before_last = upper - lower
    for _ in range(max_iterations):
        value, slope = function(x)
        lower = torch.where(value <= 0, x, lower)
        upper = torch.where(value >= 0, x, upper)
        tolerance = torch.maximum(eps * torch.maximum(lower.abs(), upper.abs()), floor)
        newton = torch.where(slope.isfinite(), x - value / slope, torch.nan)
        step = (newton - x).abs()
        # A tiny step out of a wide bracket is a root too: the other end just never moved.
        done = (value.abs() <= precision) | (upper - lower <= tolerance) | (step <= tolerance)
        if bool(done.all()):
            return x
        usable = (newton > lower) & (newton < upper) & (2 * step <= before_last)
        moved = torch.where(done, x, torch.where(usable, newton, 0.5 * (lower + upper)))
        before_last, last, x = last, (moved - x).abs(), moved
    raise RuntimeError(
        f"{int((~done).sum())} of {done.numel()} roots were not found in {max_iterations} steps; "
        "the function is not finite, or its bracket holds no root"
    )
