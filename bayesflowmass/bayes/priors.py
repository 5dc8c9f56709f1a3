"""Priors of weights: normal with one scale per tensor of weights, or any distributions of Pyro."""

from __future__ import annotations

import fnmatch
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

_LOG_SQRT_TWO_PI = 0.5 * math.log(2 * math.pi)
PRIORS: dict[str, type[WeightPrior]] = {}


class WeightPrior(ABC):
    """p(w) of the weights of a module, independent between tensors of weights."""

    kind: ClassVar[str]

    def __init_subclass__(cls) -> None:
        PRIORS[cls.kind] = cls

    @abstractmethod
    def scale_of(self, name: str, shape: Sequence[int]) -> float:
        """Standard deviation of the weights of the parameter ``name`` of this shape: guides count in it."""

    def scales(self, shapes: Mapping[str, Sequence[int]], like: Tensor) -> Tensor:
        """Those standard deviations, (P,), of each weight of the parameters, in the type of ``like``."""
        return torch.cat(
            [like.new_full((math.prod(shape),), self.scale_of(name, shape)) for name, shape in shapes.items()]
        )

    @abstractmethod
    def distribution(self, name: str, shape: Sequence[int], like: Tensor) -> dist.TorchDistribution:
        """p of one tensor of weights, event shape ``shape``, in the type and on the device of ``like``."""

    @abstractmethod
    def tensor_log_prob(self, name: str, value: Tensor, shape: Sequence[int]) -> Tensor:
        """log p, (*D,), of one tensor of weights (*D, *shape)."""

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
            total = total + self.tensor_log_prob(name, value, shape)
        return torch.as_tensor(total)

    def expected_log_prob(
        self, means: Mapping[str, Tensor], variances: Mapping[str, Tensor]
    ) -> Tensor | None:
        """E[log p(w)] of weights with these means and variances, name -> (*shape,); None where it takes draws."""
        return None

    @property
    @abstractmethod
    def patterns(self) -> list[str]:
        """Of parameter names; the first that matches a name counts."""

    def check(self, names: Sequence[str]) -> None:
        """Refuse patterns that say nothing about the parameters of these names, such as a misspelt one.

        Raises:
            ValueError: a pattern matches none of them, or those before it match all that it does.
        """
        left = set(names)
        for pattern in self.patterns:
            matched = {name for name in names if fnmatch.fnmatchcase(name, pattern)}
            if not matched & left and pattern != "*":
                found = (
                    "is never reached, for those before it match all that it does"
                    if matched
                    else "matches none"
                )
                raise ValueError(
                    f"The pattern {pattern!r} of the prior {found}; the parameters are {', '.join(names[:8])}"
                    f"{', ...' if len(names) > 8 else ''}: correct it, and let the general follow the special."
                )
            left -= matched

    @abstractmethod
    def below(self, prefix: str) -> WeightPrior:
        """The same prior for a module that holds this one's under a name: patterns begin with ``prefix``."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """The prior as JSON; :meth:`from_description` makes it again."""

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
        return PRIORS[kind]._restore(options)

    @classmethod
    def _restore(cls, options: Mapping[str, Any]) -> WeightPrior:
        return cls(**options)

    def __repr__(self) -> str:
        options = {key: value for key, value in self.describe().items() if key != "kind"}
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in options.items())})"


class NormalPrior(WeightPrior):
    """w ~ N(0, s^2), s the scale of its tensor.

    Args:
        scale: standard deviation of weights and biases alike, or ``"fan_in"``: gain / sqrt(fan-in) for
            tensors of two or more dimensions, so that a layer passes on the variance that it is given
            (Neal 1996), and 1 for the others (biases).
        gain: the factor of ``"fan_in"``.
        overrides: pattern of parameter names -> scale (a number or ``"fan_in"``); the first match counts.

    Raises:
        ValueError: if a scale or the gain is not positive and finite.
    """

    kind = "normal"

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

    def scale_of(self, name: str, shape: Sequence[int]) -> float:
        scale = next((s for p, s in self.overrides.items() if fnmatch.fnmatchcase(name, p)), self.scale)
        if not isinstance(scale, str):
            return float(scale)
        return self.gain / math.sqrt(math.prod(shape[1:])) if len(shape) > 1 else 1.0

    def distribution(self, name: str, shape: Sequence[int], like: Tensor) -> dist.TorchDistribution:
        scale = like.new_tensor(self.scale_of(name, shape))
        normal = dist.Normal(like.new_zeros(()), scale, validate_args=False)
        return normal.expand(tuple(shape)).to_event(len(shape))

    def tensor_log_prob(self, name: str, value: Tensor, shape: Sequence[int]) -> Tensor:
        scale = self.scale_of(name, shape)
        each = -0.5 * (value / scale) ** 2 - math.log(scale) - _LOG_SQRT_TWO_PI
        return each.reshape(*value.shape[: value.dim() - len(shape)], -1).sum(-1)

    @property
    def patterns(self) -> list[str]:
        return list(self.overrides)

    def below(self, prefix: str) -> NormalPrior:
        overrides = {f"{prefix}{pattern}": scale for pattern, scale in self.overrides.items()}
        return NormalPrior(self.scale, gain=self.gain, overrides=overrides)

    def describe(self) -> dict[str, Any]:
        return {"kind": self.kind, "scale": self.scale, "gain": self.gain, "overrides": dict(self.overrides)}


class DistributionPrior(WeightPrior):
    """Any distributions of Pyro over real numbers.

    The divergence of a guide from them is in closed form where all are normal, else estimated with its draws.

    >>> DistributionPrior({"*bias": dist.Normal(0.0, 1.0), "*": dist.Laplace(0.0, 0.1)})

    Args:
        distributions: one for all tensors of weights, or pattern of parameter names -> distribution; the first
            match counts. Its shape is (), for weights that are independent and alike, or that of the tensor.

    Raises:
        ValueError: for something else than a distribution over real numbers; when it is used, if no pattern matches a
            parameter or the shape is another.
    """

    kind = "distribution"

    def __init__(self, distributions: Distribution | Mapping[str, Distribution]) -> None:
        given = distributions if isinstance(distributions, Mapping) else {"*": distributions}
        for pattern, each in given.items():
            if not isinstance(each, Distribution):
                raise ValueError(
                    f"The prior of '{pattern}' is {each!r}; expected a distribution of Pyro, such as"
                    " pyro.distributions.Laplace(0.0, 0.1)."
                )
            support: Any = each.support
            if getattr(support, "base_constraint", support) is not constraints.real:
                raise ValueError(
                    f"The prior of '{pattern}', a {type(each).__name__}, is not one of all real numbers, which"
                    " weights are."
                )
            try:
                _ = _converted(each, torch.zeros(())).variance
            except (NotImplementedError, TypeError):
                raise ValueError(
                    f"The prior of '{pattern}', a {type(each).__name__}, does not follow from its parameters, or has no"
                    " variance in closed form; give one that does, such as pyro.distributions.Laplace(0.0, 0.1)."
                ) from None
        self.distributions = dict(given)

    def _of(self, name: str, shape: Sequence[int]) -> Distribution:
        for pattern, each in self.distributions.items():
            if fnmatch.fnmatchcase(name, pattern):
                found = each.batch_shape + each.event_shape
                if found not in (torch.Size(), torch.Size(shape)):
                    raise ValueError(
                        f"The prior of '{name}' has the shape {tuple(found)}; expected () or {tuple(shape)}."
                    )
                return each
        raise ValueError(
            f"The prior names no distribution of '{name}'; add the pattern '*' for all that is not named."
        )

    def scale_of(self, name: str, shape: Sequence[int]) -> float:
        """Root mean square of the standard deviations; where they are infinite, of the parameter ``scale``."""
        found = self._of(name, shape)
        variance = found.variance
        if not bool(torch.isfinite(variance).all()):
            variance = torch.as_tensor(getattr(found, "scale", 1.0)) ** 2
        return math.sqrt(float(variance.double().mean()))

    def distribution(self, name: str, shape: Sequence[int], like: Tensor) -> dist.TorchDistribution:
        found = _converted(self._of(name, shape), like)
        if not (found.batch_shape or found.event_shape):
            found = found.expand(torch.Size(shape))
        return found.to_event(len(found.batch_shape)) if found.batch_shape else found

    def tensor_log_prob(self, name: str, value: Tensor, shape: Sequence[int]) -> Tensor:
        log_prob: Tensor = self.distribution(name, shape, value).log_prob(value)
        return log_prob

    def expected_log_prob(
        self, means: Mapping[str, Tensor], variances: Mapping[str, Tensor]
    ) -> Tensor | None:
        terms = []
        for name, mean in means.items():
            found = self.distribution(name, mean.shape, mean)
            normal = found.base_dist if isinstance(found, torch.distributions.Independent) else found
            if not isinstance(normal, torch.distributions.Normal):
                return None
            square = ((mean - normal.loc) ** 2 + variances[name]) / normal.scale**2
            terms.append(-(0.5 * square + normal.scale.log() + _LOG_SQRT_TWO_PI).sum())
        return torch.stack(terms).sum()

    @property
    def patterns(self) -> list[str]:
        return list(self.distributions)

    def below(self, prefix: str) -> DistributionPrior:
        return DistributionPrior({f"{prefix}{pattern}": each for pattern, each in self.distributions.items()})

    def describe(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "distributions": {pattern: _describe(each) for pattern, each in self.distributions.items()},
        }

    @classmethod
    def _restore(cls, options: Mapping[str, Any]) -> WeightPrior:
        return cls({pattern: _from_parts(parts) for pattern, parts in options["distributions"].items()})


Prior = WeightPrior | Distribution | Mapping[str, Any] | float | str
"""What :func:`as_prior` takes."""


def as_prior(given: Prior | None) -> WeightPrior:
    """The prior that is meant.

    Args:
        given: a prior; a standard deviation or ``"fan_in"`` (`NormalPrior`); a distribution of Pyro, or
            pattern -> distribution (`DistributionPrior`); what ``describe()`` gave; None: ``NormalPrior()``.

    Raises:
        ValueError: it is none of these.
    """
    if isinstance(given, WeightPrior):
        return given
    if isinstance(given, Mapping):
        return WeightPrior.from_description(given) if "kind" in given else DistributionPrior(given)
    if isinstance(given, Distribution):
        return DistributionPrior(given)
    return NormalPrior() if given is None else NormalPrior(given)


def _parameters(distribution: Distribution) -> dict[str, Any]:
    """What makes a distribution, by the names that its class takes."""
    if isinstance(distribution, torch.distributions.Independent):
        return {
            "base_distribution": distribution.base_dist,
            "reinterpreted_batch_ndims": distribution.reinterpreted_batch_ndims,
        }
    if isinstance(distribution, torch.distributions.MixtureSameFamily):
        return {
            "mixture_distribution": distribution.mixture_distribution,
            "component_distribution": distribution.component_distribution,
        }
    if isinstance(distribution, torch.distributions.MultivariateNormal):
        # Of its three forms those that somebody asked for are kept beside the one that was given.
        return {"loc": distribution.loc, "scale_tril": distribution.scale_tril}
    given = {
        name: value for name, value in vars(distribution).items() if name in distribution.arg_constraints
    }
    if "probs" in given:
        # Asked for once, logits are kept beside the probabilities that were given.
        given.pop("logits", None)
    return given


def _made(distribution: type[Distribution] | str, parameters: Mapping[str, Any]) -> Any:
    name = distribution if isinstance(distribution, str) else distribution.__name__
    return getattr(dist, name)(**parameters)


def _converted(distribution: Distribution, like: Tensor) -> Any:
    """The same distribution in the type and on the device of ``like``, as one of Pyro's."""
    parameters = {
        name: _converted(value, like) if isinstance(value, Distribution)
        else value.to(like) if isinstance(value, Tensor) and value.is_floating_point()
        else value
        for name, value in _parameters(distribution).items()
    }  # fmt: skip
    return _made(type(distribution), parameters | {"validate_args": False})


def _describe(distribution: Distribution) -> dict[str, Any]:
    parts = {
        name: _describe(value) if isinstance(value, Distribution)
        else value.tolist() if isinstance(value, Tensor)
        else value
        for name, value in _parameters(distribution).items()
    }  # fmt: skip
    return {"distribution": type(distribution).__name__, "parameters": parts}


def _from_parts(parts: Mapping[str, Any]) -> Any:
    made = {
        name: _from_parts(value) if isinstance(value, Mapping)
        else torch.tensor(value, dtype=torch.float64) if isinstance(value, float | list)
        else value
        for name, value in parts["parameters"].items()
    }  # fmt: skip
    return _made(parts["distribution"], made)
