"""Are the stated probabilities right? Histogram and ECDF of the PIT, with the bands of a right answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from bayesflowmass.common.numbers import number
from bayesflowmass.diagnostics.calibration import pit_histogram
from bayesflowmass.diagnostics.uniformity import uniformity
from bayesflowmass.plots.evaluated import EvaluationFigure
from bayesflowmass.plots.style import COLOURS, column_figure, journal_style


def plot_pit(pit: ArrayLike, *, halo_id: ArrayLike | None = None, title: str | None = None) -> Figure:
    """Histogram of the PIT above, its ECDF minus the uniform one below, each with its 95 % simultaneous band.

    A hump says that the posteriors are too wide, a bowl too narrow, a slope that they are biased.

    Args:
        pit: predictive cdf at the truth, shape (n,).
        halo_id: shape (n,); the bands allow for projections of one halo.
        title: names the sample and the prior.
    """
    histogram, ecdf = pit_histogram(pit, halo_id=halo_id), uniformity(pit, halo_id)
    figure, (top, bottom) = column_figure(3.6, rows=2, sharex=True)
    with journal_style():
        top.axhspan(*histogram.band, color=COLOURS["grey"], alpha=0.35, lw=0, label="95 %, all bins")
        top.axhline(1.0, color=COLOURS["black"], lw=0.6, ls="--")
        top.stairs(histogram.density, histogram.edges, color=COLOURS["blue"], lw=1.2)
        top.set(xlim=(0, 1), ylabel="PIT density")
        top.set_ylim(0, 1.35 * max(histogram.density.max(), histogram.band[1]))
        top.legend(loc="upper right", title=title, alignment="left")
        z = [0.0, *ecdf.grid, 1.0]
        bottom.fill_between(
            z, [0.0, *ecdf.lower, 0.0], [0.0, *ecdf.upper, 0.0], color=COLOURS["grey"], alpha=0.35, lw=0
        )
        bottom.axhline(0.0, color=COLOURS["black"], lw=0.6, ls="--")
        bottom.plot(z, [0.0, *ecdf.difference, 0.0], color=COLOURS["blue"], lw=1.0)
        bottom.set(xlabel="PIT", ylabel=r"ECDF $-$ uniform")
    return figure


def _alt(_: Mapping[str, Any], calibration: Mapping[str, Any]) -> str:
    overall = calibration["overall"]
    off = max(overall["difference"], key=abs, default=0.0)
    return (
        f"Histogram of the PIT of {overall['n_clusters']} clusters and its cumulative function minus the uniform one,"
        f" which departs by {number(off, sign=True)} at most; p = {overall['p_value']:.2g} for a calibrated model."
    )


FIGURES = (
    EvaluationFigure(
        "pit",
        "calibration",
        1,
        "PIT: a hump says that the posteriors are too wide, a bowl too narrow, a slope that they are biased.",
        _alt,
        lambda e: plot_pit(e.judged.pit, halo_id=e.halo_id, title=e.judged_title),
    ),
)
