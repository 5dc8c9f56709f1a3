"""The rows of the gold standard: methods of the package, with the options that they are given."""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from bayesflowmass.bayes import WEIGHT_POSTERIORS, NormalPrior, PenalisedLikelihood, WeightPosterior
from bayesflowmass.bayes.choice import top_layers
from bayesflowmass.bayes.guides import Eigenbasis
from bayesflowmass.estimator.weight_draws import condition_draws
from bayesflowmass.flows import ConditionalFlow, build_flow
from bayesflowmass.training.weights import LAST_LAYER_FIT
from benchmarks.gold_standard.problems import GAIN, NETWORKS, PROBLEMS, Problem

__all__ = ["PRIOR", "ROWS", "Cell", "Predict"]

PRIOR = NormalPrior(gain=GAIN)
N_DRAWS = 400
Predict = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Contexts (n, C) -> means and standard deviations of log10 mass [dex], (D, n), of D draws."""


@dataclass(frozen=True)
class Cell:
    """A data set and a network.

    Args:
        name: ``PROBLEM, NETWORK``.
        updates: of the training loop; a bound takes 3 to 18 times as many, 10 for the default.
    """

    name: str
    updates: int

    @property
    def problem(self) -> Problem:
        """The data set."""
        return PROBLEMS[self.name.partition(", ")[0]]

    @cached_property
    def data(self) -> tuple[Tensor, Tensor]:
        """Contexts (N, C) and log10 masses (N,) of the training clusters."""
        x, mass = self.problem.clusters(self.problem.n_train, 0)
        return torch.from_numpy(x), torch.from_numpy(mass)

    def flow(self, seed: int) -> ConditionalFlow:
        """An untrained flow: one affine block."""
        problem, hidden = self.problem, NETWORKS[self.name.partition(", ")[2]]
        return build_flow(
            "affine", problem.dims, problem.loc, problem.scale, affine_blocks=1, hidden=hidden, seed=seed
        ).double()

    def maximise(self, objective: nn.Module, *, seed: int, name: str, factor: int = 1) -> None:
        """All clusters at once: Adam, its rate falling as a cosine, of bounds after 60 % of the steps.

        The default's guide gets steps and rate of `LAST_LAYER_FIT`.
        """
        bound = name.startswith("variational")
        default = bound and isinstance(objective.guide, Eigenbasis)
        n = self.updates * factor * ((10 if default else 3) if bound else 1)
        hold = LAST_LAYER_FIT["hold_fraction"] if bound else 0.0
        parameters = [p for p in objective.parameters() if p.requires_grad]
        optimizer = torch.optim.Adam(
            parameters,
            lr=LAST_LAYER_FIT["learning_rate"] if default else 0.02,
            betas=LAST_LAYER_FIT["betas"] if bound else (0.9, 0.999),
        )

        def rate(k: int) -> float:
            return 0.5 + 0.5 * math.cos(math.pi * max(0.0, (k / n - hold) / (1 - hold)))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
        objective.train()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for _ in range(n):
                optimizer.zero_grad()
                loss: Tensor = -objective.log_prob(self.data[1], self.data[0]).mean()  # type: ignore[operator]
                loss.backward()
                optimizer.step()
                schedule.step()
        objective.eval()

    def point(self, seed: int) -> ConditionalFlow:
        """The flow at a maximum of the posterior density."""
        flow = self.flow(seed)
        self.maximise(PenalisedLikelihood(flow, PRIOR, len(self.data[1])), seed=seed, name="point")
        return flow.eval()


Fit = Callable[[Cell, ConditionalFlow, int], Predict]


def predictions(flow: ConditionalFlow, draws: dict[str, Tensor]) -> Predict:
    """Those of draws of the weights."""

    def predict(contexts: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            found = condition_draws(flow, draws, contexts)
            return found.mean, found.variance.sqrt()

    return predict


def _by(method: str, which: str = "", *, factor: int = 1, mean: bool = False, **options: Any) -> Fit:
    """A row of a method of the package, which starts from trained weights."""

    def fit(cell: Cell, point: ConditionalFlow, seed: int) -> Predict:
        flow = deepcopy(point)
        chosen = dict(options)
        if which:
            chosen["which"] = {"top": top_layers(flow), "first": "*.nn.0.*"}.get(which, which)
        chosen |= {"prior": PRIOR} if method != "point" else {}

        def maximise(objective: nn.Module, *, seed: int, name: str) -> None:
            cell.maximise(objective, seed=seed, name=name, factor=factor)

        kind: Any = WEIGHT_POSTERIORS[method]
        posterior: WeightPosterior = kind.fit(
            flow, cell.data, maximise=maximise, seed=seed, trained=True, **chosen
        )
        flow.linear_draws = posterior.linear
        draws = {} if mean else posterior.draw(min(posterior.n_distinct or N_DRAWS, N_DRAWS), seed=7)
        return predictions(flow, draws)

    return fit


ROWS: dict[str, Fit] = {
    "point (maximum a posteriori)": _by("point"),
    "variational, the default: top layers, eigenbasis": _by("variational", "top"),
    "the default, one network at the mean of q": _by("variational", "top", mean=True),
    "variational, top layers, full covariance": _by("variational", "top", guide="full_covariance"),
    "variational, first layer, eigenbasis": _by("variational", "first"),
    "variational, all, mean field": _by("variational", "all", guide="mean_field", factor=6),
    "variational, all, eigenbasis": _by("variational", "all", guide="eigenbasis", factor=2),
    "variational, all, full covariance": _by("variational", "all", guide="full_covariance", factor=6),
    "Laplace, last layer": _by("laplace", "last", relative_precision=1.0),
    "Laplace, top layers": _by("laplace", "top", relative_precision=1.0),
    "linearised Laplace, all": _by("linearised", "all", relative_precision=1.0),
    "linearised Laplace, all, prior by marginal likelihood": _by("linearised", "all"),
    "linearised Laplace, top layers": _by("linearised", "top", relative_precision=1.0),
    "Laplace in function space, all": _by("function_space", "all"),
    "ensemble of 10": _by("ensemble", members=10),
    "stochastic-gradient HMC, top layers": _by("sghmc", "top", warmup=30, samples=50),
    "stochastic-gradient HMC, all": _by("sghmc", "all", warmup=30, samples=50),
}
