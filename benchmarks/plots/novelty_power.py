"""How often data that are unlike the training set are noticed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from bayesflowmass.plots.style import COLOURS, column_figure, journal_style

__all__ = ["plot_novelty_power"]

_SIZES = (
    ("cluster", "one cluster", "grey", "o"),
    ("20", "20 clusters", "blue", "s"),
    ("100", "100 clusters", "vermillion", "D"),
)


def plot_novelty_power(
    curves: Mapping[str, Sequence[Mapping[str, Any]]], single: Sequence[Mapping[str, Any]], *, alpha: float
) -> Figure:
    """Share of clusters and of catalogues that alarm: against completeness, against velocity bias, and for the rest.

    Args:
        curves: ``completeness`` and ``velocity_bias``: rows with ``value`` and, for each of ``cluster``, ``20``,
            ``100``, the share that alarms and its 68 % interval ``(share, low, high)``.
        single: rows with ``label`` and the same.
        alpha: stated rate of false alarms.
    """
    figure, axes = column_figure(6.4, rows=3, height_ratios=[1.0, 1.0, 1.5])
    labels = {"completeness": "completeness", "velocity_bias": "velocity bias of the galaxies"}
    with journal_style():
        for ax, (name, rows) in zip(axes[:2], curves.items(), strict=True):
            x = np.array([row["value"] for row in rows], dtype=np.float64)
            for key, label, colour, marker in _SIZES:
                share, low, high = np.array([row[key] for row in rows], dtype=np.float64).T
                ax.errorbar(
                    x,
                    share,
                    [np.maximum(share - low, 0.0), np.maximum(high - share, 0.0)],
                    fmt=f"{marker}-",
                    ms=3.0,
                    lw=0.9,
                    color=COLOURS[colour],
                    label=label,
                )
            ax.axhline(alpha, color=COLOURS["black"], lw=0.6, ls="--")
            ax.set(xlabel=labels[name], ylabel="share that alarms", ylim=(-0.04, 1.04))
        axes[0].set_xscale("log")
        axes[0].set_xticks([0.05, 0.1, 0.2, 0.5, 1.0], ["0.05", "0.1", "0.2", "0.5", "1"])
        axes[0].minorticks_off()
        # Where a bias is small nothing is seen: the middle of this panel is empty.
        axes[1].legend(loc="upper center")
        ax = axes[2]
        y = np.arange(len(single))[::-1]
        for offset, (key, _, colour, marker) in zip((0.22, 0.0, -0.22), _SIZES, strict=True):
            share, low, high = np.array([row[key] for row in single], dtype=np.float64).T
            ax.errorbar(
                share,
                y + offset,
                xerr=[np.maximum(share - low, 0.0), np.maximum(high - share, 0.0)],
                fmt=marker,
                ms=3.0,
                lw=0.9,
                color=COLOURS[colour],
            )
        ax.axvline(alpha, color=COLOURS["black"], lw=0.6, ls="--")
        ax.set_yticks(y, [str(row["label"]) for row in single])
        ax.yaxis.set_tick_params(which="minor", left=False, right=False)
        ax.set(xlabel="share that alarms", xlim=(-0.04, 1.04), ylim=(-0.6, len(single) - 0.4))
    return figure
