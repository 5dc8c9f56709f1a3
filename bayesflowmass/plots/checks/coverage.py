"""How often intervals hold the truth, against how often they say they do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from bayesflowmass.common.numbers import percent
from bayesflowmass.plots.evaluated import EvaluationFigure
from bayesflowmass.plots.style import COLOURS, column_figure, journal_style

_NAMES = {"central": "central intervals", "highest_density": "highest density"}


def plot_coverage(curves: Mapping[str, Mapping[str, Any]], *, title: str | None = None) -> Figure:
    """Empirical coverage against stated probability above, the difference with its band below.

    Args:
        curves: label -> curve with ``grid``, ``difference``, ``lower``, ``upper``, each shape (k,), and
            ``p_value``: the entry ``coverage`` of :func:`bayesflowmass.diagnostics.assess_calibration`, or
            ``asdict(uniformity(central_level(pit), halo_id))`` of several models. The band is the
            simultaneous one of the first curve.
        title: names the sample and the prior.
    """
    if not curves:
        raise ValueError("There are no coverage curves to draw.")
    figure, (top, bottom) = column_figure(3.8, rows=2, sharex=True, gridspec_kw={"height_ratios": [1.7, 1.0]})
    with journal_style():
        top.plot([0, 1], [0, 1], "--", color=COLOURS["black"], lw=0.6)
        bottom.axhline(0.0, color=COLOURS["black"], lw=0.6, ls="--")
        for i, (label, curve) in enumerate(curves.items()):
            levels, difference, lower, upper = (
                np.array([0.0, *curve[name], end])
                for name, end in (("grid", 1.0), ("difference", 0.0), ("lower", 0.0), ("upper", 0.0))
            )
            if i == 0:
                band: dict[str, Any] = {"color": COLOURS["grey"], "alpha": 0.35, "lw": 0}
                bottom.fill_between(levels, lower, upper, label="95 %, whole curve", **band)
            at_68, at_95 = (100.0 * (p + np.interp(p, levels, difference)) for p in (0.68, 0.95))
            text = f"{_NAMES.get(label, label)}: {at_68:.1f}, {at_95:.1f} % at 68, 95 %"
            style: dict[str, Any] = {"ls": ("-", "--", "-.", ":")[i % 4]}
            top.plot(levels, levels + difference, label=text, **style)
            bottom.plot(levels, difference, **style)
        for level in (0.68, 0.95):
            for axis in (top, bottom):
                axis.axvline(level, color=COLOURS["grey"], lw=0.5, ls=":")
        top.set(xlim=(0, 1), ylim=(0, 1.3), ylabel="share of clusters inside", yticks=np.arange(0, 1.1, 0.2))
        top.legend(loc="upper left", title=title, alignment="left")
        low, high = bottom.get_ylim()
        bottom.set_ylim(low, high + 0.35 * (high - low))
        bottom.legend(loc="upper left")
        bottom.set(xlabel="stated probability of the interval", ylabel="difference")
    return figure


def _alt(_: Mapping[str, Any], calibration: Mapping[str, Any]) -> str:
    overall = calibration["overall"]
    return (
        "Share of true masses inside central and highest-density intervals against their stated level:"
        f" {percent(overall['coverage_68'])} and {percent(overall['coverage_hpd_68'])} at 68 %,"
        f" {percent(overall['coverage_95'])} and {percent(overall['coverage_hpd_95'])} at 95 %."
    )


FIGURES = (
    EvaluationFigure(
        "coverage",
        "calibration",
        2,
        "How often the intervals of each level hold the truth.",
        _alt,
        lambda e: plot_coverage(e.calibration["coverage"], title=e.judged_title),
    ),
)
