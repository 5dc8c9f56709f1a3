"""Masked maps beside the phase space that they explain (figure 9 of the paper)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bayesflowmass.common.arrays import FloatArray
from bayesflowmass.plots.style import COLOURS, COLUMN_WIDTH, R_LABEL, V_LABEL, column_figure, journal_style


def plot_saliency(clusters: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Phase space with its kernel density (left) and the change of mass where it is masked (right), row by row.

    Args:
        clusters: title, such as "pure" and "contaminated" -> ``r_proj`` [comoving Mpc/h] and ``v_los`` [km/s] of
            the galaxies (n,); ``is_member`` (n,), where it is known; ``image`` and ``change`` [dex], (bins in R,
            bins in v); ``extent``, limits of both in R and v; optionally ``note``, written into the map.

    Raises:
        ValueError: there are no clusters.
    """
    if not clusters:
        raise ValueError("There are no clusters to draw.")
    rows = len(clusters)
    figure, axes = column_figure(
        0.55 + 2.05 * rows, rows=rows, columns=2, width=2.1 * COLUMN_WIDTH, sharey=True
    )
    largest = max(float(np.nanmax(np.abs(entry["change"]))) for entry in clusters.values())
    with journal_style():
        for row, (title, entry) in enumerate(clusters.items()):
            left, right = axes[2 * row : 2 * row + 2]
            extent = entry["extent"]
            _image(left, entry["image"], extent, cmap="Blues", vmin=0.0)
            _galaxies(left, entry, legend=row == rows - 1)
            shown = _image(right, entry["change"], extent, cmap="RdBu_r", vmin=-largest, vmax=largest)
            _galaxies(right, entry, legend=False, small=True)
            left.set_title(title)
            if "note" in entry:
                right.set_title(entry["note"])
            left.set_ylabel(V_LABEL)
            for axis in (left, right):
                axis.set(xlim=extent[:2], ylim=extent[2:])
            if row == rows - 1:
                left.set_xlabel(R_LABEL)
                right.set_xlabel(R_LABEL)
        bar = figure.colorbar(shown, ax=[axes[2 * r + 1] for r in range(rows)], pad=0.02)
        bar.set_label(r"$\Delta\log_{10} M$ where masked [dex]")
    return figure


def _image(axis: Axes, values: Any, extent: Any, **options: Any) -> Any:
    pixels: FloatArray = np.asarray(values, dtype=np.float64).T
    return axis.imshow(pixels, origin="lower", extent=extent, aspect="auto", **options)


def _galaxies(axis: Axes, entry: Mapping[str, Any], *, legend: bool, small: bool = False) -> None:
    r, v = np.asarray(entry["r_proj"]), np.asarray(entry["v_los"])
    known = entry.get("is_member") is not None
    member = np.asarray(entry["is_member"], dtype=bool) if known else np.ones(r.size, dtype=bool)
    size = 1.3 if small else 2.0
    axis.plot(r[member], v[member], "o", ms=size, mew=0.0, color=COLOURS["black"], label="members")
    if (~member).any():
        axis.plot(
            r[~member],
            v[~member],
            "x",
            ms=1.3 * size,
            mew=0.7,
            color=COLOURS["vermillion"],
            label="interlopers",
        )
    handles, labels = axis.get_legend_handles_labels()
    if legend and known:
        axis.legend(handles, labels, loc="upper right", frameon=True, framealpha=0.85)
