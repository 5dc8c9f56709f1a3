"""Galaxies of one cluster in projected phase space, and the image the network sees (figure 1 of Kodi Ramanah et
al. 2020).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from numpy.typing import ArrayLike

from bayesflowmass.common.arrays import BoolArray, FloatArray
from bayesflowmass.plots.style import COLOURS, R_LABEL, V_LABEL, column_figure, journal_style
from bayesflowmass.selection.cuts import R_MAX, V_MAX

_EXTENT = (0.0, 1.6, -2200.0, 2200.0)


def plot_phase_space(
    r_proj: ArrayLike,
    v_los: ArrayLike,
    image: ArrayLike | None = None,
    *,
    extent: tuple[float, float, float, float] = _EXTENT,
    cylinder: tuple[float, float] = (R_MAX, V_MAX),
    is_member: ArrayLike | None = None,
    image_label: str = "density [peak = 1]",
    title: str | None = None,
) -> Figure:
    """Projected distance against line-of-sight velocity; below, the kernel density estimate.

    Dashed: the cylinder that galaxies are taken from; dotted: the limits of the image, where they differ.

    Args:
        r_proj: comoving Mpc/h, shape (n,).
        v_los: km/s, shape (n,).
        image: the estimate, shape (bins in R, bins in v); without it there is one panel.
        extent: limits of the image in R [comoving Mpc/h] and v [km/s].
        cylinder: its radius [comoving Mpc/h] and half its depth [km/s].
        is_member: interlopers are drawn as crosses where this is known, shape (n,).
        image_label: of the colour bar, with the unit of the image; the image is divided by its peak where the
            label is the default.
        title: names the cluster.

    Raises:
        ValueError: shapes differ, or the image is not two-dimensional.
    """
    r, v = np.asarray(r_proj, dtype=np.float64), np.asarray(v_los, dtype=np.float64)
    known = None if is_member is None else np.asarray(is_member, dtype=bool)
    if r.shape != v.shape or r.ndim != 1 or (known is not None and known.shape != r.shape):
        raise ValueError(
            f"r_proj, v_los and is_member must have one shape (n,); found {r.shape}, {v.shape}"
            + ("." if known is None else f" and {known.shape}.")
        )
    figure, axes = column_figure(2.6 if image is None else 4.4, rows=1 if image is None else 2, sharex=True)
    with journal_style():
        draw_galaxies(axes[0], r, v, known)
        if image is not None:
            pixels = np.asarray(image, dtype=np.float64)
            if pixels.ndim != 2:
                raise ValueError(f"the image must have shape (bins in R, bins in v); found {pixels.shape}.")
            if image_label.endswith("[peak = 1]"):
                pixels = pixels / pixels.max()
            mappable = draw_image(axes[1], pixels, extent)
            figure.colorbar(mappable, ax=axes[1], label=image_label, pad=0.02, aspect=24)
        top = max(cylinder[1], float(np.abs(v).max(initial=0.0)))
        for axis in axes:
            _limits(axis, extent, cylinder)
            axis.set(xlim=(extent[0], 1.06 * cylinder[0]), ylim=(-1.08 * top, 1.08 * top), ylabel=V_LABEL)
        axes[0].legend(title=title, loc="lower left", bbox_to_anchor=(0, 1), ncols=2, alignment="left",
                       borderaxespad=0.2)  # fmt: skip
        axes[-1].set_xlabel(R_LABEL)
    return figure


def draw_galaxies(axis: Axes, x: FloatArray, y: FloatArray, is_member: BoolArray | None) -> None:
    """Members as filled dots and interlopers as crosses; all as dots where nobody knows."""
    size = float(np.interp(x.size, (30, 300, 1500), (3.4, 2.4, 1.4)))
    member = np.ones(x.size, dtype=bool) if is_member is None else is_member
    axis.plot(
        x[member], y[member], "o", ms=size, mec="white", mew=0.25, color=COLOURS["blue"], zorder=3,
        label=None if is_member is None else f"{int(member.sum())} members",
    )  # fmt: skip
    if is_member is not None:
        axis.plot(
            x[~member], y[~member], "x", ms=1.15 * size, mew=0.8, color=COLOURS["vermillion"], zorder=2,
            label=f"{int((~member).sum())} interlopers",
        )  # fmt: skip


def draw_image(axis: Axes, pixels: FloatArray, extent: tuple[float, float, float, float]) -> AxesImage:
    """An image (bins in R, bins in v) over phase space, white where it is zero."""
    image = axis.imshow(pixels.T, origin="lower", extent=extent, aspect="auto", cmap="Blues", vmin=0.0)
    image.set_interpolation("nearest")
    return image


def _limits(axis: Axes, extent: tuple[float, float, float, float], cylinder: tuple[float, float]) -> None:
    r_max, v_max = cylinder
    style: dict[str, Any] = {"color": COLOURS["black"], "lw": 0.7, "zorder": 1}
    axis.plot(
        [extent[0], r_max, r_max, extent[0]], [-v_max, -v_max, v_max, v_max], "--", label="cylinder", **style
    )
    left, right, bottom, top = extent
    sides = [([right, right], [bottom, top])] if right != r_max else []
    if (bottom, top) != (-v_max, v_max):
        sides += [([left, right], [v, v]) for v in (bottom, top)]
    for number, side in enumerate(sides):
        axis.plot(*side, ":", label=None if number else "limits of the image", **style)
