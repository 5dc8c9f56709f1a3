"""Models side by side in bins of mass: coverage, scores, widths, with errors over haloes and training seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bayesflowmass.common.arrays import FloatArray
from bayesflowmass.plots.style import COLOURS, column_figure, journal_style

_PAINT = ("black", "blue", "vermillion", "green", "orange", "purple", "sky", "grey")
_MARKERS = "osD^vP*X"
_FAR = 4.0


@dataclass(frozen=True)
class Panel:
    """One panel of the figure.

    Attributes:
        quantities: names in the numbers; a second one is drawn with open symbols.
        binning: "true" or "predicted".
        difference: from the reference, or each method alone.
        label: of the axis, with unit.
        levels: dashed lines.
    """

    quantities: tuple[str, ...]
    binning: str
    difference: bool
    label: str
    levels: tuple[float, ...] = ()


FIRST_PAGE = (
    Panel(("coverage_68", "coverage_95"), "predicted", False, "coverage of\n68, 95 %", (0.68, 0.95)),
    Panel(("log_score",), "predicted", True, r"$\Delta$ log score" + "\n[nats]", (0.0,)),
    Panel(("crps",), "predicted", True, r"$\Delta$ CRPS" + "\n[dex]", (0.0,)),
    Panel(("epistemic_share",), "predicted", False, "epistemic share\nof the variance"),
)
"""Deterministic against Bayesian, by predicted mass."""

ACCURACY = (
    Panel(("mean_residual",), "true", False, r"$\langle\epsilon\rangle$ [dex]", (0.0,)),
    Panel(("scatter",), "true", False, r"$\sigma_\epsilon$ [dex]"),
    Panel(("width_68",), "true", False, "width of\n68 % [dex]"),
    Panel(("log_score",), "true", True, r"$\Delta$ log score" + "\n[nats]", (0.0,)),
)
"""Residuals, widths and scores by true mass."""


def plot_comparison(
    numbers: Mapping[str, Any], panels: Sequence[Panel], *, title: str | None = None
) -> Figure:
    """Panels over the same bins of mass, each method with a symbol of its own, standard errors as bars.

    Differences are from the reference, which is drawn in black where methods stand alone. The last bin may hold
    all others; it is set apart. A method whose differences are many times those of the others would hide them: it is
    shown by triangles at the edge of the panel instead.

    Args:
        numbers: a section of ``comparison.json``.
        panels: from above; those that no method has numbers for are left out.
        title: names the set.
    """
    kept = [panel for panel in panels if any(_series(numbers, panel, label) for label in numbers["methods"])]
    labels = list(numbers["methods"])
    labels.sort(key=lambda label: label != numbers["reference"])
    bins = [entry["bin"] for entry in numbers["methods"][labels[0]]["by_true"]]
    x = np.arange(len(bins), dtype=np.float64)
    if len(bins) > 1:
        x[-1] += 0.4
    step = min(0.16, 0.7 / max(1, len(labels)))
    limits = {panel: _limit(numbers, panel) for panel in kept}
    figure, axes = column_figure(0.9 + 1.05 * len(kept), rows=len(kept), sharex=True)
    with journal_style():
        for axis, panel in zip(axes, kept, strict=True):
            for i, label in enumerate(labels):
                style: dict[str, Any] = {
                    "color": COLOURS[_PAINT[i % len(_PAINT)]],
                    "marker": _MARKERS[i % len(_MARKERS)],
                    "ls": "none",
                    "ms": 3.0,
                    "lw": 0.8,
                    "elinewidth": 0.8,
                }
                offset = (i - 0.5 * (len(labels) - 1)) * step
                for j, (values, errors) in enumerate(_series(numbers, panel, label)):
                    fill: dict[str, Any] = {"mfc": "white"} if j else {}
                    far = np.abs(values) > limits[panel]
                    axis.errorbar(
                        x + offset,
                        np.where(far, np.nan, values),
                        np.where(far, 0.0, errors),
                        **style,
                        **fill,
                        zorder=3,
                    )
                    for up, marker, edge in ((True, "^", 0.95), (False, "v", 0.05)):
                        there = far & ((values > 0) == up)
                        axis.plot(
                            (x + offset)[there], np.full(there.sum(), edge), marker=marker, ls="none", ms=3.5,
                            mfc="white", mec=style["color"], transform=axis.get_xaxis_transform(), zorder=4,
                        )  # fmt: skip
            _finish(axis, panel, x)
        handles = [
            axes[0].plot(
                [],
                [],
                ls="none",
                ms=3.0,
                marker=_MARKERS[i % len(_MARKERS)],
                color=COLOURS[_PAINT[i % len(_PAINT)]],
            )[0]
            for i in range(len(labels))
        ]
        figure.legend(handles, labels, loc="outside upper center", ncols=min(3, len(labels)), title=title)
        figure.align_ylabels(axes)
        axes[-1].set_xticks(
            x, [*bins[:-1], "all"] if len(bins) > 1 else bins, fontsize=min(8.0, 32.0 / len(bins))
        )
        axes[-1].set_xlabel(r"$\log_{10} M_{200c}$ [M$_\odot/h$], " + _binning(kept))
    return figure


def _series(numbers: Mapping[str, Any], panel: Panel, label: str) -> list[tuple[FloatArray, FloatArray]]:
    """Values and errors of each quantity of a panel, empty where the method has none."""
    source = numbers["differences" if panel.difference else "methods"].get(label)
    if source is None:
        return []
    rows = source[f"by_{panel.binning}"]
    if any(name not in rows[0] for name in panel.quantities):
        return []

    def column(name: str, key: str) -> FloatArray:
        # Without an error a bin was not judged: too few haloes.
        found = [row[name][key] if row[name]["error"] is not None else None for row in rows]
        return np.array([np.nan if v is None else v for v in found], dtype=np.float64)

    return [(column(name, "value"), column(name, "error")) for name in panel.quantities]


def _limit(numbers: Mapping[str, Any], panel: Panel) -> float:
    """Largest difference that is drawn to scale."""
    if not panel.difference:
        return float("inf")
    largest = [
        float(np.nanmax(np.abs(values)))
        for label in numbers["methods"]
        for values, _ in _series(numbers, panel, label)
        if np.isfinite(values).any()
    ]
    return _FAR * float(np.median(largest)) if len(largest) > 2 else float("inf")


def _finish(axis: Axes, panel: Panel, x: FloatArray) -> None:
    for level in panel.levels:
        axis.axhline(level, color=COLOURS["black"], lw=0.6, ls="--", zorder=1)
    if len(x) > 1:
        axis.axvline(0.5 * (x[-1] + x[-2]), color=COLOURS["grey"], lw=0.6, ls=":", zorder=1)
    axis.set_ylabel(panel.label, linespacing=0.9)
    axis.set_xlim(x[0] - 0.6, x[-1] + 0.6)
    axis.tick_params(axis="x", which="minor", bottom=False, top=False)
    axis.margins(y=0.12)
    if not panel.levels:
        axis.set_ylim(0.0, max(0.0, axis.dataLim.y1) * 1.15 or 1.0)


def _binning(panels: Sequence[Panel]) -> str:
    names = {panel.binning for panel in panels}
    return f"{names.pop()} mass" if len(names) == 1 else "mass"
