"""A plain training loop for any objective, for who brings no loop of their own."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from tqdm import tqdm

from bayesflowmass.bayes.protocol import Data
from bayesflowmass.common.memory import kept


@dataclass
class Loop:
    """Adam on batches drawn without replacement; its rate is constant, then falls in a straight line in the last half.

    Args:
        data: x (N, ...) and y (N, ...).
        steps: in each phase.
        learning_rate: at first; at the end a fiftieth of it.
        batch_size: examples in a step.
        progress: show a bar.

    Attributes:
        losses: phase -> the loss of each step [nats per example].
    """

    data: Data
    steps: int = 2000
    learning_rate: float = 1e-2
    batch_size: int = 100
    progress: bool = False
    losses: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the numbers."""
        for name in ("steps", "learning_rate", "batch_size"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name} is {getattr(self, name)}; expected a positive number.")

    def __call__(self, objective: nn.Module, *, seed: int, name: str) -> None:
        """Raise the mean of ``objective.log_prob(y, x)``; the seed gives batches and noise.

        Raises:
            ValueError: the loss is no number.
        """
        parameters = [parameter for parameter in objective.parameters() if parameter.requires_grad]
        # Draws of a q that is much wider than the posterior miss by much: a short memory of squared gradients.
        optimizer = torch.optim.Adam(parameters, lr=self.learning_rate, betas=(0.9, 0.99))
        fall = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: min(1.0, 2.02 - 2.0 * k / self.steps))
        x, y = self.data
        losses = torch.empty(self.steps)
        batches = _batches(len(y), min(self.batch_size, len(y)), self.steps, seed)
        objective.train()
        devices = [y.device] if y.is_cuda else []
        with torch.random.fork_rng(devices=devices), kept():
            torch.manual_seed(seed)
            for k, rows in enumerate(tqdm(batches, desc=name, unit="step", disable=not self.progress)):
                optimizer.zero_grad(set_to_none=True)
                loss: Tensor = -objective.log_prob(y[rows], x[rows]).mean()  # type: ignore[operator]
                loss.backward()
                optimizer.step()
                fall.step()
                losses[k] = loss.detach()
                if not bool(losses[k].isfinite()):
                    raise ValueError(
                        f"The loss of the phase '{name}' is {float(losses[k])} at step {k}: look at the data and the"
                        f" likelihood, or lower learning_rate, which is {self.learning_rate}."
                    )
        objective.eval()
        self.losses[name] = losses


def _batches(n: int, size: int, steps: int, seed: int) -> list[Tensor]:
    """Rows of each step: shuffled passes over the data, incomplete batches left out."""
    generator = torch.Generator().manual_seed(seed)
    found: list[Tensor] = []
    while len(found) < steps:
        found += [rows for rows in torch.randperm(n, generator=generator).split(size) if len(rows) == size]
    return found[:steps]
