"""Partial correlations of mass errors with what the mocks know about each cluster."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from bayesflowmass.plots.style import COLOURS, column_figure, journal_style

__all__ = ["plot_residuals_physics"]


def plot_residuals_physics(tables: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Figure:
    """Partial rank correlations of log10(M_true / M_pred) with latent truths, with 1 sigma errors.

    Filled: the mass held fixed; open: the mass and all the other latents held fixed.

    Args:
        tables: label, such as "at fixed true mass" -> what
            :func:`benchmarks.interpretation.residuals.partial_correlations` gives.

    Raises:
        ValueError: there are no tables.
    """
    if not tables:
        raise ValueError("There are no correlations to draw.")
    names = [name for name in next(iter(tables.values())) if name != "all"]
    colours = (COLOURS["blue"], COLOURS["vermillion"], COLOURS["green"])
    figure, (axis,) = column_figure(0.8 + 0.34 * len(names))
    place = np.arange(len(names))[::-1].astype(np.float64)
    with journal_style():
        axis.axvline(0.0, color=COLOURS["black"], lw=0.6, ls="--", zorder=0)
        for i, (label, table) in enumerate(tables.items()):
            shift = 0.3 * (0.5 - (i + 0.5) / len(tables))
            for kind, offset, filled in (("alone", 0.06, True), ("joint", -0.06, False)):
                axis.errorbar(
                    [table[name][kind] for name in names],
                    place + shift + offset,
                    xerr=[table[name][f"{kind}_se"] for name in names],
                    fmt="os^"[i % 3],
                    ms=3.4,
                    color=colours[i % 3],
                    mfc=colours[i % 3] if filled else "white",
                    elinewidth=0.8,
                    label=label if filled else None,
                )
        axis.errorbar(
            [], [], fmt="o", ms=3.4, mfc="white", color=COLOURS["black"], label="open: others fixed too"
        )
        axis.set_yticks(place, names)
        axis.minorticks_off()
        axis.set(
            ylim=(-0.6, len(names) - 0.4),
            xlabel=r"partial correlation with $\log_{10} M_\mathrm{true}/M_\mathrm{pred}$",
        )
        axis.legend(
            loc="lower center", bbox_to_anchor=(0.4, 1.0), ncols=3, columnspacing=0.8, handletextpad=0.1
        )
    return figure
