"""Masses of observed clusters against the literature (figure 8 of Kodi Ramanah et al. 2020)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from bayesflowmass.common.arrays import FloatArray
from bayesflowmass.plots.style import COLOURS, MASS_LABEL, column_figure, journal_style

_MARKS = ("o", "s", "^", "D")
_PAINT = ("blue", "vermillion", "green", "purple")


class Masses(NamedTuple):
    """log10 M200c [Msun/h] of clusters, with their errors [dex], each (n,); NaN where there is none."""

    log10_mass: ArrayLike
    lower: ArrayLike
    upper: ArrayLike


def plot_real_clusters(
    names: Sequence[str],
    literature: Masses,
    estimates: Mapping[str, Masses],
    *,
    highlight: str | None = None,
    title: str | None = None,
) -> Figure:
    """Estimates against literature masses, with the errors of both; below, cluster by cluster.

    The lower panel has a row for each cluster, named, in the order of its literature mass: the eye cannot tell
    eight clusters apart in a scatter plot.

    Args:
        names: of the clusters, length n.
        literature: reference masses.
        estimates: label -> masses of the same clusters; at most four.
        highlight: cluster drawn as a star, as Coma is in the paper.
        title: names the sample.

    Raises:
        ValueError: shapes differ, an error is negative, or there are no estimates or too many.
    """
    if not 1 <= len(estimates) <= len(_MARKS):
        raise ValueError(
            f"1 to {len(_MARKS)} sets of estimates fit in one figure; {len(estimates)} were given."
        )
    reference = _checked("literature", literature, len(names))
    measured = {label: _checked(label, masses, len(names)) for label, masses in estimates.items()}
    if highlight is not None and highlight not in names:
        raise ValueError(f"There is no cluster '{highlight}' to highlight; the names are {', '.join(names)}.")
    star = np.array([name == highlight for name in names])
    order = np.argsort(reference[0])
    height = 2.9 + 0.3 + 0.145 * len(names) + 0.14 * len(measured)
    figure, (top, bottom) = column_figure(
        height, rows=2, gridspec_kw={"height_ratios": [2.7, 0.3 + 0.145 * len(names)]}
    )
    with journal_style():
        every = np.concatenate([_ends(m) for m in (reference, *measured.values())])
        low, high = np.nanmin(every) - 0.06, np.nanmax(every) + 0.06
        top.plot([low, high], [low, high], "--", color=COLOURS["black"], lw=0.7)
        rows = np.empty(len(names))
        rows[order] = np.arange(len(names))
        style: dict[str, Any] = {"elinewidth": 0.8, "capsize": 1.5, "capthick": 0.6, "lw": 0}
        bottom.errorbar(
            reference[0], rows, xerr=reference[1:], fmt="|", ms=7, mew=1.2, color=COLOURS["black"],
            label="literature", **style,
        )  # fmt: skip
        for i, (label, values) in enumerate(measured.items()):
            paint = COLOURS[_PAINT[i]]
            for chosen, mark, size in ((~star, _MARKS[i], 3.5), (star, "*", 7.5)):
                x, y = reference[:, chosen], values[:, chosen]
                shown = label if mark != "*" else None
                top.errorbar(
                    x[0], y[0], xerr=x[1:], yerr=y[1:], fmt=mark, ms=size, color=paint, label=shown, **style
                )
                offset = 0.16 * (i + 1)
                bottom.errorbar(
                    y[0], rows[chosen] - offset, xerr=y[1:], fmt=mark, ms=0.8 * size, color=paint, **style
                )
        top.set(xlim=(low, high), ylim=(low, high), aspect="equal", adjustable="box")
        top.set(xlabel="literature " + MASS_LABEL, ylabel="estimated " + MASS_LABEL)
        handles, labels = top.get_legend_handles_labels()
        line, text = bottom.get_legend_handles_labels()
        figure.legend([*line, *handles], [*text, *labels], loc="outside upper left", title=title,
                      alignment="left", ncols=2)  # fmt: skip
        bottom.set_yticks(np.arange(len(names)), [names[k] for k in order])
        bottom.tick_params(axis="y", which="both", right=False, left=False)
        bottom.minorticks_off()
        bottom.set(xlim=(low, high), ylim=(-0.8, len(names) - 0.4), xlabel=MASS_LABEL)
    return figure


def _checked(label: str, masses: Masses, n: int) -> FloatArray:
    """Mass, lower and upper error (3, n)."""
    columns = [np.asarray(column, dtype=np.float64) for column in masses]
    if any(column.shape != (n,) for column in columns):
        raise ValueError(
            f"{label}: masses and errors of {n} clusters must have shape ({n},); found "
            f"{', '.join(str(column.shape) for column in columns)}."
        )
    if any((column < 0).any() for column in columns[1:]):
        raise ValueError(
            f"{label}: errors are lengths and cannot be negative; give upper - mass, mass - lower."
        )
    return np.stack([columns[0], *(np.nan_to_num(column, nan=0.0) for column in columns[1:])])


def _ends(masses: FloatArray) -> FloatArray:
    return np.concatenate([masses[0] - masses[1], masses[0] + masses[2]])
