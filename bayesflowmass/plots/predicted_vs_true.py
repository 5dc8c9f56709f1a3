"""Predicted against true mass, with the posterior's own bands (figure 5 of Kodi Ramanah et al. 2020)."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from bayesflowmass.plots.style import COLOURS, column_figure, journal_style

__all__ = ["plot_predicted_vs_true"]

FloatArray = NDArray[np.float64]

MASS_LABEL = r"$\log_{10}(M_{200\mathrm{c}}\,[h^{-1}M_\odot])$"


def plot_predicted_vs_true(
    log10_true: ArrayLike,
    quantiles: ArrayLike,
    *,
    bin_width: float = 0.1,
    min_count: int = 10,
    label: str | None = None,
    colour: str = "blue",
) -> Figure:
    """Mean posterior median and mean posterior 1 and 2 sigma limits in bins of true mass; below, their
    widths.

    The lower panel shows half the width of the central 68 and 95 % intervals, which the posterior states,
    beside the scatter and the mean absolute residual, which the test set measures.

    Args:
        log10_true: log10 M200c [Msun/h], shape (n,).
        quantiles: 2.5, 16, 50, 84 and 97.5 % of each posterior, shape (n, 5).
        bin_width: [dex].
        min_count: bins with fewer clusters are not drawn; the clusters themselves are.
        label: of the sample.
        colour: a name of ``style.COLOURS``.
    """
    true = np.asarray(log10_true, dtype=np.float64)
    q = np.asarray(quantiles, dtype=np.float64)
    if q.shape != (true.size, 5):
        raise ValueError(f"quantiles must have shape ({true.size}, 5); found {q.shape}.")
    index = np.floor(true / bin_width + 1e-9).astype(int)
    bins, count = np.unique(index, return_counts=True)
    bins = bins[count >= min_count]
    members = [index == b for b in bins]
    x = np.array([true[m].mean() for m in members])
    mean = np.array([q[m].mean(axis=0) for m in members]).reshape(len(bins), 5)
    epsilon = true - q[:, 2]
    scatter = np.array([epsilon[m].std(ddof=1) for m in members])
    absolute = np.array([np.abs(epsilon[m]).mean() for m in members])
    figure, (top, bottom) = column_figure(4.2, rows=2, sharex=True, gridspec_kw={"height_ratios": [2.4, 1.0]})
    paint = COLOURS[colour]
    with journal_style():
        low, high = true.min() - 0.05, true.max() + 0.05
        top.plot([low, high], [low, high], "--", color=COLOURS["black"], lw=0.8, label="one to one", zorder=4)
        top.plot(
            true,
            q[:, 2],
            ".",
            ms=1.2,
            mec="none",
            color=COLOURS["grey"],
            alpha=0.5,
            rasterized=True,
            zorder=0,
        )
        top.fill_between(
            x, mean[:, 0], mean[:, 4], color=paint, alpha=0.2, lw=0, label=r"$2\sigma$", zorder=1
        )
        top.fill_between(
            x, mean[:, 1], mean[:, 3], color=paint, alpha=0.4, lw=0, label=r"$1\sigma$", zorder=2
        )
        top.plot(
            x, mean[:, 2], "*", color=paint, mec="white", mew=0.3, ms=6, label="mean of medians", zorder=5
        )
        top.set(xlim=(low, high), ylim=(low, high))
        top.set_ylabel("predicted " + MASS_LABEL)
        top.legend(loc="upper left", title=label, alignment="left")
        bottom.plot(
            x, 0.5 * (mean[:, 4] - mean[:, 0]), color=paint, alpha=0.45, label=r"$2\sigma$ of the PDF"
        )
        bottom.plot(x, 0.5 * (mean[:, 3] - mean[:, 1]), color=paint, label=r"$1\sigma$ of the PDF")
        bottom.plot(x, scatter, ":", color=COLOURS["black"], label=r"$\sigma_\epsilon$")
        bottom.plot(x, absolute, "-.", color=COLOURS["vermillion"], label=r"$\langle|\epsilon|\rangle$")
        bottom.set_ylim(0, 1.7 * bottom.dataLim.ymax)
        bottom.set(xlabel="true " + MASS_LABEL, ylabel="width [dex]")
        bottom.legend(ncols=2, loc="upper right", columnspacing=1.0)
    return figure
