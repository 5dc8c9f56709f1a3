"""How much of a posterior's width is ignorance of the weights: by mass."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from bayesflowmass.common.arrays import BoolArray, FloatArray
from bayesflowmass.plots.style import COLOURS, MASS_LABEL, column_figure, journal_style

_MARKS = ("o", "s", "^", "D", "v", "P")
_PAINT = ("blue", "vermillion", "green", "orange", "purple", "sky")


class Widths(NamedTuple):
    """Parts of the width of posteriors: log10 M200c [Msun/h], aleatoric and epistemic sigma [dex], each (n,)."""

    log10_mass: ArrayLike
    sigma_aleatoric: ArrayLike
    sigma_epistemic: ArrayLike


def plot_epistemic_by_mass(
    models: Mapping[str, Widths], *, bin_width: float = 0.2, title: str | None = None
) -> Figure:
    """Epistemic and aleatoric width above, the epistemic share of the variance below, in bins of mass.

    Widths are roots of mean variances; the share is the ratio of mean variances; its band holds 68 % of the clusters.
    Bins of fewer than ten are not drawn.

    Args:
        models: label -> widths of its posteriors, at most six; bins are of predicted or of true mass as given.
        bin_width: [dex].
        title: names the sample and the mass that is binned.

    Raises:
        ValueError: no models, too many, or shapes differ.
    """
    if not 1 <= len(models) <= len(_MARKS):
        raise ValueError(f"1 to {len(_MARKS)} models can be told apart; {len(models)} were given.")
    figure, (top, bottom) = column_figure(3.7, rows=2, sharex=True)
    with journal_style():
        for i, (label, widths) in enumerate(models.items()):
            mass, aleatoric, epistemic = (np.asarray(column, dtype=np.float64) for column in widths)
            if not mass.shape == aleatoric.shape == epistemic.shape:
                raise ValueError(
                    f"{label}: masses and widths must have one shape (n,); found {mass.shape}, "
                    f"{aleatoric.shape} and {epistemic.shape}."
                )
            members = _bins(mass, bin_width)
            x = np.array([mass[m].mean() for m in members])
            own = np.array([np.mean(epistemic[m] ** 2) for m in members])
            data = np.array([np.mean(aleatoric[m] ** 2) for m in members])
            share = epistemic**2 / (epistemic**2 + aleatoric**2)
            paint = COLOURS[_PAINT[i]]
            common: dict[str, Any] = {"color": paint, "ms": 3.0, "marker": _MARKS[i]}
            top.plot(x, np.sqrt(data), ls="--", mfc="white", label=f"{label}: data (aleatoric)", **common)
            top.plot(x, np.sqrt(own), ls="-", label=f"{label}: weights (epistemic)", **common)
            bottom.plot(x, own / (own + data), ls="-", **common)
            ends = np.array([np.quantile(share[m], (0.16, 0.84)) for m in members]).reshape(len(members), 2)
            bottom.fill_between(x, ends[:, 0], ends[:, 1], color=paint, alpha=0.2, lw=0)
        top.set(ylabel="width [dex]", ylim=(0, None))
        bottom.set(ylabel="epistemic share", xlabel=MASS_LABEL, ylim=(0, None))
        figure.legend(loc="outside upper left", title=title, alignment="left", ncols=1)
    return figure


def _bins(mass: FloatArray, width: float) -> list[BoolArray]:
    index = np.floor(mass / width + 1e-9).astype(int)
    bins, count = np.unique(index, return_counts=True)
    return [index == b for b in bins[count >= 10]]
