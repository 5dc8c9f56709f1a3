"""What each cluster taught, and how far off it was: posterior contraction and z-score."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from bayesflowmass.common.numbers import number
from bayesflowmass.plots.evaluated import EvaluationFigure
from bayesflowmass.plots.style import COLOURS, column_figure, journal_style


def plot_contraction(contraction: ArrayLike, z: ArrayLike, *, title: str | None = None) -> Figure:
    """z-score against contraction, one dot per cluster, with the mean and spread of z along the contraction.

    Contraction 1 - var_posterior / var_prior: 0 says that the data taught nothing, 1 everything. z = (truth -
    mean) / sigma has mean 0 and variance 1 at any contraction where the posteriors are calibrated (Schad,
    Betancourt and Vasishth 2021).

    Args:
        contraction: shape (n,).
        z: shape (n,).
        title: names the sample and the prior.

    Raises:
        ValueError: there are no clusters, or the shapes differ.
    """
    c, score = np.asarray(contraction, dtype=np.float64), np.asarray(z, dtype=np.float64)
    if c.size == 0 or c.shape != score.shape:
        raise ValueError(f"contraction and z must have one shape (n,); found {c.shape} and {score.shape}.")
    # Strong posteriors crowd at 1: equal numbers, not equal widths, along the axis.
    edges = np.unique(np.quantile(c, np.linspace(0.0, 1.0, max(2, min(9, c.size // 50) + 1))))
    index = np.clip(np.searchsorted(edges, c, side="right") - 1, 0, max(0, edges.size - 2))
    bins = [score[index == i] for i in range(max(1, edges.size - 1))]
    x = np.array([np.median(c[index == i]) for i in range(len(bins))])
    figure, (axis,) = column_figure(2.7)
    with journal_style():
        limit = max(4.0, float(np.quantile(np.abs(score), 0.999)))
        dots: dict[str, Any] = {"ms": 1.4, "mec": "none", "alpha": 0.4, "rasterized": True}
        axis.plot(c, np.clip(score, -limit, limit), ".", color=COLOURS["grey"], **dots)
        for level, style in ((0.0, "--"), (1.0, ":"), (-1.0, ":")):
            axis.axhline(level, color=COLOURS["black"], lw=0.6, ls=style)
        mean = np.array([b.mean() for b in bins])
        spread = np.array([b.std() for b in bins])
        axis.errorbar(
            x, mean, spread, fmt="o", ms=3, lw=1.0, capsize=2, color=COLOURS["blue"], label="mean, spread"
        )
        axis.set(xlabel="contraction of the prior", ylabel=r"$z=(m_\mathrm{true}-\mu)/\sigma$")
        axis.set_ylim(-limit, 1.45 * limit)
        axis.legend(loc="upper left", title=title, alignment="left")
    return figure


def _alt(_: Mapping[str, Any], calibration: Mapping[str, Any]) -> str:
    overall = calibration["overall"]
    return (
        "z-score against contraction of each posterior: mean contraction"
        f" {number(overall['contraction'], 2)} (0: the data say nothing), mean z"
        f" {number(overall['z_mean'], 2, sign=True)}, mean z² {number(overall['z_square'], 2)}."
    )


FIGURES = (
    EvaluationFigure(
        "contraction",
        "calibration",
        7,
        "How much the galaxies narrow the prior, and how far the truth lies from the mean.",
        _alt,
        lambda e: plot_contraction(e.judged.contraction, e.judged.z, title=e.judged_title),
    ),
)
