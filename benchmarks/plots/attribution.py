"""Which galaxies carried the mass: phase space coloured by what each is worth."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from bayesflowmass.plots.style import COLOURS, column_figure, journal_style

__all__ = ["draw_attribution", "plot_attribution"]


def plot_attribution(
    r_proj: ArrayLike,
    v_los: ArrayLike,
    change: ArrayLike,
    *,
    is_member: ArrayLike | None = None,
    title: str | None = None,
) -> Figure:
    """Phase space of one cluster, coloured by the change of log10 M that each galaxy makes.

    Args:
        r_proj: comoving Mpc/h, shape (n,).
        v_los: km/s, shape (n,).
        change: log10 M(all) - log10 M(without this galaxy) [dex], shape (n,); NaN is left out.
        is_member: interlopers get a ring where this is known, shape (n,).
        title: names the cluster.
    """
    figure, (axis,) = column_figure(2.7)
    with journal_style():
        draw_attribution(axis, r_proj, v_los, change, is_member=is_member)
        axis.set(
            xlabel=r"$R_\mathrm{proj}$ [comoving $h^{-1}$ Mpc]", ylabel=r"$v_\mathrm{los}$ [km s$^{-1}$]"
        )
        if title:
            axis.set_title(title)
    return figure


def draw_attribution(
    axis: Axes,
    r_proj: ArrayLike,
    v_los: ArrayLike,
    change: ArrayLike,
    *,
    is_member: ArrayLike | None = None,
    colour_bar: bool = True,
) -> None:
    """Draw the points of `plot_attribution`, and their colour bar, into axes of another figure.

    Raises:
        ValueError: no galaxy has a finite change.
    """
    r, v, worth = (np.asarray(x, dtype=np.float64) for x in (r_proj, v_los, change))
    known = np.isfinite(worth)
    if not known.any():
        raise ValueError("No galaxy has a finite change of mass to draw.")
    # The largest few would leave the others pale.
    largest = float(np.quantile(np.abs(worth[known]), 0.98)) or 1e-6
    order = np.argsort(np.abs(worth[known]))
    points = axis.scatter(
        r[known][order],
        v[known][order],
        c=1000.0 * worth[known][order],
        s=14.0,
        cmap="RdBu_r",
        vmin=-1000.0 * largest,
        vmax=1000.0 * largest,
        edgecolors=COLOURS["grey"],
        linewidths=0.3,
    )
    if is_member is not None:
        outside = ~np.asarray(is_member, dtype=bool)
        axis.scatter(
            r[outside],
            v[outside],
            s=32.0,
            facecolors="none",
            edgecolors=COLOURS["black"],
            linewidths=0.7,
            label="interlopers",
        )
        if outside.any():
            axis.legend(loc="upper right", frameon=True, framealpha=0.85)
    top = 1.08 * float(np.abs(v).max(initial=1.0))
    axis.set(xlim=(0.0, 1.05 * float(r.max(initial=0.1))), ylim=(-top, top))
    if colour_bar:
        bar = axis.figure.colorbar(points, ax=axis, extend="both")
        bar.set_label(r"$\Delta\log_{10} M$ of this galaxy [$10^{-3}$ dex]")
