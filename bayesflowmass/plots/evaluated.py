"""Figures of an evaluation: each says where it stands in the report, what is to be read in it, and how it is drawn.

A new one is a file in ``plots/checks`` with a tuple ``FIGURES``: `evaluate` draws it and `report` shows it.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

import bayesflowmass.plots.checks
import bayesflowmass.plots.paper
from bayesflowmass.common.arrays import FloatArray

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from bayesflowmass.diagnostics import PosteriorSummary
    from bayesflowmass.posterior import MassPosterior

Numbers = Mapping[str, Any]


@dataclass(frozen=True)
class Evaluated:
    """What there is to draw of an evaluation.

    Attributes:
        metrics, calibration: content of metrics.json and calibration.json.
        summary: posteriors and truths of the clusters.
        judged: the same under the prior that calibration.json is about.
        halo_id: of the clusters (n,).
        residuals: label -> log10(M_true / M_pred) [dex] (n,), of the model first, then of simpler estimators.
        three: posterior of a light, an intermediate and a heavy cluster; ``three_truths`` their log10 masses (3,),
            ``three_labels`` their names.
        title, judged_title: population and prior, of ``summary`` and of ``judged``.
    """

    metrics: Numbers
    calibration: Numbers
    summary: PosteriorSummary
    judged: PosteriorSummary
    halo_id: NDArray[Any]
    residuals: Mapping[str, FloatArray]
    three: MassPosterior
    three_truths: FloatArray
    three_labels: tuple[str, ...]
    title: str
    judged_title: str


@dataclass(frozen=True)
class EvaluationFigure:
    """One figure.

    Attributes:
        name: of its files, without ending.
        section: of the report.
        place: order in the section.
        caption: what it is, for all readers.
        alt: what it shows, for readers who cannot see it, from metrics.json and calibration.json.
        draw: the figure; None where there is nothing to draw.
    """

    name: str
    section: Literal["accuracy", "calibration"]
    place: int
    caption: str
    alt: Callable[[Numbers, Numbers], str]
    draw: Callable[[Evaluated], Figure | None]


@cache
def evaluation_figures() -> tuple[EvaluationFigure, ...]:
    """All of them, in the order of the report."""
    found: list[EvaluationFigure] = []
    for folder in (bayesflowmass.plots.paper, bayesflowmass.plots.checks):
        for module in pkgutil.iter_modules(folder.__path__, f"{folder.__name__}."):
            found += getattr(importlib.import_module(module.name), "FIGURES", ())
    return tuple(sorted(found, key=lambda figure: (figure.section, figure.place)))
