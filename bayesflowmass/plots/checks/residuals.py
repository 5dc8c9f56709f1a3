"""Histogram of the residuals of several estimators on one test set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from bayesflowmass.common.numbers import number
from bayesflowmass.plots.evaluated import EvaluationFigure
from bayesflowmass.plots.style import COLOURS, column_figure, journal_style


def plot_residuals(
    residuals: Mapping[str, ArrayLike], *, limit: float = 1.0, title: str | None = None
) -> Figure:
    """Densities of epsilon = log10(M_true / M_pred), the first estimator filled.

    What lies beyond the limits is counted in the legend, not left out in silence.

    Args:
        residuals: label -> residuals [dex], shape (n,).
        limit: the axis runs over +- limit [dex].
        title: names the sample and the prior.
    """
    if not residuals:
        raise ValueError("There are no residuals to draw.")
    figure, (axis,) = column_figure(2.7)
    edges = np.linspace(-limit, limit, 81)
    with journal_style():
        for i, (label, values) in enumerate(residuals.items()):
            epsilon = np.asarray(values, dtype=np.float64)
            density = np.histogram(epsilon, edges)[0] / (epsilon.size * np.diff(edges))
            beyond = np.mean(np.abs(epsilon) > limit)
            mean = round(float(epsilon.mean()), 3) + 0.0  # no "-0.000"
            text = f"{label}: {mean:+.3f} $\\pm$ {epsilon.std(ddof=1):.3f}"
            if beyond > 0:
                text += f" ({100 * beyond:.1f} % beyond)"
            if i == 0:
                axis.stairs(density, edges, fill=True, color=COLOURS["blue"], alpha=0.35)
            axis.stairs(density, edges, lw=1.1, label=text)
        peak = axis.dataLim.ymax
        axis.vlines(0.0, 0.0, 1.03 * peak, color=COLOURS["black"], lw=0.6, ls="--")
        axis.set(
            xlim=(-limit, limit),
            xlabel=r"$\epsilon = \log_{10}(M_\mathrm{true}/M_\mathrm{pred})$ [dex]",
            ylabel=r"density [dex$^{-1}$]",
        )
        axis.set_ylim(0, peak * (1.2 + 0.11 * len(residuals)))
        axis.legend(loc="upper left", title=title, alignment="left")
    return figure


def _alt(metrics: Mapping[str, Any], _: Mapping[str, Any]) -> str:
    others = {"M-sigma inverted": "msigma_inverse", "regression on sigma": "msigma_regression"}
    others["the galaxy count"] = "richness"
    known = ", ".join(
        f"{number(metrics['baselines'][key]['scatter'])} of {name}"
        for name, key in others.items()
        if key in metrics.get("baselines", {})
    )
    return f"Histograms of residuals: scatter {number(metrics['scatter'])} dex of this model" + (
        f", {known}." if known else "."
    )


FIGURES = (
    EvaluationFigure(
        "residuals",
        "accuracy",
        2,
        "Residuals of this model and of simpler estimators on the same clusters.",
        _alt,
        lambda e: plot_residuals(e.residuals, title=e.title),
    ),
)
