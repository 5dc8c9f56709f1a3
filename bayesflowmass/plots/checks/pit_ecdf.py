"""ECDF of the PIT minus the uniform one, bin by bin."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from bayesflowmass.plots.evaluated import Evaluated, EvaluationFigure
from bayesflowmass.plots.style import COLOURS, column_figure, journal_style

_QUANTITIES = {
    "predicted_mass": (r"$\log_{10}M_\mathrm{pred}$", "{:.2f}"),
    "richness": (r"$N$", "{:.0f}"),
    "redshift": (r"$z$", "{:.3f}"),
}


def plot_pit_ecdf(bins: Mapping[str, Any], quantity: str, *, title: str | None = None) -> Figure:
    """One panel for each bin: the ECDF of the PIT minus the uniform one, and its simultaneous band.

    A curve above zero says that truths are low in their posteriors (masses too high), below zero the reverse; an
    S that rises first says too narrow, one that falls first too wide. Each band holds one whole curve at 95
    %; a verdict over all bins is Holm's, whose rejections are drawn in vermillion.

    Args:
        bins: an entry of ``by`` of :func:`bayesflowmass.diagnostics.assess_calibration`.
        quantity: its name, such as ``predicted_mass``.
        title: names the sample and the prior.

    Raises:
        ValueError: no bin holds enough clusters for a test.
    """
    symbol, form = _QUANTITIES.get(quantity, (quantity.replace("_", " "), "{:.3g}"))
    tests = [(i, test) for i, test in enumerate(bins["tests"]) if test]
    if not tests:
        raise ValueError(f"No bin of {quantity} holds enough clusters for a test.")
    rows = -(-len(tests) // 2)
    figure, axes = column_figure(0.75 + 1.05 * rows, rows=rows, columns=2, sharex=True, sharey=True)
    with journal_style():
        reach = max(float(np.abs([t["lower"], t["upper"], t["difference"]]).max()) for _, t in tests)
        for axis, (i, test) in zip(axes, tests, strict=False):
            z = np.array([0.0, *test["grid"], 1.0])
            lower, upper, curve = (np.array([0.0, *test[n], 0.0]) for n in ("lower", "upper", "difference"))
            rejected = test.get("inside") is False
            axis.fill_between(z, lower, upper, color=COLOURS["grey"], alpha=0.35, lw=0)
            axis.axhline(0.0, color=COLOURS["black"], lw=0.6, ls="--")
            axis.plot(z, curve, color=COLOURS["vermillion" if rejected else "blue"], lw=1.0)
            low, high = (form.format(edge) for edge in bins["edges"][i : i + 2])
            p = test.get("p_holm", test["p_value"])
            name = r"p_\mathrm{Holm}" if "p_holm" in test else "p"
            axis.text(
                0.04, 0.95, f"{symbol} {low}\u2013{high}", transform=axis.transAxes, va="top", fontsize=7.5
            )
            axis.text(
                0.04,
                0.05,
                f"{test['n_clusters']} clusters, ${name}={p:.2g}$",
                transform=axis.transAxes,
                fontsize=7,
            )
            axis.set(xlim=(0, 1), ylim=(-1.7 * reach, 1.7 * reach))
        for axis in axes[len(tests) :]:
            axis.set_visible(False)
            axes[len(tests) - 2].tick_params(labelbottom=True)
        figure.supxlabel("PIT", fontsize=9)
        figure.supylabel(r"ECDF $-$ uniform", fontsize=9)
        if title:
            figure.suptitle(title, fontsize=8)
    return figure


def _by(quantity: str, title: str, place: int, caption: str) -> EvaluationFigure:
    """The figure of one quantity."""

    def alt(_: Mapping[str, Any], calibration: Mapping[str, Any]) -> str:
        bins = calibration["by"].get(quantity)
        if bins is None:
            return f"Cumulative function of the PIT minus the uniform one, by {title}."
        tests = [test for test in bins["tests"] if test]
        lowest = min((test["p_value"] for test in tests), default=float("nan"))
        return (
            f"Cumulative function of the PIT minus the uniform one, in {len(tests)} bins of {title}, each with its"
            f" band; the smallest p-value of a bin is {lowest:.2g}, uncorrected."
        )

    def draw(evaluated: Evaluated) -> Figure | None:
        bins = evaluated.calibration["by"].get(quantity)
        if bins is None or not any(bins["tests"]):
            return None
        return plot_pit_ecdf(bins, quantity, title=evaluated.judged_title)

    return EvaluationFigure(f"pit_by_{quantity}", "calibration", place, caption, alt, draw)


FIGURES = (
    _by(
        "predicted_mass",
        "predicted mass",
        3,
        "The PIT in bins of predicted mass, each with the band of a calibrated one.",
    ),
    _by("richness", "richness", 4, "The PIT in bins of the number of galaxies."),
    _by("redshift", "redshift", 5, "The PIT in bins of redshift."),
)
