"""What every distribution over the weights of a network can do, whatever made it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol, Self

from torch import Tensor, nn

from bayesflowmass.bayes.choice import choose

Data = tuple[Any, Tensor]
"""Inputs and log10 masses of examples; inputs are a tensor, or take rows as one does (``[rows]``, ``split``, ...)."""

WEIGHT_POSTERIORS: dict[str, type[WeightPosterior]] = {}
"""The class of each method; a subclass enters by naming its ``method``."""


class Maximise(Protocol):
    """A training loop, as :mod:`bayesflowmass.training` gives it to :meth:`WeightPosterior.fit`."""

    def __call__(self, objective: nn.Module, *, seed: int, name: str) -> object:
        """Raise the mean of ``objective.log_prob(log10_mass (B,), context (B, C)) -> (B,)`` over the training clusters.

        The parameters of ``objective`` that require a gradient change in place. ``name`` tells apart the
        phases of one run, each of which may keep checkpoints of its own. All phases share one validation
        split.
        """
        ...


class WeightPosterior(nn.Module, ABC):
    """A distribution over some weights of a module; the weights that it does not name are those of the module.

    A draw is one set of weights: apply it to all clusters alike (`condition_draws`), or the errors of two
    clusters lose the correlation that a common network gives them.

    Its state is ``describe()``, ready for JSON, and ``state_dict()``; ``from_description`` followed by
    ``load_state_dict`` gives it back beside the module that it was fitted to.
    """

    method: ClassVar[str]
    argument: ClassVar[tuple[str, type] | None] = None
    """What ``METHOD:VALUE`` sets (`parse_weights`): an option of `fit` and its type."""

    linear: ClassVar[bool] = False
    """Whether draws are of a model that is linear in the weights (`linear_parameters`), not of the network."""

    names: tuple[str, ...]
    """The random parameters, as in ``module.named_parameters()``."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "method" in cls.__dict__:
            WEIGHT_POSTERIORS[cls.method] = cls

    @classmethod
    def defaults(cls, module: nn.Module) -> dict[str, Any]:
        """Options of `fit` that depend on the module, for who does not choose them: such as ``which``."""
        return {}

    @classmethod
    def check(cls, module: nn.Module, data: Data, options: Mapping[str, Any]) -> None:
        """Refuse options that `fit` would refuse after a training.

        Args:
            module: of the architecture, to throw away.
            data: a few clusters of the right shape; their values do not matter.
            options: of `fit`.

        Raises:
            ValueError: naming the option.
        """
        if "which" in options:
            choose(module, options["which"])

    @classmethod
    @abstractmethod
    def fit(
        cls, module: nn.Module, data: Data, *, maximise: Maximise, seed: int = 0, progress: bool = False
    ) -> Self:
        """The posterior given clusters; the module is trained in place on the way.

        Methods that start from trained weights train them first (phase ``point``) unless they are given
        ``trained=True``.

        Args:
            module: with ``log_prob(log10_mass (B,), context (B, C)) -> (B,)``.
            data: context (N, C) and log10 M200c [Msun/h] (N,) of the training clusters.
            maximise: the training loop.
            seed: of everything random.
            progress: show a bar where a method has a loop of its own.
        """

    @abstractmethod
    def draw(self, n_draws: int, seed: int) -> dict[str, Tensor]:
        """``n_draws`` sets of weights (n_draws, *shape), detached; the same seed gives the same draws."""

    def log_density(self, draws: Mapping[str, Tensor]) -> Tensor | None:
        """The log density (D,) of draws (D, *shape), in nats; None where there is no normalised one."""
        return None

    def moments(self) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]] | None:
        """Mean and standard deviation of each weight, name -> (*shape,), of a normal posterior; else None."""
        return None

    @property
    def n_distinct(self) -> int | None:
        """The number of different draws where it is finite; draws then take turns. None: unlimited."""
        return None

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """``method``, what `from_description` needs, and what the fit found; ready for JSON."""

    @classmethod
    def from_description(cls, module: nn.Module, description: Mapping[str, Any]) -> WeightPosterior:
        """The posterior that ``describe()`` described, its tensors still to be loaded.

        Raises:
            ValueError: the method is unknown.
        """
        return _known(description.get("method"))._restore(module, description)

    @classmethod
    @abstractmethod
    def _restore(cls, module: nn.Module, description: Mapping[str, Any]) -> Self: ...


def parse_weights(text: str) -> tuple[str, dict[str, Any]]:
    """The method and the options of `fit` that ``METHOD`` or ``METHOD:VALUE`` stands for.

    Raises:
        ValueError: the method is unknown, takes no value, or the value is of another type.

    Example:
        >>> parse_weights("ensemble:5")
        ('ensemble', {'members': 5})
    """
    method, colon, value = text.partition(":")
    known = _known(method)
    if not colon:
        return method, {}
    if known.argument is None:
        raise ValueError(f"'{text}': the method {method} takes no value; write '{method}'.")
    option, kind = known.argument
    try:
        return method, {option: kind(value)}
    except ValueError:
        raise ValueError(f"'{text}': {option} is a {kind.__name__}, not '{value}'.") from None


def _known(method: Any) -> type[WeightPosterior]:
    if method in ("swag", "dropout"):
        raise ValueError(
            f"The weight posterior '{method}' was removed in version 0.2: it missed what exact sampling gives"
            " (docs/results/gold_standard.md); train again, for example with 'ensemble' or 'variational'."
        )
    if method not in WEIGHT_POSTERIORS:
        raise ValueError(
            f"Unknown weight posterior {method!r}; choose one of {', '.join(sorted(WEIGHT_POSTERIORS))}."
        )
    return WEIGHT_POSTERIORS[method]
