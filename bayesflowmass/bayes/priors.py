"""Priors of weights: independent, of zero mean, with one scale per tensor of weights."""

from __future__ import annotations

import fnmatch
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor

__all__ = ["PRIORS", "NormalPrior", "ScaleMixturePrior", "WeightPrior"]

_LOG_SQRT_TWO_PI = 0.5 * math.log(2 * math.pi)
PRIORS: dict[str, type[WeightPrior]] = {}


class WeightPrior(ABC):
    """p(w) of the weights of a module, independent and symmetric about zero.

    Args:
        scale: standard deviation of weights and biases alike, or ``"fan_in"``: gain / sqrt(fan-in) for
            tensors of two or more dimensions, so that a layer passes on the variance that it is given
            (Neal 1996), and 1 for the others (biases).
        gain: the factor of ``"fan_in"``.
        overrides: pattern of parameter names -> scale (a number or ``"fan_in"``); the first match counts.

    Raises:
        ValueError: if a scale or the gain is not positive and finite.
    """

    kind: ClassVar[str]

    def __init__(
        self,
        scale: float | str = "fan_in",
        *,
        gain: float = 1.0,
        overrides: Mapping[str, float | str] | None = None,
    ) -> None:
        self.scale = scale
        self.gain = gain
        self.overrides = dict(overrides or {})
        for value in (scale, gain, *self.overrides.values()):
            if value != "fan_in" and not (isinstance(value, int | float) and 0 < value < math.inf):
                raise ValueError(
                    f"The scale of a prior is {value!r}; expected a positive number or 'fan_in'."
                )

    def __init_subclass__(cls) -> None:
        PRIORS[cls.kind] = cls

    def scale_of(self, name: str, shape: Sequence[int]) -> float:
        """Scale of the parameter ``name`` of this shape."""
        scale = next((s for p, s in self.overrides.items() if fnmatch.fnmatchcase(name, p)), self.scale)
        if not isinstance(scale, str):
            return float(scale)
        return self.gain / math.sqrt(math.prod(shape[1:])) if len(shape) > 1 else 1.0

    @abstractmethod
    def elementwise_log_prob(self, value: Tensor, scale: float) -> Tensor:
        """log p of each element of ``value`` (any shape), of a parameter with this scale."""

    @abstractmethod
    def distribution(self, scale: float, like: Tensor) -> dist.TorchDistribution:
        """The scalar Pyro distribution of one weight, in the type and on the device of ``like``."""

    def log_prob(
        self, weights: Mapping[str, Tensor], shapes: Mapping[str, Sequence[int]] | None = None
    ) -> Tensor:
        """log p(w), (*D,), summed over all weights.

        Args:
            weights: name -> (*D, *shape).
            shapes: name -> shape, which tells D from shape; None where D is empty.
        """
        total: Tensor | float = 0.0
        for name, value in weights.items():
            shape = value.shape if shapes is None else tuple(shapes[name])
            each = self.elementwise_log_prob(value, self.scale_of(name, shape))
            total = total + each.reshape(*value.shape[: value.dim() - len(shape)], -1).sum(-1)
        return torch.as_tensor(total)

    def describe(self) -> dict[str, Any]:
        """The prior as JSON; :meth:`from_description` makes it again."""
        return {
            "kind": self.kind,
            "scale": self.scale,
            "gain": self.gain,
            "overrides": dict(self.overrides),
        }

    @staticmethod
    def from_description(description: Mapping[str, Any]) -> WeightPrior:
        """The prior that ``describe()`` described.

        Raises:
            ValueError: if its kind is unknown.
        """
        options = dict(description)
        kind = options.pop("kind", None)
        if kind not in PRIORS:
            raise ValueError(f"Unknown kind of prior {kind!r}; expected one of {', '.join(PRIORS)}.")
        return PRIORS[kind](**options)

    def __repr__(self) -> str:
        options = {key: value for key, value in self.describe().items() if key != "kind"}
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in options.items())})"


class NormalPrior(WeightPrior):
    """w ~ N(0, s^2), s the scale of its tensor; see :class:`WeightPrior` for the arguments."""

    kind = "normal"

    def elementwise_log_prob(self, value: Tensor, scale: float) -> Tensor:
        return -0.5 * (value / scale) ** 2 - math.log(scale) - _LOG_SQRT_TWO_PI

    def distribution(self, scale: float, like: Tensor) -> dist.TorchDistribution:
        return dist.Normal(like.new_zeros(()), like.new_tensor(scale), validate_args=False)


class ScaleMixturePrior(WeightPrior):
    """w ~ p N(0, s^2) + (1 - p) N(0, (r s)^2): most weights small, some free (Blundell et al. 2015, eq. 7).

    Its KL divergence from a guide has no closed form and is estimated with the guide's own draws.

    Args:
        scale, gain, overrides: of the wide component; see :class:`WeightPrior`.
        wide: p, the share of the wide component.
        ratio: r, the narrow scale over the wide one.
    """

    kind = "scale_mixture"

    def __init__(
        self,
        scale: float | str = "fan_in",
        *,
        wide: float = 0.5,
        ratio: float = 0.1,
        gain: float = 1.0,
        overrides: Mapping[str, float | str] | None = None,
    ) -> None:
        super().__init__(scale, gain=gain, overrides=overrides)
        if not (0 < wide < 1 and 0 < ratio < 1):
            raise ValueError(f"wide is {wide} and ratio {ratio}; expected numbers between 0 and 1.")
        self.wide = wide
        self.ratio = ratio

    def elementwise_log_prob(self, value: Tensor, scale: float) -> Tensor:
        z = value / scale
        wide = -0.5 * z**2 + math.log(self.wide)
        narrow = -0.5 * (z / self.ratio) ** 2 + math.log((1 - self.wide) / self.ratio)
        return torch.logaddexp(wide, narrow) - math.log(scale) - _LOG_SQRT_TWO_PI

    def distribution(self, scale: float, like: Tensor) -> dist.TorchDistribution:
        shares = like.new_tensor([self.wide, 1 - self.wide])
        scales = like.new_tensor([scale, self.ratio * scale])
        return dist.MixtureSameFamily(
            torch.distributions.Categorical(shares, validate_args=False),
            torch.distributions.Normal(like.new_zeros(2), scales, validate_args=False),
            validate_args=False,
        )

    def describe(self) -> dict[str, Any]:
        return super().describe() | {"wide": self.wide, "ratio": self.ratio}
