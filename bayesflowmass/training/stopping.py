"""Early stopping on a smoothed validation loss.

A validation loss jitters from update to update. Stopping after 200 updates without a new *raw* minimum
therefore stops anywhere between 540 and 1580 updates of the same problem. The noise of neighbouring validations
is correlated, so that a smoothed loss is steady only if it averages over about as long as the patience.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any


@dataclass
class SmoothedStopping:
    r"""Patience on the exponential average of the validation loss.

    With losses :math:`\ell_i` at updates :math:`t_i`, the average is
    :math:`s_i = s_{i-1} + (1 - e^{-(t_i - t_{i-1})/\tau}) (\ell_i - s_{i-1})`, started at the first loss.

    Args:
        patience_updates: updates without a smaller average after which to stop; None never stops.
        smoothing_updates: the time constant tau, in updates; 0 switches the smoothing off.
        min_improvement: the least decrease of the average [nats] that counts as better.
    """

    patience_updates: int | None = 200
    smoothing_updates: float = 200.0
    min_improvement: float = 0.0
    average: float | None = None
    last_update: int = 0
    best: float | None = None
    best_raw: float | None = None
    best_update: int = 0

    def observe(self, update: int, loss: float) -> bool:
        """Take the validation loss at ``update``; True where the smoothed loss is the best so far.

        Raises:
            ValueError: if the loss is not finite.
        """
        if not math.isfinite(loss):
            raise ValueError(
                f"The validation loss is {loss} at update {update}: training diverged; lower the learning"
                " rate or set clip_norm."
            )
        if self.average is None or self.smoothing_updates == 0:
            self.average = loss
        else:
            weight = -math.expm1(-(update - self.last_update) / self.smoothing_updates)
            self.average += weight * (loss - self.average)
        self.last_update = update
        better = self.best is None or self.average < self.best - self.min_improvement
        if better:
            self.best, self.best_raw, self.best_update = self.average, loss, update
        return better

    @property
    def exhausted(self) -> bool:
        """True where the patience is spent."""
        return (
            self.patience_updates is not None and self.last_update - self.best_update >= self.patience_updates
        )

    def state(self) -> dict[str, Any]:
        """What has been observed, for JSON."""
        constants = {"patience_updates", "smoothing_updates", "min_improvement"}
        return {name: value for name, value in asdict(self).items() if name not in constants}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from what :meth:`state` returned."""
        for name in self.state():
            setattr(self, name, state[name])
