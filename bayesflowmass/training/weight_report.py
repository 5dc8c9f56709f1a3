"""What a run says about the posterior of the weights that it fitted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import linregress, t

from bayesflowmass.bayes.protocol import WeightPosterior
from bayesflowmass.bayes.variational import VariationalPosterior
from bayesflowmass.training.fit import FitResult
from bayesflowmass.training.history import HistoryRow

CONVERGED_BELOW = 0.01
"""Nats per cluster."""


@dataclass(frozen=True)
class Trend:
    """What as many updates again would gain at the same learning rate, its standard error, its upper limit [nats].

    A falling loss flattens, so that a straight line through what was says more than will come. ``limit`` is exceeded
    with a probability of 2.5 %.
    """

    gain: float
    standard_error: float
    limit: float

    @property
    def converged(self) -> bool:
        """Whether the data exclude a gain of 0.01 nats."""
        return self.limit < CONVERGED_BELOW


def trend(history: Sequence[HistoryRow]) -> Trend | None:
    """The trend of the training loss over the second half of the updates at full learning rate.

    Where the rate falls, the loss stands still because the weights do: that tells nothing. A straight line is fitted
    to the means of up to ten blocks of rows, whose scatter about it holds the noise of batches and draws, correlated
    between neighbours as it is. None where fewer than ten rows are there.
    """
    full = max((row.learning_rate for row in history), default=0.0)
    rows = [row for row in history if row.learning_rate == full]
    rows = rows[len(rows) // 2 :]
    n_blocks = min(10, len(rows) // 2)
    if n_blocks < 5:
        return None
    size = len(rows) // n_blocks
    rows = rows[-size * n_blocks :]
    update = np.array([row.update for row in rows], dtype=np.float64).reshape(n_blocks, size).mean(1)
    loss = np.array([row.train_loss for row in rows], dtype=np.float64).reshape(n_blocks, size).mean(1)
    fitted = linregress(update, loss)
    length = (rows[-1].update - rows[0].update) * len(rows) / (len(rows) - 1)
    gain, error = -length * fitted.slope, length * fitted.stderr
    return Trend(float(gain), float(error), float(gain + t.ppf(0.975, n_blocks - 2) * error))


def note_convergence(posterior: WeightPosterior, results: Mapping[str, FitResult]) -> None:
    """Add to what a variational posterior tells about its fit.

    ``nll`` [nats per training cluster] at the end; where the learning rate stood still for long enough (`trend`),
    ``gain``, ``gain_se``, ``gain_limit`` and ``converged``.
    """
    if not isinstance(posterior, VariationalPosterior) or "variational" not in results:
        return
    history = results["variational"].history
    last = [row.train_loss for row in history if row.update > 0.8 * history[-1].update]
    posterior.found["nll"] = (
        float(np.mean(last)) - posterior.found["tempering"] * posterior.found["kl_per_cluster"]
    )
    found = trend(history)
    if found is not None:
        posterior.found |= {
            "gain": found.gain,
            "gain_se": found.standard_error,
            "gain_limit": found.limit,
            "converged": found.converged,
        }


def describe_weights(posterior: WeightPosterior, results: Mapping[str, FitResult]) -> str:
    """The method, over which weights, how long it took; for a variational one each term of its bound."""
    described = posterior.describe()
    seconds = sum(result.seconds for result in results.values())
    lines = [
        f"Weights: {posterior.method} posterior of {_named(posterior.names)}, fitted in {seconds:.0f} s."
    ]
    if isinstance(posterior, VariationalPosterior):
        n_data, guide = described["n_data"], described["guide"]["kind"]
        lines.append(
            f"  {guide} guide, {posterior.guide.layout.n_weights} random weights, N = {n_data} halos:"
            f" KL/N {described['kl_per_cluster']:.4f} nats,"
            f" {100 * described['share_at_prior']:.0f} % of the weights at their prior."
        )
    if "nll" in described:
        lines.append(
            f"  Negative log likelihood {described['nll']:.3f} nats per training cluster. {_verdict(described)}"
        )
    return "\n".join(lines)


def _named(names: tuple[str, ...]) -> str:
    if not names:
        return "the weights"
    return f"{len(names)} tensor{'s' * (len(names) != 1)} ({', '.join(names[:4])}{', ...' if len(names) > 4 else ''})"


def _verdict(described: Mapping[str, Any]) -> str:
    if "gain" not in described:
        return (
            "Whether it has converged was not judged: that needs ten validations while the learning rate stands still"
            " (weights.fit: max_updates, hold_fraction)."
        )
    found = (
        f"as many updates again would gain {described['gain']:.4f} +- {described['gain_se']:.4f} nats, less than"
        f" {described['gain_limit']:.4f} with 97.5 %; the limit is {CONVERGED_BELOW}"
    )
    return (
        f"Converged: {found}."
        if described["converged"]
        else f"NOT converged: {found}; train for longer (weights.fit)."
    )
