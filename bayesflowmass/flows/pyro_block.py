"""Pyro's own conditional transforms as blocks of a flow over log10 mass."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from pyro.distributions.conditional import ConditionalTransformModule
from torch import Tensor, nn
from torch.distributions import Transform, constraints


class ScalarTransform(Transform):
    """A bijection of vectors of one element (*B, 1), as one of numbers (*B,).

    A bijection of the line rises or falls everywhere, so that two of its values tell its ``sign``, which most of Pyro's
    do not declare.

    Args:
        transform: of events of one dimension, or of elements.
        like: any tensor of the batch shape (*B,) and the precision of its parameters.
    """

    domain = constraints.real
    codomain = constraints.real
    bijective = True

    def __init__(self, transform: Any, like: Tensor) -> None:
        super().__init__()
        self.transform = transform
        self.like = like

    @property
    def sign(self) -> Tensor:  # type: ignore[override]
        """1 where it rises, -1 where it falls, (*B,)."""
        with torch.no_grad():
            zero = torch.zeros_like(self.like)
            rise: Tensor = self(zero + 1) - self(zero)
        return rise.sign()

    def _call(self, x: Tensor) -> Tensor:
        y: Tensor = self.transform(self._vectors(x)).squeeze(-1)
        return y

    def _inverse(self, y: Tensor) -> Tensor:
        x: Tensor = self.transform.inv(self._vectors(y)).squeeze(-1)
        return x

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return self._log_det(self._vectors(x), self._vectors(y))

    def inverse_and_log_det(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """``x`` and log|dx/dy|, each (*S, *B), of ``y`` (*S, *B)."""
        vectors = self._vectors(y)
        x = self.transform.inv(vectors)
        # With the tensors that the transform has seen its cache answers.
        return x.squeeze(-1), -self._log_det(x, vectors)

    def _log_det(self, x: Tensor, y: Tensor) -> Tensor:
        log_det: Tensor = self.transform.log_abs_det_jacobian(x, y)
        return log_det.squeeze(-1) if self.transform.domain.event_dim == 0 else log_det

    def _vectors(self, value: Tensor) -> Tensor:
        value = value.to(torch.promote_types(value.dtype, self.like.dtype))
        return value.expand(torch.broadcast_shapes(value.shape, self.like.shape)).unsqueeze(-1)

    def forward_shape(self, shape: Sequence[int]) -> torch.Size:
        return torch.Size(torch.broadcast_shapes(torch.Size(shape), self.like.shape))

    def inverse_shape(self, shape: Sequence[int]) -> torch.Size:
        return self.forward_shape(shape)


class PyroBlock(ConditionalTransformModule):
    """A conditional transform of Pyro whose network ``nn`` reads the context alone, as a block of a flow.

    Pyro's transform runs its network whenever it is called; here it is given the outputs of the network instead. So
    they can be of another precision than the network, or of many draws of its weights.

    Args:
        transform: such as ``pyro.distributions.transforms.conditional_spline(1, context_dim)``, with an inverse.

    Raises:
        ValueError: it has no network ``nn``.
    """

    domain = constraints.real
    codomain = constraints.real
    bijective = True

    def __init__(self, transform: ConditionalTransformModule) -> None:
        super().__init__()
        if not isinstance(getattr(transform, "nn", None), nn.Module):
            raise ValueError(
                f"{type(transform).__name__} has no network `nn` from the context to its parameters; a block of a flow "
                "is a conditional transform that has one, such as Pyro's ConditionalSpline."
            )
        self.nn = _Joined(transform.nn)
        # Not a submodule: its only parameters are those of the network.
        self._form = (_without_network(transform),)

    def condition(self, context: Tensor) -> ScalarTransform:
        return self.conditioned(self.nn(context))

    def conditioned(self, raw: Tensor) -> ScalarTransform:
        """The transform of given network outputs ``raw`` (*B, P)."""
        form = copy.copy(self._form[0])
        form._modules = {**form._modules, "nn": _Split(self.nn.sizes)}
        return ScalarTransform(form.condition(raw), raw[..., 0])


def _without_network(transform: ConditionalTransformModule) -> Any:
    form = copy.copy(transform)
    form._modules = {name: module for name, module in transform._modules.items() if name != "nn"}
    return form


class _Joined(nn.Module):
    """A network whose outputs, where it has several, are one tensor."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.sizes: list[int] | None = None

    def forward(self, context: Tensor) -> Tensor:
        found: Tensor | Sequence[Tensor] = self.network(context)
        if isinstance(found, Tensor):
            return found
        self.sizes = [part.shape[-1] for part in found]
        return torch.cat(list(found), -1)


class _Split(nn.Module):
    """In place of a network: its outputs, from the tensor that they were joined to."""

    def __init__(self, sizes: list[int] | None) -> None:
        super().__init__()
        self.sizes = sizes

    def forward(self, joined: Tensor) -> Tensor | tuple[Tensor, ...]:
        return joined if self.sizes is None else joined.split(self.sizes, -1)
