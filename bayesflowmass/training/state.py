"""Everything that changes while training: what a checkpoint holds."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from bayesflowmass.training.checkpoint import CheckpointError
from bayesflowmass.training.history import HistoryRow
from bayesflowmass.training.learning_rate import LearningRate
from bayesflowmass.training.random_state import capture_global_state, restore_global_state
from bayesflowmass.training.stopping import SmoothedStopping

__all__ = ["TrainingState"]

# The averaged weights follow quickly at first: the initial weights must not linger in them.
AVERAGE_WARMUP = 10.0


@dataclass
class TrainingState:
    """Weights, optimiser, position within the run, what was observed so far; to and from tensors and JSON.

    ``position`` is (epoch, batches of it that are done): one attribute, so that a signal never sees half of
    it. ``average`` is the running mean of the weights where ``average_decay`` > 0 (Polyak & Juditsky 1992):
    validation and the best weights then refer to it.
    """

    flow: nn.Module
    optimizer: torch.optim.Optimizer
    stopping: SmoothedStopping
    learning_rate: LearningRate
    average_decay: float = 0.0
    update: int = 0
    position: tuple[int, int] = (0, 0)
    loss_sum: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    loss_count: int = 0
    history: list[HistoryRow] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)
    average: dict[str, Tensor] = field(default_factory=dict)
    seconds_before: float = 0.0
    started: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        """Begin the average at the initial weights."""
        if self.average_decay > 0:
            self.average = {name: p.detach().clone() for name, p in self.flow.named_parameters()}

    @property
    def seconds(self) -> float:
        """Wall time of training [s], the runs before a resumption included."""
        return self.seconds_before + time.monotonic() - self.started

    @torch.no_grad()
    def count(self, loss: Tensor) -> None:
        """Take note of one update and its loss."""
        self.loss_sum += loss.to(self.loss_sum.device)
        self.loss_count += 1
        self.update += 1
        epoch, batch = self.position
        self.position = (epoch, batch + 1)
        if self.average:
            decay = min(self.average_decay, (1 + self.update) / (AVERAGE_WARMUP + self.update))
            weights = [p.detach() for p in self.flow.parameters()]
            torch._foreach_lerp_(list(self.average.values()), weights, 1.0 - decay)

    @contextmanager
    def judged_weights(self) -> Iterator[None]:
        """Within the block the flow has the weights that validation judges: the average, where there is
        one."""
        self._swap_average()
        try:
            yield
        finally:
            self._swap_average()

    def _swap_average(self) -> None:
        for name, parameter in self.flow.named_parameters():
            if name in self.average:
                self.average[name], parameter.data = parameter.data, self.average[name]

    def keep_best(self) -> None:
        """Remember the present weights (call within :meth:`judged_weights`)."""
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
        found |= {f"average/{name}": value for name, value in self.average.items()}
        for name, parameter in self.flow.named_parameters():
            for key, value in self.optimizer.state.get(parameter, {}).items():
                found[f"optimizer/{name}/{key}"] = value
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
            "learning_rate": self.learning_rate.state(),
            "history": [row.to_list() for row in self.history],
            "random": capture_global_state()[1],
        }

    @torch.no_grad()
    def load(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Continue from a checkpoint, the global generators included.

        Raises:
            CheckpointError: if the checkpoint belongs to another network.
        """
        groups: dict[str, dict[str, Tensor]] = {
            "weights": {},
            "best": {},
            "average": {},
            "optimizer": {},
            "random": {},
        }
        for name, value in tensors.items():
            group, slash, rest = name.partition("/")
            if slash:
                groups[group][rest] = value
        device = self.loss_sum.device
        try:
            self.flow.load_state_dict(groups["weights"])
            for name, average in self.average.items():
                average.copy_(groups["average"][name])
            self.best = {name: value.to(device) for name, value in groups["best"].items()}
            parameters = dict(self.flow.named_parameters())
            for name, value in groups["optimizer"].items():
                owner, _, key = name.rpartition("/")
                # Copies, so that every tensor has the alignment of torch's allocator: kernels may depend on
                # it.
                self.optimizer.state[parameters[owner]][key] = value.clone().to(device)
        except (RuntimeError, KeyError) as error:
            raise CheckpointError(
                f"The checkpoint belongs to another network ({' '.join(str(error).split())[:200]}); train"
                " anew."
            ) from error
        self.loss_sum.copy_(tensors["loss_sum"])
        self.update, self.position = state["update"], (state["position"][0], state["position"][1])
        self.loss_count, self.seconds_before = state["loss_count"], state["seconds"]
        self.stopping.load_state(state["stopping"])
        self.learning_rate.load_state(state["learning_rate"])
        self.history = [HistoryRow(*row) for row in state["history"]]
        restore_global_state(groups["random"], state["random"])
