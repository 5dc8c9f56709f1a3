"""Mass PDFs of single clusters (figure 4 of Kodi Ramanah et al. 2020)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from bayesflowmass.common.arrays import FloatArray
from bayesflowmass.plots.evaluated import EvaluationFigure
from bayesflowmass.plots.style import COLOURS, MASS_LABEL, PDF_LABEL, column_figure, journal_style
from bayesflowmass.posterior import MassPosterior

CLUSTER_COLOURS = ("blue", "vermillion", "green", "orange", "purple", "sky")


@dataclass(frozen=True)
class ClusterPdfs:
    """PDFs of a few clusters on one grid.

    Attributes:
        grid: log10 M200c [Msun/h], shape (g,).
        pdf: per dex, shape (k, g).
        cdf: on the same grid, shape (k, g).
        log10_true: shape (k,), where known.
        labels: of the clusters.
    """

    grid: FloatArray
    pdf: FloatArray
    cdf: FloatArray
    log10_true: FloatArray | None = None
    labels: Sequence[str] | None = None

    def __post_init__(self) -> None:
        if self.pdf.shape != self.cdf.shape or self.pdf.shape[1:] != self.grid.shape:
            raise ValueError(
                f"pdf and cdf must have shape (clusters, {self.grid.size}); found {self.pdf.shape} and "
                f"{self.cdf.shape}."
            )
        if len(self.pdf) > len(CLUSTER_COLOURS):
            raise ValueError(
                f"At most {len(CLUSTER_COLOURS)} PDFs fit in one figure; {len(self.pdf)} were given."
            )

    @classmethod
    def of(
        cls,
        posterior: MassPosterior,
        log10_true: ArrayLike | None = None,
        labels: Sequence[str] | None = None,
        n_grid: int = 801,
    ) -> ClusterPdfs:
        """Those of a posterior, over the range of its prior."""
        grid = np.linspace(*posterior.prior.log10_mass_range, n_grid)
        true = None if log10_true is None else np.asarray(log10_true, dtype=np.float64)
        return cls(grid, posterior.pdf(grid[:, None]).T, posterior.cdf(grid[:, None]).T, true, labels)


def plot_pdfs(panels: Mapping[str, ClusterPdfs]) -> Figure:
    """Panels of PDFs one above the other, such as pure and contaminated clusters, on one axis of mass.

    Each PDF with its central 68 % shaded and the truth dashed.

    Args:
        panels: title of the panel -> its PDFs.

    Raises:
        ValueError: there are no panels.
    """
    if not panels:
        raise ValueError("There are no PDFs to draw.")
    figure, axes = column_figure(0.6 + 1.9 * len(panels), rows=len(panels), sharex=True)
    with journal_style():
        limits = []
        for axis, (title, clusters) in zip(axes, panels.items(), strict=True):
            limits.append(_draw_panel(axis, clusters, title))
        axes[-1].set_xlim(min(low for low, _ in limits), max(high for _, high in limits))
        axes[-1].set_xlabel(MASS_LABEL)
    return figure


def _draw_panel(axis: Axes, clusters: ClusterPdfs, title: str) -> tuple[float, float]:
    x, labels = clusters.grid, clusters.labels
    for k, (p, f) in enumerate(zip(clusters.pdf, clusters.cdf, strict=True)):
        colour = COLOURS[CLUSTER_COLOURS[k]]
        axis.plot(x, p, color=colour, label=labels[k] if labels else None)
        axis.fill_between(x, p, where=((f >= 0.16) & (f <= 0.84)).tolist(), color=colour, alpha=0.25, lw=0)
        if clusters.log10_true is not None:
            true = float(clusters.log10_true[k])
            axis.vlines(true, 0.0, 1.08 * p.max(), color=colour, ls="--", lw=0.9)
    if clusters.log10_true is not None:
        axis.plot([], [], color=COLOURS["black"], ls="--", lw=0.9, label="truth")
    peak = float(clusters.pdf.max())
    lines = len(axis.get_legend_handles_labels()[1]) + bool(title)
    axis.set_ylim(0, peak * (1.15 + 0.13 * lines))
    axis.set_ylabel(PDF_LABEL)
    if lines:
        axis.legend(
            *axis.get_legend_handles_labels(), title=title or None, loc="upper left", alignment="left"
        )
    held = np.flatnonzero((clusters.pdf > 0.003 * peak).any(axis=0))
    return float(x[held[0]]), float(x[held[-1]])


def _alt(metrics: Mapping[str, Any], _: Mapping[str, Any]) -> str:
    return (
        "PDFs of log10 mass of a light, an intermediate and a heavy cluster, each with its true mass marked."
    )


FIGURES = (
    EvaluationFigure(
        "pdfs",
        "accuracy",
        3,
        "Three mass PDFs, of clusters chosen by their true mass and not by success; dashed, the truth.",
        _alt,
        lambda e: plot_pdfs({e.title: ClusterPdfs.of(e.three, e.three_truths, e.three_labels)}),
    ),
)
