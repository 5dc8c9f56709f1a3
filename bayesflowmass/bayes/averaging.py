"""Stochastic weight averaging with a normal distribution (SWAG)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.distributions import LowRankMultivariateNormal
from tqdm import tqdm

from bayesflowmass.bayes.choice import Choice, choose
from bayesflowmass.bayes.layout import WeightLayout
from bayesflowmass.bayes.point import PenalisedLikelihood, maximise_weights
from bayesflowmass.bayes.priors import WeightPrior
from bayesflowmass.bayes.protocol import Data, Maximise, WeightPosterior

__all__ = ["AveragingPosterior"]


class AveragingPosterior(WeightPosterior):
    r"""
    The normal distribution of the weights along stochastic gradient descent at a constant rate,

        :math:`q(w) = N(\bar w,\ \tfrac12\,\mathrm{diag}(\sigma^2) + \tfrac{1}{2(K-1)} D D^T),`

    from the running mean and variance of all snapshots and the deviations D of the last K from the running
    mean. Its width follows from learning rate and batch size, which Bayes' theorem does not know.

    References:
        Maddox et al. 2019, arXiv:1902.02476, eq. 1.

    Args:
        module: whose weights they are.
        names: the random ones.
        mean: (P,).
        variance: (P,), of the snapshots.
        deviations: (K, P).
        found: what `describe` reports of the fit.
    """

    method: ClassVar[str] = "swag"
    argument: ClassVar[tuple[str, type] | None] = ("rank", int)
    mean: Tensor
    variance: Tensor
    deviations: Tensor

    def __init__(
        self,
        module: nn.Module,
        names: tuple[str, ...],
        mean: Tensor,
        variance: Tensor,
        deviations: Tensor,
        found: Mapping[str, Any],
    ) -> None:
        super().__init__()
        self.layout = WeightLayout(module, names)
        self.names = self.layout.names
        self.found = dict(found)
        self.register_buffer("mean", mean)
        self.register_buffer("variance", variance)
        self.register_buffer("deviations", deviations)

    @classmethod
    def fit(
        cls,
        module: nn.Module,
        data: Data,
        *,
        maximise: Maximise,
        seed: int = 0,
        progress: bool = False,
        which: Choice = "all",
        rank: int = 20,
        snapshots: int = 60,
        updates: int | None = None,
        learning_rate: float = 1e-3,
        momentum: float = 0.9,
        batch_size: int = 100,
        train_prior: WeightPrior | None = None,
        trained: bool = False,
    ) -> Self:
        """Train the module, go on with stochastic gradient descent from there, take a snapshot now and then.

        The module ends with the mean of the snapshots as its weights.

        Args:
            which: the weights that move and are random (`choose`).
            rank: K, deviations that are kept.
            snapshots: taken in all.
            updates: between two snapshots; None: one pass over the data.
            learning_rate, momentum, batch_size: of the descent, on the mean over the batch.
            train_prior: of all weights, in both phases; None: maximum likelihood.

        Raises:
            ValueError: ``rank`` does not lie between 2 and ``snapshots``, or the descent diverges.
        """
        if not 2 <= rank <= snapshots:
            raise ValueError(f"rank is {rank} with {snapshots} snapshots; expected 2 <= rank <= snapshots.")
        n_data = len(data[1])
        if not trained:
            maximise_weights(module, train_prior, n_data, maximise, seed=seed, name="point")
        names = choose(module, which)
        layout = WeightLayout(module, names)
        weights = [module.get_parameter(name) for name in names]
        objective = module if train_prior is None else PenalisedLikelihood(module, train_prior, n_data)
        batch_size = min(batch_size, n_data)
        updates = updates or max(1, n_data // batch_size)
        optimizer = torch.optim.SGD(weights, lr=learning_rate, momentum=momentum)
        total = square = torch.zeros(layout.n_weights, dtype=torch.float64, device=weights[0].device)
        deviations: list[Tensor] = []
        objective.train()
        devices = [weights[0].device] if weights[0].is_cuda else []
        with torch.random.fork_rng(devices=devices):
            # Dropout draws from the global generator.
            torch.manual_seed(seed)
            batches = _batches(data, batch_size, torch.Generator().manual_seed(seed))
            for k in tqdm(range(1, snapshots + 1), desc="averaging", unit="snapshot", disable=not progress):
                for _ in range(updates):
                    optimizer.zero_grad(set_to_none=True)
                    context, log10_mass = next(batches)
                    loss: Tensor = -objective.log_prob(log10_mass, context).mean()  # type: ignore[operator]
                    loss.backward()
                    optimizer.step()
                flat = layout.flatten({name: w.detach() for name, w in zip(names, weights, strict=True)})
                if not bool(flat.isfinite().all()):
                    raise ValueError(
                        f"Stochastic weight averaging diverged at snapshot {k}: lower its learning_rate, which "
                        f"is {learning_rate}."
                    )
                total, square = total + flat, square + flat.double() ** 2
                deviations = [*deviations, flat - (total / k).to(flat)][-rank:]
        mean = total / snapshots
        module.eval()
        with torch.no_grad():
            for name, value in layout.split(mean).items():
                module.get_parameter(name).copy_(value)
        variance = (square / snapshots - mean**2).clamp_min(1e-30)
        found = {
            "snapshots": snapshots,
            "updates": updates,
            "learning_rate": learning_rate,
            "momentum": momentum,
            "batch_size": batch_size,
        }
        like = weights[0].detach()
        return cls(module, names, mean.to(like), variance.to(like), torch.stack(deviations), found)

    def draw(self, n_draws: int, seed: int) -> dict[str, Tensor]:
        generator, (rank, size) = torch.Generator().manual_seed(seed), self.deviations.shape
        noise = torch.randn(n_draws, size + rank, dtype=self.mean.dtype, generator=generator)
        diagonal, factors = noise.to(self.mean.device).split([size, rank], -1)
        flat = self.mean + diagonal * (0.5 * self.variance).sqrt() + factors @ self._factor()
        return self.layout.split(flat)

    def log_density(self, draws: Mapping[str, Tensor]) -> Tensor:
        normal = LowRankMultivariateNormal(
            self.mean, self._factor().T, 0.5 * self.variance, validate_args=False
        )
        density: Tensor = normal.log_prob(self.layout.flatten(draws))
        return density

    def _factor(self) -> Tensor:
        return self.deviations / math.sqrt(2 * (len(self.deviations) - 1))

    def describe(self) -> dict[str, Any]:
        shape = {"names": list(self.names), "rank": len(self.deviations)}
        return {"method": self.method, **shape, **self.found}

    @classmethod
    def _restore(cls, module: nn.Module, description: Mapping[str, Any]) -> Self:
        found = dict(description)
        del found["method"]
        names, rank = tuple(found.pop("names")), int(found.pop("rank"))
        empty = next(module.parameters()).new_zeros(WeightLayout(module, names).n_weights)
        return cls(module, names, empty, empty.clone(), empty.expand(rank, -1).clone(), found)


def _batches(data: Data, size: int, generator: torch.Generator) -> Iterator[Data]:
    """Shuffled batches without end, incomplete ones left out."""
    while True:
        order = torch.randperm(len(data[1]), generator=generator).to(data[1].device)
        for rows in order.split(size):
            if len(rows) == size:
                yield data[0][rows], data[1][rows]
