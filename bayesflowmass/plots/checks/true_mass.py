"""Residual and coverage in bins of true mass, beside what the model itself expects there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from bayesflowmass.common.numbers import interval, number
from bayesflowmass.plots.evaluated import EvaluationFigure
from bayesflowmass.plots.style import COLOURS, MASS_LABEL, bin_values, column_figure, journal_style


def plot_true_mass(by_true_mass: Mapping[str, Any], *, title: str | None = None) -> Figure:
    """Mean residual, scatter and coverage of the 68 and 95 % intervals against true mass.

    The bands are the simultaneous 95 % ones of truths drawn from the model's own posteriors under the prior
    of the test set. Points inside them are what a perfect posterior would show, nominal or not.

    Args:
        by_true_mass: that entry of :func:`bayesflowmass.diagnostics.assess_calibration`.
        title: names the sample and the prior.
    """
    figure, (top, middle, bottom) = column_figure(
        4.6, rows=3, sharex=True, gridspec_kw={"height_ratios": [1.3, 1.0, 1.3]}
    )
    keep = np.asarray(by_true_mass["compared"], dtype=bool)
    x = bin_values(by_true_mass, "mean")
    panels = (
        (top, "mean_residual", "blue", "mean"),
        (middle, "scatter", "blue", "scatter"),
        (bottom, "coverage_68", "blue", "68 %"),
        (bottom, "coverage_95", "vermillion", "95 %"),
    )
    with journal_style():
        for axis, name, colour, label in panels:
            paint = COLOURS[colour]
            low, high = (bin_values(by_true_mass, f"band_{end}_{name}")[keep] for end in ("low", "high"))
            band = "expected by the model, 95 % in all bins" if axis is top else None
            axis.fill_between(x[keep], low, high, color=paint, alpha=0.2, lw=0, label=band)
            axis.plot(x[keep], bin_values(by_true_mass, f"expected_{name}")[keep], color=paint, lw=0.8)
            axis.errorbar(
                x[keep],
                bin_values(by_true_mass, name)[keep],
                bin_values(by_true_mass, f"{name}_se")[keep],
                fmt="o",
                ms=2.8,
                lw=0.8,
                color=paint,
                label="test set" if axis is top else (label if axis is bottom else None),
            )
        top.axhline(0.0, color=COLOURS["black"], lw=0.6, ls="--")
        for level in (0.68, 0.95):
            bottom.axhline(level, color=COLOURS["black"], lw=0.6, ls="--")
        low, high = top.get_ylim()
        top.set_ylim(low, high + 0.6 * (high - low))
        top.legend(loc="upper left", title=title, alignment="left")
        top.set_ylabel(r"$\langle\epsilon\rangle$ [dex]")
        middle.set_ylabel(r"$\sigma_\epsilon$ [dex]")
        middle.set_ylim(0, None)
        bottom.set(
            ylabel="coverage", xlabel="true " + MASS_LABEL, ylim=(min(0.3, bottom.get_ylim()[0]), 1.03)
        )
        bottom.legend(loc="lower left", ncols=2)
    return figure


def _alt(_: Mapping[str, Any], calibration: Mapping[str, Any]) -> str:
    bins = calibration["by_true_mass"]
    heaviest = max((i for i, n in enumerate(bins["n"]) if n), default=None)
    text = "Mean residual, scatter and coverage in bins of true mass, with the band that the model expects."
    if heaviest is None:
        return text
    edges = bins["edges"][heaviest : heaviest + 2]
    return (
        f"{text} Heaviest bin, {interval(*edges)}: mean residual {number(bins['mean_residual'][heaviest], sign=True)}"
        f" dex, expected {number(bins['expected_mean_residual'][heaviest], sign=True)} dex."
    )


FIGURES = (
    EvaluationFigure(
        "calibration_by_true_mass",
        "calibration",
        6,
        "By true mass, beside what the model itself expects there.",
        _alt,
        lambda e: plot_true_mass(e.calibration["by_true_mass"], title=e.judged_title),
    ),
)
