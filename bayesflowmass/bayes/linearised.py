"""Laplace's approximation of a network that is taken as linear in its weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.func import jacrev, jvp, vjp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from bayesflowmass.bayes.laplace import LaplacePosterior
from bayesflowmass.bayes.layout import WeightLayout
from bayesflowmass.bayes.protocol import Data
from bayesflowmass.bayes.substitution import call_with

_AT_ONCE = 50


class LinearisedPosterior(LaplacePosterior):
    r"""
    Laplace's approximation where the parameters of the density are linear in the weights about the trained ones w*,

        :math:`\theta(d, w) = \theta(d, w^*) + J(d)\,(w - w^*), \qquad q(w) = N(w^*, (G + \alpha S^{-2})^{-1}),`

    with :math:`G = \sum_i J_i^T\,[-\partial_\theta^2 \log p(m_i | \theta_i)]_+\,J_i` (Gauss-Newton): the posterior of
    that linear model. A draw means what `linear_parameters` makes of it, not the network with these weights: where
    data are few, the two differ by much. All weights by default, at most 4000.

    References:
        Immer, Korzepa & Bauer 2021, arXiv:2008.08400.

    Args:
        module, names, mean, scale_tril, found: as for `LaplacePosterior`.
    """

    method: ClassVar[str] = "linearised"
    linear: ClassVar[bool] = True

    @classmethod
    def defaults(cls, module: nn.Module) -> dict[str, Any]:
        """All weights."""
        return {"which": "all"}

    @classmethod
    def check(cls, module: nn.Module, data: Data, options: Mapping[str, Any]) -> None:
        super().check(module, data, options)
        if not hasattr(module, "parameters_of") or not isinstance(data[0], Tensor):
            raise ValueError(
                f"The method '{cls.method}' needs a density whose parameters a network gives for vectors, such as a"
                f" flow of this package or a network with a likelihood; {type(module).__name__} is none here."
            )
        with torch.no_grad():
            _numbers(module, data[0])

    @staticmethod
    def _curvature(module: nn.Module, names: Sequence[str], data: Data) -> Tensor:
        return gauss_newton(module, names, data)


class _ParametersOf(nn.Module):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return _numbers(self.module, x)


def linear_parameters(module: nn.Module, draws: Mapping[str, Tensor], x: Tensor) -> tuple[Tensor, ...]:
    """Parameters of the density, each (D, B, ...), linear in the weights about those that the module has.

    Args:
        module: with ``parameters_of(x (B, ...)) -> tensors (B, ...)``.
        draws: name -> (D, *shape).
        x: (B, ...).
    """
    outer, own = _ParametersOf(module), dict(module.named_parameters())
    centre = {f"module.{name}": own[name].detach() for name in draws}

    def parameters(weights: dict[str, Tensor]) -> Any:
        return call_with(outer, weights, (x,))

    def one(away: dict[str, Tensor]) -> tuple[Tensor, ...]:
        both: Any = jvp(parameters, (centre,), (away,))
        return tuple(value + slope for value, slope in zip(*both, strict=True))

    away = {name: draws[name.removeprefix("module.")] - value for name, value in centre.items()}
    # Fused attention has no second derivatives, of which the second way is made.
    with sdpa_kernel(SDPBackend.MATH):
        try:
            found: tuple[Tensor, ...] = vmap(one)(away)
        except RuntimeError:
            # Without forward derivatives, or not to be vectorised, as recurrent layers: the transpose of the transpose.
            pulled: Any = vjp(parameters, centre)
            values, back = pulled
            pushed: Any = vjp(
                lambda seeds: back(seeds)[0], tuple(torch.zeros_like(value) for value in values)
            )
            forth = pushed[1]
            n_draws = len(next(iter(away.values())))
            slopes = [forth({name: each[k] for name, each in away.items()})[0] for k in range(n_draws)]
            found = tuple(
                value + torch.stack(parts)
                for value, parts in zip(values, zip(*slopes, strict=True), strict=True)
            )
    return found


def gauss_newton(module: nn.Module, names: Sequence[str], data: Data) -> Tensor:
    """G (P, P), float64: see `LinearisedPosterior`; directions of negative curvature count as flat.

    Args:
        module: with ``parameters_of(x) -> tensors (B, ...)`` and ``log_prob_of(parameters, y) -> (B,)``.
        names: the weights, in the order of the rows of G.
        data: x (N, ...) and y (N, ...).
    """
    module = deepcopy(module).double().eval().requires_grad_(False)
    outer = _ParametersOf(module)
    n_weights = WeightLayout(module, names).n_weights
    total = torch.zeros(n_weights, n_weights, dtype=torch.float64, device=data[1].device)
    for x, y in zip(*(part.split(_AT_ONCE) for part in data), strict=True):
        x, y = (part.double() if part.is_floating_point() else part for part in (x, y))
        parts = outer(x)
        joint = torch.cat([part.reshape(len(y), -1) for part in parts], -1).requires_grad_(True)
        pieces = joint.split([part[0].numel() for part in parts], -1)
        loss = -module.log_prob_of([a.reshape(b.shape) for a, b in zip(pieces, parts, strict=True)], y).sum()  # type: ignore[operator]
        (first,) = torch.autograd.grad(loss, joint, create_graph=True)
        rows = [torch.autograd.grad(each.sum(), joint, retain_graph=True)[0] for each in first.unbind(-1)]
        values, vectors = torch.linalg.eigh(torch.stack(rows, 1))
        root = vectors * values.clamp_min(0.0).sqrt().unsqueeze(-2)
        slope = root.mT @ slopes_of(module, names, x)
        total += torch.einsum("nop,noq->pq", slope, slope)
    return total


def slopes_of(module: nn.Module, names: Sequence[str], x: Tensor) -> Tensor:
    """Derivatives (B, O, P) of all parameters of the density by the weights, for x (B, ...)."""
    outer, layout = _ParametersOf(module), WeightLayout(module, names)
    at = layout.flatten(dict(module.named_parameters()))

    def joined(flat: Tensor, x: Tensor) -> Tensor:
        weights = {f"module.{name}": value for name, value in layout.split(flat).items()}
        return torch.cat([part.flatten() for part in call_with(outer, weights, (x.unsqueeze(0),))])

    with sdpa_kernel(SDPBackend.MATH):
        try:
            found: Tensor = vmap(jacrev(joined), in_dims=(None, 0))(at, x)
        except RuntimeError:
            found = torch.stack([jacrev(joined, chunk_size=1)(at, each) for each in x])
    return found


def parameters_of_draws(module: nn.Module, draws: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """All parameters of the density (D, B, O) of draws of the weights, name -> (D, *shape), for x (B, ...)."""
    outer = _ParametersOf(module)

    def one(weights: dict[str, Tensor]) -> Tensor:
        parts = call_with(outer, weights, (x,))
        return torch.cat([part.reshape(len(x), -1) for part in parts], -1)

    given = {f"module.{name}": value for name, value in draws.items()}
    try:
        found: Tensor = vmap(one, chunk_size=200)(given)
    except RuntimeError:
        n_draws = len(next(iter(given.values())))
        found = torch.stack([one({name: each[k] for name, each in given.items()}) for k in range(n_draws)])
    return found


def _numbers(module: nn.Module, x: Tensor) -> tuple[Tensor, ...]:
    parts: tuple[Tensor, ...] = tuple(module.parameters_of(x))  # type: ignore[operator]
    if not all(isinstance(part, Tensor) and part.is_floating_point() for part in parts):
        raise ValueError(
            f"{type(module).__name__} gives parameters of its density that are not tensors of real numbers."
        )
    return parts
