"""A network and a likelihood of its outputs as one conditional density."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from bayesflowmass.bayes.initialisation import draw_anew

Likelihood = Callable[..., Any]
"""Outputs of the network -> distribution of y; or, with a second argument y, a program of Pyro that samples it."""

NET = "net."
"""Before the names of the network's parameters in a `Density`."""


class Density(nn.Module):
    """log p(y | x, w) of each example: what the posteriors of weights fit.

    Args:
        net: inputs (B, ...) -> outputs; without a likelihood a density itself, with ``log_prob(y, x) -> (B,)``.
        likelihood: outputs -> distribution of y of the shape of y, (B, ...). A module may have parameters of its own,
            such as a noise to be learned; they are never random.
    """

    def __init__(self, net: nn.Module, likelihood: Likelihood | None = None) -> None:
        super().__init__()
        if likelihood is None and not callable(getattr(net, "log_prob", None)):
            raise ValueError(
                f"{type(net).__name__} has no log_prob(y, x): say what y is given its outputs, such as"
                " likelihood=lambda f: pyro.distributions.Normal(f.squeeze(-1), 0.1)."
            )
        self.net = net
        self.likelihood = likelihood

    def forward(self, y: Tensor | None, x: Any) -> Any:
        """log p(y | x), (B,); the outputs of the network where y is None."""
        if self.likelihood is None:
            return self.net.log_prob(y, x)  # type: ignore[operator]
        outputs = self.net(x)
        return outputs if y is None else self.score(self.distribution(outputs), y)

    def log_prob(self, y: Tensor, x: Any) -> Tensor:
        """log p(y | x), (B,)."""
        found: Tensor = self(y, x)
        return found

    def distribution(self, outputs: Any) -> dist.TorchDistribution:
        """p(y | outputs).

        Raises:
            ValueError: the likelihood returned no distribution.
        """
        assert self.likelihood is not None
        found = self.likelihood(outputs)
        if not isinstance(found, Distribution):
            raise ValueError(
                f"The likelihood returned a {type(found).__name__}; expected a distribution of Pyro, such as"
                " pyro.distributions.Normal(f.squeeze(-1), 0.1)."
            )
        return found

    @staticmethod
    def score(distribution: dist.TorchDistribution, y: Tensor) -> Tensor:
        """log p(y) of each example, (B,).

        Raises:
            ValueError: distribution and y differ in shape, which would be spread over each other in silence.
        """
        shape = distribution.batch_shape + distribution.event_shape
        if shape != y.shape:
            raise ValueError(
                f"The likelihood is a distribution of shape {tuple(shape)} and y has the shape {tuple(y.shape)}; make"
                " them alike, such as by f.squeeze(-1) for outputs (B, 1)."
            )
        log_prob: Tensor = distribution.log_prob(y)
        return log_prob.flatten(1).sum(-1) if log_prob.dim() > 1 else log_prob

    def parameters_of(self, x: Any) -> tuple[Tensor, ...]:
        """The outputs of the network; where it is a density itself, the parameters that it gives."""
        if self.likelihood is not None:
            return (self.net(x),)
        if not hasattr(self.net, "parameters_of"):
            raise ValueError(
                f"{type(self.net).__name__} does not give the parameters of its density: parameters_of(x)."
            )
        found: tuple[Tensor, ...] = self.net.parameters_of(x)  # type: ignore[operator]
        return found

    def distribution_of(self, parameters: Sequence[Tensor]) -> Any:
        """The distribution that has these parameters."""
        if self.likelihood is not None:
            return self.distribution(parameters[0])
        return self.net.distribution_of(parameters)  # type: ignore[operator]

    def log_prob_of(self, parameters: Sequence[Tensor], y: Tensor) -> Tensor:
        """log p(y | parameters), (B,)."""
        if self.likelihood is not None:
            return self.score(self.distribution(parameters[0]), y)
        found: Tensor = self.net.log_prob_of(parameters, y)  # type: ignore[operator]
        return found

    def network_parameters(self) -> dict[str, nn.Parameter]:
        """The parameters that a prior is for, by their names here."""
        return {f"{NET}{name}": value for name, value in self.net.named_parameters()}

    def reset_parameters(self) -> None:
        """Draw the weights of the network anew, from the global generator."""
        draw_anew(self.net, int(torch.randint(1 << 31, ())))


def has_sites(likelihood: Likelihood | None) -> bool:
    """Whether a likelihood is a program that samples y itself: whether it takes y beside the outputs."""
    if likelihood is None:
        return False
    called = likelihood.forward if isinstance(likelihood, nn.Module) else likelihood
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    try:
        parameters = inspect.signature(called).parameters.values()
    except ValueError:
        return False
    return "y" in [p.name for p in parameters if p.kind in kinds]
