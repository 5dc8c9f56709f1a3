"""Mean residual and coverage in bins of true and of predicted mass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from bayesflowmass.common.numbers import interval, number
from bayesflowmass.plots.evaluated import EvaluationFigure
from bayesflowmass.plots.style import COLOURS, MASS_LABEL, bin_values, column_figure, journal_style

Bins = Mapping[str, Sequence[float | None]]


def plot_calibration_by_mass(by_true: Bins, by_predicted: Bins, *, title: str | None = None) -> Figure:
    """Mean residual above, coverage of the 68 and 95 % intervals below, with bootstrap errors.

    A posterior under the prior of its population is unbiased in bins of *predicted* mass; in bins of
    *true* mass the same posterior looks biased towards the common masses. Both are right. Bins of fewer than ten
    clusters are not drawn.

    Args:
        by_true, by_predicted: ``bins_true`` and ``bins_predicted`` of
            :func:`bayesflowmass.diagnostics.summarise`.
        title: names the sample and the prior.
    """
    figure, (top, bottom) = column_figure(3.8, rows=2, sharex=True)
    with journal_style():
        for bins, label, colour, marker, offset in (
            (by_true, "true mass", "blue", "o", -0.006),
            (by_predicted, "predicted mass", "vermillion", "s", 0.006),
        ):
            keep = bin_values(bins, "n") >= 10
            x = bin_values(bins, "mean_mass")[keep] + offset
            style: dict[str, Any] = {"fmt": marker, "ms": 2.8, "lw": 0.8, "color": COLOURS[colour]}
            top.errorbar(
                x,
                bin_values(bins, "mean_residual")[keep],
                bin_values(bins, "mean_residual_se")[keep],
                label=f"by {label}",
                **style,
            )
            for name, fill in (("coverage_68", COLOURS[colour]), ("coverage_95", "white")):
                bottom.errorbar(
                    x, bin_values(bins, name)[keep], bin_values(bins, f"{name}_se")[keep], mfc=fill, **style
                )
        top.axhline(0.0, color=COLOURS["black"], lw=0.6, ls="--")
        top.set_ylabel(r"$\langle\epsilon\rangle$ [dex]")
        low, high = top.get_ylim()
        top.set_ylim(low, high + 0.55 * (high - low))
        top.legend(title=title, loc="upper left", alignment="left")
        for level in (0.68, 0.95):
            bottom.axhline(level, color=COLOURS["black"], lw=0.6, ls="--")
        bottom.set(
            ylim=(min(0.3, bottom.get_ylim()[0]), 1.02), xlabel=MASS_LABEL, ylabel="coverage of 68, 95 %"
        )
    return figure


def _alt(metrics: Mapping[str, Any], _: Mapping[str, Any]) -> str:
    bins = metrics["bins_predicted"]
    found = [
        (bins["mean_residual"][i], bins["edges"][i], bins["edges"][i + 1])
        for i, n in enumerate(bins["n"])
        if n >= 20 and bins["mean_residual"][i] is not None
    ]
    text = "Bias, scatter and coverage in bins of true and of predicted mass."
    if not found:
        return text
    worst, low, high = max(found, key=lambda row: abs(row[0]))
    return (
        f"{text} Largest mean residual by predicted mass, of bins of 20 clusters or more:"
        f" {number(worst, sign=True)} dex at {interval(low, high)}."
    )


FIGURES = (
    EvaluationFigure(
        "calibration_by_mass",
        "accuracy",
        4,
        "Bias and coverage by true and by predicted mass. They differ for a perfect model, too: only bins of"
        " predicted mass can be nominal.",
        _alt,
        lambda e: plot_calibration_by_mass(
            e.metrics["bins_true"], e.metrics["bins_predicted"], title=e.title
        ),
    ),
)
