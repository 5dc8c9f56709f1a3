"""Galaxies of one cluster in projected phase space, and the image the network sees (figure 1 of the
paper).
"""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from bayesflowmass.plots.style import COLOURS, column_figure, journal_style

__all__ = ["plot_phase_space"]


def plot_phase_space(
    r_proj: ArrayLike,
    v_los: ArrayLike,
    image: ArrayLike | None = None,
    *,
    extent: tuple[float, float, float, float] = (0.0, 1.6, -2200.0, 2200.0),
    is_member: ArrayLike | None = None,
    title: str | None = None,
) -> Figure:
    """Projected distance against line-of-sight velocity, over the kernel density estimate.

    Args:
        r_proj: comoving Mpc/h, shape (n,).
        v_los: km/s, shape (n,).
        image: the estimate, shape (bins in R, bins in v), in any unit.
        extent: limits of the image in R and v.
        is_member: interlopers are drawn as crosses where this is known, shape (n,).
        title: names the cluster.
    """
    r, v = np.asarray(r_proj, dtype=np.float64), np.asarray(v_los, dtype=np.float64)
    member = np.ones(r.size, dtype=bool) if is_member is None else np.asarray(is_member, dtype=bool)
    figure, (axis,) = column_figure(2.6)
    with journal_style():
        if image is not None:
            pixels = np.asarray(image, dtype=np.float64).T
            axis.imshow(pixels, origin="lower", extent=extent, aspect="auto", cmap="Blues", vmin=0.0)
        known = is_member is not None
        axis.plot(
            r[member],
            v[member],
            "o",
            ms=2.2,
            mec="white",
            mew=0.3,
            color=COLOURS["black"],
            label="members" if known else None,
        )
        if known:
            axis.plot(
                r[~member], v[~member], "x", ms=3, mew=0.8, color=COLOURS["vermillion"], label="interlopers"
            )
        top = max(extent[3], 1.02 * float(np.abs(v).max(initial=0.0)))
        axis.set(
            xlim=extent[:2],
            ylim=(-top, top),
            xlabel=r"$R_\mathrm{proj}$ [comoving $h^{-1}$ Mpc]",
            ylabel=r"$v_\mathrm{los}$ [km s$^{-1}$]",
        )
        if known or title:
            axis.legend(title=title, loc="upper right", alignment="left", frameon=True, framealpha=0.85)
    return figure
