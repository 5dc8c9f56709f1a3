"""How training went: loss against updates."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from bayesflowmass.plots.style import COLOURS, column_figure, journal_style


def plot_loss(
    update: ArrayLike,
    train_loss: ArrayLike,
    validation_loss: ArrayLike,
    smoothed_validation_loss: ArrayLike,
    *,
    best_update: int | None = None,
) -> Figure:
    """Training, validation and smoothed validation loss, and the update whose weights were kept.

    The first losses are often far above the rest: the axis shows the range from the tenth of the run on, and
    grows to what came before only by as much again.

    Args:
        update: updates done at each validation, shape (n,).
        train_loss, validation_loss, smoothed_validation_loss: mean -log p(log10 M | cluster) [nats], shape
            (n,).
        best_update: marked by a vertical line.

    Raises:
        ValueError: if there are no rows.
    """
    at, train, validation, smoothed = (
        np.asarray(values, dtype=np.float64)
        for values in (update, train_loss, validation_loss, smoothed_validation_loss)
    )
    if at.size == 0:
        raise ValueError("There is no history to draw: training stopped before its first validation.")
    figure, (axis,) = column_figure(2.5)
    with journal_style():
        axis.plot(at, train, color=COLOURS["sky"], lw=0.9, label="training")
        axis.plot(at, validation, color=COLOURS["orange"], lw=0.9, label="validation")
        axis.plot(at, smoothed, color=COLOURS["vermillion"], lw=1.4, ls="--", label="validation, smoothed")
        if best_update is not None:
            axis.axvline(best_update, color=COLOURS["black"], lw=0.7, ls=":", label=f"best, {best_update}")
        settled = np.concatenate([loss[at >= 0.1 * at[-1]] for loss in (train, validation, smoothed)])
        low, high = float(settled.min()), float(settled.max())
        span = max(high - low, 1e-3)
        highest = float(max(train.max(), validation.max(), smoothed.max()))
        axis.set_ylim(low - 0.08 * span, min(highest, high + span) + 0.08 * span)
        axis.set_xlim(0, max(float(at[-1]), 1.0))
        axis.set(xlabel="updates", ylabel=r"$-\ln\,p(\log_{10} M\,|\,$cluster$)$ [nats]")
        figure.legend(loc="outside upper center", ncols=2)
    return figure
