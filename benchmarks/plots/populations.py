"""Residuals at fixed truth and at fixed prediction, for the four combinations of test set and prior."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from bayesflowmass.plots.style import COLOURS, column_figure, journal_style

__all__ = ["plot_populations"]

_SETS = {"flat": "flat set", "hmf": "mass-function set"}
_PRIORS = {"flat": "flat prior", "hmf": "m.-f. prior"}


def plot_populations(combinations: Mapping[tuple[str, str], Mapping[str, Any]]) -> Figure:
    """Mean residual by true and by predicted mass, one panel for each (population, prior).

    Rows are test sets, columns priors. Only on the diagonal, and only at fixed prediction, are the residuals
    of a perfect posterior zero.

    Args:
        combinations: of :func:`benchmarks.calibration.populations.four_combinations`, or the same of a
            model: (population, prior) -> ``by_true`` and ``by_predicted`` with ``mean_mass``,
            ``mean_residual`` and ``mean_residual_se``.

    Raises:
        ValueError: one of the four combinations is missing.
    """
    keys = [(population, prior) for population in _SETS for prior in _PRIORS]
    missing = [key for key in keys if key not in combinations]
    if missing:
        raise ValueError(f"The combination (population, prior) = {missing[0]} is missing; four are needed.")
    figure, axes = column_figure(3.5, rows=2, columns=2, sharex=True, sharey=True)
    with journal_style():
        for axis, key in zip(axes, keys, strict=True):
            for name, label, colour, marker in (
                ("by_true", "at fixed true mass", "blue", "o"),
                ("by_predicted", "at fixed predicted mass", "vermillion", "s"),
            ):
                bins = combinations[key][name]
                x, y, error = (
                    _column(bins, column) for column in ("mean_mass", "mean_residual", "mean_residual_se")
                )
                axis.errorbar(
                    x, y, error, fmt=f"{marker}-", ms=2.4, lw=0.8, color=COLOURS[colour], label=label
                )
            axis.axhline(0.0, color=COLOURS["black"], lw=0.6, ls="--")
            nominal = key[0] == key[1]
            axis.set_title(
                f"{_SETS[key[0]]}, {_PRIORS[key[1]]}", fontsize=7.5, fontweight="bold" if nominal else None
            )
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=2, fontsize=7)
        figure.supxlabel(r"$\log_{10}(M_{200\mathrm{c}}\,[h^{-1}M_\odot])$", fontsize=9)
        figure.supylabel(r"mean residual $\langle\epsilon\rangle$ [dex]", fontsize=9)
    return figure


def _column(bins: Mapping[str, Any], name: str) -> NDArray[np.float64]:
    return np.array([np.nan if v is None else v for v in bins[name]], dtype=np.float64)
