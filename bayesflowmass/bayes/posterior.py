"""A network, a likelihood and a posterior of the weights together: predictions, densities, and the parts for Pyro."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributions import Distribution

from bayesflowmass.bayes.choice import exactly
from bayesflowmass.bayes.density import NET, Density, Likelihood
from bayesflowmass.bayes.elbo import WeightELBO
from bayesflowmass.bayes.linearised import linear_parameters
from bayesflowmass.bayes.module import BayesianModule, for_particles, particle_plate
from bayesflowmass.bayes.priors import DistributionPrior, WeightPrior
from bayesflowmass.bayes.protocol import WeightPosterior
from bayesflowmass.bayes.substitution import call_with
from bayesflowmass.bayes.variational import VariationalPosterior
from bayesflowmass.common.files import whole_file, write_whole

N_DRAWS = 100


class Posterior:
    """What :func:`~bayesflowmass.bayes.fitting.fit` found; every draw is one network, for all examples alike.

    Args:
        density: network and likelihood; its network has the weights at the centre of the posterior.
        weights: the posterior of the weights, whose names begin with ``net.``.
        prior: of the weights.
        n_data: N, the number of examples that it was fitted to.
        event_dims: dimensions of y beside the examples that the likelihood holds as a batch.
        losses: phase of the training -> the loss of each step [nats per example].

    Attributes:
        density, weights, prior, n_data, losses: as given.
    """

    def __init__(
        self,
        density: Density,
        weights: WeightPosterior,
        prior: WeightPrior,
        n_data: int,
        event_dims: int = 0,
        losses: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.density, self.weights, self.prior, self.n_data = density.eval(), weights, prior, n_data
        self.event_dims = event_dims
        self.losses = dict(losses or {})
        self._model: BayesianModule | None = None
        self._elbo: WeightELBO | None = None

    @property
    def net(self) -> nn.Module:
        """The network that was given."""
        return self.density.net

    def draw(self, n_draws: int, seed: int = 0) -> dict[str, Tensor]:
        """Sets of weights, name -> (n_draws, *shape); names begin with ``net.``."""
        return self.weights.draw(n_draws, seed)

    def outputs(self, x: Tensor, n_draws: int | None = None, seed: int = 0) -> Any:
        """The outputs of the network for draws of the weights, (D, B, ...).

        Args:
            x: inputs (B, ...).
            n_draws: D; None: each of a finite number of draws once, else 100.
            seed: of the draws.

        Raises:
            ValueError: the network is a density and has no outputs.
        """
        if self.density.likelihood is None:
            raise ValueError(f"{type(self.net).__name__} is a density itself and has no outputs.")
        return torch.stack(list(self._each(None, x, n_draws, seed)))

    def predict(self, x: Tensor, n_draws: int | None = None, seed: int = 0) -> Tensor:
        """Draws of y, (D, B, ...): one for each draw of the weights and each example.

        Args:
            x: inputs (B, ...).
            n_draws: D, as for `outputs`.
            seed: of everything.
        """
        with torch.random.fork_rng(devices=[x.device] if x.is_cuda else []), torch.no_grad():
            torch.manual_seed(seed)
            if self.density.likelihood is None:
                sampler = _Sampler(self.net)
                drawn = (
                    [self.density.distribution_of(part).sample() for part in self._linear(x, n_draws, seed)]
                    if self.weights.linear
                    else [call_with(sampler, weights, (x,)) for weights in self._sets(n_draws, seed)]
                )
            else:
                outputs = self._each(None, x, n_draws, seed)
                drawn = [self.density.distribution(each).sample() for each in outputs]
        return torch.stack(drawn)

    def log_prob(self, y: Tensor, x: Tensor, n_draws: int | None = None, seed: int = 0) -> Tensor:
        """log p(y | x, data) of each example, (B,) [nats]: of the mean of the density over draws of the weights.

        Args:
            y, x: (B, ...).
            n_draws, seed: as for `outputs`.
        """
        log_probs = torch.stack(list(self._each(y, x, n_draws, seed)))
        return log_probs.logsumexp(0) - math.log(len(log_probs))

    def as_prior(self) -> DistributionPrior:
        """The posterior as the prior of a further fit: each weight normal, with its mean and standard deviation here.

        Correlations are lost. Weights that are not random keep the prior that they had. Names are those of the network.

        >>> posterior = bayes.fit(net, (x_new, y_new), likelihood=..., prior=posterior.as_prior())

        Raises:
            ValueError: the posterior is not a normal distribution of the weights of the network.
        """
        moments = None if self.weights.linear else self.weights.moments()
        if moments is None:
            raise ValueError(
                f"The posterior '{self.weights.method}' is no normal distribution of the weights; fit 'variational' or"
                " 'laplace' for one that becomes a prior."
            )
        found: dict[str, Distribution] = {}
        for name, value in self.density.network_parameters().items():
            if name in moments[0]:
                mean, scale = (part[name].detach() for part in moments)
                each = dist.Normal(mean, scale).to_event(mean.dim())
            else:
                each = self.prior.distribution(name, value.shape, value.detach())
            found[exactly([name.removeprefix(NET)])[0]] = each
        return DistributionPrior(found)

    @property
    def model(self) -> Callable[..., Any]:
        """The model of Pyro: ``model(x, y)``, a batch of the N examples; the weights that are not random stay."""
        if self._model is None:
            # A copy, whose weights stand still: those of the network can be fitted again.
            fixed = deepcopy(self.density).requires_grad_(False)
            self._model = BayesianModule(fixed, self.prior, exactly(self._random()))
        return self._run

    def _run(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        assert self._model is not None
        scale = self.n_data / len(x)
        if self.density.likelihood is None:
            log_prob: Tensor = self._model(y, x)
            with pyro.plate("data", len(x), dim=-1), poutine.scale(scale=scale):
                pyro.factor("y", log_prob)
            return log_prob
        likelihood = self.density.distribution(self._model(None, x)).to_event(self.event_dims)
        with pyro.plate("data", len(x), dim=-1), poutine.scale(scale=scale):
            found: Tensor = pyro.sample("y", likelihood, obs=y)
        return found

    @property
    def guide(self) -> Callable[..., Any]:
        """The guide of Pyro for `model`: of a variational posterior the one that was fitted, ready to go on."""
        if isinstance(self.weights, VariationalPosterior):
            return self.weights.guide.requires_grad_(True)
        self._random()
        return self._sample_draw

    def _sample_draw(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """One draw of a posterior that is no guide, or one for each particle, at the sites of the weights."""
        plate = particle_plate()
        size = 1 if plate is None else plate.size
        n_draws = self._number(None) if self.weights.n_distinct else size
        draws = self.weights.draw(n_draws, int(torch.randint(1 << 31, ())))
        chosen = torch.randint(n_draws, (size,)) if self.weights.n_distinct else torch.arange(size)
        return {
            name: pyro.sample(
                name, dist.Delta(for_particles(value[chosen], plate), event_dim=value.dim() - 1)
            )
            for name, value in draws.items()
        }

    @property
    def elbo(self) -> WeightELBO:
        """The bound that a variational posterior maximises, for ``pyro.infer.SVI(model, guide, optim, elbo)``."""
        if self._elbo is None:
            found = getattr(self.weights, "found", {})
            self._elbo = WeightELBO(found.get("estimator", "shared"), tempering=found.get("tempering", 1.0))
        return self._elbo

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write ``posterior.json`` and ``posterior.safetensors`` into a folder, which is made if need be."""
        path = Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        tensors = {f"density.{name}": value for name, value in self.density.state_dict().items()}
        tensors |= {f"weights.{name}": value for name, value in self.weights.state_dict().items()}
        with whole_file(path / "posterior.safetensors") as temporary:
            save_file({name: value.detach().cpu().clone() for name, value in tensors.items()}, temporary)
        description = {
            "weights": self.weights.describe(),
            "prior": self.prior.describe(),
            "n_data": self.n_data,
            "event_dims": self.event_dims,
        }
        write_whole(path / "posterior.json", json.dumps(description, indent=1) + "\n")

    def _random(self) -> list[str]:
        if self.weights.linear:
            raise ValueError(
                f"Draws of '{self.weights.method}' are no networks: there is no model of Pyro for it."
            )
        parameters = dict(self.density.named_parameters())
        foreign = [name for name in self.weights.names if name not in parameters]
        if foreign or not self.weights.names:
            what = f"draws the buffer '{foreign[0]}'" if foreign else "draws no weights"
            raise ValueError(
                f"The posterior '{self.weights.method}' {what}: there is no model of Pyro for it."
            )
        return list(self.weights.names)

    def _number(self, n_draws: int | None) -> int:
        if n_draws is not None:
            if n_draws < 1:
                raise ValueError(f"n_draws is {n_draws}; expected at least 1.")
            return n_draws
        distinct = self.weights.n_distinct
        return N_DRAWS if distinct is None else min(distinct, N_DRAWS)

    def _sets(self, n_draws: int | None, seed: int) -> Iterator[dict[str, Tensor]]:
        number = self._number(n_draws)
        draws = self.weights.draw(number, seed)
        for index in range(number):
            yield {name: value[index] for name, value in draws.items()}

    def _linear(self, x: Any, n_draws: int | None, seed: int) -> Iterator[tuple[Tensor, ...]]:
        """Parameters of the density of each draw of a posterior that is linear in the weights."""
        parameters = linear_parameters(self.density, self.draw(self._number(n_draws), seed), x)
        yield from zip(*parameters, strict=True)

    def _each(self, y: Tensor | None, x: Tensor, n_draws: int | None, seed: int) -> Iterator[Tensor]:
        self.density.eval()
        with torch.no_grad():
            if self.weights.linear:
                for part in self._linear(x, n_draws, seed):
                    yield part[0] if y is None else self.density.log_prob_of(part, y)
                return
            for weights in self._sets(n_draws, seed):
                yield call_with(self.density, weights, (y, x))


class _Sampler(nn.Module):
    """A conditional density whose call is a draw."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.net.condition(x).sample()  # type: ignore[operator]
        return found


def load(folder: str | os.PathLike[str], net: nn.Module, likelihood: Likelihood | None = None) -> Posterior:
    """What ``save`` wrote.

    Args:
        folder: that was written.
        net: a network of the same architecture; it gets the weights that were saved.
        likelihood: as it was given to `fit`.

    Raises:
        FileNotFoundError: there is no posterior in the folder.
        ValueError: the network is of another architecture.
    """
    path = Path(folder)
    if not (path / "posterior.json").is_file():
        raise FileNotFoundError(f"There is no posterior.json in '{path}'; give a folder that save() wrote.")
    description = json.loads((path / "posterior.json").read_text(encoding="utf-8"))
    tensors = load_file(path / "posterior.safetensors")
    density = Density(net, likelihood)
    parts: dict[str, dict[str, Tensor]] = {"density": {}, "weights": {}}
    for name, value in tensors.items():
        part, _, rest = name.partition(".")
        parts[part][rest] = value
    try:
        density.load_state_dict(parts["density"])
        weights = WeightPosterior.from_description(density, description["weights"])
    except RuntimeError as error:
        raise ValueError(
            f"The posterior in '{path}' is of another network than this {type(net).__name__}: {error}"
        ) from None
    weights.to(next(net.parameters()).device)
    weights.load_state_dict(parts["weights"])
    prior = WeightPrior.from_description(description["prior"])
    return Posterior(density, weights, prior, description["n_data"], description["event_dims"])
