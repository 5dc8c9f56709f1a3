"""Predicted against true mass, with the posterior's own bands (figure 5 of Kodi Ramanah et al. 2020)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from bayesflowmass.common.arrays import FloatArray
from bayesflowmass.common.numbers import interval, number
from bayesflowmass.diagnostics import merged_edges
from bayesflowmass.plots.evaluated import EvaluationFigure
from bayesflowmass.plots.style import (
    COLOURS,
    COLUMN_WIDTH,
    MASS_LABEL,
    PAGE_WIDTH,
    column_figure,
    journal_style,
)

_COLOURS = ("blue", "vermillion", "green", "purple")


def plot_predicted_vs_true(
    samples: Mapping[str, tuple[ArrayLike, ArrayLike]], *, bin_width: float = 0.1
) -> Figure:
    """Mean posterior median and mean posterior 1 and 2 sigma limits in bins of true mass; below, their
    widths. Several samples, such as pure and contaminated clusters, stand side by side on the same axes.

    The lower panel shows half the width of the central 68 and 95 % intervals, which the posterior states,
    beside the scatter and the mean absolute residual, which the test set measures.

    Args:
        samples: label -> log10 M200c [Msun/h] (n,), and the 2.5, 16, 50, 84 and 97.5 % quantiles of each posterior
            (n, 5); two samples fill a page.
        bin_width: [dex]; bins with fewer than ten clusters are merged with their neighbours.

    Raises:
        ValueError: there are no samples, or more than four.
    """
    if not 1 <= len(samples) <= len(_COLOURS):
        raise ValueError(f"1 to {len(_COLOURS)} samples fit side by side; {len(samples)} were given.")
    n = len(samples)
    width = COLUMN_WIDTH if n == 1 else min(PAGE_WIDTH, 0.5 * PAGE_WIDTH * n)
    figure, axes = column_figure(
        4.2, rows=2, columns=n, width=width, sharex=True, sharey="row",
        gridspec_kw={"height_ratios": [2.4, 1.0]},
    )  # fmt: skip
    with journal_style():
        for i, (label, (log10_true, quantiles)) in enumerate(samples.items()):
            true = np.asarray(log10_true, dtype=np.float64)
            q = np.asarray(quantiles, dtype=np.float64)
            if q.shape != (true.size, 5):
                raise ValueError(f"quantiles must have shape ({true.size}, 5); found {q.shape}.")
            _draw_sample(axes[i], axes[n + i], true, q, bin_width, label, COLOURS[_COLOURS[i]])
        every = np.concatenate([np.asarray(true, dtype=np.float64) for true, _ in samples.values()])
        low, high = every.min() - 0.05, every.max() + 0.05
        axes[0].set(xlim=(low, high), ylim=(low, high))
        for top, bottom in zip(axes[:n], axes[n:], strict=True):
            top.plot([low, high], [low, high], "--", color=COLOURS["black"], lw=0.8, zorder=4)
            bottom.set_xlabel("true " + MASS_LABEL)
        axes[0].set_ylabel("predicted " + MASS_LABEL)
        axes[n].set_ylabel("width [dex]")
        axes[n].set_ylim(0, 1.7 * max(axis.dataLim.ymax for axis in axes[n:]))
    return figure


def _draw_sample(
    top: Axes, bottom: Axes, true: FloatArray, q: FloatArray, bin_width: float, label: str, paint: str
) -> None:
    edges = merged_edges(true, bin_width, 10)
    index = np.clip(np.searchsorted(edges, true, side="right") - 1, 0, edges.size - 2)
    members = [index == b for b in np.unique(index)]
    x = np.array([true[m].mean() for m in members])
    mean = np.array([q[m].mean(axis=0) for m in members]).reshape(len(members), 5)
    epsilon = true - q[:, 2]
    scatter = np.array([epsilon[m].std(ddof=1) for m in members])
    absolute = np.array([np.abs(epsilon[m]).mean() for m in members])
    dots: dict[str, Any] = {
        "ms": 1.2,
        "mec": "none",
        "color": COLOURS["grey"],
        "alpha": 0.5,
        "rasterized": True,
    }
    top.plot(true, q[:, 2], ".", zorder=0, **dots)
    for ends, alpha, name in (((0, 4), 0.2, r"$2\sigma$"), ((1, 3), 0.4, r"$1\sigma$")):
        top.fill_between(
            x, mean[:, ends[0]], mean[:, ends[1]], color=paint, alpha=alpha, lw=0, label=name, zorder=1
        )
    top.plot(x, mean[:, 2], "*", color=paint, mec="white", mew=0.3, ms=6, label="mean of medians", zorder=5)
    top.legend(loc="upper left", title=label, alignment="left")
    bottom.plot(x, 0.5 * (mean[:, 4] - mean[:, 0]), color=paint, alpha=0.45, label=r"$2\sigma$ of the PDF")
    bottom.plot(x, 0.5 * (mean[:, 3] - mean[:, 1]), color=paint, label=r"$1\sigma$ of the PDF")
    bottom.plot(x, scatter, ":", color=COLOURS["black"], label=r"$\sigma_\epsilon$")
    bottom.plot(x, absolute, "-.", color=COLOURS["black"], label=r"$\langle|\epsilon|\rangle$")
    bottom.legend(ncols=2, loc="upper right", columnspacing=1.0)


def _alt(metrics: Mapping[str, Any], _: Mapping[str, Any]) -> str:
    return (
        f"Predicted against true log10 mass of {metrics['n_clusters']} clusters between"
        f" {interval(*metrics['log10_mass_range'])}: slope {number(metrics['slope'], 2)}, scatter"
        f" {number(metrics['scatter'])} dex, mean residual {number(metrics['mean_residual'], sign=True)} dex."
    )


FIGURES = (
    EvaluationFigure(
        "predicted_vs_true",
        "accuracy",
        1,
        "Mean posterior median, and its mean 68 and 95 % limits, in bins of true mass (dots: single clusters)."
        " Below: the widths that the posteriors state beside the scatter that the test set has.",
        _alt,
        lambda e: plot_predicted_vs_true({e.title: (e.summary.log10_true, e.summary.quantiles)}),
    ),
)
