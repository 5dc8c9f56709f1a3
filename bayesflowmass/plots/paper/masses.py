"""Mass distributions of catalogues (figure 2 of Kodi Ramanah et al. 2020)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from bayesflowmass.plots.style import COLOURS, MASS_LABEL, column_figure, journal_style

_STYLES = (
    ("vermillion", "-"),
    ("blue", "-"),
    ("orange", "--"),
    ("sky", "--"),
    ("purple", ":"),
    ("green", ":"),
)


def plot_masses(
    catalogues: Mapping[str, ArrayLike],
    *,
    bin_width: float = 0.1,
    curve: tuple[ArrayLike, ArrayLike] | None = None,
) -> Figure:
    """Number of clusters per dex of log10 mass, logarithmic, with Poisson errors.

    Args:
        catalogues: label -> log10 M200c [Msun/h], shape (n,).
        bin_width: [dex].
        curve: log10 M200c [Msun/h] and the clusters per dex expected there, each (g,): a mass function times
            the volume of one of the catalogues.

    Raises:
        ValueError: there are no masses.
    """
    if not catalogues or not any(np.size(m) for m in catalogues.values()):
        raise ValueError("There are no masses to draw.")
    every = np.concatenate([np.asarray(m, dtype=np.float64) for m in catalogues.values()])
    low, high = np.floor(every.min() / bin_width + 1e-9), np.ceil(every.max() / bin_width - 1e-9)
    edges = np.arange(low, max(high, low + 1) + 1) * bin_width
    centres = 0.5 * (edges[1:] + edges[:-1])
    figure, (axis,) = column_figure(2.9)
    with journal_style():
        for (label, masses), (colour, line) in zip(catalogues.items(), _STYLES * 9, strict=False):
            count = np.histogram(np.asarray(masses), edges)[0]
            style: dict[str, Any] = {"color": COLOURS[colour], "ls": line}
            axis.stairs(count / bin_width, edges, label=f"{label}: {np.size(masses)}", lw=1.2, **style)
            some = count > 0
            axis.errorbar(
                centres[some], count[some] / bin_width, np.sqrt(count[some]) / bin_width,
                fmt="none", lw=0.7, color=COLOURS[colour],
            )  # fmt: skip
        peak = axis.dataLim.ymax
        if curve is not None:
            x, y = (np.asarray(values, dtype=np.float64) for values in curve)
            axis.plot(x, y, color=COLOURS["black"], lw=0.9, label="mass function (Tinker et al. 2008)")
            peak = max(peak, float(y[(x >= edges[0]) & (x <= edges[-1])].max(initial=0.0)))
        axis.set_yscale("log")
        axis.set(xlabel=MASS_LABEL, ylabel=r"clusters per dex", xlim=(edges[0], edges[-1]))
        axis.set_ylim(0.3 / bin_width, 2.0 * peak)
        figure.legend(loc="outside upper left", ncols=1)
    return figure
