"""Mass PDFs of single clusters (figure 4 of Kodi Ramanah et al. 2020)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from bayesflowmass.plots.predicted_vs_true import MASS_LABEL
from bayesflowmass.plots.style import COLOURS, column_figure, journal_style

__all__ = ["plot_pdfs"]

_COLOURS = ("blue", "vermillion", "green", "orange", "purple", "sky")


def plot_pdfs(
    grid: ArrayLike,
    pdf: ArrayLike,
    *,
    cdf: ArrayLike,
    log10_true: ArrayLike | None = None,
    labels: Sequence[str] | None = None,
    title: str | None = None,
) -> Figure:
    """PDFs with their central 68 % shaded and the truth dashed.

    Args:
        grid: log10 M200c [Msun/h], shape (g,).
        pdf: per dex, shape (k, g), at most six clusters.
        cdf: on the same grid, shape (k, g); it bounds the shading.
        log10_true: shape (k,), where known.
        labels: of the clusters.
        title: names the sample and the prior.
    """
    x = np.asarray(grid, dtype=np.float64)
    density, cumulative = (np.atleast_2d(np.asarray(a, dtype=np.float64)) for a in (pdf, cdf))
    if density.shape != cumulative.shape or density.shape[1:] != x.shape:
        raise ValueError(
            f"pdf and cdf must have shape (clusters, {x.size}); found {density.shape} and {cumulative.shape}."
        )
    if len(density) > len(_COLOURS):
        raise ValueError(f"At most {len(_COLOURS)} PDFs fit in one figure; {len(density)} were given.")
    figure, (axis,) = column_figure(2.5)
    with journal_style():
        for k, (p, f) in enumerate(zip(density, cumulative, strict=True)):
            colour = COLOURS[_COLOURS[k]]
            axis.plot(x, p, color=colour, label=labels[k] if labels else None)
            axis.fill_between(
                x, p, where=((f >= 0.16) & (f <= 0.84)).tolist(), color=colour, alpha=0.25, lw=0
            )
            if log10_true is not None:
                axis.vlines(np.asarray(log10_true)[k], 0.0, 1.08 * p.max(), color=colour, ls="--", lw=0.9)
        held = np.flatnonzero((density > 0.003 * density.max()).any(axis=0))
        axis.set(
            xlim=(x[held[0]], x[held[-1]]),
            xlabel=MASS_LABEL,
            ylabel=r"$p(\log_{10} M\,|\,\mathrm{galaxies})$ [dex$^{-1}$]",
        )
        axis.set_ylim(0, density.max() * (1.15 + 0.12 * (len(density) if labels else 0) + 0.12 * bool(title)))
        if labels or title:
            axis.legend(title=title, loc="upper left", alignment="left")
    return figure
