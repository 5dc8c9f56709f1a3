"""Whether an objective has converged: what the last fifth of the updates gained."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bayesflowmass.training.history import HistoryRow

__all__ = ["CONVERGED_BELOW", "Convergence", "last_fifth"]

CONVERGED_BELOW = 0.01
"""Nats per cluster: an objective that gains less in the last fifth of the updates counts as converged."""


@dataclass(frozen=True)
class Convergence:
    """Decrease of the training loss over the last fifth of the updates, its standard error, its last value [nats]."""

    gain: float
    standard_error: float
    loss: float

    @property
    def converged(self) -> bool:
        """Whether the gain is below 0.01 nat."""
        return self.gain < CONVERGED_BELOW


def last_fifth(history: Sequence[HistoryRow]) -> Convergence | None:
    """The fall of a straight line through the training losses of the last fifth of the updates.

    A row's training loss is the mean over the updates since the row before it. The standard error comes from the
    scatter about the line. None for fewer than three rows in that fifth.
    """
    if not history:
        return None
    last = history[-1].update
    rows = [row for row in history if row.update > 0.8 * last]
    if len(rows) < 3:
        return None
    update = np.array([row.update for row in rows], dtype=np.float64)
    loss = np.array([row.train_loss for row in rows], dtype=np.float64)
    offset = update - update.mean()
    slope = float(offset @ loss / (offset @ offset))
    residual = loss - loss.mean() - slope * offset
    error = math.sqrt(float(residual @ residual) / (len(rows) - 2) / float(offset @ offset))
    return Convergence(-0.2 * last * slope, 0.2 * last * error, float(loss.mean()))
