"""Mass distributions of catalogues (figure 2 of Kodi Ramanah et al. 2020)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from bayesflowmass.plots.predicted_vs_true import MASS_LABEL
from bayesflowmass.plots.style import column_figure, journal_style

__all__ = ["plot_masses"]


def plot_masses(catalogues: Mapping[str, ArrayLike], *, bin_width: float = 0.1) -> Figure:
    """Number of clusters per bin of log10 mass, logarithmic.

    Args:
        catalogues: label -> log10 M200c [Msun/h], shape (n,).
        bin_width: [dex].
    """
    if not catalogues:
        raise ValueError("There are no masses to draw.")
    every = np.concatenate([np.asarray(m, dtype=np.float64) for m in catalogues.values()])
    low, high = np.floor(every.min() / bin_width), np.ceil(every.max() / bin_width)
    edges = np.arange(low, max(high, low + 1) + 1) * bin_width
    figure, (axis,) = column_figure(2.4)
    with journal_style():
        for label, masses in catalogues.items():
            axis.stairs(np.histogram(np.asarray(masses), edges)[0], edges, label=label, lw=1.2)
        axis.set_yscale("log")
        axis.set(xlabel=MASS_LABEL, ylabel=f"clusters per {bin_width:g} dex")
        axis.set_ylim(0.7, None)
        axis.legend()
    return figure
