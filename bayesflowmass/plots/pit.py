"""Are the stated probabilities right? Histogram and ECDF of the PIT, and coverage, with the bands of a
right answer.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from scipy import stats

from bayesflowmass.diagnostics.calibration import coverage_curve, pit_ecdf, pit_histogram
from bayesflowmass.plots.style import COLOURS, column_figure, journal_style

__all__ = ["plot_coverage", "plot_pit"]


def plot_pit(pit: ArrayLike, *, bins: int = 20, title: str | None = None) -> Figure:
    """Histogram of the PIT above, its ECDF minus the uniform one below, each with its 95 % simultaneous band.

    A hump says that the posteriors are too wide, a bowl too narrow, a slope that they are biased.

    Args:
        pit: predictive cdf at the truth, shape (n,).
        bins: of the histogram.
        title: names the sample and the prior.
    """
    histogram, ecdf = pit_histogram(pit, bins), pit_ecdf(pit)
    figure, (top, bottom) = column_figure(3.6, rows=2, sharex=True)
    with journal_style():
        top.axhspan(*histogram.band, color=COLOURS["grey"], alpha=0.35, lw=0, label="95 %, all bins")
        top.axhline(1.0, color=COLOURS["black"], lw=0.6, ls="--")
        top.stairs(histogram.density, histogram.edges, color=COLOURS["blue"], lw=1.2)
        top.set(xlim=(0, 1), ylabel="PIT density")
        top.set_ylim(0, 1.35 * max(histogram.density.max(), histogram.band[1]))
        top.legend(loc="upper right", title=title, alignment="left")
        bottom.axhspan(-ecdf.half_width, ecdf.half_width, color=COLOURS["grey"], alpha=0.35, lw=0)
        bottom.axhline(0.0, color=COLOURS["black"], lw=0.6, ls="--")
        bottom.step(ecdf.u, ecdf.difference, where="post", color=COLOURS["blue"], lw=1.0)
        bottom.set(xlabel="PIT", ylabel=r"ECDF $-$ uniform")
    return figure


def plot_coverage(
    pits: Mapping[str, ArrayLike], *, probability: float = 0.95, title: str | None = None
) -> Figure:
    """Empirical coverage of central intervals against their stated probability, and the difference below.

    Args:
        pits: label -> PIT values, shape (n,). The band is the pointwise binomial one of the smallest sample.
        probability: of the band.
        title: names the sample and the prior.
    """
    if not pits:
        raise ValueError("There are no PIT values to draw.")
    levels = np.linspace(0.0, 1.0, 101)
    n = min(np.asarray(u).size for u in pits.values())
    tail = 0.5 * (1.0 - probability)
    low, high = (stats.binom.ppf(p, n, levels) / n for p in (tail, 1.0 - tail))
    figure, (top, bottom) = column_figure(3.8, rows=2, sharex=True, gridspec_kw={"height_ratios": [2.0, 1.0]})
    with journal_style():
        top.plot([0, 1], [0, 1], "--", color=COLOURS["black"], lw=0.6)
        bottom.fill_between(levels, low - levels, high - levels, color=COLOURS["grey"], alpha=0.35, lw=0)
        bottom.axhline(0.0, color=COLOURS["black"], lw=0.6, ls="--")
        for label, u in pits.items():
            curve = coverage_curve(u, levels)
            at_68, at_95 = coverage_curve(u, [0.68, 0.95])
            top.plot(levels, curve, label=f"{label}: {100 * at_68:.1f}, {100 * at_95:.1f} % at 68, 95 %")
            bottom.plot(levels, curve - levels)
        for level in (0.68, 0.95):
            for axis in (top, bottom):
                axis.axvline(level, color=COLOURS["grey"], lw=0.5, ls=":")
        top.set(xlim=(0, 1), ylim=(0, 1), ylabel="share of clusters inside")
        top.legend(loc="upper left", title=title, alignment="left")
        bottom.set(xlabel="stated probability of the central interval", ylabel="difference")
    return figure
