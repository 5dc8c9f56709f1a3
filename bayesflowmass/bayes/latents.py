"""Random weights beside other latent variables: a likelihood that is a program of Pyro."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import torch
from pyro.infer import SVI, Predictive, Trace_ELBO
from pyro.infer.autoguide import AutoNormal
from torch import Tensor, nn
from tqdm import tqdm

from bayesflowmass.bayes.choice import Choice
from bayesflowmass.bayes.density import Likelihood
from bayesflowmass.bayes.guides.base import GUIDES, WeightGuide
from bayesflowmass.bayes.handlers import SharedDraw
from bayesflowmass.bayes.module import BayesianModule
from bayesflowmass.bayes.per_example import ESTIMATORS
from bayesflowmass.bayes.priors import WeightPrior


class LatentPosterior:
    """The posterior of weights and of the latent variables of a likelihood, from one bound of Pyro.

    Args:
        model: ``model(x, y=None)``, with sites for weights and latent variables; returns y.
        guide: q of the weights.
        latents: q of the other latent variables, for ``SharedDraw(guide)(model)``.
        losses: of each step [nats].

    Attributes:
        model, guide, latents, losses: as given.
    """

    def __init__(
        self, model: Callable[..., Any], guide: WeightGuide, latents: AutoNormal, losses: Tensor
    ) -> None:
        self.model, self.guide, self.latents, self.losses = model, guide, latents, losses

    def draw(self, n_draws: int, seed: int = 0) -> dict[str, Tensor]:
        """Sets of weights, name -> (n_draws, *shape)."""
        return self.guide.draw(n_draws, seed)

    def predict(self, x: Tensor, n_draws: int = 100, seed: int = 0) -> Tensor:
        """Draws of what the likelihood returns, (D, B, ...), each with one draw of weights and latent variables.

        Args:
            x: inputs (B, ...).
            n_draws: D.
            seed: of everything.

        Raises:
            ValueError: the likelihood returns nothing.
        """
        handled = SharedDraw(self.guide)(self.model)
        with torch.random.fork_rng(), private_store():
            torch.manual_seed(seed)
            draws = Predictive(handled, guide=self.latents, num_samples=n_draws, return_sites=("_RETURN",))
            found = draws(x).get("_RETURN")
        if found is None:
            raise ValueError("The likelihood returns nothing; let it return its sample of y, to predict.")
        return torch.as_tensor(found)

    def log_prob(self, y: Tensor, x: Tensor, n_draws: int = 100, seed: int = 0) -> Tensor:
        """log p(y | x, data) of each example, (B,) [nats]: its density averaged over draws of all that is unknown.

        Args:
            y, x: (B, ...).
            n_draws: D, each one set of weights and of latent variables for all examples.
            seed: of the draws.

        Raises:
            ValueError: the likelihood does not say one density for each example.
        """
        handled, each = SharedDraw(self.guide)(self.model), []
        with torch.random.fork_rng(), private_store(), torch.no_grad():
            torch.manual_seed(seed)
            for _ in range(n_draws):
                latents = poutine.trace(self.latents).get_trace(x)
                found = poutine.trace(poutine.replay(handled, trace=latents)).get_trace(x, y)
                terms = [
                    site["fn"].log_prob(site["value"])
                    for site in found.nodes.values()
                    if site["type"] == "sample"
                    and site["is_observed"]
                    and not isinstance(site["fn"], dist.Unit)
                ]
                for term in terms:
                    if term.shape[:1] != y.shape[:1]:
                        raise ValueError(
                            f"The likelihood has log densities of the shape {tuple(term.shape)} for {len(y)} examples;"
                            " expected one for each, in a plate."
                        )
                each.append(
                    torch.stack([term.flatten(1).sum(1) if term.dim() > 1 else term for term in terms]).sum(0)
                )
        return torch.stack(each).logsumexp(0) - math.log(n_draws)


def fit_with_latents(
    net: nn.Module,
    x: Tensor,
    y: Tensor,
    likelihood: Likelihood,
    *,
    prior: WeightPrior,
    which: Choice,
    seed: int,
    steps: int,
    learning_rate: float,
    progress: bool,
    guide: str = "mean_field",
    guide_options: dict[str, Any] | None = None,
    estimator: str = "shared",
) -> LatentPosterior:
    """Fit q of weights and latent variables together; the network ends at the mean of q.

    Args:
        net: inputs -> outputs; weights that are not random stay as they are.
        x, y: all data, in each step.
        likelihood: ``likelihood(outputs, y=None)``, a program that samples y.
        prior, which: of the random weights.
        seed, steps, learning_rate, progress: of the training.
        guide, guide_options: of the weights.
        estimator: of the gradient.

    Raises:
        ValueError: unknown guide or estimator, or a loss that is no number.
    """
    for kind, name, known in (("guide", guide, GUIDES), ("estimator", estimator, ESTIMATORS)):
        if name not in known:
            raise ValueError(f"Unknown {kind} {name!r}; choose one of {', '.join(known)}.")
    trainable = [parameter for parameter in net.parameters() if parameter.requires_grad]
    net.train().requires_grad_(False)
    network = BayesianModule(net, prior, which)
    weights = GUIDES[guide](network, **(guide_options or {}))

    def model(x: Tensor, y: Tensor | None = None) -> Any:
        return likelihood(network(x), y)

    handled = ESTIMATORS[estimator](weights)(model)
    latents = AutoNormal(handled, init_scale=0.1)
    losses = torch.empty(steps)
    with torch.random.fork_rng(), private_store():
        torch.manual_seed(seed)
        decay = 0.02 ** (1 / steps)
        optimizer = pyro.optim.ClippedAdam({"lr": learning_rate, "betas": (0.9, 0.99), "lrd": decay})
        svi = SVI(handled, latents, optimizer, Trace_ELBO())
        for k in tqdm(range(steps), desc="variational", unit="step", disable=not progress):
            losses[k] = svi.step(x, y)
            if not bool(losses[k].isfinite()):
                raise ValueError(
                    f"The loss is {float(losses[k])} at step {k}: look at the data and the likelihood, or lower"
                    f" learning_rate, which is {learning_rate}."
                )
    for parameter in trainable:
        parameter.requires_grad_(True)
    with torch.no_grad():
        for name, value in weights.mean.items():
            net.get_parameter(name).copy_(value)
    net.eval()
    return LatentPosterior(model, weights, latents, losses)


@contextmanager
def private_store() -> Iterator[None]:
    """Within the block Pyro's parameter store is another one, so that fits do not meet in it."""
    with pyro.get_param_store().scope():
        yield
