"""Variational posteriors of weights: a guide fitted to the evidence lower bound."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

import torch
from pyro.infer import ELBO, Trace_ELBO, TraceMeanField_ELBO
from torch import Tensor, nn

from bayesflowmass.bayes.choice import Choice, choose, top_layers
from bayesflowmass.bayes.guides import WeightGuide
from bayesflowmass.bayes.guides.base import GUIDES
from bayesflowmass.bayes.guides.eigenbasis import WIDEST, Eigenbasis
from bayesflowmass.bayes.layout import WeightLayout
from bayesflowmass.bayes.objective import Estimator, VariationalObjective
from bayesflowmass.bayes.point import maximise_weights
from bayesflowmass.bayes.priors import WeightPrior
from bayesflowmass.bayes.protocol import Data, Maximise, WeightPosterior

_ELBOS = {"Trace_ELBO": Trace_ELBO, "TraceMeanField_ELBO": TraceMeanField_ELBO}

_AT_ONCE = 1000


class VariationalPosterior(WeightPosterior):
    """The guide q(w) that maximises the evidence lower bound, over some of a module's weights.

    Args:
        guide: q, fitted or about to be loaded.
        found: what `describe` reports of the fit.
    """

    method: ClassVar[str] = "variational"
    argument: ClassVar[tuple[str, type] | None] = ("which", str)

    def __init__(self, guide: WeightGuide, found: Mapping[str, Any]) -> None:
        super().__init__()
        self.guide = guide
        self.names = guide.names
        self.found = dict(found)

    @classmethod
    def defaults(cls, module: nn.Module) -> dict[str, Any]:
        """The last two layers, or the last where there is nothing below two (`top_layers`)."""
        return {"which": top_layers(module)}

    @classmethod
    def fit(
        cls,
        module: nn.Module,
        data: Data,
        *,
        maximise: Maximise,
        seed: int = 0,
        progress: bool = False,
        which: Choice = "last",
        guide: str | None = None,
        guide_options: Mapping[str, Any] | None = None,
        prior: WeightPrior | None = None,
        train_prior: WeightPrior | None = None,
        estimator: Estimator | None = None,
        tempering: float = 1.0,
        elbo: Literal["Trace_ELBO", "TraceMeanField_ELBO"] | None = None,
        freeze: bool = True,
        trained: bool = False,
    ) -> Self:
        """Train the module (phase ``point``), then q and the weights that are not random (phase ``variational``).

        The module ends with the means of q as its weights.

        Args:
            which: the random weights (`choose`).
            guide: a key of `GUIDES`; None: the eigenbasis guide, or the mean field where layers are too wide for it.
            guide_options: further arguments of the guide, such as ``init_scale`` or ``rank``.
            prior: of the random weights.
            train_prior: of all weights in the phase ``point``; None: maximum likelihood.
            estimator, tempering: see `build_objective`.
            elbo: a bound of Pyro instead of `WeightELBO`: slower, and without estimators of its own.
            freeze: keep the weights that are not random as the first phase left them: few data would be fitted
                one by one if the layers below went on.

        Raises:
            ValueError: the guide is unknown.
        """
        if not trained:
            maximise_weights(module, train_prior, len(data[1]), maximise, seed=seed, name="point")
        trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
        objective = build_objective(
            module,
            data,
            which=which,
            guide=guide,
            guide_options=guide_options,
            prior=prior,
            estimator=estimator,
            tempering=tempering,
            elbo=None if elbo is None else _ELBOS[elbo](),
        )
        if freeze:
            module.requires_grad_(False)
        maximise(objective, seed=seed, name="variational")
        for parameter in trainable:
            parameter.requires_grad_(True)
        return cls.of(objective)

    @classmethod
    def of(cls, objective: VariationalObjective) -> Self:
        """The posterior that an objective found; its module gets the means of q as its weights."""
        module, q = objective.module, objective.guide
        with torch.no_grad():
            for name, value in q.mean.items():
                module.get_parameter(name).copy_(value)
        module.eval()
        found = {
            "n_data": objective.n_data,
            "estimator": objective.estimator,
            "tempering": objective.tempering,
            "kl_per_cluster": float(objective.kl()) / objective.n_data,
            "share_at_prior": q.share_at_prior(),
        }
        return cls(q.requires_grad_(False), found)

    @classmethod
    def check(cls, module: nn.Module, data: Data, options: Mapping[str, Any]) -> None:
        given = {name: options[name] for name in ("guide", "guide_options", "prior") if name in options}
        q = _guide(module, options.get("which", "last"), **given)
        kept = {name: options[name] for name in ("estimator", "tempering") if options.get(name) is not None}
        VariationalObjective(module, q, 1, **kept)

    def draw(self, n_draws: int, seed: int) -> dict[str, Tensor]:
        return self.guide.draw(n_draws, seed)

    @torch.no_grad()
    def log_density(self, draws: Mapping[str, Tensor]) -> Tensor:
        return self.guide.log_prob(draws)

    def moments(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        return self.guide.mean, self.guide.standard_deviation

    def describe(self) -> dict[str, Any]:
        return {"method": self.method, "guide": self.guide.describe(), **self.found}

    @classmethod
    def _restore(cls, module: nn.Module, description: Mapping[str, Any]) -> Self:
        guide = WeightGuide.from_description(module, description["guide"])
        found = {key: value for key, value in description.items() if key not in ("method", "guide")}
        return cls(guide.requires_grad_(False), found)


def build_objective(
    module: nn.Module,
    data: Data,
    *,
    which: Choice = "last",
    guide: str | None = None,
    guide_options: Mapping[str, Any] | None = None,
    prior: WeightPrior | None = None,
    estimator: Estimator | None = None,
    tempering: float = 1.0,
    elbo: ELBO | None = None,
) -> VariationalObjective:
    """What ``method="variational"`` fits: its model, guide, bound and ``svi(optim)`` are ready for Pyro.

    Args:
        module: called as ``module(log10_mass (B,), context (B, C)) -> log density (B,)``; trained.
        data: all examples: context (N, C) and log10_mass (N,).
        which: the random weights (`choose`).
        guide: a key of `GUIDES`; None: the eigenbasis guide, or the mean field where layers are too wide for it.
        guide_options: further arguments of the guide, such as ``init_scale`` or ``rank``.
        prior: of the random weights.
        estimator: of the gradient; None: ``local`` for the eigenbasis guide, else ``mirrored``.
        tempering, elbo: see `VariationalObjective`.

    Raises:
        ValueError: the guide is unknown, or an option has no meaning.
    """
    q = _guide(module, which, guide, guide_options, prior)
    if isinstance(q, Eigenbasis):
        q.align(module, lambda: _apply(module, data))
    estimator = estimator or ("local" if isinstance(q, Eigenbasis) else "mirrored")
    return VariationalObjective(module, q, len(data[1]), estimator=estimator, tempering=tempering, elbo=elbo)


def _guide(
    module: nn.Module,
    which: Choice,
    guide: str | None = None,
    guide_options: Mapping[str, Any] | None = None,
    prior: WeightPrior | None = None,
) -> WeightGuide:
    """The guide of this name; None: the eigenbasis, or the mean field where layers are too wide for it."""
    if guide is None:
        widths = [
            shape[1]
            for shape in WeightLayout(module, choose(module, which)).shapes.values()
            if len(shape) == 2
        ]
        guide = "eigenbasis" if max(widths, default=1) <= WIDEST else "mean_field"
    if guide not in GUIDES:
        raise ValueError(f"Unknown guide {guide!r}; choose one of {', '.join(GUIDES)}.")
    try:
        return GUIDES[guide](module, prior, which, **(guide_options or {}))
    except TypeError as error:
        raise ValueError(f"guide_options of the guide {guide!r}: {error}.") from None


@torch.no_grad()
def _apply(module: nn.Module, data: Data) -> None:
    """Run the module, as it is when it does not train, over all clusters."""
    training, device = module.training, next(module.parameters()).device
    module.eval()
    for context, log10_mass in zip(*(part.split(_AT_ONCE) for part in data), strict=True):
        module(log10_mass.to(device), context.to(device))
    module.train(training)
