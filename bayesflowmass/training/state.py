"""Everything that changes while training: what a checkpoint holds."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from bayesflowmass.training.checkpoint import CheckpointError
from bayesflowmass.training.history import HistoryRow
from bayesflowmass.training.optimizer import ScheduledAdam
from bayesflowmass.training.random_state import capture_global_state, restore_global_state
from bayesflowmass.training.stopping import SmoothedStopping


@dataclass
class TrainingState:
    """Weights, optimiser, position within the run, what was observed so far; to and from tensors and JSON.

    ``position`` is (epoch, batches of it that are done): one attribute, so that a signal never sees half of
    it. Validation and the best weights refer to the running mean of the weights where the optimiser has one.
    """

    flow: nn.Module
    optimizer: ScheduledAdam
    stopping: SmoothedStopping
    position: tuple[int, int] = (0, 0)
    loss_sum: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    loss_count: int = 0
    history: list[HistoryRow] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)
    seconds_before: float = 0.0
    started: float = field(default_factory=time.monotonic)

    @property
    def update(self) -> int:
        """Updates that are done."""
        return self.optimizer.update

    @property
    def seconds(self) -> float:
        """Wall time of training [s], the runs before a resumption included."""
        return self.seconds_before + time.monotonic() - self.started

    @torch.no_grad()
    def count(self, loss: Tensor | float) -> None:
        """Take note of the loss of one update."""
        self.loss_sum += loss
        self.loss_count += 1
        epoch, batch = self.position
        self.position = (epoch, batch + 1)

    def keep_best(self) -> None:
        """Remember the present weights (call within ``optimizer.averaged()``)."""
        for name, value in self.flow.state_dict().items():
            if name in self.best:
                self.best[name].copy_(value)
            else:
                self.best[name] = value.detach().clone()

    def restore_best(self) -> None:
        """Give the flow the best weights."""
        if self.best:
            self.flow.load_state_dict(self.best)

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint holds as tensors."""
        found = {f"weights/{name}": value for name, value in self.flow.state_dict().items()}
        found |= {f"best/{name}": value for name, value in self.best.items()}
        found |= self.optimizer.tensors()
        found["loss_sum"] = self.loss_sum
        found |= {f"random/{name}": value for name, value in capture_global_state()[0].items()}
        return found

    def to_json(self) -> dict[str, Any]:
        """What a checkpoint holds beside the tensors."""
        return {
            "position": list(self.position),
            "loss_count": self.loss_count,
            "seconds": self.seconds,
            "threads": torch.get_num_threads(),
            "stopping": self.stopping.state(),
            "learning_rate": self.optimizer.rate.state(),
            "history": [row.to_list() for row in self.history],
            "random": capture_global_state()[1],
        }

    @torch.no_grad()
    def load(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Continue from a checkpoint, the global generators included.

        Raises:
            CheckpointError: if the checkpoint belongs to another network.
        """
        groups: dict[str, dict[str, Tensor]] = {"weights": {}, "best": {}, "random": {}}
        for name, value in tensors.items():
            group, slash, rest = name.partition("/")
            if slash and group in groups:
                groups[group][rest] = value
        device = self.loss_sum.device
        try:
            self.flow.load_state_dict(groups["weights"])
            self.best = {name: value.to(device) for name, value in groups["best"].items()}
            self.optimizer.load(tensors, state["update"])
        except (RuntimeError, KeyError) as error:
            raise CheckpointError(
                f"The checkpoint belongs to another network ({' '.join(str(error).split())[:200]}); train"
                " anew."
            ) from error
        self.loss_sum.copy_(tensors["loss_sum"])
        self.position = (state["position"][0], state["position"][1])
        self.loss_count, self.seconds_before = state["loss_count"], state["seconds"]
        self.stopping.load_state(state["stopping"])
        self.optimizer.rate.load_state(state["learning_rate"])
        self.history = [HistoryRow(*row) for row in state["history"]]
        restore_global_state(groups["random"], state["random"])
