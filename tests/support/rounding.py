"""What single precision may do to a mass: first-order bounds, from a computation in double precision."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

UNIT = 2.0**-24
"""Unit roundoff of float32."""


def rounding_of_a_mass(
    flow: nn.Module, mass_of: Callable[[nn.Module, Tensor], Tensor], context: Tensor, n_galaxies: int
) -> Tensor:
    """How far masses (n,) of a float32 copy of a flow may be off [dex], whatever the order of its sums.

    A sum of k terms errs by less than sqrt(k) units of the sum of their moduli (Higham & Mary 2019, SIAM J. Sci.
    Comput. 41, A2815, theorem 2.4), each sum on its own; what an error does to the mass is the derivative, by automatic
    differentiation in float64. Counted are the sums of every layer, and those over galaxies behind every number of the
    context. Errors of different sums add in quadrature; six standard deviations are allowed.

    Args:
        flow: in float64.
        mass_of: the mass (n,) of a flow and contexts.
        context: (n, c), float64.
        n_galaxies: of the richest cluster.
    """
    sums: list[tuple[Tensor, Tensor]] = []

    def watch(layer: nn.Linear, given: tuple[Tensor], out: Tensor) -> Tensor:
        zero = torch.zeros_like(out, requires_grad=True)
        size = given[0].abs() @ layer.weight.abs().T
        sums.append((zero, size.detach() * given[0].shape[-1] ** 0.5))
        return out + zero

    hooks = [m.register_forward_hook(watch) for m in flow.modules() if isinstance(m, nn.Linear)]
    context = context.clone().requires_grad_()
    mass = mass_of(flow, context)
    for hook in hooks:
        hook.remove()
    assert sums, "a flow without linear layers has no error that this bound knows"
    sums.append((context, context.detach().abs() * n_galaxies**0.5))
    slopes = torch.autograd.grad(mass.sum(), [zero for zero, _ in sums])
    variance = sum(
        (slope * size).square().reshape(len(context), -1).sum(1)
        for slope, (_, size) in zip(slopes, sums, strict=True)
    )
    # The mass itself is stored in float32, after a handful of operations on numbers of its size.
    return (6.0 * UNIT * (variance + 10.0 * mass.square()).sqrt()).detach()
