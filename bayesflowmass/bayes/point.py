"""One set of weights: maximum likelihood, or maximum a posteriori."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from torch import Tensor, nn

from bayesflowmass.bayes.priors import WeightPrior
from bayesflowmass.bayes.protocol import Data, Maximise, WeightPosterior


class PenalisedLikelihood(nn.Module):
    """log p(log10 M | context, w) + log p(w) / N: its mean over the N training clusters is the log posterior over N.

    While the module does not train it is the likelihood alone, which is what validation judges.

    Args:
        module: with ``log_prob(log10_mass (B,), context (B, C)) -> (B,)``.
        prior: of all its weights that are not frozen; of those of the network, where the module has
            ``network_parameters()`` (`Density`).
        n_data: N.
    """

    def __init__(self, module: nn.Module, prior: WeightPrior, n_data: int) -> None:
        super().__init__()
        self.module = module
        self.prior = prior
        self.n_data = n_data

    def log_prob(self, log10_mass: Tensor, context: Tensor) -> Tensor:
        """Nats per cluster, (B,)."""
        log_likelihood: Tensor = self.module.log_prob(log10_mass, context)  # type: ignore[operator]
        if not self.training:
            return log_likelihood
        weights = getattr(self.module, "network_parameters", None)
        named = dict(self.module.named_parameters()) if weights is None else weights()
        moving = {name: value for name, value in named.items() if value.requires_grad}
        return log_likelihood + self.prior.log_prob(moving) / self.n_data


def maximise_weights(
    module: nn.Module, prior: WeightPrior | None, n_data: int, maximise: Maximise, *, seed: int, name: str
) -> None:
    """Train all weights in place: maximum likelihood without a prior, else maximum a posteriori."""
    objective = module if prior is None else PenalisedLikelihood(module, prior, n_data)
    maximise(objective, seed=seed, name=name)
    module.eval()


class PointPosterior(WeightPosterior):
    """All the probability on one set of weights, those of the module: it has no epistemic variance."""

    method: ClassVar[str] = "point"
    names: tuple[str, ...] = ()

    @classmethod
    def fit(
        cls,
        module: nn.Module,
        data: Data,
        *,
        maximise: Maximise,
        seed: int = 0,
        progress: bool = False,
        prior: WeightPrior | None = None,
        trained: bool = False,
    ) -> Self:
        """Train the module: by maximum likelihood, or with a prior to the maximum of the posterior density."""
        if not trained:
            maximise_weights(module, prior, len(data[1]), maximise, seed=seed, name="point")
        return cls()

    def draw(self, n_draws: int, seed: int) -> dict[str, Tensor]:
        """No weights: every draw is the module itself."""
        return {}

    @property
    def n_distinct(self) -> int | None:
        return 1

    def describe(self) -> dict[str, Any]:
        return {"method": self.method}

    @classmethod
    def _restore(cls, module: nn.Module, description: Mapping[str, Any]) -> Self:
        return cls()
