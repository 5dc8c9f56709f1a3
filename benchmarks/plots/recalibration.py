"""ECDF of the PIT by bin of predicted mass, before and after recalibration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from bayesflowmass.plots.style import COLOURS, column_figure, journal_style

__all__ = ["plot_recalibration"]


def plot_recalibration(
    raw: Mapping[str, Any], recalibrated: Mapping[str, Any], *, title: str | None = None
) -> Figure:
    """ECDF minus the diagonal in each bin of the raw prediction, and the simultaneous band of a calibrated model.

    Args:
        raw, recalibrated: ``edges`` (k + 1) and ``tests``, k mappings with ``grid``, ``difference``, ``lower``,
            ``upper``, ``n_clusters``, of `bayesflowmass.diagnostics.assess_calibration`; None: not tested.
        title: names the sample and the prior.
    """
    shown = [i for i, test in enumerate(raw["tests"]) if test is not None]
    columns = 2
    rows = max(1, -(-len(shown) // columns))
    figure, axes = column_figure(0.5 + 1.15 * rows, rows=rows, columns=columns, sharex=True)
    with journal_style():
        for ax, i in zip(axes, shown, strict=False):
            band = raw["tests"][i]
            ax.fill_between(
                band["grid"], band["lower"], band["upper"], color=COLOURS["grey"], alpha=0.35, lw=0.0
            )
            for tests, colour, style, label in (
                (raw, "vermillion", "--", "raw"),
                (recalibrated, "blue", "-", "recalibrated"),
            ):
                test = tests["tests"][i]
                if test is not None:
                    ax.plot(
                        test["grid"], test["difference"], style, color=COLOURS[colour], lw=0.9, label=label
                    )
            low, high = raw["edges"][i : i + 2]
            named = f"{low:.2f}-{high:.2f}: {band['n_clusters']} clusters"
            ax.text(0.05, 0.95, named, transform=ax.transAxes, va="top", fontsize=7)
            limit = 1.7 * max(
                np.abs(
                    np.concatenate(
                        [t["tests"][i]["difference"] for t in (raw, recalibrated)] + [band["upper"]]
                    )
                )
            )
            ax.set(ylim=(-limit, limit), xlim=(0.0, 1.0))
        for ax in axes[len(shown) :]:
            ax.set_axis_off()
        axes[0].legend(loc="lower left", fontsize=6, borderaxespad=0.2, handlelength=1.2)
        figure.supxlabel("PIT", fontsize=9)
        figure.supylabel("ECDF minus PIT", fontsize=9)
        if title:
            figure.suptitle(title, fontsize=8)
    return figure
