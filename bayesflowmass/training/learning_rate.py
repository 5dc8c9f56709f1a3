"""Learning-rate schedules: functions of the update alone or, for the plateau, of two integers beside it."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

Schedule = Literal["constant", "cosine", "plateau"]


@dataclass
class LearningRate:
    r"""The learning rate at each update.

    ``constant`` (the paper) keeps it; ``cosine`` falls as :math:`f + (1 - f)(1 + \cos \pi t)/2` to the
    fraction f at the last update (Loshchilov & Hutter, arXiv:1608.03983), after the share ``hold`` of the updates at
    full rate; ``plateau`` multiplies it by
    ``factor`` each time the smoothed validation loss has not improved for ``plateau_updates``. All begin with
    a linear warm-up.

    Args:
        base: the learning rate after the warm-up.
        schedule: constant, cosine or plateau.
        warmup_updates: length of the linear warm-up.
        max_updates: where the cosine ends.
        hold: share of the updates after the warm-up at which the cosine begins.
        final_fraction: f, the fraction of ``base`` below which no schedule falls.
        factor: of the plateau, between 0 and 1.
        plateau_updates: patience of the plateau.
    """

    base: float
    schedule: Schedule = "constant"
    warmup_updates: int = 0
    max_updates: int = 2000
    final_fraction: float = 0.01
    factor: float = 0.5
    plateau_updates: int = 200
    hold: float = 0.0
    reductions: int = 0
    last_reduction: int = 0

    def at(self, update: int) -> float:
        """The learning rate of the update numbered ``update``, counting from 0."""
        if update < self.warmup_updates:
            return self.base * (update + 1) / self.warmup_updates
        if self.schedule == "cosine":
            length = max(1, self.max_updates - 1 - self.warmup_updates)
            done = min(1.0, max(0.0, (update - self.warmup_updates) / length - self.hold) / (1.0 - self.hold))
            fall = 0.5 * (1.0 + math.cos(math.pi * done))
            return self.base * (self.final_fraction + (1.0 - self.final_fraction) * fall)
        if self.schedule == "plateau":
            return self.base * max(self.final_fraction, self.factor**self.reductions)
        return self.base

    def observe(self, update: int, best_update: int) -> None:
        """Take note, after a validation, of the last update that improved it."""
        if update - max(best_update, self.last_reduction, self.warmup_updates) >= self.plateau_updates:
            self.reductions += 1
            self.last_reduction = update

    def state(self) -> dict[str, Any]:
        """What changes while training, for JSON."""
        values = asdict(self)
        return {name: values[name] for name in ("reductions", "last_reduction")}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from what :meth:`state` returned."""
        self.reductions, self.last_reduction = state["reductions"], state["last_reduction"]
