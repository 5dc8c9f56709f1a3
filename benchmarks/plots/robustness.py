"""What fewer galaxies, noisier velocities and other bandwidths do to the masses of a whole test set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from bayesflowmass.plots.style import COLOURS, column_figure, journal_style

__all__ = ["plot_bandwidth", "plot_robustness"]

Entry = Mapping[str, Any]

_MARKS = ("o", "s", "^", "D")
_ROWS = (
    ("mean_residual", r"$\langle\log_{10} M_\mathrm{true}/M_\mathrm{pred}\rangle$"),
    ("scatter", "scatter [dex]"),
    ("slope", "slope"),
)


def plot_robustness(entries: Sequence[Entry]) -> Figure:
    """Bias, scatter, slope and coverage against the share of galaxies kept and against the velocity noise.

    Args:
        entries: one mapping for each model and condition with ``model``, ``kept`` (share), ``noise`` [km/s],
            ``mean_residual``, ``scatter`` [dex], ``slope``, ``coverage_68``, ``coverage_95`` and their
            standard errors ``<name>_se``.

    Raises:
        ValueError: there are no entries.
    """
    known = [entry for entry in entries if "slope" in entry]
    if not known:
        raise ValueError("There are no measurements to draw.")
    names = list(dict.fromkeys(entry["model"] for entry in known))
    figure, axes = column_figure(6.2, rows=4, columns=2, sharex="col", sharey="row")
    grid = np.array(axes, dtype=object).reshape(4, 2)
    columns: tuple[tuple[str, float, str], ...] = (
        ("kept", 100.0, "galaxies kept [%]"),
        ("noise", 1.0, r"velocity noise [km s$^{-1}$]"),
    )
    with journal_style():
        for k, (by, factor, label) in enumerate(columns):
            other, plain = ("noise", 0.0) if by == "kept" else ("kept", 1.0)
            for i, name in enumerate(names):
                mine = sorted(
                    (e for e in known if e["model"] == name and e[other] == plain), key=lambda e: float(e[by])
                )
                x = np.array([factor * e[by] for e in mine])
                for row, (key, _) in enumerate(_ROWS):
                    _points(grid[row, k], x, mine, key, i, name)
                _points(grid[3, k], x, mine, "coverage_68", i, name, 100.0)
                _points(grid[3, k], x, mine, "coverage_95", i, None, 100.0, hollow=True)
            grid[0, k].axhline(0.0, color=COLOURS["black"], lw=0.6, ls="--", zorder=0)
            grid[2, k].axhline(1.0, color=COLOURS["black"], lw=0.6, ls="--", zorder=0)
            for level in (68.0, 95.0):
                grid[3, k].axhline(level, color=COLOURS["black"], lw=0.6, ls="--", zorder=0)
            grid[3, k].set_xlabel(label)
        for row, (_, label) in enumerate(_ROWS):
            grid[row, 0].set_ylabel(label)
        grid[3, 0].set_ylabel("coverage [%]")
        grid[0, 0].set_xscale("log")
        grid[0, 0].invert_xaxis()
        ticks = sorted({100.0 * e["kept"] for e in known})
        grid[3, 0].set_xticks(ticks, [f"{t:.0f}" for t in ticks])
        grid[3, 0].minorticks_off()
        grid[0, 0].legend(loc="best")
    return figure


def plot_bandwidth(entries: Sequence[Entry]) -> Figure:
    """Scatter, bias of thinned and noisy clusters, and coverage against the width of the kernel.

    Both conventions are one curve in the width of the kernel in standard deviations of the cluster, the root of
    h0 in H = h0 Sigma and h0 in H = h0^2 Sigma, if only the width matters.

    Args:
        entries: as for `plot_robustness`, with ``convention`` and ``width``; (kept, noise) are
            (1, 0), (0.33, 0) and (1, 100).

    Raises:
        ValueError: there are no entries.
    """
    if not entries:
        raise ValueError("There are no measurements to draw.")
    figure, (top, middle, bottom) = column_figure(4.6, rows=3, sharex=True)
    styles = {
        "covariance": (COLOURS["blue"], "o", r"$H=h_0\Sigma$"),
        "scipy": (COLOURS["vermillion"], "s", r"$H=h_0^2\Sigma$"),
    }
    lines = {(1.0, 0.0): "-", (0.33, 0.0): "--", (1.0, 100.0): ":"}
    words = {(1.0, 0.0): "as they are", (0.33, 0.0): "a third kept", (1.0, 100.0): "100 km/s noise"}
    with journal_style():
        for convention, (colour, mark, label) in styles.items():
            for condition, line in lines.items():
                mine = sorted(
                    (
                        e
                        for e in entries
                        if e["convention"] == convention and (e["kept"], float(e["noise"])) == condition
                    ),
                    key=lambda e: float(e["width"]),
                )
                if not mine:
                    continue
                x = np.array([e["width"] for e in mine])
                style: dict[str, Any] = {"color": colour, "marker": mark, "ms": 3.0, "ls": line}
                plain = condition == (1.0, 0.0)
                for axis, key, factor in (
                    (top, "scatter", 1.0),
                    (middle, "mean_residual", 1.0),
                    (bottom, "coverage_68", 100.0),
                ):
                    y = factor * np.array([e[key] for e in mine])
                    error = factor * np.array([e[f"{key}_se"] for e in mine])
                    named = label if axis is top and plain else None
                    axis.errorbar(x, y, error, label=named, elinewidth=0.7, **style)
        for condition, line in lines.items():
            middle.plot([], [], color=COLOURS["black"], ls=line, label=words[condition])
        middle.axhline(0.0, color=COLOURS["black"], lw=0.6, zorder=0)
        bottom.axhline(68.0, color=COLOURS["black"], lw=0.6, zorder=0)
        top.set(xscale="log", ylabel="scatter [dex]")
        middle.set(ylabel=_ROWS[0][1])
        bottom.set(xlabel="width of the kernel [standard deviations]", ylabel="68 % holds [%]")
        ticks = (0.03, 0.1, 0.3, 0.6)
        bottom.set_xticks(ticks, [f"{t:g}" for t in ticks])
        bottom.xaxis.set_minor_formatter(NullFormatter())
        top.legend(loc="best")
        middle.legend(loc="best")
    return figure


def _points(
    axis: Axes,
    x: np.ndarray[Any, Any],
    entries: Sequence[Entry],
    key: str,
    index: int,
    label: str | None,
    factor: float = 1.0,
    *,
    hollow: bool = False,
) -> None:
    colour = (COLOURS["blue"], COLOURS["vermillion"], COLOURS["green"], COLOURS["purple"])[index % 4]
    axis.errorbar(
        x,
        factor * np.array([entry[key] for entry in entries]),
        factor * np.array([entry[f"{key}_se"] for entry in entries]),
        marker=_MARKS[index % 4],
        ms=3.0,
        mfc="white" if hollow else colour,
        color=colour,
        ls=("-", "--", "-.", ":")[index % 4],
        elinewidth=0.7,
        label=label,
    )
