"""The same clusters observed worse: PDFs with galaxies lost and velocities in error (figure 7 of Kodi Ramanah et
al. 2020).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bayesflowmass.plots.paper.pdfs import CLUSTER_COLOURS, ClusterPdfs
from bayesflowmass.plots.style import COLOURS, MASS_LABEL, PDF_LABEL, column_figure, journal_style

_LINES = ("-", "--", "-.", ":")


def plot_perturbed_pdfs(variants: Mapping[str, ClusterPdfs]) -> Figure:
    """PDFs of a few clusters: one colour for each cluster, one line style for each way of observing it.

    The central 68 % of the first variant is shaded, the truths are thin vertical lines.

    Args:
        variants: name -> PDFs of the same clusters in the same order; at most four, the first the reference.

    Raises:
        ValueError: there are no variants, too many, or they differ in the number of clusters.
    """
    if not 1 <= len(variants) <= len(_LINES):
        raise ValueError(f"1 to {len(_LINES)} variants can be told apart; {len(variants)} were given.")
    if len({len(clusters.pdf) for clusters in variants.values()}) != 1:
        raise ValueError("Each variant must hold the same clusters; their numbers differ.")
    first = next(iter(variants.values()))
    figure, (axis,) = column_figure(2.9)
    with journal_style():
        for line, clusters in zip(_LINES, variants.values(), strict=False):
            for k, p in enumerate(clusters.pdf):
                axis.plot(clusters.grid, p, ls=line, color=COLOURS[CLUSTER_COLOURS[k]], lw=1.1)
        for k, (p, f) in enumerate(zip(first.pdf, first.cdf, strict=True)):
            colour = COLOURS[CLUSTER_COLOURS[k]]
            inside = ((f >= 0.16) & (f <= 0.84)).tolist()
            axis.fill_between(first.grid, p, where=inside, color=colour, alpha=0.2, lw=0)
            if first.log10_true is not None:
                axis.axvline(float(first.log10_true[k]), color=colour, lw=0.7, zorder=0)
        peak = max(float(clusters.pdf.max()) for clusters in variants.values())
        axis.set(ylim=(0, 1.08 * peak), xlabel=MASS_LABEL, ylabel=PDF_LABEL)
        held = np.flatnonzero((first.pdf > 0.003 * first.pdf.max()).any(axis=0))
        axis.set_xlim(first.grid[held[0]], first.grid[held[-1]])
        handles = [
            Line2D([], [], ls=line, color=COLOURS["black"], lw=1.1, label=name)
            for line, name in zip(_LINES, variants, strict=False)
        ]
        if first.log10_true is not None:
            handles.append(Line2D([], [], color=COLOURS["grey"], lw=0.7, label="truth"))
        handles += [
            Line2D([], [], color=COLOURS[CLUSTER_COLOURS[k]], lw=3, label=label)
            for k, label in enumerate(first.labels or ())
        ]
        figure.legend(handles=handles, loc="outside upper left", ncols=2, alignment="left", columnspacing=1.0)
    return figure
